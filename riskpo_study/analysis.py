"""From the records of a study's runs to tidy frames and tables.

Pure functions of frames; `records.read` gives the records. A *tidy* frame has one row an estimate: what it
is of (algorithm, difficulty, metric, …), `value` with its interval `low`, `high`, and what it rests on (`n`
samples of each of `questions`, the training `seeds`). Algorithms go by their keys in `algorithms.ALGORITHMS`,
the model that all runs start from by `records.BASE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from riskpo_study import seeds
from riskpo_study.errors import DataError
from riskpo_study.evaluation import Interval, avg_at_k, pass_at_k
from riskpo_study.records import BASE

__all__ = [
    "AVERAGE", "FOLLOWED", "OVERALL", "Resampler", "at_equal_accuracy", "best", "block_means", "differences",
    "extremes", "final", "heading", "holm", "joined", "macro_averages", "measures", "monotonicity", "mover", "of_pairs",
    "of_pairs_at_equal_accuracy", "overlap", "quantile_curves", "ratio", "since_start", "smooth", "solved", "summary",
    "tail_terms",
]  # fmt: skip

OVERALL = "all"
"""The difficulty of estimates over the questions of every difficulty."""

AVERAGE = "average"
"""The difficulty of averages to which every difficulty contributes alike, however many questions it has."""

FOLLOWED = ("grpo", "riskpo", "riskpo_stratified")
"""What the study's text is about: drawn in bold and with intervals where a panel has too many algorithms for all, and
named in sentences about many."""

Floats = NDArray[np.float64]


def joined(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; `none` of none."""
    if not parts:
        return "none"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def heading(difficulty: str) -> str:
    """What figures and tables call the questions of a difficulty."""
    if difficulty == OVERALL:
        return "All questions"
    return f"{difficulty} numbers" if difficulty.isdigit() else difficulty.replace("_", " ")


def final(counts: pd.DataFrame) -> pd.DataFrame:
    """The rows of each algorithm's last step.

    Raises:
        DataError: where runs of one algorithm end at different steps.
    """
    last = counts.groupby(["algorithm", "seed"], sort=False)["step"].max().reset_index()
    for algorithm, ends in last.groupby("algorithm", sort=False)["step"]:
        if ends.nunique() > 1:
            found = ", ".join(map(str, sorted(set(ends))))
            raise DataError(f"The runs of {algorithm} end at steps {found}: finish them, or compare fewer seeds.")
    return counts.merge(last, on=["algorithm", "seed", "step"])


def measures(counts: pd.DataFrame, ks: Iterable[int]) -> tuple[pd.DataFrame, list[str]]:
    """Pass@k, Avg@n and Maj@n of every question, as further columns of `counts`; and these columns' names.

    Args:
        counts: see `sampling.counts`; Maj@n only where it has the column `majority`.
        ks: those of Pass@k.

    Raises:
        DataError: where the questions have different numbers of samples.
    """
    sizes = counts["n"].unique()
    if len(sizes) != 1:
        raise DataError(
            f"Questions have {', '.join(map(str, sorted(sizes)))} samples: compare equal numbers of samples."
        )
    n, correct = counts["n"].to_numpy(), counts["correct"].to_numpy()
    columns = {f"Pass@{k}": pass_at_k(n, correct, k) for k in ks} | {f"Avg@{sizes[0]}": avg_at_k(n, correct)}
    if "majority" in counts:
        columns[f"Maj@{sizes[0]}"] = counts["majority"].to_numpy()
    return counts.assign(**columns), list(columns)


def since_start(evaluations: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The columns' changes since each run's first evaluation, question by question."""
    keys = ["algorithm", "seed", "question_id"]
    first = evaluations["step"] == evaluations.groupby(keys)["step"].transform("min")
    start = evaluations.loc[first, [*keys, *columns]]
    before = evaluations[keys].merge(start, on=keys, how="left", validate="many_to_one")
    return evaluations.assign(**{name: evaluations[name].to_numpy() - before[name] for name in columns})


def best(curves: pd.DataFrame) -> pd.DataFrame:
    """The row of each algorithm's highest value after the start, by metric and difficulty; of equal ones the first.

    The highest of several noisy values is too high on average, and its interval, which knows nothing of the choice,
    too favourable.

    Args:
        curves: estimates by algorithm and step.
    """
    trained = curves[curves["step"] > curves["step"].min()]
    ranked = trained.sort_values("value", ascending=False, kind="stable")
    highest: pd.DataFrame = ranked.drop_duplicates(["algorithm", "difficulty", "metric"])
    return highest.sort_index().reset_index(drop=True)


def extremes(tidy: pd.DataFrame) -> pd.DataFrame:
    """The estimates over the easiest and over the hardest questions; all where there is one difficulty only.

    Args:
        tidy: difficulties ascend from one row to the next.
    """
    found = [difficulty for difficulty in tidy["difficulty"].unique() if difficulty != OVERALL]
    return tidy[tidy["difficulty"].isin([found[0], found[-1]])] if found else tidy


# Which questions are solved


def solved(counts: pd.DataFrame) -> pd.DataFrame:
    """Two further columns, for every question: whether the run has `solved` it at least once, and whether it `alone`.

    `alone` is the probability that it is solved and that no other algorithm solves it, of which a seed is drawn each.
    """
    frame = counts.assign(solved=(counts["correct"] > 0).astype(float))
    rates = frame.pivot_table(index="algorithm", columns="question_id", values="solved", sort=False)
    misses = 1 - rates.to_numpy()
    others = [np.delete(misses, position, axis=0).prod(axis=0) for position in range(len(misses))]
    missed = pd.DataFrame(others, index=rates.index, columns=rates.columns).stack()
    run = pd.MultiIndex.from_frame(frame[["algorithm", "question_id"]])
    return frame.assign(alone=frame["solved"].to_numpy() * missed.reindex(run).to_numpy())


def overlap(frame: pd.DataFrame, resampler: Resampler) -> pd.DataFrame:
    """Of the questions that a run of an algorithm solves, the share that a run of another solves too: a tidy frame.

    Averages over all pairs of their seeds. An algorithm beside itself, `other` the same, is a pair of different seeds
    and shows how much of the rest is the chance of a training and of the sampling; NaN where there is one seed.
    Intervals resample the questions; the seeds are as they are.

    Args:
        frame: from `solved`.

    Raises:
        DataError: where the algorithms answered different questions.
    """
    tables, abouts = {}, {}
    for algorithm, group in frame.groupby("algorithm", sort=False):
        if set(group["question_id"]) != set(frame["question_id"]):
            raise DataError(f"{algorithm} answered other questions than the rest: evaluate all alike.")
        (tables[algorithm],), abouts[algorithm] = _table(group, ["solved"])  # (S, Q)
    rows = []
    for one, ours in tables.items():
        found = ours.mean(axis=0)
        for other, theirs in tables.items():
            both = found * theirs.mean(axis=0) if one != other else _in_two_seeds(ours)
            resampled = np.stack([resampler.means([part]) for part in (both, found)])
            some = resampled[:, resampled[1] > 0]  # resamples without a solved question have no share
            low, high = resampler.percentiles(some[0] / some[1]) if some.size else (np.nan, np.nan)
            value = both.sum() / found.sum() if found.any() else np.nan
            pair = {"algorithm": one, "other": other, "metric": "also solved"}
            rows.append(pair | {"value": value, "low": low, "high": high} | abouts[one])
    return pd.DataFrame(rows)


def _in_two_seeds(solved: Floats) -> Floats:
    """Probability that two different of S seeds both solve a question: (S, Q) -> (Q,)."""
    count, seeds = solved.sum(axis=0), len(solved)
    return np.asarray(count * (count - 1) / (seeds * (seeds - 1))) if seeds > 1 else np.full_like(count, np.nan)


# Intervals


class Resampler:
    """Bootstrap intervals over training seeds and questions, from resamples drawn once for all estimates.

    As `evaluation.interval`, for many tables of values at a time, by matrix products. Tables of the same
    numbers of seeds and questions meet the same resamples.

    Args:
        resamples: how many.
        confidence: coverage of the intervals.
        seed: of the resamples.
    """

    def __init__(self, resamples: int, confidence: float, seed: int = 0) -> None:
        self.resamples, self.confidence, self.seed = resamples, confidence, seed
        self._drawn: dict[tuple[str, int], Floats] = {}

    def means(self, values: ArrayLike, stratum: str = "") -> Floats:
        """Means of resampled tables: values (..., S, Q) of S seeds and Q questions -> (..., resamples).

        The questions of different strata are resampled independently of each other, the seeds alike.
        """
        table = np.asarray(values, dtype=np.float64)
        with threadpool_limits(1, "blas"):  # rounding depends on the number of threads
            by_seed = table @ self._weights(f"questions {stratum}".rstrip(), table.shape[-1])  # (..., S, R)
        return np.asarray((by_seed * self._weights("seeds", table.shape[-2])).sum(axis=-2))

    def interval(self, values: ArrayLike) -> list[Interval]:
        """Means of tables (M, S, Q) with their percentile intervals, one for each of the M."""
        table = np.asarray(values, dtype=np.float64)
        low, high = self.percentiles(self.means(table))
        return [Interval(*map(float, row)) for row in zip(table.mean(axis=(-2, -1)), low, high, strict=True)]

    def percentiles(self, means: Floats) -> Floats:
        """Ends of the interval: means (..., R) -> (2, ...)."""
        return np.asarray(np.quantile(means, [(1 - self.confidence) / 2, (1 + self.confidence) / 2], axis=-1))

    def _weights(self, of: str, size: int) -> Floats:
        """Share of each of `size` things in every resample, (size, R)."""
        if (of, size) not in self._drawn:
            generator = np.random.default_rng(seeds.derive(self.seed, "bootstrap", of, size))
            counts = generator.multinomial(size, np.full(size, 1 / size), size=self.resamples)
            self._drawn[of, size] = np.ascontiguousarray(counts.T) / size
        return self._drawn[of, size]


def summary(
    frame: pd.DataFrame, metrics: Sequence[str], resampler: Resampler, by: Sequence[str] = ("algorithm",)
) -> pd.DataFrame:
    """Mean of every metric for each group and difficulty, overall first, as a tidy frame.

    Args:
        frame: a row a question, with seed, question_id, difficulty, n, the metrics and the columns of `by`.
        by: what makes a group; algorithm first.
    """
    rows = []
    for difficulty, part in _difficulties(frame):
        for key, group in part.groupby(list(by), sort=False):
            table, about = _table(group, metrics)
            where = dict(zip(by, key, strict=True)) | {"difficulty": difficulty}
            rows += [
                where | {"metric": metric} | estimate._asdict() | about
                for metric, estimate in zip(metrics, resampler.interval(table), strict=True)
            ]
    return pd.DataFrame(rows).rename(columns={"mean": "value"})


def differences(frame: pd.DataFrame, metrics: Sequence[str], reference: str, resampler: Resampler) -> pd.DataFrame:
    """Every algorithm minus the reference, paired by seed and question; arguments and rows as `summary`'s.

    `p` is the two-sided bootstrap p-value of no difference; `p_holm` the same corrected (Holm) for the
    algorithms compared in this metric and difficulty. Seeds that only one of the two has are left out, and
    algorithms that share no seed with the reference; the base model is paired with every seed.

    Raises:
        DataError: where the two answered different questions.
    """
    rows = []
    for difficulty, part in _difficulties(frame):
        groups = {str(name): group for name, group in part.groupby("algorithm", sort=False)}
        compared = [name for name in groups if reference in groups and name != reference]
        for algorithm in compared:
            ours, theirs = _same_seeds(groups[algorithm], groups[reference])
            if ours.empty:
                continue
            paired, about = _paired(ours, theirs, metrics)
            where = {"algorithm": algorithm, "reference": reference, "difficulty": difficulty}
            for metric, estimate, p in zip(
                metrics, resampler.interval(paired), _p_values(resampler.means(paired)), strict=True
            ):
                rows.append(where | {"metric": metric} | estimate._asdict() | {"p": p} | about)
    columns = [
        "algorithm",
        "reference",
        "difficulty",
        "metric",
        "mean",
        "low",
        "high",
        "p",
        "p_holm",
        "n",
        "questions",
        "seeds",
    ]
    return _corrected(pd.DataFrame(rows, columns=columns).rename(columns={"mean": "value"}))


def _corrected(tidy: pd.DataFrame) -> pd.DataFrame:
    """With `p_holm` from `p`, for all comparisons of a metric and difficulty."""
    families = tidy.groupby(["difficulty", "metric"], sort=False)["p"]
    return tidy.assign(p_holm=families.transform(lambda p: holm(p.to_numpy())).astype(float))


def of_pairs(
    frame: pd.DataFrame, metrics: Sequence[str], pairs: Iterable[Sequence[str]], resampler: Resampler
) -> pd.DataFrame:
    """`differences` of pairs of algorithms, ours and theirs, as far as both are in the frame and share a seed.

    `p_holm` is corrected for the pairs.
    """
    found = [
        differences(frame[frame["algorithm"].isin([ours, theirs])], metrics, theirs, resampler)
        for ours, theirs in pairs
    ]
    return _corrected(_joined(found, differences(frame.iloc[:0], metrics, "", resampler)))


def _joined(parts: Sequence[pd.DataFrame], nothing: pd.DataFrame) -> pd.DataFrame:
    """Frames below each other; those without rows, whose columns have no types, count only where all are."""
    return pd.concat([part for part in parts if len(part)] or [nothing], ignore_index=True)


def macro_averages(
    frame: pd.DataFrame, metrics: Sequence[str], resampler: Resampler, reference: str | None = None
) -> pd.DataFrame:
    """Plain mean over the difficulties of each one's mean, for every algorithm: tidy rows of difficulty `AVERAGE`.

    Intervals resample the questions of each difficulty apart and, around them, the seeds for all difficulties together:
    a seed is one model.

    Args:
        frame: as `summary`'s.
        reference: what to subtract, paired as in `differences`; without a seed of it an algorithm is left out.

    Raises:
        DataError: where an algorithm lacks a difficulty, or answered other questions than the reference.
    """
    groups = {str(name): group for name, group in frame.groupby("algorithm", sort=False)}
    difficulties = sorted(frame["difficulty"].unique())
    rows = []
    for algorithm, group in groups.items():
        ours, theirs = (group, None) if reference is None else _same_seeds(group, groups[reference])
        if ours.empty:
            continue
        table, about = _table(ours, metrics) if theirs is None else _paired(ours, theirs, metrics)
        of = ours.drop_duplicates("question_id").sort_values("question_id")["difficulty"].to_numpy()
        parts = {str(difficulty): table[..., of == difficulty] for difficulty in difficulties}  # (M, S, Q) each
        if lacking := [difficulty for difficulty, part in parts.items() if not part.size]:
            raise DataError(f"{algorithm} has no answers to questions of difficulty {lacking[0]}: evaluate all alike.")
        values = np.mean([part.mean(axis=(-2, -1)) for part in parts.values()], axis=0)
        resampled = np.mean([resampler.means(part, difficulty) for difficulty, part in parts.items()], axis=0)
        for metric, value, low, high in zip(metrics, values, *resampler.percentiles(resampled), strict=True):
            what = {"algorithm": algorithm, "difficulty": AVERAGE, "metric": metric}
            rows.append(what | {"value": value, "low": low, "high": high} | about)
    return pd.DataFrame(rows)


def _paired(ours: pd.DataFrame, theirs: pd.DataFrame, metrics: Sequence[str]) -> tuple[Floats, dict[str, object]]:
    """Values of one algorithm minus those of another (M, S, Q), and what they rest on; see `_same_seeds`."""
    algorithm, reference = ours["algorithm"].iloc[0], theirs["algorithm"].iloc[0]
    values, about = _table(ours, metrics)
    reference_values, reference_about = _table(theirs, metrics)
    if set(ours["question_id"]) != set(theirs["question_id"]):
        raise DataError(f"{algorithm} and {reference} answered different questions: evaluate both alike.")
    return values - reference_values, reference_about if algorithm == BASE else about


def _same_seeds(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the seeds that both have; all of them where one of the two is the base model."""
    if BASE in {*one["algorithm"], *other["algorithm"]}:
        return one, other
    shared = set(one["seed"]) & set(other["seed"])
    return one[one["seed"].isin(shared)], other[other["seed"].isin(shared)]


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down correction of p-values (m,): never smaller, in the same order, at most 1."""
    p = np.asarray(p, dtype=np.float64)
    order = p.argsort(kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return np.asarray(corrected[order.argsort()])


def _p_values(means: Floats) -> Floats:
    """Two-sided bootstrap p-values of zero, at least 2 / (R + 1): (M, R) -> (M,)."""
    beyond = np.minimum((means <= 0).sum(axis=1), (means >= 0).sum(axis=1))
    return np.asarray((2 * (beyond + 1) / (means.shape[1] + 1)).clip(max=1.0))


def _difficulties(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield OVERALL, frame
    if frame["difficulty"].nunique() > 1:
        yield from ((str(difficulty), part) for difficulty, part in frame.groupby("difficulty"))


def _table(group: pd.DataFrame, metrics: Sequence[str]) -> tuple[Floats, dict[str, object]]:
    """Values (M, S, Q) of one algorithm, questions in the order of their names, and what they rest on."""
    wide = group.pivot(index="seed", columns="question_id", values=list(metrics))
    table = wide.to_numpy(dtype=np.float64).reshape(len(wide), len(metrics), -1).swapaxes(0, 1)
    if np.isnan(table).any():
        name = group["algorithm"].iloc[0]
        raise DataError(f"The seeds of {name} answered different questions: evaluate them all alike.")
    trained = " ".join(str(seed) for seed in wide.index if seed >= 0)
    about = {"n": int(group["n"].iloc[0]), "questions": table.shape[-1], "seeds": trained or "none"}
    return table, about


# During training


def smooth(metrics: pd.DataFrame, window: int) -> pd.DataFrame:
    """Centred moving averages of all metrics over `window` steps of each run, fewer at its ends."""
    if window < 1:
        raise DataError(f"A moving average over {window} steps is none: choose at least 1.")
    parts = []
    for _, run in metrics.groupby(["algorithm", "seed"], sort=False):
        run = run.sort_values("step")
        keys = run[["algorithm", "seed", "step"]]
        averages = run.drop(columns=keys.columns).rolling(window, center=True, min_periods=1).mean()
        parts.append(keys.join(averages))
    return pd.concat(parts, ignore_index=True)


def tail_terms(metrics: pd.DataFrame, omegas: Mapping[str, float]) -> pd.DataFrame:
    """Adds `tail/sum`, the ωL + U of Theorem 2, and `tail/holds`, whether it is at least 0, to every step.

    By the identity Cov(log π, A_MVaR) − Cov(log π, R) = −(ωL + U) the theorem's inequality holds exactly then
    (docs/method.md). Where the batch leaves the terms undefined, so is the answer.

    Args:
        omegas: the ω of every algorithm.
    """
    total = metrics["algorithm"].map(omegas) * metrics["covariance/lower"] + metrics["covariance/upper"]
    return metrics.assign(**{"tail/sum": total, "tail/holds": (total >= 0).astype(float).where(total.notna())})


_BLOCK = 10
"""Steps: neighbouring ones resemble each other, so that intervals resample blocks of about as many."""


def block_means(metrics: pd.DataFrame, columns: Sequence[str], resampler: Resampler, parts: int = 2) -> pd.DataFrame:
    """Means of per-step metrics over equal parts of the training, as a tidy frame.

    The interval resamples blocks of steps, and the seeds around them. The column `steps` names the part, as `1–125`.
    """
    last_step = int(metrics["step"].max())
    edges = np.linspace(0, last_step, min(parts, last_step) + 1).round().astype(int)
    rows = []
    for before, last in pairwise(edges):
        within = _in_blocks(metrics, before, int(last))
        for algorithm, group in within.groupby("algorithm", sort=False):
            for column in columns:
                table = group.pivot_table(index="seed", columns="block", values=column).dropna(axis="columns")
                if table.empty:
                    continue
                (estimate,) = resampler.interval(table.to_numpy()[None])
                what = {"steps": f"{before + 1}–{last}", "algorithm": algorithm, "metric": column}
                about = {"blocks": table.shape[1], "seeds": " ".join(map(str, table.index))}
                rows.append(what | estimate._asdict() | about)
    return pd.DataFrame(rows).rename(columns={"mean": "value"})


def _in_blocks(metrics: pd.DataFrame, before: int, last: int) -> pd.DataFrame:
    """The steps after `before` up to `last`, numbered by block."""
    within = metrics[metrics["step"].between(before + 1, last)]
    blocks = max(1, round((last - before) / _BLOCK))
    return within.assign(block=(within["step"] - before - 1) * blocks // (last - before))


def ratio(metrics: pd.DataFrame, column: str, ours: str, theirs: str, resampler: Resampler) -> dict[str, Any]:
    """Mean of a per-step metric of an algorithm over that of another, on the seeds that both have: one estimate.

    Returns:
        value, low, high; `ours` and `theirs`, the two means; seeds and steps; by_seed, the ratio of every seed.

    Raises:
        DataError: where the two recorded different steps or share no seed.
    """
    groups = {name: metrics[metrics["algorithm"] == name] for name in (ours, theirs)}
    pair = dict(zip(groups, _same_seeds(groups[ours], groups[theirs]), strict=True))
    steps = {name: sorted(zip(group["seed"], group["step"], strict=True)) for name, group in pair.items()}
    if steps[ours] != steps[theirs] or not steps[ours]:
        raise DataError(f"{ours} and {theirs} recorded different training steps: finish both (dvc repro).")
    last = int(pair[ours]["step"].max())
    blocks = {name: _in_blocks(group, 0, last).pivot_table(column, "seed", "block") for name, group in pair.items()}
    low, high = resampler.percentiles(resampler.means(blocks[ours]) / resampler.means(blocks[theirs]))
    mine, other = (float(blocks[name].to_numpy().mean()) for name in (ours, theirs))
    return {
        "value": mine / other, "low": low, "high": high, "ours": mine, "theirs": other,
        "seeds": " ".join(map(str, blocks[ours].index)), "steps": f"1–{last}",
        "by_seed": (blocks[ours].mean(axis=1) / blocks[theirs].mean(axis=1)).to_list(),
    }  # fmt: skip


def at_equal_accuracy(
    evaluations: pd.DataFrame, reference: str, resampler: Resampler, column: str = "entropy"
) -> pd.DataFrame:
    """A column of the held-out questions where an algorithm and the reference are equally accurate: a tidy frame.

    Entropy falls while accuracy rises, so algorithms that learn at different speeds differ at equal steps
    even if they trade one for the other alike; so does Pass@k. Each algorithm is compared with the reference on the
    seeds that both have, where each first reaches the lower of the accuracies that the two end with, in each resample
    anew; between two evaluations both are interpolated linearly. A pair of which one is not shown to end better than it
    started, by its interval, has no such accuracy, and NaN.

    Returns:
        Four metrics for each algorithm that shares a seed with the reference: `accuracy`, that of the comparison; the
        column there, by its name; that of the reference there, `theirs`; the `difference` of these two.
    """
    scored = evaluations.assign(accuracy=avg_at_k(evaluations["n"], evaluations["correct"]))
    groups = {str(name): group for name, group in scored.groupby("algorithm", sort=False)}
    rows = []
    for name, group in groups.items():
        if name == reference or reference not in groups:
            continue
        pair = _same_seeds(group, groups[reference])
        if pair[0].empty:
            continue
        (ours, theirs), (about, _) = zip(*(_curves(part, column, resampler) for part in pair), strict=True)
        target = np.minimum(ours[0][-1], theirs[0][-1])  # (1 + R,)
        gained = target - np.maximum(ours[0][0], theirs[0][0])
        learned = resampler.percentiles(gained[1:])[0] > 0
        our_value, their_value = _first_crossing(ours, target), _first_crossing(theirs, target)
        measured = {"accuracy": target, column: our_value, "theirs": their_value, "difference": our_value - their_value}
        for metric, values in measured.items():
            ends = (values[0], *resampler.percentiles(values[1:])) if learned else (np.nan,) * 3
            what = {"algorithm": name, "reference": reference, "metric": metric}
            rows.append(what | dict(zip(("value", "low", "high"), ends, strict=True)) | about)
    columns = ["algorithm", "reference", "metric", "value", "low", "high", "n", "questions", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def of_pairs_at_equal_accuracy(
    evaluations: pd.DataFrame, column: str, pairs: Iterable[Sequence[str]], resampler: Resampler
) -> pd.DataFrame:
    """The `difference` of `at_equal_accuracy` of pairs of algorithms, ours and theirs, as far as both are there.

    Its metric is the column.
    """
    found = [
        at_equal_accuracy(evaluations[evaluations["algorithm"].isin([ours, theirs])], theirs, resampler, column)
        for ours, theirs in pairs
    ]
    rows = _joined(found, at_equal_accuracy(evaluations.iloc[:0], "", resampler, column))
    return rows[rows["metric"] == "difference"].assign(metric=column)


def _curves(evaluations: pd.DataFrame, column: str, resampler: Resampler) -> tuple[Floats, dict[str, object]]:
    """Accuracy and column by step, the estimate before the resamples (2, T, 1 + R), and what they rest on."""
    tables = [_table(at, ["accuracy", column]) for _, at in evaluations.groupby("step")]
    values = np.stack([table for table, _ in tables], axis=1)  # (2, T, S, Q)
    estimates = values.mean(axis=(-2, -1))[..., None]
    return np.concatenate([estimates, resampler.means(values)], axis=-1), tables[0][1]


def _first_crossing(curve: Floats, target: Floats) -> Floats:
    """y where x first reaches the target, interpolated: curve (x and y, T, R), target (R,) -> (R,)."""
    x, y = curve
    after = (x >= target).argmax(axis=0)
    before = np.maximum(after - 1, 0)
    column = np.arange(x.shape[1])
    rise = x[after, column] - x[before, column]
    share = np.divide(target - x[before, column], rise, out=np.ones_like(rise), where=rise > 0)
    return np.asarray(y[before, column] + share * (y[after, column] - y[before, column]))


# Quantile curves


def quantile_curves(records: pd.DataFrame, quantity: str = "log_prob") -> pd.DataFrame:
    """Mean over seeds of the curves and of the ends of their intervals, by algorithm, step and level.

    The seeds answered the same questions, so their errors go together: averaging does not make the interval
    narrower.

    Args:
        records: see `quantile_curve.quantile_curve`, with the columns algorithm, seed and step.
        quantity: `log_prob` (of a response) or `token_log_prob` (of a token), in nats.
    """
    ends = {"value": quantity, "low": f"{quantity}_low", "high": f"{quantity}_high"}
    grouped = records.groupby(["algorithm", "step", "level"], sort=False)
    curves = grouped[["reward", *ends.values(), "questions", "bundles"]].mean()
    trained = grouped["seed"].agg(lambda of: " ".join(str(seed) for seed in of if seed >= 0) or "none")
    renamed = curves.rename(columns={column: end for end, column in ends.items()}).assign(seeds=trained)
    return renamed.astype({"questions": int, "bundles": int}).reset_index()


def monotonicity(curves: pd.DataFrame, alpha: float, beta: float) -> pd.DataFrame:
    """How the log-probability moves through each tail: its value at the highest level minus at the lowest.

    The lower tail has the levels up to α, the upper one those from β. Theorem 2 assumes that the curve falls
    in the lower and rises in the upper tail. The interval joins those of the two ends as if they were
    independent (`mover`); bundles of the same questions rather go together, so that it is too wide rather
    than too narrow.

    Args:
        curves: from `quantile_curves`.

    Returns:
        A row for each algorithm, step and tail of at least two levels: value, low, high; `assumed` (falls or
        rises); `finding`: falls, rises, or undecided where the interval holds 0.
    """
    rows = []
    for (algorithm, step), curve in curves.groupby(["algorithm", "step"], sort=False):
        curve = curve.sort_values("level")
        tails = {"lower": curve[curve["level"] <= alpha], "upper": curve[curve["level"] >= beta]}
        for tail, part in tails.items():
            if len(part) < 2:
                continue
            start, end = part.iloc[0], part.iloc[-1]
            value, low, high = mover(
                Interval(end["value"], end["low"], end["high"]),
                Interval(start["value"], start["low"], start["high"]),
            )
            rows.append({
                "algorithm": algorithm, "step": step, "tail": tail,
                "from": start["level"], "to": end["level"], "reward_from": start["reward"],
                "reward_to": end["reward"], "value": value, "low": low, "high": high,
                "assumed": "falls" if tail == "lower" else "rises",
                "finding": "undecided" if low <= 0 <= high else "rises" if value > 0 else "falls",
                "bundles": end["bundles"], "seeds": end["seeds"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def mover(one: Interval, other: Interval) -> Interval:
    """`one − other` of independent estimates, from their intervals (MOVER, Zou and Donner 2008)."""
    difference = one.mean - other.mean
    below = np.hypot(one.mean - one.low, other.high - other.mean)
    above = np.hypot(one.high - one.mean, other.mean - other.low)
    return Interval(difference, float(difference - below), float(difference + above))
