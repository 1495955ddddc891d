"""Small real things that several tests use: a task, a random model of the real class, a configuration."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from riskpo_study import config, tasks
from riskpo_study.policy import Policy

torch.set_num_threads(1)  # the tests run in several processes
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that the other process has done the rest when it ends."""
    items.sort(key=lambda item: item.path.stem != "test_smoke_pipeline")


@pytest.fixture(scope="session")
def settings() -> config.Config:
    """The shipped configuration with a training run of seconds."""
    shipped = config.load(config.root() / "params.yaml")
    return replace(
        shipped,
        profile="test",
        task=replace(shipped.task, numbers=(2, 3), largest_number=20, largest_target=40, questions=6),
        train=replace(
            shipped.train, steps=4, questions=10, responses=4, mini_batches=2, micro_batch=5, max_new_tokens=8,
            learning_rate=1e-3, checkpoint_every=2, evaluate_every=2, snapshot_every=2, curve_questions=2,
            curve_samples=4,
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def task(settings: config.Config) -> tasks.Task:
    return tasks.build(settings)


def random_model(
    vocabulary: int, eos: int, pad: int, seed: int = 0, tied: bool = True, width: int = 32, heads: int = 4
) -> Qwen2ForCausalLM:
    """A two-layer Qwen2 whose random outputs are far from uniform."""
    shape = Qwen2Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=heads // 2, max_position_embeddings=64, tie_word_embeddings=tied, eos_token_id=eos,
        pad_token_id=pad,
        initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(shape).eval()


@pytest.fixture
def policy(task: tasks.Task) -> Policy:
    tokenizer = task.build_tokenizer()  # type: ignore[attr-defined]
    return Policy(random_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id), tokenizer)


@pytest.fixture
def base_model(policy: Policy, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("base") / "model"
    policy.save(folder)
    return folder
