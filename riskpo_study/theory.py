"""The theorems of docs/method.md as numbers: small cases worked out exactly, and the same estimated from samples.

Nothing here trains. Notation as in `risk`: quantiles q_α and q_β of the bundle score, Q questions a batch, G responses
a question, B questions a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from riskpo_study import advantages, bundles, explain, risk, tables
from riskpo_study.algorithms import RiskSettings
from riskpo_study.config import Risk

_DTYPE = torch.float64


def as_double(values: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    """Values in the precision of this module."""
    return torch.as_tensor(values, dtype=_DTYPE)


def written(frame: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """A frame as readers see it: numbers with a fraction as text of `digits` decimals, a dash for NaN."""
    return frame.map(lambda value: tables.cell(value, digits=digits) if isinstance(value, float) else value)


def integral(values: Tensor, probabilities: Tensor, lower: float, upper: float) -> Tensor:
    """`∫_lower^upper F⁻¹(u) du` of a distribution given by values and their probabilities, both (K,): a scalar."""
    ordered, order = values.sort()
    above = probabilities[order].cumsum(0)
    below = torch.cat([above.new_zeros(1), above[:-1]])
    return (ordered * (above.clamp(max=upper) - below.clamp(min=lower)).clamp(min=0)).sum()


def mvar(values: Tensor, probabilities: Tensor, settings: RiskSettings) -> Tensor:
    """Mixed Value-at-Risk of such a distribution: a scalar."""
    lower = integral(values, probabilities, 0, settings.alpha)
    return (1 + settings.omega) * lower + integral(values, probabilities, settings.alpha, settings.beta)


# Theorem 1: the gradient, exact and sampled

CASES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "all rewards differ": ((0.3, 1.1, 1.9, 2.4, 3.7, 5.2), (0.31, 0.07, 0.22, 0.11, 0.19, 0.10)),
    "tied rewards": (explain.REWARDS, explain.POLICIES["likeliest answer is the worst"]),
    "rewards of 0 and 1": ((0.0, 0.0, 0.0, 1.0, 1.0), (0.40, 0.15, 0.10, 0.25, 0.10)),
    "F reaches α exactly": ((0.0, 1.0, 2.0, 3.0, 4.0), (0.2, 0.17, 0.31, 0.11, 0.21)),
}
"""Rewards of a policy's answers, and their probabilities. The last has no unique quantile at the level 0.2."""


def gradients(rewards: Sequence[float], probabilities: Sequence[float], settings: RiskSettings) -> pd.DataFrame:
    """Gradients of five objectives in the logits of a tabular softmax, by their advantage and by differences.

    Returns:
        A row an objective and answer: `formula`, `π(y)·(A(y) − E A)`; `numeric`, central differences of the objective.
    """
    r, p = as_double(rewards), as_double(probabilities)
    low, high = (explain.quantile(r, p, level) for level in (settings.alpha, settings.beta))
    objectives: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "mean": (r, lambda law: (law * r).sum()),
        "lower tail, ∫₀^α": (-(low - r).clamp(min=0), lambda law: integral(r, law, 0, settings.alpha)),
        "middle, ∫_α^β": (
            risk.rvar_g(r, low, high), lambda law: integral(r, law, settings.alpha, settings.beta),
        ),
        "upper tail, ∫_β^1": ((r - high).clamp(min=0), lambda law: integral(r, law, settings.beta, 1)),
        "MVaR": (risk.mvar_advantage(r, low, high, settings.omega), lambda law: mvar(r, law, settings)),
    }  # fmt: skip
    rows = []
    for name, (advantage, objective) in objectives.items():
        formula = p * (advantage - (p * advantage).sum())
        numeric = differences(lambda theta, of=objective: of(theta.softmax(0)), p.log())  # type: ignore[misc]
        pairs = zip(formula.tolist(), numeric.tolist(), strict=True)
        rows += [(name, answer, *pair) for answer, pair in enumerate(pairs)]
    return pd.DataFrame(rows, columns=["objective", "answer", "formula", "numeric"])


def gradient_errors(settings: RiskSettings) -> pd.DataFrame:
    """The largest error of each objective's formula over the answers: a row a case of `CASES`."""
    rows = {}
    for case, (rewards, probabilities) in CASES.items():
        checked = gradients(rewards, probabilities, settings)
        distance = (checked["formula"] - checked["numeric"]).abs()
        rows[case] = distance.groupby(checked["objective"], sort=False).max()
    return pd.DataFrame(rows).T


def differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central finite differences of a scalar function of (K,): (K,)."""
    moves = step * torch.eye(len(at), dtype=at.dtype)
    return torch.stack([(function(at + move) - function(at - move)) / (2 * step) for move in moves])


def sampled_gradients(
    rewards: Sequence[float],
    probabilities: Sequence[float],
    settings: RiskSettings,
    sizes: Sequence[int],
    repeats: int,
    generator: torch.Generator,
) -> pd.DataFrame:
    """How far the gradient of MVaR from n sampled answers is from the exact one, in the 2-norm.

    Returns:
        A row a size n and origin of the quantiles, `known` or `of the sample`: `rms`, the root mean square of the
        distance over the repeats; `bias`, the distance of the repeats' mean; `error`, what sampling alone would
        leave of it, rms/√repeats.
    """
    r, p = as_double(rewards), as_double(probabilities)
    low, high = (as_double([explain.quantile(r, p, level)]) for level in (settings.alpha, settings.beta))
    advantage = risk.mvar_advantage(r, low, high, settings.omega)
    exact = p * (advantage - (p * advantage).sum())
    rows = []
    for size in sizes:
        drawn = torch.multinomial(p, repeats * size, replacement=True, generator=generator).view(repeats, size)
        own = [risk.quantile(r[drawn], level).unsqueeze(1) for level in (settings.alpha, settings.beta)]
        for origin, (lower, upper) in {"known": (low, high), "of the sample": (own[0], own[1])}.items():
            weights = risk.mvar_advantage(r[drawn], lower, upper, settings.omega)  # (repeats, n)
            found = torch.zeros(repeats, len(p), dtype=_DTYPE).scatter_add_(1, drawn, weights)
            found = (found - weights.sum(1, keepdim=True) * p) / size  # mean of A·(e_y − π)
            rms = (found - exact).square().sum(1).mean().sqrt().item()
            bias = (found.mean(0) - exact).norm().item()
            rows.append((size, origin, rms, bias, rms / math.sqrt(repeats)))
    return pd.DataFrame(rows, columns=["n", "quantiles", "rms", "bias", "error"])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of a straight line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(np.abs(y)), 1)[0])


# The noise of the estimator


def population_quantiles(
    accuracy: Tensor, settings: RiskSettings, alike: bool = False, share: Tensor | None = None
) -> tuple[float, float]:
    """(q_α, q_β) of bundles of questions drawn at random from accuracies (P,), or of B alike ones.

    Args:
        share: (P,) of the questions that have each accuracy; equal shares by default.
    """
    size = settings.bundle_size
    share = torch.full_like(accuracy, 1 / len(accuracy)) if share is None else share
    law = share @ explain.binomial(size, accuracy) if alike else explain.binomial(size, share @ accuracy)
    scores = torch.arange(size + 1, dtype=_DTYPE)
    return explain.quantile(scores, law, settings.alpha), explain.quantile(scores, law, settings.beta)


def draw(accuracy: Tensor, questions: int, responses: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch from a population of accuracies (P,): which questions, (Q,), with replacement, and rewards (Q, G)."""
    chosen = torch.randint(len(accuracy), (questions,), generator=generator)
    uniform = torch.rand(questions, responses, generator=generator, dtype=_DTYPE)
    return chosen, (uniform < accuracy[chosen, None]).double()


def noise(
    accuracy: Tensor,
    settings: RiskSettings,
    questions: int,
    responses: int,
    batches: int,
    generator: torch.Generator,
) -> pd.DataFrame:
    """Noise of RiskPO's advantages by credit and baseline, with known quantiles, beside RLOO's; in squares.

    All are divided by the weight, so that every estimator has the expected update of the mean objective.

    Returns:
        A row a credit and baseline: `weight`; `along`, the variance of a question's update in the direction of its
        reward, mean_j A_j(r_j − p); `across`, the mean square of A, which is the noise in all other directions, that
        the reward does not depend on; `along_error` and `across_error`, standard errors over the batches.
    """
    quantiles = population_quantiles(accuracy, settings)
    variants = [(credit, baseline) for credit in ("shared", "marginal") for baseline in ("none", "batch", "group")]
    contributions: dict[tuple[str, str], list[Tensor]] = {}
    squares: dict[tuple[str, str], list[float]] = {}
    variances = []
    for _ in range(batches):
        chosen, rewards = draw(accuracy, questions, responses, generator)
        pairing = bundles.permutations(questions, responses, settings.bundle_size, generator)
        p = accuracy[chosen]
        variances.append(p * (1 - p))
        found = {("RLOO", ""): advantages.rloo(rewards)}
        for credit, baseline in variants:
            found[credit, baseline] = advantages.riskpo(
                rewards, pairing, *quantiles, settings.omega, baseline=baseline, credit=credit
            )
        for variant, advantage in found.items():
            contributions.setdefault(variant, []).append((advantage * (rewards - p[:, None])).mean(1))
            squares.setdefault(variant, []).append(advantage.square().mean().item())
    variance = torch.stack(variances)  # (batches, Q)
    rows = []
    for (credit, baseline), each in contributions.items():
        update = torch.stack(each)
        weight = (update.sum() / variance.sum()).item()
        along = (update - weight * variance).square().mean(1).numpy() / weight**2
        across = np.array(squares[credit, baseline]) / weight**2
        errors = [values.std(ddof=1) / math.sqrt(batches) for values in (along, across)]
        rows.append((credit, baseline, weight, along.mean(), errors[0], across.mean(), errors[1]))
    return pd.DataFrame(
        rows, columns=["credit", "baseline", "weight", "along", "along_error", "across", "across_error"]
    )


# The trackers of the quantiles


def course() -> Tensor:
    """(500,) accuracies over training steps: level, a slow rise, level, a fall at once, level."""
    parts = [(0.15, 0.15, 100), (0.15, 0.75, 200), (0.75, 0.75, 100), (0.15, 0.15, 100)]
    return torch.cat([torch.linspace(start, end, steps, dtype=_DTYPE) for start, end, steps in parts])


PHASES = {"level": (50, 100), "slow rise": (100, 300), "level again": (350, 400), "after the fall": (400, 500)}
"""Steps (first, end) of the `course`."""


def trackers(settings: RiskSettings) -> dict[str, risk.QuantileTracker]:
    """Fresh trackers of (q_α, q_β), by what to call them."""
    levels, size = (settings.alpha, settings.beta), settings.bundle_size
    return {
        "Robbins–Monro, γ = 0.1": risk.QuantileTracker(levels, size, step=0.1),
        "Robbins–Monro, γ = 0.1 B": risk.QuantileTracker(levels, size),
        "histogram, decay 0.9": risk.HistogramTracker(levels, size),
        "batch": risk.BatchQuantiles(levels, size),
    }


def track(accuracy: Tensor, settings: RiskSettings, scores: int, generator: torch.Generator) -> pd.DataFrame:
    """What the trackers hold of Binomial(B, accuracy) when a step uses them, before they see its batch.

    Args:
        accuracy: (T,), of each step.
        scores: bundle scores in a batch.

    Returns:
        A row a step, tracker and level: `value`, and `exact`, the quantile of the step's distribution.
    """
    held = trackers(settings)
    support = torch.arange(settings.bundle_size + 1, dtype=_DTYPE)
    laws = explain.binomial(settings.bundle_size, accuracy)  # (T, B + 1)
    rows = []
    for step, law in enumerate(laws):
        batch = torch.multinomial(law, scores, replacement=True, generator=generator).double()
        exact = [explain.quantile(support, law, level) for level in (settings.alpha, settings.beta)]
        for name, tracker in held.items():
            tracker.start(batch)
            assert tracker.values is not None
            triples = zip(tracker.levels, tracker.values, exact, strict=True)
            rows += [(step, name, *triple) for triple in triples]
            tracker.update(batch)
    return pd.DataFrame(rows, columns=["step", "tracker", "level", "value", "exact"])


def tracking_errors(paths: pd.DataFrame) -> pd.DataFrame:
    """Mean distance of the tracked from the exact quantiles along the `course`: a row a tracker, a column a phase."""
    distance = paths.assign(error=(paths["value"] - paths["exact"]).abs())
    columns = {
        phase: distance[(distance["step"] >= first) & (distance["step"] < end)]
        .groupby("tracker", sort=False)["error"]
        .mean()
        for phase, (first, end) in PHASES.items()
    }
    return pd.DataFrame(columns).rename_axis("tracker").reset_index()


# Entropy: Proposition 1 and Theorem 2


def entropy_residuals(
    rewards: Sequence[float], probabilities: Sequence[float], settings: Risk, rates: Sequence[float]
) -> pd.DataFrame:
    """What Proposition 1 leaves of the change of entropy, at several step sizes of θ ← θ + rate·A.

    Returns:
        A row a rate and objective: `change` of the entropy, `first` order −rate·Cov(log π, A), `residual`.
    """
    rows = []
    for rate in rates:
        _, changes = explain.one_update(rewards, probabilities, settings, rate)
        rows += [
            (rate, objective, row["entropy"], row["first order"], row["entropy"] - row["first order"])
            for objective, row in changes.iterrows()
        ]
    return pd.DataFrame(rows, columns=["rate", "objective", "change", "first", "residual"])


TEN_ANSWERS = tuple(float(reward) for reward in range(10))
"""Rewards of ten answers, for `THREE_POLICIES`."""

THREE_POLICIES = {
    "both ends likely": (0.13, 0.10, 0.07, 0.06, 0.05, 0.06, 0.08, 0.12, 0.15, 0.18),
    "confident means right": (0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.14, 0.17, 0.21),
    "success is rare": (0.21, 0.17, 0.14, 0.12, 0.10, 0.08, 0.06, 0.05, 0.04, 0.03),
}
"""Policies over these answers: the inequality of Theorem 2 holds for the first only, at the paper's levels."""


def theorem_2(settings: Risk, rate: float = 0.01) -> pd.DataFrame:
    """The two sides of Cov(log π, A_MVaR) − Cov(log π, A_mean) = −(ωL + U) for `THREE_POLICIES`.

    Returns:
        A row a policy: `lower` is ωL, `upper` U, `sum` both; `difference` of the covariances; `holds`, whether the sum
        is at least 0; `kept`, by how much more entropy than the mean's a step of MVaR of size `rate` leaves, over it.
    """
    rows = []
    for name, probabilities in THREE_POLICIES.items():
        r, p = as_double(TEN_ANSWERS), as_double(probabilities)
        low, high = (explain.quantile(r, p, level) for level in (settings.alpha, settings.beta))
        lower = settings.omega * explain.covariance(p, p.log(), (low - r).clamp(min=0))
        upper = explain.covariance(p, p.log(), (r - high).clamp(min=0))
        averse = explain.covariance(p, p.log(), risk.mvar_advantage(r, low, high, settings.omega))
        difference = averse - explain.covariance(p, p.log(), r)
        _, changes = explain.one_update(TEN_ANSWERS, probabilities, settings, rate)
        after_mean, after_mvar = changes["entropy"]
        kept = (after_mvar - after_mean) / rate
        rows.append((name, lower, upper, lower + upper, difference, lower + upper >= 0, kept))
    return pd.DataFrame(rows, columns=["policy", "lower", "upper", "sum", "difference", "holds", "kept"])
