"""This package's trainer and TRL's on the same responses: the same loss and gradient, and the same training run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

from integrations.trl_run import PLAIN, task
from riskpo_study import advantages, algorithms, config, seeds
from riskpo_study.integrations.batch_advantages import FAMILY
from riskpo_study.integrations.trl_trainer import RiskPOConfig, RiskPOTrainer
from riskpo_study.policy import Policy
from riskpo_study.rollouts import Generation, TransformersEngine
from riskpo_study.tasks.protocol import verdicts
from riskpo_study.trainer import Trainer
from riskpo_study.update import Updater

SHIPPED = config.load(config.root() / "params.yaml")
STEPS, QUESTIONS, RESPONSES, TOKENS = 20, 20, 8, 10
TRAIN = replace(
    SHIPPED.train, steps=STEPS, questions=QUESTIONS, responses=RESPONSES, max_new_tokens=TOKENS, mini_batches=1,
    micro_batch=10, learning_rate=1e-3, warmup_steps=0, schedule="constant", weight_decay=0.0, max_grad_norm=1.0,
)  # fmt: skip
TRLS_GUARD, OUR_GUARD = 1e-4, 1e-6  # added to the standard deviation that GRPO divides by


def asked(step: int) -> list[Any]:
    return task().sample(QUESTIONS, seeds.generator(0, "questions", step, 0))


def right(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [task().verify(FOUND[prompt], text).reward for prompt, text in zip(prompts, completions, strict=True)]


FOUND = {task().prompt(question): question for step in range(STEPS) for question in asked(step)}


def generated(policy: Policy, step: int) -> Generation:
    """This package's responses to the questions of a step, which both trainers learn from."""
    prompts = policy.encode([task().prompt(question) for question in asked(step)])
    return TransformersEngine(policy).generate(prompts, RESPONSES, 1.0, TOKENS, seeds.generator(0, "rollouts", step, 0))


def given(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
    """The same through TRL's `rollout_func`."""
    drawn = generated(Policy(trainer.model, trainer.processing_class), trainer.state.global_step)
    lengths = drawn.lengths.flatten().tolist()
    return {
        "prompt_ids": [list(prompt) for prompt in drawn.prompts for _ in range(RESPONSES)],
        "completion_ids": [row[:n] for row, n in zip(drawn.tokens.flatten(0, 1).tolist(), lengths, strict=True)],
        "logprobs": [row[:n] for row, n in zip(drawn.log_probs.flatten(0, 1).tolist(), lengths, strict=True)],
    }


def trls(model: str, folder: Path, algorithm: str, own: bool = False, **options: Any) -> GRPOTrainer:
    """TRL's trainer, or RiskPO's, of `STEPS` steps on the questions of ours; `own`: with TRL's own generation."""
    common = PLAIN | {
        "output_dir": str(folder), "num_generations": RESPONSES, "per_device_train_batch_size": QUESTIONS * RESPONSES,
        "max_completion_length": TOKENS, "max_steps": STEPS, "learning_rate": TRAIN.learning_rate,
        "save_strategy": "no", "shuffle_dataset": False, "seed": 0,
    } | options  # fmt: skip
    rows = [{"prompt": task().prompt(question)} for step in range(STEPS) for question in asked(step)]
    more = {"train_dataset": Dataset.from_list(rows)} | ({} if own else {"rollout_func": given})
    if algorithm in FAMILY:
        return RiskPOTrainer(model, right, RiskPOConfig(**common, algorithm=algorithm), **more)
    return GRPOTrainer(model, right, GRPOConfig(**common), **more)


# The loss

SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "riskpo": {},
    "riskpo_released": {},
    "mvar_accuracy": {},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_loss_and_gradient(name: str, trained_model: str, tmp_path: Path) -> None:
    """On responses of another policy than the one that is updated, so that clips bind."""
    policy, old_policy = Policy.load(trained_model), Policy.load(trained_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    drawn = generated(old_policy, 0)
    judged = verdicts(task(), asked(0), old_policy.decode(drawn))
    rewards = torch.tensor([[verdict.reward for verdict in row] for row in judged], dtype=torch.float64)
    algorithm = algorithms.build(name, {}, SHIPPED.risk)
    pairing = torch.arange(RESPONSES).expand(4, 5, RESPONSES)
    advantage = algorithm.estimator(rewards, pairing)

    updater = Updater(policy, old_policy, algorithm, TRAIN)
    gradients: dict[str, torch.Tensor] = {}

    def keep() -> None:
        gradients.update({n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None})

    updater.optimizer.step = keep  # type: ignore[method-assign]
    updater.train = replace(TRAIN, max_grad_norm=1e9)
    updater.optimizer.train = updater.train
    metrics = updater.update(drawn, drawn.log_probs, advantage, rewards > 0.5, [torch.arange(QUESTIONS)])
    clipped = metrics["clip_ratio/low"] + metrics["clip_ratio/high"]
    assert clipped > 0 and metrics["ratio/max"] > 1.1
    policy.model.zero_grad()

    theirs = trls(trained_model, tmp_path, name, **SETTINGS[name])
    theirs.model.load_state_dict(policy.model.state_dict())
    theirs.current_gradient_accumulation_steps = 1
    loss = theirs.compute_loss(theirs.model, batch(drawn, advantage, old_policy))
    loss.backward()
    assert loss.item() == pytest.approx(metrics["loss"], abs=1e-5)
    found = {n: p.grad for n, p in theirs.model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys() and max(one.abs().max() for one in gradients.values()) > 1e-2
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=0, atol=1e-5, msg=parameter)


def batch(drawn: Generation, advantage: torch.Tensor, policy: Policy) -> dict[str, torch.Tensor]:
    """TRL's batch of the same responses: prompts padded on the left."""
    width = max(map(len, drawn.prompts))
    pad = policy.tokenizer.pad_token_id
    prompts = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in drawn.prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in drawn.prompts])
    return {
        "prompt_ids": prompts.repeat_interleave(RESPONSES, 0),
        "prompt_mask": mask.repeat_interleave(RESPONSES, 0),
        "completion_ids": drawn.tokens.flatten(0, 1).masked_fill(~drawn.mask.flatten(0, 1), pad),
        "completion_mask": drawn.mask.flatten(0, 1).long(),
        "advantages": advantage.flatten().float(),
        "old_per_token_logps": drawn.log_probs.flatten(0, 1),
        "num_items_in_batch": drawn.lengths.sum(),
    }


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_the_same_advantages(name: str, trained_model: str, tmp_path: Path) -> None:
    """From TRL's own generation step with our responses; GRPO's but for the guard of its division."""
    theirs = trls(trained_model, tmp_path, name, **SETTINGS[name])
    theirs.model.train()
    rows = [theirs.train_dataset[row] for row in range(QUESTIONS) for _ in range(RESPONSES)]
    output = theirs._generate_and_score_completions(rows)
    policy = Policy.load(trained_model)
    judged = verdicts(task(), asked(0), policy.decode(generated(policy, 0)))
    rewards = torch.tensor([[verdict.reward for verdict in row] for row in judged])
    spread = rewards.std(1, keepdim=True)
    guard = (spread + OUR_GUARD) / (spread + TRLS_GUARD) if name == "grpo" else 1.0
    expected = {"grpo": advantages.grpo, "dr_grpo": advantages.dr_grpo}[name](rewards) * guard
    assert 0 < rewards.mean() < 1
    torch.testing.assert_close(output["advantages"].view(QUESTIONS, RESPONSES), expected, rtol=0, atol=1e-6)


def test_the_same_overlong_penalty() -> None:
    lengths = torch.arange(0, 26)
    ids = [[0] * length for length in lengths.tolist()]
    theirs = get_soft_overlong_punishment(max_completion_len=20, soft_punish_cache=4)(ids)
    torch.testing.assert_close(torch.tensor(theirs), advantages.overlong_penalty(lengths, 20, 4).to(torch.float32))


# Whole runs


def run(model: str, folder: Path, algorithm: str, own: bool = False) -> tuple[list[dict[str, float]], ...]:
    """Metrics of `STEPS` steps, ours and TRL's."""
    policy, reference = Policy.load(model), Policy.load(model)
    built = algorithms.build(algorithm, {}, SHIPPED.risk)
    ours = Trainer(policy, reference, TransformersEngine(policy), task(), built, TRAIN, 0, folder)
    theirs = trls(model, folder, algorithm, own, **SETTINGS[algorithm])
    theirs.train()
    return [ours.step().metrics for _ in range(STEPS)], [one for one in theirs.state.log_history if "reward" in one]


def test_riskpo_in_trl_is_riskpo_here_step_by_step(trained_model: str, tmp_path: Path) -> None:
    """With the same responses of the same weights: bundles, quantiles, surrogate, clipping and Adam all agree."""
    ours, theirs = run(trained_model, tmp_path, "riskpo")
    assert len({metrics["reward/mean"] for metrics in ours}) > 5
    for one, other in zip(ours, theirs, strict=True):
        assert other["reward"] == pytest.approx(one["reward/mean"], abs=1e-6)
        assert other["entropy"] == pytest.approx(one["entropy/mean"], abs=1e-4)
        assert other["grad_norm"] == pytest.approx(one["gradient/norm"], abs=1e-3)
        for name in ("quantile/alpha", "quantile/beta", "region/lower", "region/upper", "share/zero_advantage"):
            assert other[f"riskpo/{name}"] == pytest.approx(one[name], abs=1e-6)


def test_grpo_in_trl_is_grpo_here_until_its_guard_tells(trained_model: str, tmp_path: Path) -> None:
    ours, theirs = run(trained_model, tmp_path, "grpo")
    for one, other in list(zip(ours, theirs, strict=True))[:4]:
        assert other["reward"] == pytest.approx(one["reward/mean"], abs=1e-6)
        assert other["entropy"] == pytest.approx(one["entropy/mean"], abs=1e-3)
        assert other["grad_norm"] == pytest.approx(one["gradient/norm"], rel=2e-3)


@pytest.mark.parametrize("algorithm", ["grpo", "riskpo"])
def test_trls_own_generation_leads_to_the_same_reward_and_entropy(
    algorithm: str, trained_model: str, tmp_path: Path
) -> None:
    """Other responses, the same distribution: means over the last ten of twenty steps, with the noise of sampling."""
    ours, theirs = run(trained_model, tmp_path, algorithm, own=True)
    names = {"reward/mean": "reward", "entropy/mean": "entropy"}
    means = [
        [sum(metrics[name] for metrics in one[10:]) / 10 for name in of]
        for one, of in ((ours, names), (theirs, names.values()))
    ]
    assert means[0] == pytest.approx(means[1], abs=0.07)
    assert ours[0]["entropy/mean"] - means[0][1] > 0.05  # both have moved
