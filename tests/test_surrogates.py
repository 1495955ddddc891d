"""Surrogates and aggregations against loops over tokens, with their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden import golden
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from riskpo_study import surrogates
from riskpo_study.errors import ConfigError
from riskpo_study.surrogates import Surrogate

AGGREGATIONS = ("sequence_mean", "token_mean", "constant_sum", "sequence_sum", "group_sum")
LONGEST, GROUP = 9, 3


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(seed: int, spread: float = 0.5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log π_θ, log π_old (6, 7), advantages (6,) with a zero, mask (6, 7); padding holds noise."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 7, dtype=torch.float64, generator=generator)
    new = old + spread * torch.randn(6, 7, dtype=torch.float64, generator=generator)
    advantages = torch.randn(6, dtype=torch.float64, generator=generator)
    advantages[seed % 6] = 0.0
    lengths = torch.randint(1, 8, (6,), generator=generator)
    mask = (torch.arange(7) < lengths.unsqueeze(1)).double()
    return new.where(mask > 0, double(-3.0)), old.where(mask > 0, double(-8.0)), advantages, mask


def clipped(ratio: Tensor, advantage: float, low: float, high: float) -> tuple[Tensor, int]:
    """min(ratio·A, clip(ratio)·A) as a case distinction, and which clip is active."""
    if advantage > 0 and ratio > 1 + high:
        return double((1 + high) * advantage), 1
    if advantage < 0 and ratio < 1 - low:
        return double((1 - low) * advantage), -1
    return ratio * advantage, 0


# One response at a time: (log π_θ, log π_old of its tokens, A) → (value, clip) of each token.
Loop = Callable[[Tensor, Tensor, float], list[tuple[Tensor, int]]]


def token_loop(low: float, high: float, dual: float = math.inf) -> Loop:
    def loop(new: Tensor, old: Tensor, advantage: float) -> list[tuple[Tensor, int]]:
        result = []
        for n, o in zip(new, old, strict=True):
            value, clip = clipped((n - o).exp(), advantage, low, high)
            if advantage < 0 and value < dual * advantage:
                value = double(dual * advantage)
            result.append((value, clip))
        return result

    return loop


def sequence_loop(low: float, high: float) -> Loop:
    def loop(new: Tensor, old: Tensor, advantage: float) -> list[tuple[Tensor, int]]:
        ratio = (sum(n - o for n, o in zip(new, old, strict=True)) / len(new)).exp()
        return [clipped(ratio, advantage, low, high)] * len(new)

    return loop


def geometric_loop(low: float, high: float) -> Loop:
    def loop(new: Tensor, old: Tensor, advantage: float) -> list[tuple[Tensor, int]]:
        logs, clips = [], []
        for n, o in zip(new, old, strict=True):
            log, clip = n - o, 0
            if advantage > 0 and log > high:
                log, clip = double(high), 1
            elif advantage < 0 and log < -low:
                log, clip = double(-low), -1
            logs.append(log)
            clips.append(clip)
        value = (sum(logs) / len(logs)).exp() * advantage
        return [(value, clip) for clip in clips]

    return loop


def reinforce_loop(new: Tensor, old: Tensor, advantage: float) -> list[tuple[Tensor, int]]:
    return [(n * advantage, 0) for n in new]


CASES: dict[str, tuple[Surrogate, Loop]] = {
    "token": (surrogates.token_clip(0.2, 0.28), token_loop(0.2, 0.28)),
    "dual": (surrogates.token_clip(0.2, 0.2, dual=1.5), token_loop(0.2, 0.2, 1.5)),
    "sequence": (surrogates.sequence_clip(0.05, 0.1), sequence_loop(0.05, 0.1)),
    "geometric": (surrogates.geometric_clip(0.3, 0.4), geometric_loop(0.3, 0.4)),
    "reinforce": (surrogates.reinforce(), reinforce_loop),
}


def aggregated_by_loop(name: str, values: list[list[Tensor]]) -> Tensor:
    """One number from the values of every token of every response."""
    responses = len(values)
    total = double(0.0)
    for row in values:
        for value in row:
            total = (
                total
                + value
                / {
                    "sequence_mean": len(row) * responses,
                    "token_mean": sum(len(r) for r in values),
                    "constant_sum": LONGEST * responses,
                    "sequence_sum": responses,
                    "group_sum": responses / GROUP,
                }[name]
            )
    return total


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("case", CASES)
def test_objective_and_gradient_equal_a_loop(case: str, aggregation: str) -> None:
    surrogate, loop = CASES[case]
    active = 0
    for seed in range(4):
        new, old, advantages, mask = draw(seed)
        fast, slow = new.clone().requires_grad_(), new.clone().requires_grad_()
        objective = surrogate(fast, old, advantages, mask)
        weights = surrogates.token_weights(aggregation, mask, LONGEST, GROUP)
        got = (weights * objective.value).sum()
        rows = []
        for i, length in enumerate(mask.sum(1).int().tolist()):
            rows.append(loop(slow[i, :length], old[i, :length], advantages[i].item()))
            assert objective.clipped[i, :length].tolist() == [clip for _, clip in rows[-1]]
            active += sum(clip != 0 for _, clip in rows[-1])
        expected = aggregated_by_loop(aggregation, [[value for value, _ in row] for row in rows])
        torch.testing.assert_close(got, expected)
        got.backward()
        expected.backward()
        torch.testing.assert_close(fast.grad, slow.grad)
    assert active > 0 or case == "reinforce"


@pytest.mark.parametrize("case", CASES)
def test_on_policy_every_surrogate_has_the_policy_gradient(case: str) -> None:
    """Where π_θ = π_old the gradient of the sequence mean is that of the mean of A·mean_t log π."""
    new, _, advantages, mask = draw(0)
    policy = new.clone().requires_grad_()
    objective = CASES[case][0](policy, new, advantages, mask)
    (surrogates.token_weights("sequence_mean", mask, LONGEST, GROUP) * objective.value).sum().backward()
    expected = advantages.unsqueeze(1) * mask / mask.sum(1, keepdim=True) / len(mask)
    torch.testing.assert_close(policy.grad, expected)
    torch.testing.assert_close(objective.ratio[mask > 0], torch.ones(int(mask.sum()), dtype=torch.float64))
    assert (objective.clipped == 0).all()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_weights_of_parts_add_up_to_the_weights_of_the_whole(aggregation: str) -> None:
    """Loss and gradient are sums over responses once the weights are those of the whole mini-batch."""
    new, old, advantages, mask = draw(1)
    surrogate = surrogates.token_clip()
    weights = surrogates.token_weights(aggregation, mask, LONGEST, GROUP)
    whole = new.clone().requires_grad_()
    (weights * surrogate(whole, old, advantages, mask).value).sum().backward()
    split = new.clone().requires_grad_()
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        value = surrogate(split[part], old[part], advantages[part], mask[part]).value
        (weights[part] * value).sum().backward()
    torch.testing.assert_close(whole.grad, split.grad)


@given(st.integers(0, 10**6))
def test_weights_by_name(seed: int) -> None:
    mask = draw(seed)[3]
    lengths = mask.sum(1)
    total = {name: surrogates.token_weights(name, mask, LONGEST, GROUP).sum().item() for name in AGGREGATIONS}
    assert total["sequence_mean"] == pytest.approx(1)
    assert total["token_mean"] == pytest.approx(1)
    assert total["constant_sum"] == pytest.approx(lengths.mean().item() / LONGEST)
    assert total["sequence_sum"] == pytest.approx(lengths.mean().item())
    assert total["group_sum"] == pytest.approx(GROUP * lengths.mean().item())


def test_weights_of_any_mask() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    for kind in (mask, mask.int(), mask.double()):
        weights = surrogates.token_weights("sequence_mean", kind, 3, 2)
        assert weights.tolist() == [
            [0.25, 0.25, 0.0],
            [0.0, 0.0, 0.0],
        ]  # an empty response counts, with nothing
    assert surrogates.token_weights("token_mean", mask.double(), 3, 2).dtype == torch.float64
    assert surrogates.token_weights("token_mean", mask, 3, 2).dtype == torch.get_default_dtype()


def test_unknown_aggregation_is_named() -> None:
    with pytest.raises(ConfigError, match="aggregation = 'mean' is unknown; choose sequence_mean, token_mean"):
        surrogates.token_weights("mean", torch.ones(2, 3), 3, 2)


def test_dual_clip_bounds_the_loss_of_an_unlikely_bad_response() -> None:
    old, new = double([[-9.0]]), double([[-1.0]])  # ratio e⁸, A < 0
    value = surrogates.token_clip(dual=3.0)(new, old, double([-1.0]), torch.ones(1, 1)).value
    assert value.item() == -3.0
    unbounded = surrogates.token_clip()(new, old, double([-1.0]), torch.ones(1, 1)).value
    assert unbounded.item() == pytest.approx(-math.exp(8))


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.integers(0, 1000))
def test_k3_is_unbiased_and_never_negative(logits: list[float], seed: int) -> None:
    log_pi = double(logits).log_softmax(0)
    noise = torch.randn(len(logits), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    log_reference = (double(logits) + noise).log_softmax(0)
    estimate = surrogates.kl_k3(log_pi, log_reference)
    assert (estimate >= 0).all()
    divergence = (log_pi.exp() * (log_pi - log_reference)).sum()
    torch.testing.assert_close((log_pi.exp() * estimate).sum(), divergence)
    assert surrogates.kl_k3(log_pi, log_pi).abs().max() == 0


def test_importance_weights_are_unbiased_until_they_are_truncated() -> None:
    """Tokens of another distribution, weighted, have the policy's probabilities without a cap; a cap bounds weights."""
    policy, sampler = double([0.1, 0.2, 0.7]), double([0.3, 0.3, 0.4])
    weights = surrogates.truncated_importance(policy.log(), sampler.log(), math.inf)
    torch.testing.assert_close(sampler * weights, policy)
    capped = surrogates.truncated_importance(policy.log(), sampler.log(), 1.5)
    torch.testing.assert_close(capped, double([1 / 3, 2 / 3, 1.5]))


def test_golden_losses() -> None:
    entry = golden("policy_loss_forms")
    new, old, reference, mask, advantages = (
        double(entry["inputs"][key]) for key in ("new_logp", "old_logp", "ref_logp", "mask", "seq_advantage")
    )
    expected = entry["outputs"]

    def loss(surrogate: Surrogate, aggregation: str) -> Any:
        weights = surrogates.token_weights(aggregation, mask, longest=mask.shape[1], group=1)
        return -(weights * surrogate(new, old, advantages, mask).value).sum().item()

    ppo = surrogates.token_clip(0.2, 0.2, entry["params"]["dual_clip_c"])
    dapo = surrogates.token_clip(0.2, 0.28, entry["params"]["dual_clip_c"])
    gpg = surrogates.reinforce()
    close = {"rel": 1e-8}  # the reference adds 1e-8 to the number of tokens
    for key, surrogate, aggregation in (
        ("ppo_0.2|token-mean", ppo, "token_mean"),
        ("ppo_0.2|seq-mean-token-mean", ppo, "sequence_mean"),
        ("ppo_0.2|seq-mean-token-sum", ppo, "sequence_sum"),
        ("dapo_0.2_0.28|token-mean", dapo, "token_mean"),
        ("dapo_0.2_0.28|seq-mean-token-mean", dapo, "sequence_mean"),
        ("dapo_0.2_0.28|seq-mean-token-sum", dapo, "sequence_sum"),
        ("gspo_eps0.1_loss", surrogates.sequence_clip(0.1, 0.1), "sequence_mean"),
        ("gspo_eps3e-4_4e-4_loss", surrogates.sequence_clip(3e-4, 4e-4), "sequence_mean"),
        ("gmpo_eps0.4_loss", surrogates.geometric_clip(0.4, 0.4), "sequence_mean"),
        ("gmpo_eps0.2_loss", surrogates.geometric_clip(0.2, 0.2), "sequence_mean"),
        ("gpg_token_mean_loss", gpg, "token_mean"),
    ):
        assert loss(surrogate, aggregation) == pytest.approx(expected[key], **close), key
    # The reference sums over the three responses where `constant_sum` takes their mean.
    for key, surrogate in (
        ("ppo_0.2|seq-mean-token-sum-norm", ppo),
        ("dapo_0.2_0.28|seq-mean-token-sum-norm", dapo),
    ):
        assert 3 * loss(surrogate, "constant_sum") == pytest.approx(expected[key], **close)

    ratio = surrogates.sequence_log_ratio(new, old, mask).exp().squeeze(1)
    assert ratio.tolist() == pytest.approx(expected["gspo_seq_ratio"], **close)
    k3 = (surrogates.token_weights("token_mean", mask, 4, 1) * surrogates.kl_k3(new, reference)).sum().item()
    assert k3 == pytest.approx(expected["kl_k3_token_mean"], **close)
