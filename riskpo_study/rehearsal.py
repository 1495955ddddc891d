"""Whole profiles run on small stand-ins, of the same classes and schemas, for the model and the data they download.

`python -m riskpo_study.rehearsal paper_easy` runs every stage of the profile in a copy of the working tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from riskpo_study import config, datasets, files, profiles
from riskpo_study.base_model import KEEP_TOKENIZER, chunks, response_loss, tokenize
from riskpo_study.datasets import code_problems, deepcoder, livecodebench, stand_ins
from riskpo_study.errors import ConfigError, RunError
from riskpo_study.policy import Policy
from riskpo_study.seeds import generator

__all__ = ["rehearse", "write", "write_code", "write_model"]

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The turns of Qwen2.5's chat template."""

STEPS = 150  # of teaching the model
VOCABULARY = 700

OVERRIDES = (
    "runs.algorithms=[grpo,riskpo]", "runs.seeds=[0]", "task.questions=6", "math.development=20", "math.workers=1",
    "train.steps=2", "train.questions=20", "train.responses=4", "train.mini_batches=2", "train.max_new_tokens=12",
    "train.learning_rate=1.0e-3", "tuning.candidates=[{learning_rate: 0.001}]",
    "train.checkpoint_every=1", "train.evaluate_every=2", "train.snapshot_every=1", "train.curve_questions=2",
    "train.curve_samples=4", "train.threads=1", "hardware.attention=sdpa", "hardware.processes=2", "hardware.shards=2",
    "hardware.tokens=1024", "rollouts.max_model_len=256", "evaluation.samples=8", "evaluation.ks=[1,2,4,8]",
    "evaluation.resamples=200", "theory.batches=10",
)  # fmt: skip
"""What makes a profile of the paper fit two cores; everything else is as in the profile."""

OF_CODE = ("code.development=20", "code.workers=1", "train.max_new_tokens=24", "rollouts.max_model_len=384")
"""Further ones of a profile of code, whose prompts and responses are longer."""

Lesson = tuple[list[dict[str, str]], str]
"""Messages, and what to answer."""


def write_model(folder: Path, lessons: Sequence[Lesson]) -> None:
    """A tiny Qwen2 in bfloat16 and a byte-level BPE tokenizer with chat template, both trained on the lessons."""
    tokenizer = _tokenizer(text for asked, answer in lessons for text in (*(m["content"] for m in asked), answer))
    shape = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(shape)
    _teach(model, tokenizer, lessons)
    model = model.to(torch.bfloat16)  # type: ignore[arg-type]
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with files.atomic(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )
    fast.init_kwargs["auto_map"] = KEEP_TOKENIZER
    return fast


def _teach(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, lessons: Sequence[Lesson]) -> None:
    """Train until it answers in the form that is asked for and is right now and then."""
    pairs = tokenize(Policy(model, tokenizer), lessons)
    draws = generator(0, "stand-ins")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        batch = [pairs[i] for i in torch.randint(len(pairs), (32,), generator=draws).tolist()]
        for chunk in chunks(batch):
            (response_loss(model, *chunk) / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()


def write(folder: Path) -> None:
    """A model in `folder/model` and every dataset of `datasets.DATASETS` in `folder/data`."""
    stand_ins.write(folder / "data")
    loaded = [datasets.load(name, folder=folder / "data") for name in datasets.DATASETS]
    questions = [question for one in loaded for question in one.questions]
    lessons = [(datasets.messages(one.question, "boxed"), rf"\boxed{{{one.answer}}}") for one in questions]
    write_model(folder / "model", lessons)


def write_code(folder: Path) -> None:
    """A model in `folder/model`, and DeepCoder and LiveCodeBench in `folder/data`."""
    stand_ins.write_code(folder / "data")
    loaded = [deepcoder.load(part, 10, folder=folder / "data" / "deepcoder") for part in deepcoder.PARTS]
    loaded.append(livecodebench.load("release_v6", folder=folder / "data" / "livecodebench"))
    problems = [problem for one in loaded for problem in one.problems]
    lessons = [(code_problems.messages(one), stand_ins.solution(one.question)) for one in problems]
    write_model(folder / "model", lessons)


def rehearse(profile: str, folder: Path, overrides: Iterable[str] = ()) -> None:
    """Run every stage of a profile on stand-ins, in a copy of the working tree under `folder`.

    Raises:
        RunError: where a stage fails; what it said is above.
    """
    root, copy = config.root(), folder / "study"
    _copy_tree(root, copy)
    task = profiles.composed(profile, root / "conf")[1].task.name
    (write_code if task == "code" else write)(folder)
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    own = [f"base_model.pretrained={folder / 'model'}", f"{task}.folder={folder / 'data'}"]
    own += OF_CODE if task == "code" else ()
    commands = [
        ["git", "init", "--quiet"],  # DVC wants one
        [sys.executable, "-m", "riskpo_study.profiles", profile, *OVERRIDES, *own, *overrides],
        ["make", "--old-file=.venv/.installed", "repro", f"PROFILE={profile}"],
    ]
    for command in commands:
        if subprocess.run(command, cwd=copy, env=environment, check=False).returncode:
            raise RunError(f"the rehearsal of {profile} failed in {copy}; what went wrong is above")


def _copy_tree(root: Path, copy: Path) -> None:
    """Everything that git tracks or would, as it is in the working tree, but for the results."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, check=True).stdout.decode().rstrip("\0").split("\0")
    for name in names:
        if (root / name).exists() and not name.startswith("results/"):  # deleted files are still listed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.rehearsal", description=__doc__)
    parser.add_argument("profile", help="profile to rehearse")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as rollouts.engine=transformers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="rehearse there, and leave everything behind")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            rehearse(given.profile, (given.keep or Path(temporary)).resolve(), given.overrides)
    except (ConfigError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
