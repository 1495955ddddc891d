"""Advantage estimators against slow loops, golden numbers and laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, product
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from riskpo_study import advantages, bundles, risk
from riskpo_study.errors import ConfigError

QA, QB, OMEGA = 1.4, 3.1, 0.5


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch(seed: int, binary: bool, questions: int = 6, responses: int = 5) -> Tensor:
    """Rewards (Q, G) with ties, and one question without variance."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 2 if binary else 5, (questions, responses), generator=generator).double()
    rewards[seed % questions] = float(seed % 2)
    return rewards if binary else rewards / 4


# --- estimators that compare a question's own responses -------------------------------------------

GROUP: dict[str, Callable[[Tensor], Tensor]] = {
    "grpo": advantages.grpo,
    "dr_grpo": advantages.dr_grpo,
    "gpg": advantages.gpg,
    "rloo": advantages.rloo,
    "reinforce_pp": advantages.reinforce_pp,
    "max_rl": advantages.max_rl,
    "focal": lambda r: advantages.focal(r, 1.5),
    "entropic": lambda r: advantages.entropic(r, 2.0),
    "quantile_baseline": lambda r: advantages.quantile_baseline(r, 0.4),
    "pass_at_k": lambda r: advantages.pass_at_k(r, 3),
}
CENTRED = [name for name in GROUP if name not in ("quantile_baseline", "pass_at_k")]


def whitened(rewards: list[list[float]]) -> list[list[float]]:
    centred = [[r - mean(row) for r in row] for row in rewards]
    flat = [a for row in centred for a in row]
    return [[(a - mean(flat)) / math.sqrt(stdev(flat) ** 2 + 1e-8) for a in row] for row in centred]


def best_of_subsets(row: list[float], k: int) -> list[float]:
    """Σ over the subsets I of k responses, i among them, of (max_I r − max_{I∖i} r), over C(G, k)."""
    gains = [0.0] * len(row)
    for chosen in combinations(range(len(row)), k):
        for i in chosen:
            gains[i] += max(row[j] for j in chosen) - max(row[j] for j in chosen if j != i)
    return [gain / math.comb(len(row), k) for gain in gains]


def scaled_by_informative(rewards: list[list[float]]) -> list[list[float]]:
    factor = len(rewards) / sum(len(set(row)) > 1 for row in rewards)
    return [[factor * (r - mean(row)) for r in row] for row in rewards]


def without(row: list[float], i: int) -> list[float]:
    return row[:i] + row[i + 1 :]


def tilted(row: list[float], beta: float) -> list[float]:
    average = mean(math.exp(beta * r) for r in row)
    return [(math.exp(beta * r) / average - 1) / beta for r in row]


def smallest_reaching(row: list[float], level: float) -> float:
    return next(r for r in sorted(row) if sum(x <= r for x in row) >= level * len(row) - 1e-9)


def each(
    row_by_row: Callable[[list[float]], list[float]],
) -> Callable[[list[list[float]]], list[list[float]]]:
    return lambda rewards: [row_by_row(row) for row in rewards]


LOOPS = {  # one response at a time, straight from the papers' formulas
    "grpo": each(lambda row: [(r - mean(row)) / (stdev(row) + 1e-6) for r in row]),
    "dr_grpo": each(lambda row: [r - mean(row) for r in row]),
    "gpg": scaled_by_informative,
    "rloo": each(lambda row: [r - mean(without(row, i)) for i, r in enumerate(row)]),
    "reinforce_pp": whitened,
    "max_rl": each(lambda row: [(r - mean(row)) / mean(row) if mean(row) else 0.0 for r in row]),
    "focal": each(lambda row: [(r - mean(row)) / (stdev(row) + 1e-6) * (1 - mean(row)) ** 1.5 for r in row]),
    "entropic": each(lambda row: tilted(row, 2.0)),
    "quantile_baseline": each(lambda row: [r - smallest_reaching(row, 0.4) for r in row]),
    "pass_at_k": each(lambda row: best_of_subsets(row, 3)),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", GROUP)
def test_group_estimators_equal_their_loops(name: str, binary: bool) -> None:
    for seed in range(8):
        rewards = batch(seed, binary)
        expected = double(LOOPS[name](rewards.tolist()))
        torch.testing.assert_close(GROUP[name](rewards), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", GROUP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimators_keep_shape_and_dtype(name: str, dtype: torch.dtype) -> None:
    result = GROUP[name](batch(0, binary=False).to(dtype))
    assert result.dtype == dtype
    assert result.shape == (6, 5)


@pytest.mark.parametrize("name", CENTRED)
@given(seed=st.integers(0, 10**6), binary=st.booleans())
def test_centred_estimators_sum_to_zero_in_each_group(name: str, seed: int, binary: bool) -> None:
    assert GROUP[name](batch(seed, binary)).sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("name", GROUP)
@given(seed=st.integers(0, 10**6), binary=st.booleans())
def test_permuting_questions_or_responses_permutes_advantages(name: str, seed: int, binary: bool) -> None:
    rewards = batch(seed, binary)
    generator = torch.Generator().manual_seed(seed + 1)
    questions, responses = torch.randperm(6, generator=generator), torch.randperm(5, generator=generator)
    moved = GROUP[name](rewards[questions][:, responses])
    torch.testing.assert_close(moved, GROUP[name](rewards)[questions][:, responses])


@pytest.mark.parametrize("name", GROUP)
@pytest.mark.parametrize("reward", [0.0, 0.3, 1.0])
def test_a_question_without_variance_gives_no_signal(name: str, reward: float) -> None:
    rewards = batch(1, binary=True)
    rewards[2] = reward
    result = GROUP[name](rewards)
    assert result.isfinite().all()
    assert result[2].abs().max() < 1e-9
    alone = GROUP[name](torch.full((2, 5), reward, dtype=torch.float64))
    assert alone.abs().max() < 1e-9


@pytest.mark.parametrize("name", GROUP)
def test_groups_of_one_are_refused(name: str) -> None:
    for shape in ((6, 1), (6,)):
        with pytest.raises(ConfigError, match=r"cannot be compared in groups; give \(Q, G\) with G >= 2"):
            GROUP[name](torch.zeros(shape))


def test_entropic_tends_to_dr_grpo_and_does_not_overflow() -> None:
    rewards = batch(3, binary=False)
    torch.testing.assert_close(advantages.entropic(rewards, 1e-7), advantages.dr_grpo(rewards), rtol=0, atol=1e-6)
    assert advantages.entropic(1e4 * rewards, 8.0).isfinite().all()


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_pass_at_k_equals_the_enumeration_of_subsets(k: int) -> None:
    for seed in range(6):
        rewards = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rewards[1] = rewards[1].round()  # ties
        expected = double([best_of_subsets(row, k) for row in rewards.tolist()])
        torch.testing.assert_close(advantages.pass_at_k(rewards, k), expected)


@pytest.mark.parametrize("k", [1, 7])
def test_pass_at_k_refuses_more_attempts_than_responses(k: int) -> None:
    with pytest.raises(ConfigError, match=rf"pass_at_k with k = {k} needs 2 <= k <= G = 6 responses"):
        advantages.pass_at_k(torch.zeros(2, 6), k)


# What each estimator gives a question of accuracy p: the slope E[A·(r − p)] / (p(1−p)), here with p̂ = p.
WEIGHTS: dict[str, Callable[[float, int], float]] = {
    "dr_grpo": lambda p, g: 1.0,
    "grpo": lambda p, g: 1 / math.sqrt(p * (1 - p) * g / (g - 1)),
    "rloo": lambda p, g: g / (g - 1),
    "max_rl": lambda p, g: 1 / p,
    "focal": lambda p, g: (1 - p) ** 1.5 / math.sqrt(p * (1 - p) * g / (g - 1)),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("right", [1, 3, 7])
def test_binary_advantages_are_a_weight_times_the_surplus(name: str, right: int) -> None:
    rewards = (torch.arange(8) < right).double().unsqueeze(0)
    p = right / 8
    expected = (rewards - p) * WEIGHTS[name](p, 8)
    torch.testing.assert_close(GROUP[name](rewards), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_pass_at_k_has_the_gradient_of_pass_at_k(k: int, p: float) -> None:
    """E[Σ_i A_i (r_i − p)] / (p(1−p)) = d/dp (1 − (1−p)^k) = k(1−p)^{k−1}, by enumeration of the outcomes."""
    total = 0.0
    for outcome in product([0.0, 1.0], repeat=5):
        mass = math.prod(p if r else 1 - p for r in outcome)
        advantage = advantages.pass_at_k(double([outcome]), k)[0]
        total += mass * (advantage @ (double(outcome) - p)).item()
    assert total / (p * (1 - p)) == pytest.approx(k * (1 - p) ** (k - 1))


def test_golden_group_advantages() -> None:
    entry = golden("group_advantages")
    close = {"rel": 1e-9, "abs": 1e-12}

    rewards = double([entry["inputs"]["group_advantages_binary_G8"]["rewards"]])
    expected = entry["outputs"]["group_advantages_binary_G8"]
    for key, got in {
        "grpo_unbiased_std": advantages.grpo(rewards),
        "dr_grpo": advantages.dr_grpo(rewards),
        "rloo": advantages.rloo(rewards),
        "rs_grpo_beta2": advantages.entropic(rewards, 2.0),
        "rs_grpo_beta8": advantages.entropic(rewards, 8.0),
        "qae_K0.4_adv_no_std": advantages.quantile_baseline(rewards, 0.4),
        "qae_K0.7_adv_no_std": advantages.quantile_baseline(rewards, 0.7),
    }.items():
        assert got[0].tolist() == pytest.approx(expected[key], **close), key
    ratio = advantages.rloo(rewards) / advantages.dr_grpo(rewards)
    assert ratio[0].tolist() == pytest.approx([expected["rloo_over_drgrpo_ratio"]] * 8)
    for key, level in (("qae_K0.4_baseline", 0.4), ("qae_K0.7_baseline", 0.7)):
        assert risk.quantile(rewards, level).item() == expected[key]

    rewards = double([entry["inputs"]["group_advantages_real_valued_G4"]["rewards"]])
    expected = entry["outputs"]["group_advantages_real_valued_G4"]
    for name, key in (("grpo", "grpo_unbiased_std"), ("dr_grpo", "dr_grpo"), ("rloo", "rloo")):
        assert GROUP[name](rewards)[0].tolist() == pytest.approx(expected[key], **close)

    rewards = double(entry["inputs"]["batch_level_advantages_3x4"]["rewards_QxG"])
    expected = entry["outputs"]["batch_level_advantages_3x4"]
    for name, key in (("reinforce_pp", "reinforcepp_baseline"), ("gpg", "gpg_adv_Fnorm1")):
        torch.testing.assert_close(GROUP[name](rewards), double(expected[key]), rtol=1e-9, atol=1e-12)
    ratio = advantages.gpg(rewards)[0] / advantages.dr_grpo(rewards)[0]
    assert ratio.tolist() == pytest.approx([expected["gpg_alpha"]] * 4)
    informative = (advantages.grpo(rewards) != 0).any(1)  # DAPO resamples the others
    assert informative.tolist() == expected["dapo_dynamic_sampling_keep_group"]


def test_gpg_is_exact_in_float64() -> None:
    rewards = double([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1], [0, 0], [0, 0]])  # three informative questions of 7
    assert advantages.gpg(rewards)[0, 1].item() == pytest.approx(7 / 3 / 2, rel=1e-15)


def test_golden_overlong_penalty() -> None:
    entry = golden("policy_loss_forms")
    limits = entry["params"]["overlong"]
    lengths = torch.tensor([70, 80, 85, 90, 100, 101])
    penalty = advantages.overlong_penalty(lengths, limits["L_max"], limits["L_cache"])
    assert penalty.tolist() == entry["outputs"]["dapo_soft_overlong_len_70_80_85_90_100_101"]


# --- RiskPO ---------------------------------------------------------------------------------------

TRACKED = {"riskpo": advantages.riskpo, "risk_seeking": advantages.risk_seeking}
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.integers(0, 2**32))  # N, B, G, seed


def draw(n: int, b: int, g: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 4, (n * b, g), generator=generator).double() / 3
    return rewards, bundles.permutations(n * b, g, b, generator)


def tracked_by_loop(name: str, rewards: Tensor, permutation: Tensor, baseline: str, scale: str) -> Tensor:
    n, b, g = permutation.shape
    chosen = {  # (group, bundle) → its (question, response) pairs
        (i, j): [(i * b + q, int(permutation[i, q, j])) for q in range(b)] for i in range(n) for j in range(g)
    }
    scores = {key: sum(rewards[pair].item() for pair in pairs) for key, pairs in chosen.items()}
    raw = {}
    for key, score in scores.items():
        lower, upper = max(QA - score, 0.0), max(score - QB, 0.0)
        tail = -(1 + OMEGA) * lower if name == "riskpo" else (1 + OMEGA) * upper
        raw[key] = tail + max(score - QA, 0.0) - upper + QA - QB
    result = torch.empty_like(rewards)
    for key, pairs in chosen.items():
        others = [
            value
            for other, value in raw.items()
            if other != key and (baseline == "batch" or (baseline == "group" and other[0] == key[0]))
        ]
        advantage = raw[key] - (mean(others) if others else 0.0)
        if scale == "batch_std":
            spread = stdev(scores.values())
            advantage /= spread if spread > 1e-3 else 1.0
        for pair in pairs:
            result[pair] = advantage
    return result


@pytest.mark.parametrize("scale", ["none", "batch_std"])
@pytest.mark.parametrize("baseline", ["none", "group", "batch"])
@pytest.mark.parametrize("name", TRACKED)
@given(shape=shapes)
def test_tracked_estimators_equal_a_loop(name: str, baseline: str, scale: str, shape) -> None:
    rewards, permutation = draw(*shape)
    got = TRACKED[name](rewards, permutation, QA, QB, OMEGA, baseline, scale)
    torch.testing.assert_close(got, tracked_by_loop(name, rewards, permutation, baseline, scale))


@pytest.mark.parametrize("name", TRACKED)
@given(shape=shapes)
def test_baselines_centre_the_advantages(name: str, shape) -> None:
    rewards, permutation = draw(*shape)
    group = TRACKED[name](rewards, permutation, QA, QB, OMEGA, baseline="group")
    assert group.sum(1).abs().max() < 1e-9  # of each question, and so of each bundle group
    whole = TRACKED[name](rewards, permutation, QA, QB, OMEGA, baseline="batch")
    assert abs(whole.sum().item()) < 1e-9
    if name == "riskpo":
        assert (TRACKED[name](rewards, permutation, QA, QB, OMEGA, baseline="none") <= 0).all()


@pytest.mark.parametrize("name", TRACKED)
@given(shape=shapes)
def test_permuting_questions_permutes_tracked_advantages(name: str, shape) -> None:
    """Whole groups, and questions inside their group, together with their rows of the permutation."""
    n, b, g, seed = shape
    rewards, permutation = draw(*shape)
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randperm(n, generator=generator)
    order = torch.cat([int(i) * b + torch.randperm(b, generator=generator) for i in groups])
    moved = permutation.view(n * b, g)[order].view(n, b, g)
    for baseline in ("none", "group", "batch"):
        expected = TRACKED[name](rewards, permutation, QA, QB, OMEGA, baseline)[order]
        got = TRACKED[name](rewards[order], moved, QA, QB, OMEGA, baseline)
        torch.testing.assert_close(got, expected)


@given(shapes)
def test_mvar_of_everything_is_leave_one_out_of_the_bundle_scores(shape) -> None:
    """ω = 0 and quantiles at the ends of the range: the mean objective, shared by the bundle."""
    rewards, permutation = draw(*shape)
    got = advantages.riskpo(rewards, permutation, 0.0, float(permutation.shape[1]), 0.0)
    scores = advantages.rloo(bundles.scores(rewards, permutation))
    torch.testing.assert_close(got, bundles.scatter(scores.unsqueeze(1), permutation))


def test_equal_scores_are_not_divided_by_their_zero_spread() -> None:
    rewards = torch.zeros(4, 3, dtype=torch.float64)
    permutation = bundles.in_order(4, 3, 2)
    got = advantages.riskpo(rewards, permutation, 1.0, 2.0, 0.5, baseline="none", scale="batch_std")
    assert got.tolist() == [[-2.5] * 3] * 4


def test_unknown_options_are_named() -> None:
    rewards, permutation = draw(2, 2, 3, 0)
    with pytest.raises(ConfigError, match="baseline = 'mean' is unknown; choose none, batch or group"):
        advantages.riskpo(rewards, permutation, QA, QB, OMEGA, baseline="mean")
    with pytest.raises(ConfigError, match="scale = 'std' is unknown; choose none or batch_std"):
        advantages.riskpo(rewards, permutation, QA, QB, OMEGA, scale="std")
    with pytest.raises(ConfigError, match="credit = 'score' is unknown; choose uniform, std or sum-mean"):
        advantages.riskpo_released(rewards, 2, 0.2, 0.8, credit="score")
    with pytest.raises(ConfigError, match=r"alpha = 0\.8 is not below beta = 0\.2"):
        advantages.riskpo_released(rewards, 2, 0.8, 0.2)
    with pytest.raises(ConfigError, match=r"cannot be compared in groups"):
        advantages.riskpo(torch.zeros(4, 1), bundles.in_order(4, 1, 2), QA, QB, OMEGA)


def integrated_quantile(atoms: dict[float, float], lower: float, upper: float) -> float:
    total = reached = 0.0
    for value, mass in sorted(atoms.items()):
        total += value * max(0.0, min(reached + mass, upper) - max(reached, lower))
        reached += mass
    return total


@pytest.mark.parametrize("baseline", ["none", "group", "batch"])
@pytest.mark.parametrize("name", TRACKED)
def test_expected_update_is_the_gradient_of_the_objective(name: str, baseline: str) -> None:
    """Four questions with a tabular softmax each, two bundle groups, two responses: every outcome enumerated.

    The objective is a function of the *global* distribution of bundle scores, the mixture of both groups; its
    gradient by finite differences equals E[mean over bundles of A ∇ log π] under every baseline.
    """
    alpha, beta = 0.2, 0.8
    rewards_of = double([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.5, 1.0]])  # (question, output), with ties in sums
    theta = double([[0.3, -0.2], [0.9, 0.1], [-0.5, 0.4], [0.2, 0.6]])

    def objective(theta: Tensor) -> float:
        pi = theta.softmax(1)
        atoms: dict[float, float] = {}
        for first, second in ((0, 1), (2, 3)):
            for a, b in product(range(2), repeat=2):
                score = (rewards_of[first, a] + rewards_of[second, b]).item()
                atoms[score] = atoms.get(score, 0.0) + (pi[first, a] * pi[second, b]).item() / 2
        middle = integrated_quantile(atoms, alpha, beta)
        if name == "riskpo":
            return (1 + OMEGA) * integrated_quantile(atoms, 0, alpha) + middle
        return (1 + OMEGA) * integrated_quantile(atoms, beta, 1) + middle

    pi = theta.softmax(1)
    outcomes = list(product(range(2), repeat=8))  # (question, response) → output
    masses = double([math.prod(pi[i // 2, a].item() for i, a in enumerate(o)) for o in outcomes])
    every = bundles.scores(
        torch.cat([rewards_of.gather(1, torch.tensor(o).view(4, 2)) for o in outcomes]),
        bundles.in_order(4 * len(outcomes), 2, 2),
    )
    weights = (masses / 4).repeat_interleave(4)  # four bundles an outcome
    order = every.flatten().argsort()
    reached = weights[order].cumsum(0)
    q_alpha, q_beta = (every.flatten()[order][int((reached < s).sum())].item() for s in (alpha, beta))

    expected = torch.zeros_like(theta)
    permutation = torch.tensor([[[0, 1], [1, 0]], [[0, 1], [0, 1]]])
    for outcome, mass in zip(outcomes, masses, strict=True):
        chosen = torch.tensor(outcome).view(4, 2)
        rewards = rewards_of.gather(1, chosen)
        advantage = TRACKED[name](rewards, permutation, q_alpha, q_beta, OMEGA, baseline)
        score_function = torch.nn.functional.one_hot(chosen, 2) - pi.unsqueeze(1)  # ∇ log π, (Q, G, outputs)
        expected += mass * (advantage.unsqueeze(-1) * score_function).sum(1) / 4  # mean over the 4 bundles

    numeric = torch.zeros_like(theta)
    for index in product(range(4), range(2)):
        step = torch.zeros_like(theta)
        step[index] = 1e-6
        numeric[index] = (objective(theta + step) - objective(theta - step)) / 2e-6
    assert numeric.abs().max() > 0.01
    torch.testing.assert_close(expected, numeric, rtol=0, atol=1e-8)


# --- what the objective does in expectation -------------------------------------------------------


def mvar_of_binomial(size: int, p: float) -> tuple[float, float, float]:
    """MVaR of Binomial(size, p) at (0.2, 0.8) and its two quantiles."""
    pmf = {float(k): math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size + 1)}
    value = (1 + OMEGA) * integrated_quantile(pmf, 0, 0.2) + integrated_quantile(pmf, 0.2, 0.8)
    reached = np.cumsum(list(pmf.values()))
    return value, float(np.argmax(reached >= 0.2)), float(np.argmax(reached >= 0.8))


@pytest.mark.parametrize("accuracies", [(0.05, 0.3, 0.6, 0.95), (0.5, 0.9, 0.9, 0.99), (0.02, 0.1, 0.3, 0.4)])
def test_with_binary_rewards_and_random_bundles_every_question_has_the_same_weight(accuracies) -> None:
    """RiskPO is then risk-neutral: its gradient is φ'(p̄)·∇p̄, the direction of the mean objective."""
    size = 3
    average = mean(accuracies)
    _, q_alpha, q_beta = mvar_of_binomial(size, average)
    covariance = dict.fromkeys(accuracies, 0.0)
    for questions in product(accuracies, repeat=size):  # a bundle of independently drawn questions
        for rewards in product([0.0, 1.0], repeat=size):
            mass = math.prod(p if r else 1 - p for p, r in zip(questions, rewards, strict=True))
            mass /= accuracies.count(questions[0]) * len(accuracies) ** (size - 1)
            permutation = torch.zeros(1, size, 2, dtype=torch.long) + torch.arange(2)
            pair = double(rewards).unsqueeze(1).expand(size, 2)
            advantage = advantages.riskpo(pair, permutation, q_alpha, q_beta, OMEGA, baseline="none")[0, 0]
            covariance[questions[0]] += mass * advantage.item() * (rewards[0] - questions[0])
    slopes = [covariance[p] / (p * (1 - p)) for p in accuracies]
    assert slopes == pytest.approx([slopes[0]] * len(slopes), abs=1e-12)

    step = 1e-6
    derivative = mvar_of_binomial(size, average + step)[0] - mvar_of_binomial(size, average - step)[0]
    assert slopes[0] == pytest.approx(derivative / (2 * step) / size, abs=1e-6)
    assert slopes[0] > 0.1


# --- the released code ----------------------------------------------------------------------------


def released_by_loop(rewards: Tensor, size: int, alpha: float, beta: float, weight: float, **options) -> Tensor:
    """The released function's steps, a bundle at a time; a group without variance gives zero."""
    result = torch.empty_like(rewards)
    eps = 1e-6
    for start in range(0, len(rewards), size):
        rows = rewards[start : start + size].numpy()
        scores = rows.sum(0)
        q_down, q_up = np.quantile(scores, [alpha, beta])  # interpolated
        for j, score in enumerate(scores):
            middle = max(score - q_down, 0) - max(score - q_up, 0)
            if options["natural_baseline"]:
                middle += q_down - q_up
            if options["risk_seeking"]:
                tail = max(score - q_up, 0) / (1 - beta + eps)
            else:
                tail = -max(q_down - score, 0) / (alpha + eps)
            advantage = (weight * tail + middle / (beta - alpha + eps)) / (weight + 1)
            if options["divide_by_std"]:
                spread = scores.std(ddof=1)
                advantage = advantage / (spread + eps) if spread > 0 else 0.0
            surpluses = [row[j] - row.mean() for row in rows]
            total = sum(surpluses)
            for b, row in enumerate(rows):
                share = 1.0
                if options["credit"] == "std":
                    spread = row.std(ddof=1)
                    share = 1 / ((spread if spread > 1e-3 else 1.0) + eps)
                elif options["credit"] == "sum-mean":
                    share = surpluses[b] / total if abs(total) > eps else 1 / size
                result[start + b, j] = advantage * share
    return result


@pytest.mark.parametrize("credit", ["uniform", "std", "sum-mean"])
@pytest.mark.parametrize("natural_baseline", [True, False])
@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("risk_seeking", [True, False])
def test_released_arithmetic_equals_a_loop(credit, natural_baseline, divide_by_std, risk_seeking) -> None:
    options = {
        "credit": credit,
        "natural_baseline": natural_baseline,
        "divide_by_std": divide_by_std,
        "risk_seeking": risk_seeking,
    }
    for seed in range(4):
        rewards = batch(seed, binary=True, questions=6, responses=5)
        rewards[3:] = 1.0 if seed == 0 else rewards[3:]  # a group without any variance
        got = advantages.riskpo_released(rewards, 3, 0.2, 0.9, 1.3, **options)
        torch.testing.assert_close(got, released_by_loop(rewards, 3, 0.2, 0.9, 1.3, **options))


@pytest.mark.parametrize(
    "name",
    [
        "official_uniform_batch_std_norm",
        "official_uniform_batch_no_std_norm",
        "official_sum_mean_dapomath_config_G10",
        "official_uniform_risk_seeking",
        "official_degenerate_all_equal_papers_batch_vs_track_explosion",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_released_advantages(name: str, dtype: torch.dtype) -> None:
    entry = golden(name)
    rewards = torch.tensor(entry["inputs"]["rewards_BxG"], dtype=dtype)
    params = entry["params"]
    got = advantages.riskpo_released(
        rewards,
        len(rewards),
        params["quantile_down"],
        params["quantile_up"],
        params["w_mix"],
        credit=params["credit_assign_mode"],
        natural_baseline=params["natural_baseline_adv"],
        divide_by_std=params["norm_adv_by_std_in_grpo"],
        risk_seeking=not params["use_mixing_risk_measure"],
    )
    assert rewards.sum(0).tolist() == entry["outputs"]["paper_scores"]
    expected = torch.tensor(entry["outputs"]["advantages_BxG"], dtype=dtype)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-12)


ACCURACIES = (0.05, 0.2, 0.5, 0.8, 0.95)
RELEASED_WEIGHTS = {  # docs/paper_vs_released_code.md, for a question of each accuracy
    "hard-math": ((10, 0.8, "sum-mean", False), (1.05, 1.06, 0.96, 1.04, 1.33)),
    "easy-math": ((5, 0.9, "std", True), (0.66, 1.12, 1.66, 2.66, 3.73)),
    "uniform": ((10, 0.8, "uniform", False), (0.67, 0.76, 0.96, 1.40, 1.81)),
}


@pytest.mark.parametrize("setting", RELEASED_WEIGHTS)
def test_released_code_weighs_questions_by_accuracy(setting: str) -> None:
    """w = Cov(A, r) / p(1−p), with the accuracies of the other four questions drawn from the same five."""
    (responses, beta, credit, natural), expected = RELEASED_WEIGHTS[setting]
    groups = 15_000
    for index, p in enumerate(ACCURACIES):
        generator = torch.Generator().manual_seed(index)
        accuracy = double(ACCURACIES)[torch.randint(0, 5, (groups, 5), generator=generator)]
        accuracy[:, 0] = p
        wide = accuracy.unsqueeze(-1).expand(groups, 5, responses)
        rewards = torch.bernoulli(wide, generator=generator)
        flat = rewards.reshape(-1, responses)
        advantage = advantages.riskpo_released(flat, 5, 0.2, beta, 1.5, credit=credit, natural_baseline=natural)
        own = advantage.view(groups, 5, responses)[:, 0]
        covariance = ((own - own.mean()) * (rewards[:, 0] - p)).mean().item()
        assert covariance / (p * (1 - p)) == pytest.approx(expected[index], rel=0.08)


def test_sum_mean_credit_turns_the_sign_of_some_responses() -> None:
    generator = torch.Generator().manual_seed(0)
    accuracy = torch.rand(5000, 1, generator=generator, dtype=torch.float64)
    rewards = torch.bernoulli(accuracy.expand(5000, 10), generator=generator)
    shared = advantages.riskpo_released(rewards, 5, 0.2, 0.8, credit="uniform")
    credited = advantages.riskpo_released(rewards, 5, 0.2, 0.8, credit="sum-mean")
    assert 0.07 < ((shared * credited) < 0).double().mean().item() < 0.21


# Ours: credit by expectation, and the measure of accuracies


def _marginal_by_enumeration(rewards: Tensor, q_alpha: float, q_beta: float, omega: float, size: int) -> Tensor:
    """Mean of the bundle's advantage over every way to complete a response to a bundle."""
    expected = torch.empty_like(rewards)
    for start in range(0, len(rewards), size):
        rows = range(start, start + size)
        for question in rows:
            others = [rewards[row].tolist() for row in rows if row != question]
            for response, reward in enumerate(rewards[question].tolist()):
                scores = torch.tensor([reward + sum(chosen) for chosen in product(*others)]).double()
                expected[question, response] = risk.mvar_advantage(scores, q_alpha, q_beta, omega).mean()
    return expected


@pytest.mark.parametrize(("seed", "largest"), [(0, 1), (1, 1), (2, 2)])
def test_marginal_credit_is_the_expectation_over_all_bundles(seed: int, largest: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, largest + 1, (6, 4), generator=generator).double()
    pairing = bundles.permutations(6, 4, 3, generator)
    found = advantages.riskpo(rewards, pairing, 0.7, 2.2, 0.5, baseline="none", credit="marginal")
    torch.testing.assert_close(found, _marginal_by_enumeration(rewards, 0.7, 2.2, 0.5, 3))
    centred = advantages.riskpo(rewards, pairing, 0.7, 2.2, 0.5, credit="marginal")
    torch.testing.assert_close(centred.sum(1), torch.zeros(6, dtype=torch.float64))


def test_marginal_credit_is_the_mean_of_shared_credit() -> None:
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randint(0, 2, (5, 4), generator=generator).double()
    options = (0.8, 3.2, 0.5, "none")
    shared = [advantages.riskpo(rewards, bundles.permutations(5, 4, 5, generator), *options) for _ in range(4000)]
    drawn = torch.stack(shared)
    expected = advantages.riskpo(rewards, bundles.permutations(5, 4, 5, generator), *options, credit="marginal")
    assert ((drawn.mean(0) - expected).abs() < 5 * drawn.std(0) / len(drawn) ** 0.5 + 1e-12).all()


def test_marginal_credit_needs_whole_rewards() -> None:
    pairing = bundles.in_order(4, 3, 2)
    with pytest.raises(ConfigError, match="credit = 'marginal' needs whole rewards of at least 0"):
        advantages.riskpo(torch.full((4, 3), 0.5), pairing, 0.5, 1.5, 0.5, credit="marginal")
    with pytest.raises(ConfigError, match="credit = 'fair' is unknown; choose shared or marginal"):
        advantages.riskpo(torch.ones(4, 3), pairing, 0.5, 1.5, 0.5, credit="fair")


def _mvar_accuracy_by_rank(rewards: Tensor, alpha: float, beta: float, omega: float) -> Tensor:
    """A loop over responses; the weight of tied ranks by a fine grid of levels."""
    questions, responses = rewards.shape
    result = torch.empty_like(rewards)
    for q in range(questions):
        for g in range(responses):
            others = (rewards[q].sum() - rewards[q, g]) / (responses - 1)
            rivals = [rewards[row].mean() for row in range(questions) if row != q]
            below = sum(bool(rival < others) for rival in rivals)
            equal = sum(bool(rival == others) for rival in rivals)
            levels = (below + (torch.arange(100_000).double() + 0.5) / 100_000 * (equal + 1)) / questions
            weight = torch.where(levels < alpha, 1 + omega, torch.where(levels < beta, 1.0, 0.0)).mean()
            result[q, g] = weight * (rewards[q, g] - others)
    return result


@given(binary=st.integers(0, 2**24 - 1), omega=st.sampled_from([0.0, 0.5, 1.0]))
def test_mvar_of_accuracies_against_a_loop(binary: int, omega: float) -> None:
    rewards = torch.tensor([binary >> bit & 1 for bit in range(24)]).double().view(6, 4)
    found = advantages.mvar_accuracy(rewards, 0.3, 0.75, omega)
    torch.testing.assert_close(found, _mvar_accuracy_by_rank(rewards, 0.3, 0.75, omega), atol=2e-5, rtol=0)


def test_mvar_of_accuracies_with_all_levels_is_the_mean_objective() -> None:
    rewards = torch.randint(0, 2, (7, 5), generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(advantages.mvar_accuracy(rewards, 0.0, 1.0, 2.0), advantages.rloo(rewards))
    logarithmic = advantages.mvar_accuracy(rewards, 0.0, 1.0, 2.0, utility="log")
    torch.testing.assert_close(logarithmic, advantages.max_rl(rewards))


def test_mvar_of_accuracies_favours_the_hard_and_drops_the_mastered() -> None:
    """The weight of a response does not depend on its own reward, and falls with the accuracy of the others."""
    rewards = torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).double()
    weight = advantages.mvar_accuracy(rewards, 0.5, 0.75, 1.0) / advantages.rloo(rewards)
    assert weight[0, 3] == 2 and (weight[0, :3] < 2.01).all() and weight[1, 0] == 2
    assert weight[2, 0] <= 1 and weight[2, 3] == 0.5  # shares the two highest of four ranks


def test_mvar_of_accuracies_names_what_it_cannot_rank() -> None:
    with pytest.raises(ConfigError, match="give rewards of at least 2 questions"):
        advantages.mvar_accuracy(torch.ones(1, 4), 0.2, 0.8, 0.5)
    with pytest.raises(ConfigError, match="utility = 'cubic' is unknown; choose linear or log"):
        advantages.mvar_accuracy(torch.ones(2, 4), 0.2, 0.8, 0.5, utility="cubic")
