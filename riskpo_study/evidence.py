"""What the records of a profile say about a claim: statistics of two algorithms, each with its interval.

`Evidence` reads the records and estimates; `claims` asks. Differences are paired by seed and question, or by seed and
step, on the seeds that both algorithms have. Each row also has `by_seed`, the statistic of every training seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from riskpo_study import analysis, records, tables
from riskpo_study.analysis import OVERALL, Resampler
from riskpo_study.config import Config
from riskpo_study.errors import DataError
from riskpo_study.evaluation import Interval
from riskpo_study.records import BASE, OF_BASE, Record
from riskpo_study.verdicts import HOLDS, OPEN, Verdict, best

__all__ = [
    "FEWEST_SEEDS",
    "UNITS",
    "Evidence",
    "MissingRuns",
    "Part",
    "Unit",
    "estimate",
    "over_seeds",
    "p_over_seeds",
]

FEWEST_SEEDS = 2
"""A verdict needs this many training seeds: the interval of one knows nothing of how another training would end."""


@dataclass(frozen=True)
class Unit:
    """Estimates are shown times `scale` with `digits` decimals."""

    name: str
    scale: float = 1.0
    digits: int = 2


POINTS = Unit("percentage points", 100, 1)
SLOPE = Unit("percentage points per doubling of k", 100, 2)
SHARE = Unit("%", 100, 0)
NATS = Unit("nats per token")
LOG_PROB = Unit("nats")
SCORE = Unit("bundle score")
COVARIANCE = Unit("nats × bundle score", 1, 3)
UNITS = {unit.name: unit for unit in (POINTS, SLOPE, SHARE, NATS, LOG_PROB, SCORE, COVARIANCE)}


@dataclass(frozen=True)
class Part:
    """A statistic of a claim: of what, its estimate, its verdict, and what it rests on.

    Attributes:
        strict: the verdict where the interval is widened to that over training seeds alone (`over_seeds`).
        seeds: training seeds, as `0 1`; `none` for the base model.
        questions, n: held-out questions and responses to each; None for what training recorded.
        steps: of the training; empty for held-out questions.
        pair: the two algorithms that it sets against each other; empty for one alone.
    """

    what: str
    estimate: Interval
    verdict: Verdict
    strict: Verdict
    unit: Unit
    seeds: str
    questions: int | None = None
    n: int | None = None
    steps: str = ""
    pair: tuple[str, ...] = ()

    @classmethod
    def of(cls, what: str, rule: Callable[[Interval], Verdict], unit: Unit, row: Mapping[str, Any]) -> Part:
        """From a row of a statistic; undecided where it rests on fewer than `FEWEST_SEEDS` training seeds.

        The base model has none, so that strictly the same is asked of it.
        """
        interval = estimate(row)
        trained = str(row["seeds"]) != "none"
        strict = widened(interval, row["by_seed"], row["confidence"]) if trained else interval
        return cls.judged(what, rule(interval), rule(strict), unit, row)

    @classmethod
    def judged(cls, what: str, verdict: Verdict, strict: Verdict, unit: Unit, row: Mapping[str, Any]) -> Part:
        """The same with verdicts that do not follow from the interval alone."""
        seeds = str(row["seeds"])
        if seeds != "none" and len(seeds.split()) < FEWEST_SEEDS:
            verdict = strict = OPEN
        questions, n = (int(row[key]) if key in row else None for key in ("questions", "n"))
        about = str(row.get("steps", "")), tuple(row.get("pair", ()))
        return cls(what, estimate(row), verdict, strict, unit, seeds, questions, n, *about)

    def only_if(self, condition: Part) -> Part:
        """The same, undecided where the condition is not shown to hold."""
        verdict = self.verdict if condition.verdict == HOLDS else OPEN
        return replace(self, verdict=verdict, strict=self.strict if condition.strict == HOLDS else OPEN)

    def __str__(self) -> str:
        value, low, high = (self.unit.scale * end for end in self.estimate)
        return f"{self.what}: {tables.cell(value, low, high, self.unit.digits)} {self.unit.name}"


def estimate(row: Mapping[str, Any]) -> Interval:
    return Interval(float(row["value"]), float(row["low"]), float(row["high"]))


def over_seeds(values: Sequence[float], confidence: float) -> Interval:
    """Mean with Student's t interval of the values of training seeds (S,); without end for one seed.

    Of the questions asked, unlike the bootstrap's; but it knows how little a few seeds say of others. Without end, too,
    where a seed has no value.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2 or np.isnan(mean):
        return Interval(mean, -np.inf, np.inf)
    share, t = _student(len(sample) - 1)
    half = float(np.interp((1 + confidence) / 2, share, t) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


def p_over_seeds(values: Sequence[float]) -> float:
    """Two-sided p-value of Student's t test that the values of training seeds (S,) have the mean 0; 1 for one seed."""
    sample = np.asarray(values, dtype=np.float64)
    mean = abs(float(sample.mean()))
    if len(sample) < 2 or mean == 0:
        return 1.0
    error = float(sample.std(ddof=1) / np.sqrt(len(sample)))
    share, t = _student(len(sample) - 1)
    return 2 * (1 - float(np.interp(mean / error if error > 0 else np.inf, t, share)))


def _student(freedom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Student's distribution function at many points: shares and t, both rising.

    With t = √ν tan θ the density over θ is proportional to cos^(ν−1) θ, on a finite range.
    """
    points = 100_000
    angle = ((np.arange(points) + 0.5) / points - 0.5) * np.pi
    density = np.cos(angle) ** (freedom - 1)
    share = (density.cumsum() - density / 2) / density.sum()
    return share, np.sqrt(freedom) * np.tan(angle)


def widened(interval: Interval, by_seed: Sequence[float], confidence: float) -> Interval:
    """An interval that also covers the one over training seeds alone."""
    alone = over_seeds(by_seed, confidence)
    return Interval(interval.mean, min(interval.low, alone.low), max(interval.high, alone.high))


class MissingRuns(Exception):
    """Runs that a claim needs and the records do not have; the message names them."""


class Evidence:
    """The records of a profile, and the statistics that claims ask of them, each as a row of a tidy frame.

    Rows have value, low, high, seeds, what else they rest on, by_seed (see the module) and confidence; `pair`, the two
    algorithms of a comparison.

    Raises (all methods):
        MissingRuns: without which there is nothing to estimate.
        DataError: where there are no records, or records that cannot be compared.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.resampler = Resampler(config.evaluation.resamples, config.evaluation.confidence)
        self.names = {name: text.partition(" (")[0] for name, text in tables.names(config).items()}
        self.reach = f"Pass@{max(config.evaluation.ks)}"
        """The Pass@k of the largest k after training."""
        self.followed = f"Pass@{config.curve_k}"
        """That of the largest k that there are enough responses for along training."""
        self.asked: set[tuple[Record, str]] = set()
        """Of which algorithms which record was asked for: `absent` names what of these is not there."""
        self._frames: dict[Record, pd.DataFrame] = {}

    def _frame(self, record: Record) -> pd.DataFrame:
        """All rows of a record, the base model's included; see `rows`."""
        if record not in self._frames:
            config = self.config
            frame = records.read(config.results, record, config, record in OF_BASE, config.runs.names)
            if record == "counts":
                frame = analysis.measures(analysis.final(frame), config.evaluation.ks)[0].assign(difficulty=OVERALL)
            elif record == "evaluations":
                frame, _ = analysis.measures(frame, [int(self.followed.removeprefix("Pass@"))])
            self._frames[record] = frame
        return self._frames[record]

    def rows(self, record: Record, *names: str) -> pd.DataFrame:
        """Records of these algorithms and the seeds that all of them have; the base model goes with any.

        Counts are those of the last step, with a column for every Pass@k; evaluations have that of `followed`.
        """
        self.asked |= {(record, name) for name in names}
        frame = self._frame(record)
        there = {name: set(frame.loc[frame["algorithm"] == name, "seed"]) for name in names}
        lacking = [name for name, found in there.items() if not found]
        if lacking:
            raise MissingRuns(", ".join(run for name in lacking for run in self._configured(name) or [name]))
        shared = set[int].intersection(*(found for name, found in there.items() if name != BASE))
        if not shared:
            raise MissingRuns(f"a seed that {' and '.join(names)} share")
        return frame[frame["algorithm"].isin(names) & (frame["seed"].isin(shared) | (frame["algorithm"] == BASE))]

    def _configured(self, name: str) -> list[str]:
        return [f"{algorithm}-{seed}" for algorithm, seed in self.config.runs.all if algorithm == name]

    def absent(self) -> list[str]:
        """Configured runs of the algorithms asked for that have no such record, in the order of the configuration."""
        config = self.config
        found = {run for of, name in self.asked for run in records.missing(config.results, of, config, [name])}
        return [f"{algorithm}-{seed}" for algorithm, seed in config.runs.all if f"{algorithm}-{seed}" in found]

    def minus(self, ours: str, theirs: str) -> str:
        """What to call a difference."""
        return f"{self.names[ours]} − {self.names[theirs]}"

    # After training

    def difference(
        self, metric: str, ours: str, theirs: str, combined: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Of a column of the counts, ours minus theirs.

        Args:
            combined: take the sum of these columns times these weights, under the name `metric`, instead.
        """
        frame = _same_end(self.rows("counts", ours, theirs), ours)
        if combined is not None:
            frame = frame.assign(**{metric: sum(weight * frame[name] for name, weight in combined.items())})
        row = _only(analysis.differences(frame, [metric], theirs, self.resampler)) | {"pair": (ours, theirs)}
        return self._with(row, _by_seed(frame, metric, ours) - _by_seed(frame, metric, theirs))

    def leads(self, ours: str, rivals: Sequence[str], wanted: str) -> list[dict[str, Any]]:
        """Pass@1 of ours minus each rival's, the strongest rival first; `p_holm` is corrected for all of them.

        Each on the seeds that the two have, which the rows name. `p_strict` is the same as `p_holm` of the larger one
        of the bootstrap's p-value and that over training seeds alone.

        Args:
            rivals: of which those without records, or without a seed of ours, are left out.
            wanted: what to call any rival where there is none.
        """
        self.rows("counts", ours)
        self.asked |= {("counts", name) for name in rivals}
        frame = self._frame("counts")
        frame = frame[frame["algorithm"].isin([ours, *rivals])]
        gaps = analysis.differences(_same_end(frame, ours), ["Pass@1"], ours, self.resampler)
        if gaps.empty:
            raise MissingRuns(wanted)
        turned = gaps.assign(value=-gaps["value"], low=-gaps["high"], high=-gaps["low"])
        rows = _all(turned.sort_values("value", kind="stable"))
        own = _by_seed(frame, "Pass@1", ours)
        rows = [
            self._with(
                row | {"pair": (ours, row["algorithm"])},
                (own - _by_seed(frame, "Pass@1", row["algorithm"])).dropna(),
            )
            for row in rows
        ]
        strict = analysis.holm([max(row["p"], p_over_seeds(row["by_seed"])) for row in rows])
        return [row | {"p_strict": float(p)} for row, p in zip(rows, strict, strict=True)]

    def best_of(self, ours: str, rivals: Mapping[str, str], wanted: str) -> list[Part]:
        """`verdicts.best` on each of `leads`; rivals: algorithm → what to call the difference."""
        level = 1 - self.config.evaluation.confidence
        parts = []
        for row in self.leads(ours, list(rivals), wanted):
            p = f"p = {row['p_holm']:.2g}" if row["p_holm"] >= 0.001 else "p < 0.001"
            what = f"{rivals[row['algorithm']]} (corrected {p})"
            verdict, strict = (best(row["value"], row[key], level) for key in ("p_holm", "p_strict"))
            parts.append(Part.judged(what, verdict, strict, POINTS, row))
        return parts

    def share_of_base(self, metric: str, name: str) -> dict[str, Any]:
        """Mean of a column of the counts divided by the base model's, the same questions above and below the bar."""
        frame = self.rows("counts", name, BASE)
        wide = frame.pivot(index=["algorithm", "seed"], columns="question_id", values=metric)
        if wide.isna().any(axis=None):
            raise DataError(f"{name} and the base model answered different questions: evaluate both alike.")
        end = pd.DataFrame(wide.loc[name])
        start = np.repeat(wide.loc[BASE].to_numpy(), len(end), axis=0)
        means = self.resampler.means(end) / self.resampler.means(start)
        low, high = self.resampler.percentiles(means)
        about = {"seeds": " ".join(map(str, end.index)), "questions": wide.shape[1], "n": int(frame["n"].iloc[0])}
        row = {"value": end.to_numpy().mean() / start.mean(), "low": low, "high": high} | about
        return self._with(row, end.mean(axis=1) / start.mean())

    # Along training

    def at_equal_accuracy(self, column: str, ours: str, theirs: str) -> dict[str, Any]:
        """Difference of a column of the evaluations where both first reach the same accuracy; NaN without one."""
        frame = self.rows("evaluations", ours, theirs)
        found = analysis.at_equal_accuracy(frame, theirs, self.resampler, column)
        row = _only(found[found["metric"] == "difference"]) | {"pair": (ours, theirs)}
        once = Resampler(1, self.config.evaluation.confidence)
        alone = [
            analysis.at_equal_accuracy(part, theirs, once, column).set_index("metric")["value"]["difference"]
            for _, part in frame.groupby("seed")
        ]
        return self._with(row, pd.Series(alone))

    def training(self, ours: str, theirs: str, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Column → its difference over the last half of the training, paired by seed and step."""
        rows = self.rows("metrics", ours, theirs).set_index(["seed", "step"]).sort_index()
        one, other = (rows.loc[rows["algorithm"] == name, list(columns)] for name in (ours, theirs))
        if not one.index.equals(other.index):
            raise DataError(f"{ours} and {theirs} recorded different training steps: finish both (dvc repro).")
        paired = (one - other).reset_index().assign(algorithm=ours)
        found = self._means(paired, columns, parts=2)
        return {column: row | {"pair": (ours, theirs)} for column, row in found.items()}

    def ratio(self, column: str, ours: str, theirs: str) -> dict[str, Any]:
        """Mean of what training recorded over that of another algorithm: `analysis.ratio`."""
        found = analysis.ratio(self.rows("metrics", ours, theirs), column, ours, theirs, self.resampler)
        return found | {"confidence": self.config.evaluation.confidence}

    def unequal_steps(self, ours: str, theirs: str) -> str:
        """What a comparison of the two does not take out: how far each moved in a step, where that is shown to differ.

        Empty where the interval of the ratio of their KL divergences holds 1, or where they were not recorded.
        """
        absent = set(records.missing(self.config.results, "metrics", self.config, [ours, theirs]))
        if any(absent >= set(self._configured(name)) for name in (ours, theirs)):
            return ""
        times = estimate(self.ratio("kl/step", ours, theirs))
        if times.low <= 1 <= times.high:
            return ""
        rates = self.rows("metrics", ours, theirs).groupby("algorithm")["learning_rate"].max()
        said = tables.cell(*times, digits=1 if times.mean >= 10 else 2)
        return (
            f"A confound: the KL divergence within a step was {said} times the other's (learning rates "
            f"{tables.rate(rates[ours])} and {tables.rate(rates[theirs])})"
        )

    def whole_training(self, name: str, omega: float) -> dict[str, dict[str, Any]]:
        """`tail/sum` and `tail/holds` of `analysis.tail_terms` → their means over all steps."""
        terms = analysis.tail_terms(self.rows("metrics", name), {name: omega})
        columns = ["tail/sum", "tail/holds"]
        return self._means(terms, columns, parts=1)

    def _means(self, metrics: pd.DataFrame, columns: Sequence[str], parts: int) -> dict[str, dict[str, Any]]:
        """Column → its mean over the last of equal parts of the training of one algorithm."""
        means = analysis.block_means(metrics, columns, self.resampler, parts)
        rows = {}
        for column in columns:
            found = means[(means["metric"] == column) & means["steps"].str.endswith(f"–{metrics['step'].max()}")]
            if found.empty:
                raise DataError(f"The last steps of {metrics['algorithm'].iloc[0]} have no defined {column}.")
            row = _only(found)
            first, last = map(int, row["steps"].split("–"))
            rows[column] = self._with(row, _by_seed(metrics[metrics["step"].between(first, last)], column))
        return rows

    def tails(self, name: str, alpha: float, beta: float) -> list[dict[str, Any]]:
        """`analysis.monotonicity` of the base model and of an algorithm at its last step: both tails of each."""
        rows = self.rows("quantile_logprob", name, BASE)
        rows = rows[rows["step"] == rows.groupby("algorithm")["step"].transform("max")]
        curves = analysis.quantile_curves(rows)
        questions = dict(zip(curves["algorithm"], curves["questions"], strict=True))
        found = analysis.monotonicity(curves, alpha, beta)
        for tail in ("lower", "upper"):
            if tail not in set(found.get("tail", ())):
                raise MissingRuns(f"curves with two of evaluation.quantile_levels in the {tail} tail")
        alone = pd.concat(
            analysis.monotonicity(analysis.quantile_curves(run), alpha, beta).assign(seed=seed)
            for seed, run in rows.groupby("seed")
        ).set_index(["algorithm", "tail"])["value"]
        kept = ("algorithm", "tail", "value", "low", "high", "assumed", "seeds")
        return [
            self._with(
                {key: row[key] for key in kept} | {"questions": questions[row["algorithm"]]},
                alone[[(row["algorithm"], row["tail"])]],
            )
            for row in _all(found)
        ]

    def _with(self, row: dict[str, Any], by_seed: pd.Series[float]) -> dict[str, Any]:
        return row | {"by_seed": by_seed.to_list(), "confidence": self.config.evaluation.confidence}


def _by_seed(frame: pd.DataFrame, column: str, name: str | None = None) -> pd.Series[float]:
    """Mean of a column for each seed, of one algorithm or of the only one."""
    rows = frame if name is None else frame[frame["algorithm"] == name]
    return rows.groupby("seed")[column].mean()


def _same_end(frame: pd.DataFrame, ours: str) -> pd.DataFrame:
    """The frame, where all that was trained ends at the same step."""
    ends = frame[frame["algorithm"] != BASE].groupby("algorithm", sort=False)["step"].max()
    for name, end in ends.items():
        if end != ends[ours]:
            raise DataError(f"{ours} ends at step {ends[ours]} and {name} at step {end}: compare equally many steps.")
    return frame


def _only(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = _all(frame)
    return row


def _all(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
