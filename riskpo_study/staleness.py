"""What becomes of tracked quantiles where rollouts are old, of mixed age, or split over shards: simulations.

A trainer on many machines learns from responses of an earlier policy: the *age* of a response is the number of steps
since the policy had the weights that drew it. Scores of bundles are Binomial(B, p), with p the accuracy of the policy
that drew them; quantiles are compared with those of the policy that is updated. No language model is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from riskpo_study import advantages, bundles, explain, risk, seeds, surrogates, tables, theory
from riskpo_study.algorithms import RiskSettings
from riskpo_study.scale_findings import TRACKING
from riskpo_study.theory import as_double

TRACKERS = ("Robbins–Monro, γ = 0.1 B", "histogram, decay 0.9", "batch")
"""Of `theory.trackers`: the default, its alternative, and no memory at all."""

QUARTER = 0.25
"""Of a score: the additional error of a quantile that counts as tolerable."""

_SETTLED = 20  # steps after which a tracker has forgotten how it started


def rule(drift: pd.Series, settings: RiskSettings) -> pd.Series:
    """After how many steps the mean score has moved by `QUARTER`, where the accuracy changes by `drift` a step."""
    return QUARTER / (settings.bundle_size * drift)


def measured(metrics: pd.DataFrame, window: int, settings: RiskSettings) -> pd.DataFrame:
    """How fast the accuracy of real runs changes: the steepest slope between the means of neighbouring windows.

    Args:
        metrics: the records, with algorithm, seed, step and `reward/mean`.
        window: steps; at most half of a run's.

    Returns:
        A row an algorithm: `drift`, in accuracy a step, the mean over its seeds, and the `rule` for it.
    """
    rows = []
    for (algorithm, _), run in metrics.groupby(["algorithm", "seed"], sort=False):
        reward = run.sort_values("step")["reward/mean"]
        width = max(1, min(window, len(reward) // 2))
        means = reward.rolling(width).mean()
        rows.append((algorithm, (means.diff(width) / width).abs().max()))
    found = pd.DataFrame(rows, columns=["algorithm", "drift"]).groupby("algorithm", sort=False).mean().reset_index()
    return found.assign(rule=rule(found["drift"], settings))


# Old scores

Ages = Callable[[int, int, int, torch.Generator], Tensor]
"""(largest age, step, scores, generator) -> age of each score of the batch, (scores,)."""


def _oldest(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.full((scores,), most)


def _mixed(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.randint(most + 1, (scores,), generator=generator)


def _periodic(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.full((scores,), step % (most + 1))


SCHEDULES: dict[str, Ages] = {"all that old": _oldest, "all ages up to it": _mixed, "renewed at that age": _periodic}
"""How old responses are: a pipeline of fixed depth, a buffer, a sampler that gets the weights every so many steps."""


def course(drift: float, low: float = 0.15, high: float = 0.75) -> Tensor:
    """(T,) accuracies that rise from `low` to `high` by `drift` a step and fall back."""
    steps = max(2, round((high - low) / drift))
    rise = torch.linspace(low, high, steps + 1, dtype=torch.float64)
    return torch.cat([rise, rise.flip(0)[1:-1]])


def follow(
    accuracy: Tensor,
    settings: RiskSettings,
    scores: int,
    most: int,
    schedule: str,
    generator: torch.Generator,
    names: Sequence[str] = TRACKERS,
) -> pd.DataFrame:
    """What trackers that learn from old scores hold when a step uses them.

    Args:
        accuracy: (T,), of the policy at each step; before the first it was that of the first.
        scores: bundle scores in a batch.
        most: the largest age, in steps.
        schedule: of `SCHEDULES`.
        names: of `TRACKERS`.

    Returns:
        A row a step, tracker and level: `value`, and `exact`, the quantile of the policy of that step.
    """
    held = {name: theory.trackers(settings)[name] for name in names}
    exact = exact_quantiles(accuracy, settings).tolist()
    size = torch.full((scores,), settings.bundle_size, dtype=torch.float64)
    rows = []
    for step in range(len(accuracy)):
        drawn_at = (step - SCHEDULES[schedule](most, step, scores, generator)).clamp(min=0)
        batch = torch.binomial(size, accuracy[drawn_at], generator)
        for name, tracker in held.items():
            tracker.start(batch)
            assert tracker.values is not None
            triples = zip(tracker.levels, tracker.values, exact[step], strict=True)
            rows += [(step, name, *triple) for triple in triples]
            tracker.update(batch)
    return pd.DataFrame(rows, columns=["step", "tracker", "level", "value", "exact"])


def errors(paths: pd.DataFrame, accuracy: Tensor, settings: RiskSettings) -> pd.DataFrame:
    """How wrong the quantiles of `follow` are, and what that does to the update: a row a tracker.

    Returns:
        `error`, the mean distance from the exact quantiles, in scores; `length`, the mean of |w/w* − 1|, with w the
        weight that the held quantiles give to every question, which is the length of the expected step, and w* that of
        the exact ones.
    """
    later = paths[paths["step"] >= _SETTLED]
    rows = []
    for name, part in later.groupby("tracker", sort=False):
        wide = part.pivot(index="step", columns="level")
        held, exact = (
            step_lengths(accuracy[_SETTLED:], as_double(wide[column].to_numpy(copy=True)), settings)
            for column in ("value", "exact")
        )
        rows.append((name, (part["value"] - part["exact"]).abs().mean(), (held / exact - 1).abs().mean().item()))
    return pd.DataFrame(rows, columns=["tracker", "error", "length"])


def exact_quantiles(accuracy: Tensor, settings: RiskSettings) -> Tensor:
    """(q_α, q_β) of Binomial(B, accuracy): accuracies (T,) -> (T, 2)."""
    reached = explain.binomial(settings.bundle_size, accuracy).cumsum(1).unsqueeze(2)  # (T, B + 1, 1)
    return (reached < as_double([settings.alpha, settings.beta]) - 1e-12).sum(1).double()


def step_lengths(accuracy: Tensor, quantiles: Tensor, settings: RiskSettings) -> Tensor:
    """The weight that quantiles (T, 2) give to every question of a bundle of accuracies (T,): (T,)."""
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    table = risk.mvar_advantage(scores, quantiles[:, :1], quantiles[:, 1:], settings.omega)  # (T, B + 1)
    return (explain.binomial(settings.bundle_size - 1, accuracy) * table.diff(dim=1)).sum(1)


def intervals(found: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Means over repeats with Student's 95 % intervals.

    Args:
        found: a row a repeat, at least three for each `by`.

    Returns:
        A row for each `by`, in their order: each column, and beside it those with `_low` and `_high`.
    """
    groups = found.groupby(list(by), sort=False)[list(columns)]
    mean, margin = groups.mean(), groups.sem() * (groups.count() - 1).map(student)
    parts = {"": mean, "_low": mean - margin, "_high": mean + margin}
    wide = pd.concat([part.add_suffix(end) for end, part in parts.items()], axis=1)
    return wide[[f"{column}{end}" for column in columns for end in parts]].reset_index()


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to 1 % from 3 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )  # fmt: skip
    return float(z + sum(term / max(degrees, 1) ** power for power, term in enumerate(terms, 1)))


def cells(table: pd.DataFrame, column: str, digits: int = 2) -> list[str]:
    """A column of `intervals` as readers see it."""
    parts = (table[f"{column}{end}"] for end in ("", "_low", "_high"))
    return [tables.cell(value, low, high, digits) for value, low, high in zip(*parts, strict=True)]


def stale_errors(
    drifts: Sequence[float],
    ages: Sequence[int],
    settings: RiskSettings,
    scores: int,
    schedule: str,
    seed: int,
    repeats: int,
    names: Sequence[str] = TRACKERS,
) -> pd.DataFrame:
    """`errors` along the `course` of each drift with scores of each age: a row a `drift`, `age`, tracker, `repeat`."""
    found = []
    for speed in drifts:
        accuracy = course(speed)
        for age in ages:
            for repeat in range(repeats):
                generator = seeds.generator(seed, "scale", schedule, round(1e9 * speed), age, repeat)
                paths = follow(accuracy, settings, scores, age, schedule, generator, names)
                of: dict[str, Any] = {"drift": speed, "age": age, "schedule": schedule, "repeat": repeat}
                found.append(errors(paths, accuracy, settings).assign(**of))
    return pd.concat(found, ignore_index=True)


def tolerated(found: pd.DataFrame, settings: RiskSettings) -> pd.DataFrame:
    """The largest age at which a quantile's error is by no more than `QUARTER` above that with fresh scores.

    Args:
        found: from `stale_errors`, with age 0 among the ages, which ascend.

    Returns:
        A row a `tracker` and `drift`: `steps`, interpolated between ages, infinite where the largest age is tolerated,
        its mean over repeats with the interval (see `intervals`), and the `rule`; `fresh` and `fresh_length`, the error
        and the length's with fresh scores; `length`, the whole error of the length at the mean of `steps`.
    """
    rows = []
    for (tracker, speed, _), part in found.groupby(["tracker", "drift", "repeat"], sort=False):
        more = part["error"] - part["error"].iloc[0]
        steps = math.inf
        for (young, old), (before, after) in zip(pairwise(part["age"]), pairwise(more), strict=True):
            if after > QUARTER:
                steps = young + (QUARTER - before) / (after - before) * (old - young)
                break
        length = np.interp(steps, part["age"], part["length"]) if steps < math.inf else math.nan
        rows.append((tracker, speed, steps, part["error"].iloc[0], part["length"].iloc[0], length))
    columns = ["steps", "fresh", "fresh_length", "length"]
    each = pd.DataFrame(rows, columns=["tracker", "drift", *columns])
    table = intervals(each, ["tracker", "drift"], columns)
    return table.assign(rule=rule(table["drift"], settings))


# Shards


def shard_errors(
    accuracy: Tensor, settings: RiskSettings, scores: int, shards: Sequence[int], seed: int, repeats: int
) -> pd.DataFrame:
    """`errors` of trackers that see one of so many parts of a batch: a row a number of `shards`, tracker, `repeat`."""
    found = []
    for count in shards:
        for repeat in range(repeats):
            generator = seeds.generator(seed, "scale", "shards", count, repeat)
            paths = follow(accuracy, settings, max(1, scores // count), 0, "all that old", generator)
            found.append(errors(paths, accuracy, settings).assign(shards=count, repeat=repeat))
    return pd.concat(found, ignore_index=True)


def unlike_shards(mean: float, spreads: Tensor, settings: RiskSettings) -> pd.DataFrame:
    """Weights of the questions on two shards of accuracies `mean` ∓ a spread, exact.

    Returns:
        A row a `design` and `spread`: `hard` and `easy`, the weights of the questions of either shard.
    """
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    middle = as_double([mean, mean])
    rows = []
    for spread in spreads.double():
        apart = torch.stack([mean - spread, mean + spread])
        law = explain.binomial(settings.bundle_size, apart).mean(0)
        pooled = as_double([explain.quantile(scores, law, level) for level in (settings.alpha, settings.beta)])
        designs = {
            "bundles across shards": (middle, exact_quantiles(middle, settings)),
            "bundles of one shard, global quantiles": (apart, pooled.expand(2, 2)),
            "bundles and quantiles of one shard": (apart, exact_quantiles(apart, settings)),
        }
        rows += [(name, spread.item(), *step_lengths(*given, settings).tolist()) for name, given in designs.items()]
    return pd.DataFrame(rows, columns=["design", "spread", "hard", "easy"])


# Learning

ALGORITHMS = ("RiskPO", "RiskPO with known quantiles", "Dr. GRPO")
"""What `learn` compares."""


QUESTIONS, RESPONSES = 40, 8
"""Of a step of the small policy."""


def learn(
    accuracy: Tensor,
    settings: RiskSettings,
    algorithm: str,
    age: int,
    steps: int,
    rate: float,
    repeats: int,
    generator: torch.Generator,
) -> Tensor:
    """(repeats, steps) mean accuracy before each step of small policies that learn from responses of one age.

    One answers question i rightly with probability σ(bᵢ + xᵢ·u) and learns u, so that questions help each other: plain
    gradient ascent on 40 questions × 8 responses a step. A response is one token: its ratio to the policy that drew it,
    clipped at 1 ± 0.2, is not evened out by a length. All algorithms and ages draw the same numbers.

    Args:
        accuracy: (P,), of each question at the start, which decides bᵢ; xᵢ is drawn.
        algorithm: of `ALGORITHMS`; with known quantiles these are exact for the policy that is updated.
    """
    bundles.check_bundle_size(QUESTIONS, settings.bundle_size)
    difficulty = torch.logit(accuracy.double().clamp(0.02, 0.98))
    features = torch.randn(repeats, len(difficulty), 8, generator=generator, dtype=torch.float64) / 8**0.5
    features[:, :, 0] = 8**-0.5  # what all questions have in common
    skill = nn.Parameter(torch.zeros(repeats, 8, 1, dtype=torch.float64))
    levels = (settings.alpha, settings.beta)
    trackers = [risk.QuantileTracker(levels, settings.bundle_size) for _ in range(repeats)]
    surrogate, mask = surrogates.sequence_clip(), torch.ones(repeats * QUESTIONS * RESPONSES, 1, dtype=torch.float64)
    each = torch.arange(repeats).unsqueeze(1)
    past, means = [], []
    for step in range(steps):
        past.append(skill.detach().clone())
        means.append(torch.sigmoid(difficulty + (features @ past[-1]).squeeze(2)).mean(1))
        asked = torch.randint(len(difficulty), (repeats, QUESTIONS), generator=generator)
        uniform = torch.rand(repeats, QUESTIONS, RESPONSES, generator=generator, dtype=torch.float64)
        pairing = bundles.permutations(repeats * QUESTIONS, RESPONSES, settings.bundle_size, generator)
        hard, known = difficulty[asked].unsqueeze(2), features[each, asked]  # (repeats, 40, 1 and 8)
        at_draw = hard + known @ past[max(0, step - age)]
        rewards = (uniform < torch.sigmoid(at_draw)).double()
        flat = rewards.flatten(0, 1)
        if algorithm == "Dr. GRPO":
            advantage = advantages.dr_grpo(flat)
        else:
            quantiles = exact_quantiles(means[-1], settings)
            if algorithm == "RiskPO":
                quantiles = _tracked(trackers, bundles.scores(flat, pairing))
            advantage = riskpo(flat, pairing, quantiles, settings)
        logits = hard + known @ skill
        log_probs, old = (nn.functional.logsigmoid((2 * rewards - 1) * of).view(-1, 1) for of in (logits, at_draw))
        objective = surrogate(log_probs, old, advantage.flatten(), mask).value.sum() / (QUESTIONS * RESPONSES)
        (gradient,) = torch.autograd.grad(objective, skill)
        with torch.no_grad():
            skill.add_(gradient, alpha=rate)
    return torch.stack(means, 1)


def _tracked(trackers: Sequence[risk.QuantileTracker], scores: Tensor) -> Tensor:
    """(repeats, 2) what each repeat's tracker holds before it sees its part of the scores (repeats · N, G)."""
    found = []
    for tracker, part in zip(trackers, scores.chunk(len(trackers)), strict=True):
        tracker.start(part)
        assert tracker.values is not None
        found.append(tracker.values)
        tracker.update(part)
    return torch.tensor(found, dtype=torch.float64)


def riskpo(rewards: Tensor, pairing: Tensor, quantiles: Tensor, settings: RiskSettings) -> Tensor:
    """`advantages.riskpo` of many repeats at once: rewards (repeats · Q, G), quantiles (repeats, 2)."""
    scores = bundles.scores(rewards, pairing)
    low, high = quantiles.repeat_interleave(len(scores) // len(quantiles), 0).unsqueeze(2).unbind(1)
    advantage = advantages.rloo(risk.mvar_advantage(scores, low, high, settings.omega))
    return bundles.scatter(advantage.unsqueeze(1), pairing)


def learning(
    accuracy: Tensor,
    settings: RiskSettings,
    ages: Sequence[int],
    rates: Sequence[float],
    steps: int,
    repeats: int,
    seed: int,
) -> pd.DataFrame:
    """`learn` for each algorithm, rate and age.

    Returns:
        A row each and a `repeat`: `accuracy`, its mean over all steps; `drift`, its mean change in a step at age 0,
        which must be among the ages.
    """
    found = []
    for algorithm in ALGORITHMS:
        for rate in rates:
            runs = {}
            for age in ages:
                generator = seeds.generator(seed, "scale", "learn")
                runs[age] = learn(accuracy, settings, algorithm, age, steps, rate, repeats, generator)
            speed = (runs[0][:, -1] - runs[0][:, 0]) / steps
            of = {"algorithm": algorithm, "rate": rate, "repeat": range(repeats), "drift": speed.numpy()}
            found += [pd.DataFrame(of | {"age": age, "accuracy": run.mean(1).numpy()}) for age, run in runs.items()]
    return pd.concat(found, ignore_index=True)


def speeds(learned: pd.DataFrame) -> dict[Any, float]:
    """Rate -> the accuracy that RiskPO gains a step with fresh responses, of `learning`."""
    fresh = learned[(learned["algorithm"] == ALGORITHMS[0]) & (learned["age"] == 0)]
    return fresh.groupby("rate")["drift"].mean().to_dict()


def lost(learned: pd.DataFrame) -> pd.DataFrame:
    """Accuracy that is lost with the age of the responses, paired by repeat, of each algorithm; and `TRACKING`.

    Args:
        learned: from `learning`.

    Returns:
        A row an `algorithm` (or `TRACKING`), rate and age above 0: `lost`, with its interval (see `intervals`).
    """
    wide = learned.pivot(index=["algorithm", "rate", "repeat"], columns="age", values="accuracy")
    less = -wide.sub(wide[0], axis=0).drop(columns=0)
    long = less.melt(ignore_index=False, value_name="lost").reset_index()
    each = long.pivot(index=["rate", "age", "repeat"], columns="algorithm", values="lost")[list(ALGORITHMS)]
    each[TRACKING] = each[ALGORITHMS[0]] - each[ALGORITHMS[1]]
    tidy = each.melt(ignore_index=False, var_name="algorithm", value_name="lost").reset_index()
    return intervals(tidy, ["algorithm", "rate", "age"], ["lost"])
