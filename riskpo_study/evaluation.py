"""Pass@k, Avg@k, Maj@k and their confidence intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from riskpo_study.errors import ConfigError

Floats = NDArray[np.float64]


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Probability that k of n samples, drawn without replacement, hold a right one, `1 − C(n−c, k)/C(n, k)`.

    Args:
        n, c: samples and right samples of each question, numbers or arrays that broadcast.
        k: attempts, 1 <= k <= n.

    Source: arXiv 2107.03374, in the product form, which does not overflow. Unlike resampling it is unbiased.
    """
    n, c = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    if k < 1 or (n < k).any():
        raise ConfigError(
            f"pass@{k} needs at least {k} samples a question, k >= 1; there are {n.min() if n.size else 0}"
        )
    if ((c < 0) | (c > n)).any():
        raise ConfigError("the number of right samples must lie between 0 and the number of samples")
    drawn = np.arange(k)
    misses = np.clip(n[..., None] - c[..., None] - drawn, 0, None) / (n[..., None] - drawn)
    return np.asarray(1.0 - misses.prod(axis=-1))


def avg_at_k(n: ArrayLike, c: ArrayLike) -> Floats:
    """Share of right samples, c / n: what avg@k estimates for every k."""
    return np.asarray(c, dtype=np.float64) / np.asarray(n, dtype=np.float64)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Probability that the most frequent answer of k samples is right, ties broken uniformly, exactly.

    k of the n samples are drawn without replacement. `None` (no answer) casts no vote; a draw without any
    vote is wrong.

    Args:
        answers: n canonical answers.
        correct: whether each is right; equal answers must agree.
        k: 1 <= k <= n.
    """
    n = len(answers)
    if not 1 <= k <= n <= _MOST_VOTES:
        raise ConfigError(f"maj@{k} needs {k} to {_MOST_VOTES} samples a question, k >= 1; there are {n}")
    votes = Counter(answer for answer in answers if answer is not None)
    right = {answer for answer, good in zip(answers, correct, strict=True) if good}
    binomial = _binomials(n)
    total = 0.0
    for top in range(1, min(k, max(votes.values(), default=0)) + 1):
        contenders = {answer: count for answer, count in votes.items() if count >= top}
        others = n - sum(contenders.values())  # these cannot reach `top`: any number of them may be drawn
        # ways[t, s]: choices of s votes for contenders, none above `top` and t at it;
        # hits: the same, weighted by how many of the t are right.
        ways, hits = tables = np.zeros((2, k // top + 1, k + 1))
        ways[0, 0] = 1.0
        for answer, count in contenders.items():
            grown = np.zeros_like(tables)
            for drawn in range(top):
                grown[..., drawn:] += binomial[count, drawn] * tables[..., : k + 1 - drawn]
            at_top = binomial[count, top] * tables[:, :-1, : k + 1 - top]
            grown[:, 1:, top:] += at_top
            if answer in right:
                grown[1, 1:, top:] += at_top[0]
            ways, hits = tables = grown
        tied = np.arange(1, len(hits))[:, None]
        total += float(((hits[1:] / tied) * binomial[others, : k + 1][::-1]).sum())
    return total / float(binomial[n, k])


_MOST_VOTES = 1000  # C(1030, 515) would exceed the largest float


def _binomials(n: int) -> Floats:
    """Table of C(i, j) for 0 <= i, j <= n, zero where j > i (exact up to 2⁵³, relative error 1e-16 above)."""
    table = np.zeros((n + 1, n + 1))
    table[:, 0] = 1.0
    for row in range(1, n + 1):
        table[row, 1:] = table[row - 1, 1:] + table[row - 1, :-1]
    return table


class Interval(NamedTuple):
    """An estimate with its bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_means(values: ArrayLike, resamples: int, generator: np.random.Generator) -> Floats:
    """Means of resampled tables: values (S, Q), a row a training seed, a column a question -> (resamples,).

    Seeds and questions are resampled independently (the outer and the inner level); every seed answers the
    same questions.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, questions = table.shape
    seed_counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    question_counts = generator.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
    # Not `@`, whose rounding depends on the number of threads.
    totals = (np.einsum("rs,sq->rq", seed_counts, table) * question_counts).sum(axis=1)
    return np.asarray(totals / (seeds * questions))


def interval(values: ArrayLike, resamples: int, generator: np.random.Generator, confidence: float = 0.95) -> Interval:
    """Mean of values (S, Q) over seeds and questions with its percentile bootstrap interval.

    For two methods pass the paired differences per seed and question.
    """
    means = bootstrap_means(values, resamples, generator)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.mean(np.asarray(values))), float(low), float(high))
