"""Small stand-ins, of the same classes and schemas, for the models and data that the profiles of the paper download.

The datasets are those of `datasets.stand_ins`; each model is taught to answer them in the form that is asked for, and
is right now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from riskpo_study import datasets, files
from riskpo_study.base_model import KEEP_TOKENIZER, chunks, response_loss, tokenize
from riskpo_study.datasets import code_problems, deepcoder, livecodebench, stand_ins
from riskpo_study.policy import Policy
from riskpo_study.seeds import generator
from riskpo_study.tasks.protocol import Prompt

__all__ = ["CHAT", "write", "write_code", "write_figures", "write_model"]

VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}" + "".join(VISION) + "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The turns of Qwen2.5's chat template, and images as in Qwen2.5-VL's."""

STEPS = 150  # of teaching the model
VOCABULARY = 700
PATCH = 14  # pixels; 2 x 2 patches are one token

Lesson = tuple[Prompt, str]
"""Messages, and what to answer."""


def write(folder: Path, *, steps: int = STEPS) -> None:
    """A model, taught in so many steps, in `folder/model` and every dataset of `datasets.DATASETS` in `folder/data`."""
    stand_ins.write(folder / "data")
    names = [name for name, source in datasets.DATASETS.items() if not source.images]
    loaded = [datasets.load(name, folder=folder / "data") for name in names]
    questions = [question for one in loaded for question in one.questions]
    lessons = [(datasets.messages(one.question, "boxed"), rf"\boxed{{{one.answer}}}") for one in questions]
    write_model(folder / "model", lessons, steps=steps)


def write_figures(folder: Path, *, steps: int = STEPS) -> None:
    """A model that sees in `folder/model`, and every dataset of `datasets.DATASETS` in `folder/data`."""
    stand_ins.write(folder / "data")
    names = [name for name, source in datasets.DATASETS.items() if source.images]
    loaded = [datasets.load(name, folder=folder / "data") for name in names]
    lessons = [
        (datasets.illustrated(datasets.messages(one.question, "think"), one.images), rf"\boxed{{{one.answer}}}")
        for dataset in loaded
        for one in dataset.questions
    ]
    write_model(folder / "model", lessons, steps=steps, sees=True)


def write_code(folder: Path, *, steps: int = STEPS) -> None:
    """A model in `folder/model`, and DeepCoder and LiveCodeBench in `folder/data`."""
    stand_ins.write_code(folder / "data")
    loaded = [deepcoder.load(part, 10, folder=folder / "data" / "deepcoder") for part in deepcoder.PARTS]
    loaded.append(livecodebench.load("release_v6", folder=folder / "data" / "livecodebench"))
    problems = [problem for one in loaded for problem in one.problems]
    lessons = [(code_problems.messages(one), stand_ins.solution(one.question)) for one in problems]
    write_model(folder / "model", lessons, steps=steps)


def write_model(folder: Path, lessons: Sequence[Lesson], *, steps: int = STEPS, sees: bool = False) -> None:
    """A tiny Qwen2, or Qwen2.5-VL, in bfloat16 and a byte-level BPE tokenizer with chat template, of the lessons."""
    tokenizer = _tokenizer(text for asked, answer in lessons for text in (*_texts(asked), answer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _seeing(tokenizer) if sees else Qwen2ForCausalLM(Qwen2Config(**_shape(tokenizer)))
    processor = _image_processor() if sees else None
    if not sees:
        tokenizer.init_kwargs["auto_map"] = KEEP_TOKENIZER
    _teach(Policy(model, tokenizer, image_processor=processor), lessons, steps)
    model = model.to(torch.bfloat16)  # type: ignore[arg-type]
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with files.atomic(folder) as partial:
        for part in filter(None, (model, tokenizer, processor)):
            part.save_pretrained(partial)


def _shape(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.1,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def _seeing(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}  # pairs of a head's channels
    ids = tokenizer.get_vocab()
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=_shape(tokenizer) | {"rope_parameters": rotary, "bos_token_id": None},
            vision_config={
                "depth": 2, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
                "patch_size": PATCH, "fullatt_block_indexes": [1], "initializer_range": 0.1,
            },
            vision_start_token_id=ids[VISION[0]], image_token_id=ids[VISION[1]],
        )
    )  # fmt: skip


def _image_processor() -> BaseImageProcessor:
    """Qwen2-VL's own, that of Pillow, which needs no torchvision."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    token = (2 * PATCH) ** 2  # pixels
    return Qwen2VLImageProcessorPil(patch_size=PATCH, size={"shortest_edge": token, "longest_edge": 64 * token})


def _texts(prompt: Prompt) -> list[str]:
    contents = [message["content"] for message in prompt if not isinstance(message, str)]
    parts = [[content] if isinstance(content, str) else content for content in contents]
    return [part if isinstance(part, str) else part.get("text", "") for content in parts for part in content]


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *VISION]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )


def _teach(policy: Policy, lessons: Sequence[Lesson], steps: int) -> None:
    pairs = tokenize(policy, lessons)
    draws = generator(0, "stand-ins")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = [pairs[i] for i in torch.randint(len(pairs), (32,), generator=draws).tolist()]
        for chunk in chunks(batch):
            (response_loss(policy.model, *chunk) / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
