"""Risk measures, their gradients, and quantile tracking."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from riskpo_study import risk
from riskpo_study.errors import ConfigError

samples = st.lists(st.integers(-6, 6).map(lambda i: i / 2), min_size=1, max_size=25)  # many ties
levels = st.fractions(0, 1, max_denominator=40)
ordered_levels = st.tuples(levels, levels).filter(lambda pair: pair[0] < pair[1])


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- risk measures --------------------------------------------------------------------------------


def quantile_by_counting(sample: list[float], level: Fraction) -> float:
    """min{r : F(r) >= level}, in exact arithmetic."""
    return next(r for r in sorted(sample) if sum(x <= r for x in sample) >= level * len(sample))


@given(samples, levels)
def test_quantile_is_the_smallest_value_whose_distribution_function_reaches_the_level(sample, level) -> None:
    assert risk.quantile(double(sample), float(level)).item() == quantile_by_counting(sample, level)


@given(samples, st.floats(0.001, 1))
def test_quantile_equals_numpys_inverted_cdf(sample, level) -> None:
    product = level * len(sample)
    assume(abs(product - round(product)) > 1e-6)  # at a step numpy's answer depends on rounding
    expected = np.quantile(sample, level, method="inverted_cdf")
    assert risk.quantile(double(sample), level).item() == expected


@given(samples, ordered_levels)
def test_rvar_equals_numeric_integration(sample, pair) -> None:
    lower, upper = map(float, pair)
    grid = lower + (np.arange(4000) + 0.5) / 4000 * (upper - lower)
    ranks = np.clip(np.ceil(grid * len(sample)), 1, len(sample)).astype(int)
    expected = np.sort(sample)[ranks - 1].mean()
    error = len(sample) * 12 / 4000 * 2  # every jump of F⁻¹ may fall inside one cell of the grid
    assert risk.rvar(double(sample), lower, upper).item() == pytest.approx(expected, abs=error)


@given(samples)
def test_rvar_of_everything_is_the_mean(sample) -> None:
    mean = pytest.approx(np.mean(sample), abs=1e-12)
    assert risk.rvar(double(sample), 0, 1).item() == mean
    assert risk.cvar(double(sample), 1).item() == mean
    assert risk.mvar(double(sample), 0, 1, 0.0).item() == mean


@given(samples, ordered_levels, st.floats(0, 4), st.floats(0.1, 10), st.floats(-10, 10))
def test_positive_homogeneity_and_translation(sample, pair, omega, scale, shift) -> None:
    lower, upper = map(float, pair)
    x = double(sample)
    moved = scale * x + shift
    close = {"rel": 1e-9, "abs": 1e-9}
    for measure, mass in (
        (lambda s: risk.quantile(s, upper), 1.0),
        (lambda s: risk.rvar(s, lower, upper), 1.0),
        (lambda s: risk.cvar(s, upper), 1.0),
        (lambda s: risk.mvar(s, lower, upper, omega), (1 + omega) * lower + upper - lower),
    ):
        expected = scale * measure(x).item() + shift * mass
        assert measure(moved).item() == pytest.approx(expected, **close)


@given(samples, ordered_levels)
def test_rvar_lies_between_its_quantiles_and_cvar_below_the_mean(sample, pair) -> None:
    lower, upper = map(float, pair)
    x = double(sample)
    value = risk.rvar(x, lower, upper).item()
    assert risk.quantile(x, lower).item() - 1e-9 <= value <= risk.quantile(x, upper).item() + 1e-9
    assert risk.cvar(x, upper).item() <= x.mean().item() + 1e-9


@given(samples, st.lists(levels, min_size=3, max_size=3).map(sorted))
def test_integrals_of_adjacent_ranges_add_up(sample, cuts) -> None:
    low, middle, high = map(float, cuts)
    x = double(sample)
    parts = risk.integrated_quantile(x, low, middle) + risk.integrated_quantile(x, middle, high)
    assert risk.integrated_quantile(x, low, high).item() == pytest.approx(parts.item(), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measures_work_on_the_last_dimension_and_keep_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for measure in (
        lambda s: risk.quantile(s, 0.3),
        lambda s: risk.rvar(s, 0.3, 0.7),
        lambda s: risk.cvar(s, 0.3),
        lambda s: risk.mvar(s, 0.3, 0.7, 0.5),
    ):
        value = measure(x)
        assert value.shape == (2, 3)
        assert value.dtype == dtype
        torch.testing.assert_close(value, torch.stack([torch.stack([measure(r) for r in m]) for m in x]))


def test_measures_of_sequences_and_whole_numbers() -> None:
    assert risk.rvar([1, 2, 3, 4], 0, 0.5).item() == 1.5
    assert risk.quantile(torch.tensor([True, False, True]), 0.5).item() == 1.0


def test_golden_measures() -> None:
    entry = golden("empirical_risk_and_quantiles")
    x = double(entry["inputs"]["empirical_rvar_cvar_mvar_integral_definition"]["sample"])
    expected = entry["outputs"]["empirical_rvar_cvar_mvar_integral_definition"]
    for key in ("0:0.2", "0.2:0.8", "0:0.25", "0.25:0.8", "0.25:0.77", "0.8:1", "0:1"):
        lower, upper = map(float, key.split(":"))
        integral = risk.integrated_quantile(x, lower, upper).item()
        assert integral == pytest.approx(expected[key]["integral"], rel=1e-12)
        assert risk.rvar(x, lower, upper).item() == pytest.approx(expected[key]["rvar"], rel=1e-12)
    for unnormalised, mixture, alpha, beta in (
        ("mvar_unnorm_0.2_0.8", "mvar_mixture_w1.5_0.2_0.8", 0.2, 0.8),
        ("mvar_unnorm_0.25_0.77", "mvar_mixture_w1.5_0.25_0.77", 0.25, 0.77),
    ):
        assert risk.mvar(x, alpha, beta, 0.5).item() == pytest.approx(expected[unnormalised], rel=1e-12)
        # The released code's mixture of weight w is MVaR with ω = w(β−α)/α − 1, up to a constant factor.
        w = 1.5
        omega = w * (beta - alpha) / alpha - 1
        mixed = risk.mvar(x, alpha, beta, omega).item() / ((beta - alpha) * (1 + w))
        assert mixed == pytest.approx(expected[mixture], rel=1e-12)

    tied = double(entry["inputs"]["quantile_estimators_on_ties"]["sample"])
    expected = entry["outputs"]["quantile_estimators_on_ties"]["inverted_cdf"]
    levels_ = entry["params"]["quantile_estimators_on_ties"]["levels"]
    assert [risk.quantile(tied, level).item() for level in levels_] == expected


def test_bad_levels_and_samples_are_named() -> None:
    x = double([0.0, 1.0])
    with pytest.raises(ConfigError, match=r"level = 1\.2 is not a probability; choose a value in \[0, 1\]"):
        risk.quantile(x, 1.2)
    with pytest.raises(ConfigError, match=r"level = nan is not a probability"):
        risk.quantile(x, math.nan)
    with pytest.raises(ConfigError, match=r"beta = -0\.1 is not a probability"):
        risk.mvar(x, 0.2, -0.1, 0.5)
    with pytest.raises(ConfigError, match=r"alpha = 0\.8 is not below beta = 0\.8"):
        risk.rvar(x, 0.8, 0.8)
    with pytest.raises(ConfigError, match=r"alpha = 0\.8 is not below beta = 0\.2"):
        risk.mvar(x, 0.8, 0.2, 0.5)
    with pytest.raises(ConfigError, match=r"shape \(3, 0\) hold no sample"):
        risk.quantile(torch.empty(3, 0), 0.5)


# --- advantages and gradients ---------------------------------------------------------------------


def test_golden_g_and_mvar_advantage() -> None:
    entry = golden("g_function")
    a, b = entry["inputs"]["a"], entry["inputs"]["b"]
    g = risk.rvar_g(double(entry["inputs"]["z"]), a, b)
    assert g.tolist() == entry["outputs"]["g"] == entry["outputs"]["minus_b_minus_z_pos_plus_a_minus_z_pos"]

    entry = golden("mvar_bundle_advantage")
    scores, expected = double(entry["inputs"]["R_B"]), entry["outputs"]
    close = {"rel": 1e-12, "abs": 1e-12}
    for key, arguments in {
        "qa1_qb4": (1, 4, 0.5),
        "qa1.37_qb3.6": (1.37, 3.6, 0.5),
        "qa2_qb4_omega0": (2, 4, 0.0),
        "qa0_qb0": (0, 0, 0.5),
    }.items():
        assert risk.mvar_advantage(scores, *arguments).tolist() == pytest.approx(expected[key], **close)
    # The released mixture of weight w: ω = w(β−α)/α − 1 for the lower tail, w(β−α)/(1−β) − 1 for the upper.
    w, alpha, beta = 1.5, 0.2, 0.8
    factor = 1 / ((beta - alpha) * (1 + w))
    lower = factor * risk.mvar_advantage(scores, 1, 4, w * (beta - alpha) / alpha - 1)
    key = "qa1_qb4_mixture_norm_w1.5_alpha0.2_beta0.8"
    assert lower.tolist() == pytest.approx(expected[key], **close)
    upper = factor * risk.risk_seeking_advantage(scores, 1, 4, w * (beta - alpha) / (1 - beta) - 1)
    key = "qa1_qb4_risk_seeking_official_upper1.5_alpha0.2_beta0.8"
    assert upper.tolist() == pytest.approx(expected[key], **close)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 4))
def test_mvar_advantage_never_falls_with_the_score_and_is_never_positive(q_alpha, q_beta, omega) -> None:
    """Also when tracked quantiles have crossed, q_α > q_β, which sampling noise can do."""
    advantage = risk.mvar_advantage(torch.linspace(-6, 6, 241, dtype=torch.float64), q_alpha, q_beta, omega)
    assert (advantage.diff() >= -1e-9).all()
    assert (advantage <= 1e-9).all()


@given(samples, st.floats(0, 4))
def test_mvar_advantage_of_everything_is_the_score_up_to_a_constant(sample, omega) -> None:
    scores = double(sample)
    advantage = risk.mvar_advantage(scores, scores.min(), scores.max(), omega)
    torch.testing.assert_close(advantage, scores - scores.max())


def integral_of_quantile(rewards: Tensor, probabilities: Tensor, lower: float, upper: float) -> float:
    """∫_lower^upper F⁻¹ of a discrete distribution, atom by atom."""
    total, reached = 0.0, 0.0
    for reward, mass in sorted(zip(rewards.tolist(), probabilities.tolist(), strict=True)):
        total += reward * max(0.0, min(reached + mass, upper) - max(reached, lower))
        reached += mass
    return total


def quantile_of(rewards: Tensor, probabilities: Tensor, level: float) -> float:
    order = rewards.argsort()
    reached = probabilities[order].cumsum(0)
    return rewards[order][int((reached < level).sum())].item()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["mvar", "rvar", "risk_seeking", "mean"])
def test_gradient_of_a_tabular_softmax_equals_finite_differences(name: str, seed: int) -> None:
    """∇J = E[A ∇ log π], exactly, also where several outputs share a reward; a constant does not matter."""
    alpha, beta, omega = 0.2, 0.8, 0.5
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(8, dtype=torch.float64, generator=generator)
    rewards = torch.randint(0, 4, (8,), generator=generator).double()  # eight outputs, at most four rewards

    def objective(theta: Tensor) -> float:
        pi = theta.softmax(0)
        middle = integral_of_quantile(rewards, pi, alpha, beta)
        return {
            "mvar": (1 + omega) * integral_of_quantile(rewards, pi, 0, alpha) + middle,
            "rvar": middle / (beta - alpha),
            "risk_seeking": (1 + omega) * integral_of_quantile(rewards, pi, beta, 1) + middle,
            "mean": integral_of_quantile(rewards, pi, 0, 1),
        }[name]

    pi = theta.softmax(0)
    q_alpha, q_beta = (quantile_of(rewards, pi, level) for level in (alpha, beta))
    advantage = {
        "mvar": lambda: risk.mvar_advantage(rewards, q_alpha, q_beta, omega),
        "rvar": lambda: risk.rvar_g(rewards, q_alpha, q_beta) / (beta - alpha),
        "risk_seeking": lambda: risk.risk_seeking_advantage(rewards, q_alpha, q_beta, omega),
        "mean": lambda: risk.mvar_advantage(rewards, rewards.min(), rewards.max(), 0.0),
    }[name]()
    step = 1e-6 * torch.eye(8, dtype=torch.float64)
    numeric = double([(objective(theta + e) - objective(theta - e)) / 2e-6 for e in step])
    for constant in (0.0, 7.0):
        exact = pi * (advantage + constant) - pi * (pi @ (advantage + constant))  # Σ_y π(y) A(y) (e_y − π)
        torch.testing.assert_close(exact, numeric, rtol=0, atol=1e-8)


# --- entropy (Proposition 1 and Theorem 2 of the paper) -------------------------------------------


def covariance(pi: Tensor, x: Tensor, y: Tensor) -> float:
    return (pi @ (x * y) - (pi @ x) * (pi @ y)).item()


def entropy(log_pi: Tensor) -> float:
    return -(log_pi.exp() @ log_pi).item()


def test_golden_proposition_1() -> None:
    """ΔH = −η·Cov(log π, A) + O(η²) for the natural-gradient step θ ← θ + ηA of a tabular softmax."""
    entry = golden("entropy_prop1_and_theorem2")
    inputs = entry["inputs"]["prop1_entropy_change_tabular_softmax"]
    expected = entry["outputs"]["prop1_entropy_change_tabular_softmax"]
    pi, rewards = double(inputs["pi"]), double(inputs["reward"])
    population = rewards.repeat_interleave((20 * pi).round().long())
    q_alpha, q_beta = risk.quantile(population, 0.2), risk.quantile(population, 0.8)
    assert [q_alpha.item(), q_beta.item()] == [expected["Q_alpha"], expected["Q_beta"]]
    assert entropy(pi.log()) == pytest.approx(expected["H0"])

    mvar = risk.mvar_advantage(rewards, q_alpha, q_beta, 0.5)
    assert mvar.tolist() == expected["A_mvar"]
    for advantage, cov_key, keys in (
        (rewards, "cov_logpi_mean", ("dH_mean_eta0.1", "dH_mean_eta0.01", "dH_mean_eta0.001")),
        (mvar, "cov_logpi_mvar", ("dH_mvar_eta0.1", "dH_mvar_eta0.01", "dH_mvar_eta0.001")),
    ):
        slope = covariance(pi, pi.log(), advantage)
        assert slope == pytest.approx(expected[cov_key])
        for key, eta in zip(keys, (0.1, 0.01, 0.001), strict=True):
            change = entropy((pi.log() + eta * advantage).log_softmax(0)) - entropy(pi.log())
            assert change == pytest.approx(expected[key], rel=1e-9)
            assert abs(change + eta * slope) < 2 * eta**2


@pytest.mark.parametrize("case", ["holds_two_sided_tails", "fails_increasing_logpi", "fails_rare_success"])
def test_golden_theorem_2(case: str) -> None:
    """Cov(log π, A_MVaR) − Cov(log π, A_mean) = −(ωL + U): an identity, whose sign the paper assumes."""
    entry = golden("entropy_prop1_and_theorem2")
    inputs = entry["inputs"]["theorem2_entropy_covariance_examples"]
    expected = entry["outputs"]["theorem2_entropy_covariance_examples"][case]
    pi, rewards = double(inputs["pi"][case]), double(inputs["reward"])
    population = rewards.repeat_interleave((100 * pi).round().long())
    q_alpha, q_beta = risk.quantile(population, 0.2), risk.quantile(population, 0.8)
    got = {
        "Q_alpha": q_alpha.item(),
        "Q_beta": q_beta.item(),
        "cov_mvar": covariance(pi, pi.log(), risk.mvar_advantage(rewards, q_alpha, q_beta, 0.5)),
        "cov_mean": covariance(pi, pi.log(), rewards),
        "L": covariance(pi, pi.log(), (q_alpha - rewards).clamp(min=0)),
        "U": covariance(pi, pi.log(), (rewards - q_beta).clamp(min=0)),
    }
    got["omega_L_plus_U"] = 0.5 * got["L"] + got["U"]
    assert got["cov_mvar"] - got["cov_mean"] == pytest.approx(-got["omega_L_plus_U"], abs=1e-12)
    assert (got["omega_L_plus_U"] >= 0) is expected["holds"]
    assert {**got, "holds": expected["holds"]} == pytest.approx(expected, abs=1e-9)


# --- tracking -------------------------------------------------------------------------------------


def trajectory(batches: list[list[float]], level: float, largest: float, step: float, start: float) -> list[float]:
    tracker = risk.QuantileTracker([level], largest, step, [start])
    values = [start]
    for batch in batches:
        tracker.update(double(batch))
        values += tracker.values
    return values


def test_golden_tracker_trajectories() -> None:
    entry = golden("quantile_tracker_trajectories")
    batches, expected = entry["inputs"]["batches"], entry["outputs"]
    for key, arguments in {
        "s0.2_gamma0.1_q0=0.01": (0.2, 100, 0.1, 0.01),
        "s0.8_gamma0.1_q0=0.01": (0.8, 100, 0.1, 0.01),
        "s0.2_gamma0.5_q0=1.03": (0.2, 100, 0.5, 1.03),
        "s0.8_gamma0.5_q0=3.07": (0.8, 100, 0.5, 3.07),
        "s0.2_gamma1_q0=0.01_clamp0_5": (0.2, 5, 1.0, 0.01),
    }.items():
        assert trajectory(batches, *arguments) == pytest.approx(expected[key], abs=1e-12)
    key = "warmstart_linear_quantile_of_batch1_s0.2_then_gamma0.1_on_batches_2_to_6"
    assert trajectory(batches[1:], 0.2, 5, 0.1, expected[key][0]) == pytest.approx(expected[key], abs=1e-12)

    one = entry["inputs"]["single_step_batch"]
    strict, nonstrict = "single_step_q=3_gamma0.5_s0.8_strict", "single_step_q=3_gamma0.5_s0.8_nonstrict"
    assert trajectory([one], 0.8, 5, 0.5, 3.0)[-1] == pytest.approx(expected[strict])
    assert expected[nonstrict] != expected[strict]  # 1{R < q} and 1{R ≤ q} differ where scores are discrete


def binomial_population(p: float, size: int = 2000, trials: int = 5) -> Tensor:
    """Scores whose histogram is that of Binomial(trials, p), up to 1/size."""
    pmf = double([math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(trials + 1)])
    midpoints = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return torch.searchsorted(pmf.cumsum(0), midpoints).clamp(max=trials).double()


@given(st.floats(0.02, 0.98), st.sampled_from([0.2, 0.5, 0.8]))
def test_fixed_point_of_the_tracker_is_the_right_atom(p, level) -> None:
    scores = binomial_population(p)
    reached = double([(scores <= k).double().mean().item() for k in range(6)])
    assume(((reached - level).abs() > 0.05).all())  # else two atoms are almost equally right
    tracker = risk.QuantileTracker([level], 5, 0.1, [0.01])
    for _ in range(1200):
        tracker.update(scores)
    assert abs(tracker.values[0] - risk.quantile(scores, level).item()) <= 0.1


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.floats(0, 1),
    st.floats(0.01, 8),
    st.floats(0, 5),
)
def test_speed_and_range_of_the_tracker(batch, level, step, start) -> None:
    tracker = risk.QuantileTracker([level], 5, step, [start])
    tracker.update(double(batch))
    assert -step * (1 - level) - 1e-12 <= tracker.values[0] - start <= step * level + 1e-12
    assert 0 <= tracker.values[0] <= 5


def test_first_batch_starts_the_tracker_and_the_default_step_is_a_tenth_of_the_range() -> None:
    tracker = risk.QuantileTracker([0.2, 0.8], 5)
    batch = double([[0, 1, 2], [3, 3, 5]])
    tracker.start(batch)
    assert tracker.values == (1.0, 3.0)
    tracker.start(double([4, 4]))  # only the first batch starts it
    assert tracker.values == (1.0, 3.0)
    tracker.update(batch)
    assert tracker.values == pytest.approx((1 + 0.5 * (0.2 - 1 / 6), 3 + 0.5 * (0.8 - 3 / 6)))


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6), st.floats(0, 0.99))
def test_histogram_tracker_equals_a_loop(batches, decay) -> None:
    tracker = risk.HistogramTracker([0.2, 0.8], 5, decay)
    average = [0.0] * 6
    for index, batch in enumerate(batches):
        weight = 1.0 if index == 0 else 1 - decay
        average = [(1 - weight) * old + weight * batch.count(k) / len(batch) for k, old in enumerate(average)]
        tracker.update(double(batch))
        expected = []
        for level in (0.2, 0.8):
            reached = 0.0
            for k, share in enumerate(average):
                reached += share
                if reached >= level - 1e-9:
                    expected.append(float(k))
                    break
        assert tracker.values == tuple(expected)


def test_histogram_tracker_follows_a_jump_faster() -> None:
    """From Binomial(5, .2) to Binomial(5, .8): no step size to wait for."""
    before, after = binomial_population(0.2), binomial_population(0.8)
    waits = []
    for tracker in (risk.QuantileTracker([0.2], 5), risk.HistogramTracker([0.2], 5, decay=0.8)):
        for _ in range(20):
            tracker.update(before)
        target = risk.quantile(after, 0.2).item()
        wait = 0
        while abs(tracker.values[0] - target) > 0.5:
            tracker.update(after)
            wait += 1
        waits.append(wait)
    assert waits[1] < waits[0] / 2


def test_batch_quantiles_forget() -> None:
    tracker = risk.BatchQuantiles([0.5], 5)
    for batch in ([0.0, 1.0, 5.0], [4.0, 4.5, 5.0]):
        tracker.start(double(batch))
        assert tracker.values == (batch[1],)
        tracker.update(double(batch))
        assert tracker.values == (batch[1],)


@pytest.mark.parametrize("kind", risk.TRACKERS)
def test_a_restored_tracker_goes_on_where_it_stopped(kind: str, tmp_path) -> None:
    batches = torch.randint(0, 6, (20, 16), generator=torch.Generator().manual_seed(0)).double()
    original = risk.TRACKERS[kind]([0.2, 0.8], 5)
    for batch in batches[:10]:
        original.update(batch)
    torch.save(original.state_dict(), tmp_path / "state.pt")
    restored = risk.TRACKERS[kind]([0.2, 0.8], 5)
    restored.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert restored.values == original.values
    for batch in batches[10:]:
        original.update(batch)
        restored.update(batch)
        assert restored.values == original.values


def test_bad_use_of_trackers_is_named() -> None:
    with pytest.raises(ConfigError, match=r"level = 1\.5 is not a probability"):
        risk.QuantileTracker([1.5], 5)
    tracker = risk.QuantileTracker([0.2, 0.8], 5)
    other = risk.QuantileTracker([0.1, 0.8], 5).state_dict()
    with pytest.raises(ConfigError, match=r"levels \(0\.1, 0\.8\) cannot go on as one of \(0\.2, 0\.8\)"):
        tracker.load_state_dict(other)
    for scores in ([0.5, 1.0], [-1.0, 2.0], [6.0]):
        with pytest.raises(ConfigError, match=r"whole scores in 0\.\.5; use tracker: robbins_monro"):
            risk.HistogramTracker([0.2], 5).update(double(scores))


def test_tracked_quantiles_never_cross() -> None:
    """Separate steps make them cross where q_β falls by step·(1−β) onto a q_α that rose (seen at p = .05)."""
    tracker = risk.QuantileTracker((0.2, 0.8), 5, initial=(0.95, 1.0))
    tracker.update(torch.tensor([0.98] * 8))
    assert tracker.values is not None and tracker.values[0] <= tracker.values[1]
    with pytest.raises(ConfigError, match="must ascend"):
        risk.QuantileTracker((0.8, 0.2), 5)
