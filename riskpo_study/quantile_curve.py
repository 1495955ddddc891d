"""How likely a policy holds good and bad responses: log-probability against the reward's quantile level.

The paper's Fig. 3 and Assumption 1 (arXiv 2510.00911) look at this curve; here bundle scores are the reward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from riskpo_study import bundles, risk, seeds
from riskpo_study.errors import DataError

__all__ = ["WINDOW", "quantile_curve"]

WINDOW = 0.05
"""Half the width of the range of levels behind one point."""

Floats = NDArray[np.float64]


def quantile_curve(
    samples: pd.DataFrame,
    bundle_size: int,
    levels: Sequence[float],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Mean log-probability of bundles around each quantile level of their scores.

    The questions, in random order, form groups of `bundle_size`; a group's responses form bundles as in
    training (`bundles.permutations`), and questions that do not fill a last group are left out. The point at
    level u averages over the levels in [u − WINDOW, u + WINDOW] and [0, 1]. Bundles of equal score share
    their levels evenly: what breaking the ties at random gives on average.

    Args:
        samples: of one policy, one row a response with the columns question_id, sample, reward, log_prob
            (nats) and length (tokens); equally many of each question.
        levels: quantile levels in [0, 1].
        resamples, confidence: of the percentile bootstrap over groups of questions, which are independent.
        seed: of the order, the bundles and the bootstrap.

    Returns:
        One row a level: level; reward (the bundle score at this quantile); log_prob (mean over a bundle's
        responses) and token_log_prob (mean over their tokens) in nats, each with its interval as `_low` and
        `_high`; questions and bundles (how many the curve rests on).

    Raises:
        DataError: for unequal numbers of samples, or fewer questions than a bundle takes.
    """
    reward, log_prob, length = (_matrix(samples, name) for name in ("reward", "log_prob", "length"))  # (Q, S)
    filled = len(reward) - len(reward) % bundle_size
    if not filled:
        raise DataError(f"{len(reward)} questions do not fill one bundle of {bundle_size}; evaluate more questions")
    draws = seeds.generator(seed, "quantile_curve", "bundles")
    order = torch.randperm(len(reward), generator=draws)[:filled]
    pairing = bundles.permutations(filled, reward.shape[1], bundle_size, draws)
    score, total, tokens = (bundles.scores(values[order], pairing) for values in (reward, log_prob, length))

    groups = len(score)  # score, total and tokens are (N, S)
    resampler = np.random.default_rng(seeds.derive(seed, "quantile_curve", "bootstrap"))
    drawn = resampler.multinomial(groups, np.full(groups, 1 / groups), size=resamples)  # (resamples, N)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    curves: dict[str, Floats] = {}
    for name, summed in (("log_prob", total / bundle_size), ("token_log_prob", total / tokens)):
        count, value = _by_score(score, summed)  # both (N, A)
        # Not `@`, whose rounding depends on the number of threads.
        counts, values = (np.einsum("rn,na->ra", drawn, of_groups) for of_groups in (count, value))
        low, high = np.quantile(_curve(counts, values, levels), tails, axis=0)
        curves |= {name: _curve(count.sum(0), value.sum(0), levels), f"{name}_low": low, f"{name}_high": high}
    rewards = [risk.quantile(score.flatten(), level).item() for level in levels]
    frame = pd.DataFrame({"level": levels, "reward": rewards, **curves})
    return frame.assign(questions=filled, bundles=score.numel())


def _matrix(samples: pd.DataFrame, name: str) -> Tensor:
    """One column of the samples as (questions, samples), in the order of their names."""
    table = samples.pivot(index="question_id", columns="sample", values=name)
    if table.isna().any(axis=None):
        raise DataError("some questions have fewer samples than others; the curve needs equally many of each")
    return torch.tensor(table.to_numpy(dtype=np.float64))


def _by_score(score: Tensor, values: Tensor) -> tuple[Floats, Floats]:
    """Bundles, and sums of their values, of each group at each distinct score: (N, S) -> 2 × (N, A)."""
    distinct, place = torch.unique(score, return_inverse=True)  # ascending
    count, total = (
        torch.zeros(len(score), len(distinct), dtype=values.dtype).scatter_add(1, place, source).numpy()
        for source in (torch.ones_like(values), values)
    )
    return count, total


def _curve(count: Floats, total: Floats, levels: Sequence[float]) -> Floats:
    """Mean value around each level: counts and sums (..., A) of the distinct scores -> (..., L)."""
    mean = total / np.maximum(count, 1)  # a resample may miss a score, which then has no share either
    # Of the levels, the a-th score covers (lower[a], upper[a]].
    upper = count.cumsum(-1) / count.sum(-1, keepdims=True)
    lower = np.concatenate([np.zeros_like(upper[..., :1]), upper[..., :-1]], axis=-1)
    points = []
    for level in levels:
        first, last = max(level - WINDOW, 0.0), min(level + WINDOW, 1.0)
        share = np.clip(np.minimum(upper, last) - np.maximum(lower, first), 0, None)
        points.append((share * mean).sum(-1) / (last - first))
    return np.stack(points, axis=-1)
