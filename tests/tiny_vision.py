"""A tiny vision-language model of the real class with its tokenizer and image processor, and a task for it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from riskpo_study import algorithms, config, distributed
from riskpo_study.policy import Policy
from riskpo_study.rollouts import TransformersEngine
from riskpo_study.tasks.protocol import Question, Task, Verdict
from riskpo_study.trainer import Trainer

SPECIAL = ["<pad>", "<eos>", "<unk>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
WORDS = ["what", "colour", "?", "red", "green", "blue", "how", "many", *map(str, range(10))]
CHAT = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", chat_template=CHAT
    )


def model(seed: int = 0, tied: bool = False, width: int = 32) -> Qwen2_5_VLForConditionalGeneration:
    """Two layers each for text and images, one of them with windows; random outputs far from uniform."""
    ids = {token: index for index, token in enumerate(SPECIAL)}
    sections = [width // 16, width * 3 // 32, width * 3 // 32]  # half the channels of a head
    shape = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": width, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 256, "initializer_range": 0.2, "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
            "eos_token_id": ids["<eos>"], "pad_token_id": ids["<pad>"], "bos_token_id": None,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": width,
            "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1], "initializer_range": 0.2,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2_5_VLForConditionalGeneration(shape).eval()


def image_processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 64 * 64})


def policy(layout: str = "prefix_tree", **options) -> Policy:
    return Policy(model(**options), tokenizer(), layout, image_processor=image_processor())


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())


def asked(*parts: Image.Image | str) -> list[dict]:
    """Messages of one turn with these images and texts."""
    kinds = ["text" if isinstance(part, str) else "image" for part in parts]
    content = [{"type": kind, kind: part} for kind, part in zip(kinds, parts, strict=True)]
    return [{"role": "user", "content": content}]


class Noise(Task):
    """Questions on up to two random images, whose right answers are no better known than by their length."""

    name, modules, difficulties = "noise", (), (1,)

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        draws = torch.randint(2**31, (n,), generator=generator).tolist()
        return [Question(f"{i} {draw}", self._messages(draw), 1, {"sum": draw % 2}) for i, draw in enumerate(draws)]

    def _messages(self, draw: int) -> list[dict]:
        images = [noise(16, 8 * (1 + draw % 3), draw + i) for i in range(draw % 3)]
        return asked(*images, "what colour ?")

    def verify(self, question: Question, response: str) -> Verdict:
        return Verdict(float((len(response) + question.payload["sum"]) % 2), response)


def trainer(
    folder: Path, train: config.Train, hardware: config.Hardware | None = None, layout: str = "prefix_tree", shards=1
) -> Trainer:
    """Of the model in a folder, which is the reference too."""
    policy, reference = (Policy.load(folder, layout, hardware) for _ in range(2))
    algorithm = algorithms.build("riskpo", {}, config.load().risk)
    engine = TransformersEngine(policy)
    return Trainer(policy, reference, engine, Noise(), algorithm, train, 0, folder, shards=shards)


def main(params: Path, folder: Path, saved: Path) -> None:
    """Two steps; run as a script, in every process of several that split the weights."""
    distributed.start()
    study = config.load(params)
    trained = trainer(folder, study.train, study.hardware, shards=2)
    metrics = [trained.step().metrics for _ in range(2)]
    weights = trained.policy.collected() or trained.policy.model.state_dict()
    if distributed.is_main():
        torch.save({"metrics": metrics, "weights": weights}, saved)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
