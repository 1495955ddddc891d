"""The numbers and the figure of the quickstart: what RiskPO optimises, on examples small enough to enumerate.

Notation as in `risk`: quantiles q_α and q_β, bundle size B, bundle score R in 0..B for rewards of 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from riskpo_study import advantages, bundles, risk, seeds
from riskpo_study.config import Risk
from riskpo_study.plot_parts import COLOURS, WIDTH

REWARDS = (0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0)
"""Of eight answers."""

POLICIES = {
    "likeliest answer is the worst": (0.19, *[0.81 / 7] * 7),
    "likeliest answer is the best": (*[0.6 / 7] * 7, 0.4),
}
"""Two policies over these answers: their probabilities."""

PARTS = 10
"""Of the questions, from hard to easy; the weight of each is measured."""

_BUNDLES, _RESPONSES, _ROUNDS = 100, 64, 16  # behind the measured weights


def accuracies(mean: float, questions: int) -> Tensor:
    """Accuracies (Q,) of questions, ascending: `u^(1/mean − 1)` at evenly spaced levels u in (0, 1)."""
    level = (torch.arange(questions, dtype=torch.float64) + 0.5) / questions
    return level ** (1 / mean - 1)


def binomial(trials: int, probability: Tensor | float) -> Tensor:
    """Probabilities of 0..trials successes: (...) -> (..., trials + 1)."""
    p = torch.as_tensor(probability, dtype=torch.float64).unsqueeze(-1)
    successes = torch.arange(trials + 1, dtype=torch.float64)
    ways = torch.tensor([math.comb(trials, k) for k in range(trials + 1)], dtype=torch.float64)
    return ways * p**successes * (1 - p) ** (trials - successes)


def quantile(values: Tensor, probabilities: Tensor, level: float) -> float:
    """`F⁻¹(level)` of a distribution given by values and their probabilities, both (K,)."""
    ordered, order = values.sort()
    reached = probabilities[order].cumsum(0) >= level - 1e-12
    return float(ordered[int(reached.int().argmax())])


def covariance(probabilities: Tensor, x: Tensor, y: Tensor) -> float:
    """Covariance under a distribution over K outcomes: all (K,)."""
    centred = x - (probabilities * x).sum()
    return (probabilities * centred * y).sum().item()


def entropy(probabilities: Tensor) -> float:
    """In nats."""
    return -torch.xlogy(probabilities, probabilities).sum().item()


# One update


def one_update(
    rewards: Sequence[float], probabilities: Sequence[float], settings: Risk, rate: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One exact natural-gradient step `θ ← θ + rate·A` of a tabular softmax, for the mean and for MVaR.

    Returns:
        The answers: their reward, and their probability before and after either update. And one row an
        objective: the changes of the mean reward and of the entropy (nats); what the first order predicts for
        the latter, `−rate·Cov(log π, A)`; and `ω·L + U`, by how much this covariance is smaller than the mean
        objective's (docs/method.md, §7).
    """
    r, p = torch.tensor(rewards, dtype=torch.float64), torch.tensor(probabilities, dtype=torch.float64)
    q_alpha, q_beta = (quantile(r, p, level) for level in (settings.alpha, settings.beta))
    objectives = {"mean": r, "MVaR": risk.mvar_advantage(r, q_alpha, q_beta, settings.omega)}
    after = {name: (p.log() + rate * advantage).softmax(0) for name, advantage in objectives.items()}
    answers = pd.DataFrame({"reward": rewards, "before": p} | after)
    rows = {
        name: {
            "mean reward": ((after[name] - p) * r).sum().item(),
            "entropy": entropy(after[name]) - entropy(p),
            "first order": -rate * covariance(p, p.log(), advantage),
            "ωL + U": covariance(p, p.log(), r) - covariance(p, p.log(), advantage),
        }
        for name, advantage in objectives.items()
    }
    return answers, pd.DataFrame(rows).T


# What bundles do to the weight of a question


def marginal_weights(others: Tensor, q_alpha: float, q_beta: float, omega: float) -> Tensor:
    """The weight of a question: what a right response has more of expected advantage than a wrong one.

    `w = Σ_s P(S = s)·[A(s+1) − A(s)]`, S the score of the other questions of the bundle: P (..., B) -> (...).
    """
    scores = torch.arange(others.shape[-1] + 1, dtype=torch.float64)
    return others @ risk.mvar_advantage(scores, q_alpha, q_beta, omega).diff()


def parts(accuracy: Tensor) -> Tensor:
    """Each question's part, (Q,) in 0..PARTS−1. Parts have equal reward variance: equally easy to measure."""
    share = (accuracy * (1 - accuracy)).cumsum(0)
    return (share / share[-1] * PARTS).ceil().long() - 1


def sampled_weights(
    accuracy: Tensor, quantiles: tuple[float, float], settings: Risk, generator: torch.Generator, alike: bool
) -> Tensor:
    """The same, measured: the slope of `advantages.riskpo` in the reward, on sampled rewards.

    Args:
        accuracy: (Q,) ascending; Q a multiple of the bundle size.
        alike: bundle neighbours in accuracy, instead of questions drawn at random.

    Returns:
        (PARTS,), a slope for each of the `parts`.
    """
    moments = torch.zeros(2, len(accuracy), dtype=torch.float64)
    for _ in range(_ROUNDS):
        order = torch.arange(len(accuracy)) if alike else torch.randperm(len(accuracy), generator=generator)
        uniform = torch.rand(len(accuracy), _RESPONSES, generator=generator, dtype=torch.float64)
        rewards = (uniform < accuracy[order, None]).double()
        pairing = bundles.permutations(len(rewards), _RESPONSES, settings.bundle_size, generator)
        advantage = advantages.riskpo(rewards, pairing, *quantiles, settings.omega, baseline="none")
        centred = rewards - rewards.mean(1, keepdim=True)
        moments[:, order] += torch.stack([centred * advantage, centred.square()]).sum(2)
    sums = torch.zeros(2, PARTS, dtype=torch.float64).index_add(1, parts(accuracy), moments)
    return sums[0] / sums[1]


def landscape(settings: Risk, accuracy: Tensor) -> pd.DataFrame:
    """Advantages of bundle scores against mean accuracy: a row for each accuracy (P,) and score 0..B.

    Bundles are drawn at random: scores are Binomial(B, accuracy), and `q_alpha` and `q_beta` are that law's. `MVaR` and
    `mean` are the two objectives' advantages, less their expectation; `region` is where the score lies: lower,
    middle or upper.
    """
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    frames = []
    for p, law in zip(accuracy.tolist(), binomial(settings.bundle_size, accuracy), strict=True):
        low, high = (quantile(scores, law, level) for level in (settings.alpha, settings.beta))
        mvar = risk.mvar_advantage(scores, low, high, settings.omega)
        region = np.select([(scores < low).numpy(), (scores > high).numpy()], ["lower", "upper"], "middle")
        columns = {"score": scores, "probability": law, "MVaR": mvar - law @ mvar, "mean": scores - law @ scores}
        frame = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
        frames.append(frame.assign(accuracy=p, q_alpha=low, q_beta=high, region=region))
    return pd.concat(frames, ignore_index=True)


# The figure

_COLOURS = {"mean": COLOURS["grpo"], "MVaR": COLOURS["riskpo"]}
_BUNDLING = {"at random": COLOURS["riskpo"], "alike": COLOURS["risk_seeking"]}


def figure(settings: Risk, accuracy: float, rate: float = 0.02) -> Figure:
    """Four panels: bundle scores with their quantiles, the advantage, one update, the weight of a question.

    Args:
        accuracy: mean accuracy of the questions, above 0 and below 1.
        rate: step size of the update.
    """
    size = settings.bundle_size
    questions = accuracies(accuracy, _BUNDLES * size)
    laws = {
        "at random": binomial(size, accuracy),
        "alike": binomial(size, questions).mean(0),
    }  # of the bundle score
    others = {"at random": binomial(size - 1, accuracy), "alike": binomial(size - 1, questions)}
    scores = torch.arange(size + 1, dtype=torch.float64)
    quantiles = {
        name: (quantile(scores, law, settings.alpha), quantile(scores, law, settings.beta))
        for name, law in laws.items()
    }
    drawing, ((one, two), (three, four)) = plt.subplots(2, 2, figsize=(WIDTH, 5.0))
    _scores(one, laws, quantiles)
    _advantage(two, laws["at random"], quantiles["at random"], settings.omega)
    _update(three, settings, rate)
    _weights(four, questions, others, quantiles, settings)
    drawing.suptitle(
        f"MVaR with α = {settings.alpha:g}, β = {settings.beta:g}, ω = {settings.omega:g}; "
        f"bundles of B = {size} questions of mean accuracy {accuracy:g}",
        x=0.01,
        ha="left",
        fontsize=6.5,
        color="#555555",
    )
    return drawing


def _scores(axis: Axes, laws: Mapping[str, Tensor], quantiles: Mapping[str, tuple[float, float]]) -> None:
    for offset, (name, law) in zip((-0.2, 0.2), laws.items(), strict=True):
        low, high = quantiles[name]
        label = f"bundled {name}: $q_α$ = {low:g}, $q_β$ = {high:g}"
        axis.bar(np.arange(len(law)) + offset, law.numpy(), width=0.4, color=_BUNDLING[name], label=label)
    top = 1.3 * max(law.max().item() for law in laws.values())
    axis.set(title="Bundle scores", xlabel="right answers in a bundle, R", ylabel="probability", ylim=(0, top))
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper right")


def _advantage(axis: Axes, law: Tensor, quantiles: tuple[float, float], omega: float) -> None:
    scores = torch.arange(len(law), dtype=torch.float64)
    fine = torch.linspace(0, len(law) - 1, 501, dtype=torch.float64)

    def mvar(reward: Tensor) -> Tensor:
        return risk.mvar_advantage(reward, *quantiles, omega)

    baseline = (law * mvar(scores)).sum()
    axis.axhline(0, color="#9a9a9a", lw=0.8)
    axis.plot(fine, fine - (law * scores).sum(), color=_COLOURS["mean"], label="mean, less its mean")
    axis.plot(fine, mvar(fine) - baseline, color=_COLOURS["MVaR"], label="MVaR, less its mean")
    axis.plot(fine, mvar(fine), color=_COLOURS["MVaR"], linestyle="dotted", label="MVaR as in the paper")
    axis.plot(scores, mvar(scores) - baseline, "o", color=_COLOURS["MVaR"], markersize=3)
    for value, name in zip(quantiles, ("$q_α$", "$q_β$"), strict=True):
        axis.axvline(value, color="#9a9a9a", lw=0.8, linestyle="dashed")
        axis.annotate(
            name, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -8), textcoords="offset points"
        )
    axis.set(title="Advantage A(R), bundled at random", xlabel="bundle score R")
    axis.legend(loc="lower right")


def _update(axis: Axes, settings: Risk, rate: float) -> None:
    name = "likeliest answer is the worst"
    answers, changes = one_update(REWARDS, POLICIES[name], settings, rate)
    for offset, objective in zip((-0.2, 0.2), _COLOURS, strict=True):
        label = f"{objective}: entropy {changes['entropy'][objective]:+.4f} nats"
        moved = answers[objective] - answers["before"]
        axis.bar(answers.index + offset, moved, width=0.4, color=_COLOURS[objective], label=label)
    axis.axhline(0, color="#9a9a9a", lw=0.8)
    axis.set_xticks(answers.index, [f"{reward:g}" for reward in answers["reward"]])
    axis.set(title=f"One update; the {name}", xlabel="answers, by their reward", ylabel="change of the probability")
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.15)
    axis.legend(loc="upper left")


def _weights(
    axis: Axes,
    accuracy: Tensor,
    others: Mapping[str, Tensor],
    quantiles: Mapping[str, tuple[float, float]],
    settings: Risk,
) -> None:
    variance = accuracy * (1 - accuracy)
    sums = torch.zeros(2, PARTS, dtype=torch.float64)
    centres, total = sums.index_add(1, parts(accuracy), torch.stack([variance * accuracy, variance]))
    for name, colour in _BUNDLING.items():
        weight = marginal_weights(others[name], *quantiles[name], settings.omega).expand(len(accuracy))
        axis.plot(accuracy, weight, color=colour, label=f"RiskPO, bundled {name}")
        draws = seeds.generator(0, "explain", name)
        measured = sampled_weights(accuracy, quantiles[name], settings, draws, alike=name == "alike")
        axis.plot(centres / total, measured, "o", color=colour, markersize=3)
    axis.axhline(1, color=_COLOURS["mean"], label="mean (Dr. GRPO)")
    halved = 0.5 * variance.rsqrt()  # 1 at accuracy ½: under Adam only the shape matters
    axis.plot(accuracy, halved, color=_COLOURS["mean"], linestyle="dashed", label="GRPO, halved")
    axis.set(title="Weight of a question (dots: measured)", xlabel="its accuracy", xlim=(0, 1), ylim=(0, 3))
    axis.legend(loc="upper center")
