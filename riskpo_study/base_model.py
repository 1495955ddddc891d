"""The model that every run starts from: a small one trained from nothing on demonstrations, or a published one.

It has Qwen2's architecture, or Qwen2.5-VL's for a task whose questions have images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import trange
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from riskpo_study import vision
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.files import atomic
from riskpo_study.policy import Policy
from riskpo_study.seeds import derive, generator
from riskpo_study.tasks.protocol import Prompt, Task, TeachableTask

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

    from riskpo_study.config import BaseModel as BaseModelConfig

__all__ = ["Chunk", "build_model", "examples", "obtain", "pretrain"]

# AutoTokenizer takes the tokenizer of a Qwen2 checkpoint for Qwen's own, whatever its files say, and splits
# numbers into digits. Where the checkpoint claims code of its own that is not trusted, it believes the files.
KEEP_TOKENIZER = {"AutoTokenizer": [None, None]}
COLUMNS = ["step", "loss", "learning_rate", "gradient_norm", "tokens"]
CONTEXT = 64  # positions: prompt and response of every difficulty
MAX_GRAD_NORM = 1.0
BETAS = (0.9, 0.95)
IMAGE = "<|image_pad|>"  # whose tokenizer has it is of a task with images
SPREAD = 0.1  # of a seeing model's first weights; with the usual 0.02 it takes far longer until it looks at all
PATCHES = 4096  # of an image at most; a larger one is made smaller
ROWS = 64  # sequences in one forward pass; of similar length, so that little of it is padding


def obtain(task: Task, config: BaseModelConfig, folder: Path) -> pd.DataFrame:
    """Put the base model and its tokenizer into ``folder``: a published one where the configuration names it.

    Returns what ``pretrain`` does, without rows for a published model.
    Raises ConfigError where the task cannot teach a model, DataError where the published one cannot be had.
    """
    if config.pretrained == "none":
        return pretrain(teachable(task), config, folder)
    published = {"pretrained_model_name_or_path": config.pretrained, "revision": config.revision}
    try:
        sees = vision.sees(AutoConfig.from_pretrained(**published))
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        parts = [kind.from_pretrained(**published, dtype="auto"), AutoTokenizer.from_pretrained(**published)]
        if sees:
            parts.append(AutoImageProcessor.from_pretrained(**published))
    except (OSError, ValueError) as error:
        raise DataError(
            f"base_model.pretrained = {config.pretrained!r}, revision {config.revision!r}, cannot be loaded "
            f"({str(error).splitlines()[0]}): name a model of the hub, or download it where there is a network "
            f"(hf download {config.pretrained}) and take its folder."
        ) from error
    with atomic(folder) as partial:
        for part in parts:
            part.save_pretrained(partial)
    return pd.DataFrame(columns=COLUMNS)


def teachable(task: Task) -> TeachableTask:
    """The task; ConfigError where it has no demonstrations to learn from."""
    if not hasattr(task, "demonstrations"):
        raise ConfigError(
            f"task.name = {task.name!r} cannot teach a model from nothing: name one in base_model.pretrained"
        )
    return cast("TeachableTask", task)


def examples(task: Task, n: int) -> list[str]:
    """What a few training questions look like, with a solution where the task shows any."""
    draws = generator(0, "examples")
    if hasattr(task, "demonstrations"):
        return [f"{_said(prompt)} {solution}" for prompt, solution in teachable(task).demonstrations(n, draws)]
    return [_said(task.prompt(question)) for question in task.sample(n, draws)]


def _said(prompt: Prompt) -> str:
    """The text of a prompt, with `<image>` where it has an image."""
    if isinstance(prompt, str):
        return prompt
    contents = [[content] if isinstance(content := message["content"], str) else content for message in prompt]
    return "\n".join(
        "".join(part if isinstance(part, str) else part.get("text", "<image>") for part in parts) for parts in contents
    )


def pretrain(
    task: TeachableTask, config: BaseModelConfig, folder: Path | str, *, progress: bool = True
) -> pd.DataFrame:
    """Train a model on ``config.steps`` batches of demonstrations; save it with its tokenizer in ``folder``.

    Supervised learning: mean cross-entropy of the response tokens and the end-of-sequence token; AdamW,
    linear warm-up, cosine decay to zero. The same configuration, thread count and versions give the
    same bytes. ``folder`` appears, or is replaced, only when it is complete.

    Returns one row a step: ``step`` (from 1), ``loss`` (nats per response token), ``learning_rate``,
    ``gradient_norm`` (before clipping) and ``tokens`` (response tokens of the batch).
    Raises ConfigError for settings of which no model can be built.
    """
    tokenizer = task.build_tokenizer()
    model = build_model(config, tokenizer)
    sees = vision.sees(model.config)
    if not sees:
        tokenizer.init_kwargs["auto_map"] = KEEP_TOKENIZER
    policy = Policy(model, tokenizer, image_processor=_image_processor(config) if sees else None)
    optimizer = _optimizer(model, config)
    draws = generator(config.seed, "base_model", "demonstrations")
    records = []
    bar = trange(1, config.steps + 1, desc="base model", unit="step", disable=not progress)
    for step in bar:
        demonstrations = task.demonstrations(config.batch_size, draws, config.difficulties)
        sequences = tokenize(policy, demonstrations)
        tokens = sum(len(response) for _, response in sequences)
        rate = config.learning_rate * schedule(step, config.steps, config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for chunk in chunks(sequences):
            loss = response_loss(model, *chunk) / tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM).item()
        optimizer.step()
        optimizer.zero_grad()
        records.append((step, total, rate, norm, tokens))
        bar.set_postfix(loss=f"{total:.3f}", refresh=False)
    with atomic(Path(folder)) as partial:
        model.eval()
        policy.save(partial)
    return pd.DataFrame(records, columns=COLUMNS)


def build_model(config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model with tied embeddings and random weights, drawn with ``config.seed``: Qwen2, or Qwen2.5-VL for images."""
    from transformers import GenerationConfig

    if config.width % (2 * config.heads):
        raise ConfigError(
            f"base_model.width = {config.width} must be an even multiple of base_model.heads = "
            f"{config.heads}, because rotary positions turn the channels of a head in pairs."
        )
    draw = _seeing if IMAGE in tokenizer.get_vocab() else _reading
    with torch.random.fork_rng(devices=[]):  # initialisation knows no other generator than the global one
        torch.manual_seed(derive(config.seed, "base_model", "weights"))
        model = draw(config, tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _reading(config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_shape(config, tokenizer), tie_word_embeddings=True))


def _seeing(config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """With Qwen2.5-VL's division of rotary channels among time, height and width, but without windows."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    if config.vision_width % (4 * config.heads):
        raise ConfigError(
            f"base_model.vision_width = {config.vision_width} must be a multiple of four times base_model.heads = "
            f"{config.heads}, because rotary positions turn the channels of a head in pairs, along height and width."
        )
    pairs = config.width // config.heads // 2
    space = pairs * 3 // 8
    ids = tokenizer.get_vocab()
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **_shape(config, tokenizer),
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [pairs - 2 * space, space, space],
                },
                "initializer_range": SPREAD,
            },
            vision_config={
                "depth": config.vision_layers,
                "hidden_size": config.vision_width,
                "intermediate_size": config.vision_mlp_width,
                "num_heads": config.heads,
                "out_hidden_size": config.width,
                "patch_size": config.patch_size,
                "fullatt_block_indexes": list(range(config.vision_layers)),
                "initializer_range": SPREAD,
            },
            image_token_id=ids["<|image_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=True,
        )
    )  # fmt: skip


def _shape(config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _image_processor(config: BaseModelConfig) -> BaseImageProcessor:
    """Qwen2-VL's own, that of Pillow, which needs no torchvision; white is zero."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    token = (2 * config.patch_size) ** 2  # pixels
    ones = [1.0, 1.0, 1.0]
    return Qwen2VLImageProcessorPil(
        patch_size=config.patch_size,
        size={"shortest_edge": token, "longest_edge": PATCHES // 4 * token},
        image_mean=ones,
        image_std=ones,
    )


class Chunk(NamedTuple):
    """Sequences of similar length, padded on the right."""

    input_ids: torch.Tensor  # (B, T)
    labels: torch.Tensor  # (B, T), -100 where nothing is to be predicted
    prompts: Sequence[Sequence[int]] = ()  # B, with features where they have images


def response_loss(
    model: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor, prompts: Sequence[Sequence[int]] = ()
) -> torch.Tensor:
    """Sum of the cross-entropy over the positions ``(B, T)`` whose label is not -100; logits only for those.

    Padding must be on the right: causal attention then never sees it and needs no mask. ``prompts``, with their
    features, are what a model that sees needs to know of the sequences' beginnings.
    """
    given: dict[str, torch.Tensor] = {"input_ids": input_ids}
    if vision.sees(model.config):
        rows, columns = input_ids.shape
        spans = [(row, row * columns, (row + 1) * columns) for row in range(rows)]
        positions, images = vision.place(prompts, spans, torch.arange(columns).expand(rows, columns))
        given = {**vision.inputs(model, input_ids, images), "position_ids": positions}
    hidden = model.base_model(**given, use_cache=False).last_hidden_state  # (B, T, width)
    wanted = labels != -100
    return cross_entropy(model.lm_head(hidden[wanted]), labels[wanted], reduction="sum")


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at ``step`` (from 1): linear warm-up, then cosine decay to zero."""
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup - 1) / max(1, steps - warmup)))


def tokenize(policy: Policy, demonstrations: Sequence[tuple[Prompt, str]]) -> list[tuple[Sequence[int], list[int]]]:
    """Pairs (prompt ids, response ids with the end-of-sequence token)."""
    prompts, responses = zip(*demonstrations, strict=True)
    said = policy.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    eos = policy.tokenizer.eos_token_id
    return [(prompt, [*response, eos]) for prompt, response in zip(policy.encode(prompts), said, strict=True)]


def chunks(sequences: Sequence[tuple[Sequence[int], list[int]]]) -> Iterator[Chunk]:
    """The sequences, ordered by length, at most ROWS in each."""
    ordered = sorted(sequences, key=lambda pair: len(pair[0]) + len(pair[1]))
    for start in range(0, len(ordered), ROWS):
        chunk = ordered[start : start + ROWS]
        width = max(len(p) + len(r) for p, r in chunk) - 1  # the last token is only predicted
        input_ids = [[*p, *r][:-1] for p, r in chunk]
        labels = [[-100] * (len(p) - 1) + r for p, r in chunk]
        yield Chunk(_pad(input_ids, width, 0), _pad(labels, width, -100), [p for p, _ in chunk])


def _pad(rows: list[list[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _optimizer(model: PreTrainedModel, config: BaseModelConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, not on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)
