"""What becomes of tracked quantiles where rollouts are old, of mixed age, or split over shards: simulations.

A trainer on many machines learns from responses of an earlier policy: a *age* of `a` steps means that the policy has been
updated `a` times since it drew them. Scores of bundles are Binomial(B, p), p the accuracy of the policy that drew them; the
quantiles are compared with those of the policy that is updated. Nothing here trains a language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from riskpo_study import advantages, bundles, explain, risk, surrogates, theory
from riskpo_study.algorithms import RiskSettings
from riskpo_study.question_weights import bundle_weights
from riskpo_study.theory import as_double, population_quantiles

TRACKERS = ("Robbins–Monro, γ = 0.1 B", "histogram, decay 0.9", "batch")
"""Of `theory.trackers`."""

Ages = Callable[[int, int, int, torch.Generator], Tensor]
"""(largest age, step, scores, generator) -> age of each score of the batch, (scores,)."""


def _lagged(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.full((scores,), most)


def _mixed(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.randint(most + 1, (scores,), generator=generator)


def _periodic(most: int, step: int, scores: int, generator: torch.Generator) -> Tensor:
    return torch.full((scores,), step % (most + 1))


SCHEDULES: dict[str, Ages] = {"all of the largest age": _lagged, "of any age": _mixed, "weights sent now and then": _periodic}
"""How old the responses of a batch are: a pipeline of fixed depth, a buffer, and a sampler that gets the weights every
so many steps and then is as new as the policy."""


def course(drift: float, low: float = 0.15, high: float = 0.75, turns: int = 2) -> Tensor:
    """(T,) accuracies that rise from `low` to `high` by `drift` a step and fall back, so many times."""
    steps = max(2, round((high - low) / drift))
    rise = torch.linspace(low, high, steps + 1, dtype=torch.float64)[:-1]
    fall = torch.linspace(high, low, steps + 1, dtype=torch.float64)[:-1]
    return torch.cat([rise, fall]).repeat(turns)


def follow(
    accuracy: Tensor,
    settings: RiskSettings,
    scores: int,
    most: int,
    generator: torch.Generator,
    schedule: str = "all of the largest age",
    names: Sequence[str] = TRACKERS,
) -> pd.DataFrame:
    """What trackers that learn from old scores hold when a step uses them.

    Args:
        accuracy: (T,), of the policy at each step; before the first it was that of the first.
        scores: bundle scores in a batch.
        most: the largest age of a response, in steps.
        schedule: of `SCHEDULES`.
        names: of `TRACKERS`.

    Returns:
        A row a step, tracker and level: `value`, and `exact`, the quantile of the policy of that step.
    """
    held = {name: tracker for name, tracker in theory.trackers(settings).items() if name in names}
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


def summary(paths: pd.DataFrame, accuracy: Tensor, settings: RiskSettings, skip: int) -> pd.DataFrame:
    """A row a tracker of `follow`'s paths, without the first `skip` steps.

    Returns:
        `error`, the mean distance from the exact quantiles, in scores; `length`, the mean of |w/w* − 1|, where w is the
        weight that the held quantiles give to every question, so the length of the expected step, and w* that of the
        exact ones; `lost`, the share of steps whose expected length is 0 though w* is not.
    """
    later = paths[paths["step"] >= skip]
    rows = []
    for name, part in later.groupby("tracker", sort=False):
        error = (part["value"] - part["exact"]).abs().mean()
        wide = part.pivot(index="step", columns="level")
        held, exact = (as_double(wide[column].to_numpy(copy=True)) for column in ("value", "exact"))
        ratio = step_lengths(accuracy[skip:], held, settings) / step_lengths(accuracy[skip:], exact, settings)
        ratio = ratio[ratio.isfinite()]
        rows.append((name, error, (ratio - 1).abs().mean().item(), (ratio < 1e-9).double().mean().item()))
    return pd.DataFrame(rows, columns=["tracker", "error", "length", "lost"])


def exact_quantiles(accuracy: Tensor, settings: RiskSettings) -> Tensor:
    """(T, 2): (q_α, q_β) of Binomial(B, accuracy) for accuracies (T,)."""
    reached = explain.binomial(settings.bundle_size, accuracy).cumsum(1).unsqueeze(2)  # (T, B + 1, 1)
    return (reached < as_double([settings.alpha, settings.beta]) - 1e-12).sum(1).double()


def step_lengths(accuracy: Tensor, quantiles: Tensor, settings: RiskSettings) -> Tensor:
    """(T,) weights that (q_α, q_β) (T, 2) give to every question of bundles drawn at random: φ′/B with the exact ones.

    Args:
        accuracy: (T,), of the policy.
    """
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    table = risk.mvar_advantage(scores, quantiles[:, :1], quantiles[:, 1:], settings.omega)  # (T, B + 1)
    return (explain.binomial(settings.bundle_size - 1, accuracy) * table.diff(dim=1)).sum(1)


# Shards


def sharded(
    accuracy: Tensor, settings: RiskSettings, scores: int, shards: Sequence[int], generator: torch.Generator
) -> pd.DataFrame:
    """Errors of trackers that see a part of every batch each, by the number of parts.

    Args:
        accuracy: (T,), of the policy at each step.
        scores: bundle scores in a whole batch.
        shards: numbers of parts.

    Returns:
        A row a number of `shards` and tracker, as `summary`, means over the parts.
    """
    found = []
    for count in shards:
        parts = [
            summary(follow(accuracy, settings, scores // count, 0, generator), accuracy, settings, 20)
            for _ in range(min(count, 4))  # parts are alike: four stand for all
        ]
        mean = pd.concat(parts).groupby("tracker", sort=False).mean().reset_index()
        found.append(mean.assign(shards=count))
    return pd.concat(found, ignore_index=True)


def unlike_shards(mean: float, spreads: Sequence[float] | Tensor, settings: RiskSettings) -> pd.DataFrame:
    """Weights of the questions of two shards of accuracies `mean` − and + a spread, exact.

    Returns:
        A row a `design` and `spread`: `hard` and `easy`, the weights of the questions of either shard.
    """
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    rows = []
    for spread in as_double(spreads):
        p = torch.stack([mean - spread, mean + spread])
        both = explain.binomial(settings.bundle_size, p).mean(0)
        pooled = as_double([explain.quantile(scores, both, level) for level in (settings.alpha, settings.beta)])
        middle = as_double([mean]).expand(2)
        designs = {
            "bundles across shards, global quantiles": (middle, exact_quantiles(middle, settings)),
            "bundles within a shard, global quantiles": (p, pooled.expand(2, 2)),
            "bundles within a shard, its own quantiles": (p, exact_quantiles(p, settings)),
        }
        rows += [(name, spread.item(), *step_lengths(*given, settings).tolist()) for name, given in designs.items()]
    return pd.DataFrame(rows, columns=["design", "spread", "hard", "easy"])


# Learning


def learn(
    accuracy: Tensor,
    settings: RiskSettings,
    algorithm: str,
    most: int,
    steps: int,
    rate: float,
    generator: torch.Generator,
    questions: int = 40,
    responses: int = 8,
) -> list[float]:
    """Mean accuracy before each of `steps` updates of a policy that learns from responses `most` updates old.

    The policy answers question i with probability σ(bᵢ + xᵢ·u); it learns u, so that questions help each other. The
    ratio is to the policy that drew the response, clipped at 1 ± 0.2.

    Args:
        accuracy: (P,) in (0, 1), of each question at the start.
        algorithm: `tracked`, RiskPO with the default tracker; `exact`, with the quantiles of the policy that is updated;
            `mean`, Dr. GRPO.
        rate: of plain gradient ascent.
    """
    offset = torch.logit(accuracy)
    features = torch.cat([torch.ones(len(offset), 1), torch.randn(len(offset), 7, generator=generator)], 1).double() / 8**0.5
    skill = nn.Parameter(torch.zeros(8, dtype=torch.float64))
    surrogate = surrogates.sequence_clip()
    tracker = risk.QuantileTracker((settings.alpha, settings.beta), settings.bundle_size)
    past: list[Tensor] = []
    means = []
    for step in range(steps):
        past.append(skill.detach().clone())
        means.append(torch.sigmoid(offset + features @ past[-1]).mean().item())
        chosen = torch.randint(len(offset), (questions,), generator=generator)
        drawn_by = past[max(0, step - most)]
        at_draw = (offset + features @ drawn_by)[chosen, None]
        rewards = (torch.rand(questions, responses, generator=generator) < torch.sigmoid(at_draw)).double()
        if algorithm == "mean":
            advantage = advantages.dr_grpo(rewards)
        else:
            pairing = bundles.permutations(questions, responses, settings.bundle_size, generator)
            scores = bundles.scores(rewards, pairing)
            tracker.start(scores)
            exact = exact_quantiles(as_double([means[-1]]), settings)[0].tolist()
            quantiles = tracker.values if algorithm == "tracked" else exact
            assert quantiles is not None
            advantage = advantages.riskpo(rewards, pairing, *quantiles, settings.omega)
            tracker.update(scores)
        logits = (offset + features @ skill)[chosen, None].expand_as(rewards)
        sign = 2 * rewards - 1
        log_probs, old = (nn.functional.logsigmoid(sign * of) for of in (logits, at_draw))
        mask = torch.ones(rewards.numel(), 1)
        objective = surrogate(log_probs.reshape(-1, 1), old.reshape(-1, 1), advantage.flatten(), mask).value.mean()
        (gradient,) = torch.autograd.grad(objective, skill)
        skill.data += rate * gradient
    return means
