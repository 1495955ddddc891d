"""The estimators and policy losses that this package and verl both have: equal, or different in a known way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.workers.config import FSDPActorConfig

from riskpo_study import advantages, algorithms, surrogates
from riskpo_study.integrations.batch_advantages import PAPER

QUESTIONS, RESPONSES, TOKENS = 12, 4, 5


def rewards(binary: bool = True) -> torch.Tensor:
    """(Q, G), some questions always right or always wrong."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(QUESTIONS, RESPONSES, generator=generator)
    if not binary:
        return uniform
    table = (uniform < torch.linspace(0, 1, QUESTIONS)[:, None]).float()
    assert (table.amax(1) == table.amin(1)).any()
    return table


def verls(name: str, table: torch.Tensor, lengths: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
    """(Q, G) advantages by verl's estimator, in float32; `lengths` (Q, G) of the responses are alike by default."""
    lengths = torch.full(table.shape, TOKENS) if lengths is None else lengths
    flat = lengths.flatten()
    mask = (torch.arange(TOKENS) < flat[:, None]).long()
    scored = torch.zeros(table.numel(), TOKENS)
    scored[torch.arange(len(flat)), flat - 1] = table.flatten()
    uid = np.array([f"q{row // RESPONSES}" for row in range(len(flat))], dtype=object)
    batch = TensorDict({"token_level_rewards": scored, "response_mask": mask}, batch_size=len(flat))
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": True} | options)
    given = {"norm_adv_by_std_in_grpo": config.norm_adv_by_std_in_grpo, "config": config}
    found = compute_advantage(DataProto(batch, {"uid": uid}), name, **given).batch["advantages"]
    return found[:, 0].view_as(table)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("theirs", "options", "ours"),
    [
        ("grpo", {}, advantages.grpo),
        ("grpo_vectorized", {}, advantages.grpo),
        ("grpo", {"norm_adv_by_std_in_grpo": False}, advantages.dr_grpo),
        ("rloo", {}, advantages.rloo),
        ("rloo_vectorized", {}, advantages.rloo),
        # verl's Pass@k advantage is that of k = G: what the best response adds to the best of the others.
        ("grpo_passk", {"norm_adv_by_std_in_grpo": False}, lambda table: advantages.pass_at_k(table, RESPONSES)),
    ],
)  # fmt: skip
def test_the_same_advantages(theirs: str, options: dict[str, Any], ours: Any, binary: bool) -> None:
    table = rewards(binary)
    torch.testing.assert_close(verls(theirs, table, **options), ours(table), rtol=0, atol=2e-6)


def test_gpg_differs_in_what_counts_as_informative() -> None:
    """verl divides by the share of responses with a reward, we by the share of questions whose rewards differ."""
    table = rewards()
    theirs, ours = verls("gpg", table), advantages.gpg(table)
    informative = (table != table[:, :1]).any(1).double().mean().item()
    factor = informative / table.count_nonzero().item() * table.numel()
    torch.testing.assert_close(theirs, factor * ours, rtol=1e-5, atol=1e-6)
    assert factor != pytest.approx(1, abs=0.01)


def test_reinforce_pp_differs_in_what_is_whitened() -> None:
    """verl whitens over tokens, we over responses: the same for equal lengths, but for the variance's n − 1."""
    table = rewards()
    responses, tokens = table.numel(), table.numel() * TOKENS
    unbiased = ((responses - 1) / responses / ((tokens - 1) / tokens)) ** 0.5
    ours = advantages.reinforce_pp(table)
    torch.testing.assert_close(verls("reinforce_plus_plus_baseline", table) * unbiased, ours, rtol=1e-4, atol=1e-6)
    lengths = torch.arange(table.numel()).view_as(table) % TOKENS + 1
    uneven = verls("reinforce_plus_plus_baseline", table, lengths)
    assert (uneven - ours).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("mode", "aggregation", "theirs", "name"),
    [
        ("gspo", "seq-mean-token-mean", {}, "riskpo"),
        ("gspo", "seq-mean-token-mean", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}, "gspo"),
        ("vanilla", "token-mean", {}, "riskpo_released"),
        ("vanilla", "token-mean", {"clip_ratio_high": 0.28, "clip_ratio_c": 1e6}, "dapo"),
        ("vanilla", "seq-mean-token-mean", {"clip_ratio_c": 1e6}, "grpo"),
        ("vanilla", "seq-mean-token-mean", {"clip_ratio_c": 1e6}, "mvar_accuracy"),
        ("vanilla", "seq-mean-token-sum-norm", {"clip_ratio_c": 1e6}, "dr_grpo"),
        ("geo_mean", "seq-mean-token-mean", {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}, "gmpo"),
    ],
)  # fmt: skip
def test_the_same_loss_and_gradient(mode: str, aggregation: str, theirs: dict[str, float], name: str) -> None:
    """Of the algorithm's preset; far enough off-policy for every clip to bind; responses of all lengths."""
    preset = algorithms.build(name, {}, PAPER)
    surrogate, ours = preset.surrogate, preset.aggregation
    generator = torch.Generator().manual_seed(1)
    rows = QUESTIONS * RESPONSES
    mask = (torch.arange(TOKENS) < torch.randint(1, TOKENS + 1, (rows, 1), generator=generator)).float()
    old = -2 * torch.rand(rows, TOKENS, generator=generator)
    log_probs = (old + 0.8 * torch.randn(rows, TOKENS, generator=generator)).requires_grad_()
    advantage = torch.randn(rows, generator=generator)
    config = FSDPActorConfig(
        strategy="fsdp", rollout_n=RESPONSES, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=aggregation,
        **({"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0} | theirs),
    )  # fmt: skip
    loss, _ = get_policy_loss_fn(mode)(old, log_probs, advantage[:, None] * mask, mask, aggregation, config)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    weights = surrogates.token_weights(ours, mask, TOKENS, RESPONSES)
    objective = surrogate(log_probs, old, advantage, mask)
    expected = -(weights * objective.value).sum()
    assert (objective.clipped != 0).any()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, log_probs)[0], rtol=0, atol=1e-6)
