"""What the tables of a profile say, in sentences: computed from the estimates and their intervals.

A difference is called higher or lower only where its interval, as it is written, leaves out 0. Every sentence is a
function of a `Study`; `report` puts them below the titles of the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pandas as pd

from riskpo_study import ablations, algorithms, scale_findings, tables, tuning
from riskpo_study.analysis import FOLLOWED, OVERALL, heading, joined
from riskpo_study.config import Config
from riskpo_study.errors import DataError
from riskpo_study.records import BASE

_LISTED = 4
"""Of more algorithms than this, a sentence names the lowest, the highest and the followed ones."""


class Study:
    """The tables of one profile, and how running text speaks of them."""

    def __init__(self, config: Config) -> None:
        self.config, self.names = tuning.so_far(config), tables.names(config)

    def table(self, path: str) -> pd.DataFrame:
        """tables/<path>.csv of the profile.

        Raises:
            DataError: where it is not there.
        """
        found = tables.read(self.config.results / "tables" / f"{path}.csv")
        if found is None:
            raise DataError(f"{self.config.profile} has figures without tables/{path}.csv: dvc repro makes both.")
        return found

    def name(self, algorithm: str) -> str:
        """Without the options, which stand on every figure and in every table."""
        name = str(self.names.get(algorithm, algorithm)).partition(" (")[0]
        return "the base model" if algorithm == BASE else name

    def listed(self, rows: pd.DataFrame, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """`GRPO 0.49 [0.48, 0.50] and RiskPO 0.58 [0.57, 0.59]`; of many the lowest, the highest and the followed."""
        if len(rows) <= _LISTED:
            return joined(self._said(rows, scale, digits, unit))
        ordered = rows.sort_values("value")
        text = f"{len(rows)} of them, from {' to '.join(self._said(ordered.iloc[[0, -1]], scale, digits, unit))}"
        between = ordered.iloc[1:-1]
        between = between[between["algorithm"].isin(FOLLOWED)]
        return f"{text}, with {joined(self._said(between, scale, digits, unit))}" if len(between) else text

    def verdict(
        self,
        rows: pd.DataFrame,
        scale: float = 1.0,
        digits: int = 2,
        words: tuple[str, str, str] = ("higher", "lower", "not shown to differ"),
    ) -> str:
        """Which estimates lie above, below or around 0, judged by their intervals as they are written."""
        above, below = (scale * rows["low"]).round(digits) > 0, (scale * rows["high"]).round(digits) < 0
        groups = zip(words, (rows[above], rows[below], rows[~(above | below)]), strict=True)
        return "; ".join(f"{word}: {self.listed(part, scale, digits)}" for word, part in groups if len(part))

    def _said(self, rows: pd.DataFrame, scale: float, digits: int, unit: str = "") -> list[str]:
        said = []
        for algorithm, *ends in rows[["algorithm", "value", "low", "high"]].to_numpy():
            value, low, high = (scale * end for end in ends)
            text = tables.cell(value, low, high, digits).replace(" [", f"{unit} [")
            said.append(f"{self.name(algorithm)} {text}")
        return said


Finding = Callable[[Study], str]


def _of(table: pd.DataFrame, metric: str | None = None, base: bool = True) -> pd.DataFrame:
    """Rows over all questions, of one metric, with or without the base model."""
    chosen = table["difficulty"] == OVERALL
    if metric is not None:
        chosen &= table["metric"] == metric
    return table[chosen & (base | (table["algorithm"] != BASE))]


def _first_and_most(table: pd.DataFrame) -> tuple[str, str]:
    """Pass@1 and the Pass@k of the largest k."""
    found = [metric for metric in table["metric"].unique() if metric.startswith("Pass@")]
    return "Pass@1", max(found, key=lambda metric: int(metric.partition("@")[2]))


def _compared(study: Study, gaps: pd.DataFrame, reference: str) -> str:
    return f" Minus {study.name(reference)}, {study.verdict(gaps, digits=3)}." if len(gaps) else ""


# Pass@k


def right_answers(study: Study) -> str:
    table = study.table("06_passk/passk")
    parts = (f"{m}: {study.listed(_of(table, m), 100, 1, '%')}" for m in _first_and_most(table))
    return f"On all questions, {'. '.join(parts)}."


def compared(path: str) -> Finding:
    """Of a table of differences."""

    def finding(study: Study) -> str:
        table = _of(study.table(path), base=False)
        if table.empty:
            return "There is nothing to compare."
        reference = study.name(table["reference"].iloc[0])
        parts = (f"{m}, {study.verdict(_of(table, m), 100, 1)}" for m in _first_and_most(table))
        return f"Minus {reference}, in percentage points: {'. '.join(parts)}."

    return finding


def carried_over(task: str) -> Finding:
    """Of the differences on another task."""

    def finding(study: Study) -> str:
        table = study.table(f"11_tasks/{task}/differences")
        if table.empty:
            return "There is nothing to compare."
        parts = (f"{metric}, {study.verdict(rows, 100, 1)}" for metric, rows in table.groupby("metric", sort=False))
        return f"Minus {study.name(table['reference'].iloc[0])}, in percentage points: {'. '.join(parts)}."

    return finding


def learning_curves(study: Study) -> str:
    table = study.table("06_passk/learning_curves")
    last = _of(table[table["step"] == table["step"].max()])
    parts = (f"{m} {study.listed(part, 100, 1, '%')}" for m, part in last.groupby("metric", sort=False))
    return f"At step {table['step'].max()}, on all questions of the curves: {'; '.join(parts)}."


def gap(study: Study) -> str:
    """At how many attempts each algorithm is ahead of the reference or behind it."""
    table = _of(study.table("06_passk/differences"), base=False)
    table = table[table["metric"].str.startswith("Pass@")]
    if table.empty:
        return "There is nothing to compare."
    table = table.assign(k=table["metric"].str.removeprefix("Pass@"))
    parts = []
    for algorithm, rows in table.groupby("algorithm", sort=False):
        shown = {"higher": rows["low"] > 0, "lower": rows["high"] < 0}
        found = [f"{word} at {', '.join(rows.loc[at, 'k'])}" for word, at in shown.items() if at.any()]
        parts.append(f"{study.name(str(algorithm))} {' and '.join(found) or 'not shown to differ at any k'}")
    return f"Minus {study.name(table['reference'].iloc[0])}, by attempts k: {'; '.join(parts)}."


def learning_curves_k(study: Study) -> str:
    table = study.table("06_passk/learning_curves_k")
    last = table[table["step"] == table["step"].max()]
    (_, most), hardest = _first_and_most(table), last["difficulty"].max()
    part = last[(last["metric"] == most) & (last["difficulty"] == hardest)]
    text = f"At step {table['step'].max()}, {most} on questions with {heading(hardest)}: "
    return f"{text}{study.listed(part, 100, 1, '%')}."


def levels(study: Study) -> str:
    table = study.table("06_passk/levels")
    parts = (f"{m} {study.listed(part, 100, 1, '%')}" for m, part in table.groupby("metric", sort=False))
    return f"Highest points after the start: {'; '.join(parts)}."


def solved(study: Study) -> str:
    table = study.table("06_passk/solved")
    found, alone = (study.listed(table[table["metric"] == metric], 100, 1, "%") for metric in ("solved", "alone"))
    return f"Share of the questions solved at least once: {found}. Solved by no other of them: {alone}."


def frontier(study: Study) -> str:
    table = study.table("06_passk/changes")
    parts = (f"{m} {study.listed(part, 100, 1)}" for m, part in table.groupby("metric", sort=False))
    text = f"From the start to step {table['step'].max()}, in percentage points: {'; '.join(parts)}. "
    equal = study.table("06_passk/equal_accuracy")
    return text + _at_equal_accuracy(study, equal, f"in points of Pass@{study.config.curve_k}", 100, 1)


def what_the_frontier_rests_on(study: Study) -> str:
    """How much less there is along training than after it."""
    config = study.config
    k, most = config.curve_k, max(config.evaluation.ks)
    asked = study.table("06_passk/changes")["questions"].max()
    return (
        f"Changes since the start, paired by question, of Pass@{k} and Avg@{config.train.curve_samples} on {asked} "
        f"questions: not of Pass@{most} and Pass@1 on all held-out ones, since there are so many responses before and "
        "after training only."
    )


def distinct_answers(study: Study) -> str:
    part = _of(study.table("06_passk/answers"), "distinct_correct")
    samples = study.config.evaluation.samples
    return f"Different right answers among {samples} responses, mean over all questions: {study.listed(part)}."


# Ours


def stratified(study: Study) -> str:
    """What stratified bundles reach beside GRPO, and what the comparison does not take out."""
    ours, theirs = "riskpo_stratified", "grpo"
    table = _of(study.table("06_passk/differences"))
    table = table[table["reference"] == theirs]
    gaps = table[table["algorithm"] == ours]
    first, most = _first_and_most(table)
    parts = [f"{m}, {study.verdict(gaps[gaps['metric'] == m], 100, 1)}" for m in (first, most)]
    equal = study.table("06_passk/equal_accuracy")
    equal = equal[(equal["algorithm"] == ours) & (equal["reference"] == theirs) & (equal["metric"] == "difference")]
    parts.append(f"Pass@{study.config.curve_k} at equal accuracy, {study.verdict(equal, 100, 1) or 'not compared'}")
    text = f"Minus {study.name(theirs)}, in percentage points: {'. '.join(parts)}."
    steps = study.table("04_entropy/steps").set_index("algorithm")
    rates = steps["learning_rate"]
    if rates[ours] == rates[theirs]:
        return text
    kl = 1e3 * steps[["value", "low", "high"]]
    said = [
        f"{study.name(name)} {tables.cell(kl['value'][name], kl['low'][name], kl['high'][name], 3)} at the learning "
        f"rate {tables.rate(rates[name])}"
        for name in (ours, theirs)
    ]
    text += (
        " **A confound**: each trained at the rate that it was tuned to, and their steps differ in length. KL "
        f"divergence within a step, in 10⁻³ nats: {joined(said)}."
    )
    variants = study.config.algorithms
    rivals = [
        name for name in rates.index[rates == rates[ours]] if algorithms.preset_name(name, variants[name]) == theirs
    ]
    text += _without_the_confound(study, ours, rivals) or (
        f" None of the runs compared here has {study.name(theirs)} with steps of that length."
    )
    alike = table[(table["metric"] == most) & table["algorithm"].isin(rates.index[rates == rates[ours]].drop(ours))]
    if len(alike):
        text += f" Others at the rate of {study.name(ours)}: {most}, {study.verdict(alike, 100, 1)}."
    return text + _at_the_same_rate(study, ours, theirs)


def _without_the_confound(study: Study, ours: str, rivals: list[str]) -> str:
    """How much further it reaches at equal accuracy than rivals that trained at the same rate."""
    if not rivals:
        return ""
    table = study.table("06_passk/pairs_equal_accuracy")
    table = table[(table["algorithm"] == ours) & table["reference"].isin(rivals)]
    gaps = table.drop(columns="algorithm").rename(columns={"reference": "algorithm"})
    reach = f"Pass@{study.config.curve_k} at equal accuracy"
    return f" Minus those that trained at the same rate, in {reach}, {study.verdict(gaps, 100, 1)}."


def _at_the_same_rate(study: Study, ours: str, theirs: str) -> str:
    """The outcomes of the tuning at the rates that both tried."""
    config = study.config
    if not all(tuning.path(config, name).is_file() for name in (ours, theirs)):
        return ""
    one, other = (tuning.outcomes(config, name).set_index("learning_rate") for name in (ours, theirs))
    shared = one.index.intersection(other.index)
    if len(one) < 2 or not (one.index.is_unique and other.index.is_unique and len(shared)):
        return ""
    (reach,) = (str(column) for column in one if str(column).startswith("pass_at_"))
    said = []
    for rate in shared:
        pairs = (f"{100 * of['accuracy'][rate]:.1f} and {100 * of[reach][rate]:.1f}" for of in (one, other))
        said.append(f"at {tables.rate(rate)} {' against '.join(pairs)}")
    return (
        f" In the tuning, one run each, {study.name(ours)} against {study.name(theirs)} at the same rates: accuracy "
        f"and {reach.replace('pass_at_', 'Pass@')}, in %, {'; '.join(said)}."
    )


def lengths(study: Study) -> str:
    """How far the algorithms move in a step."""
    table = study.table("04_entropy/steps")
    return f"KL divergence within a step, in 10⁻³ nats: {study.listed(table, 1e3, 3)}."


# Ablations


def ablation(name: str) -> Finding:
    """Of one family of settings."""

    def finding(study: Study) -> str:
        table, family = study.table(f"08_ablation/{name}/differences"), ablations.family(name)
        of = copy(study)
        of.names = ablations.cells(study.config, family)
        parts = (f"{m}, {of.verdict(_of(table, m), 100, 1)}" for m in _first_and_most(table))
        return f"Minus {of.names[family.centre]}, in percentage points: {'. '.join(parts)}."

    return finding


# Entropy


def entropy(study: Study) -> str:
    table, gaps = study.table("04_entropy/entropy"), study.table("04_entropy/entropy_differences")
    steps = study.config.train.steps
    text = f"On the held-out questions, in nats per token, after {steps} steps (the base model: before): "
    text += f"{study.listed(_of(table))}."
    gaps = _of(gaps, base=False)
    return text + (_compared(study, gaps, gaps["reference"].iloc[0]) if len(gaps) else "")


def equal_accuracy(study: Study) -> str:
    table = study.table("04_entropy/equal_accuracy")
    return _at_equal_accuracy(study, table, "in nats per token", digits=3)


def _at_equal_accuracy(study: Study, table: pd.DataFrame, unit: str, scale: float = 1, digits: int = 2) -> str:
    if table.empty:
        return "There is nothing to compare."
    gaps = table[table["metric"] == "difference"]
    compared, without = gaps[gaps["value"].notna()], gaps[gaps["value"].isna()]
    text = f"Minus {study.name(table['reference'].iloc[0])}, {unit}, where both first reach the lower of the "
    text += f"accuracies that they end with; {study.verdict(compared, scale, digits) or 'nothing to compare'}."
    if len(without):
        listed = joined([study.name(name) for name in without["algorithm"]])
        text += f" No such accuracy, for one of the two is not shown to end better than it started: {listed}."
    return text


def _last(study: Study, path: str, *metrics: str) -> tuple[str, list[pd.DataFrame]]:
    """The last part of the training, and the rows of each metric there."""
    table = study.table(f"04_entropy/{path}")
    steps = table["steps"].iloc[-1]
    within = table[table["steps"] == steps]
    return f"Over steps {steps}", [within[within["metric"] == metric] for metric in metrics]


def right_and_wrong(study: Study) -> str:
    over, (right, wrong) = _last(study, "training", "entropy/right", "entropy/wrong")
    found = ((name, rows) for name, rows in (("right", right), ("wrong", wrong)) if len(rows))
    parts = (f"{name} responses {study.listed(rows)}" for name, rows in found)
    return f"{over}, in nats per token: {'; '.join(parts)}."


def tail_terms(study: Study) -> str:
    over, (total, holds) = _last(study, "covariance", "tail/sum", "tail/holds")
    verdict = study.verdict(total, digits=3, words=("above 0", "below 0", "sign undecided"))
    share = study.listed(holds, 100, 0, "%")
    return f"{over}, ωL + U is {verdict}. It is at least 0 at this share of the steps: {share}."


def what_the_bundles_are_of(study: Study) -> str:
    """Whose bundles hold other questions than the rest's."""
    config = study.config
    presets = {name: algorithms.preset_name(name, config.algorithms[name]) for name in config.runs.algorithms}
    left_out = [study.name(name) for name, of in presets.items() if algorithms.ALGORITHMS[of].dynamic_sampling]
    text = "The mean reward is of everything generated. The risk measures are of bundles, in random order and alike "
    text += "for all algorithms, of the questions that the update learns from"
    if left_out:
        text += f": {joined(left_out)}, which sample{'s' * (len(left_out) == 1)} dynamically, leave"
        text += f"{'s' * (len(left_out) == 1)} out those that are always or never solved"
    return f"{text}."


def rewards(study: Study) -> str:
    over, (mean, cvar) = _last(study, "training", "reward/mean", "risk/cvar")
    return f"{over}: mean reward {study.listed(mean)}; CVaR of the bundle score {study.listed(cvar)}."


def regions(study: Study) -> str:
    over, (tracked, *parts) = _last(study, "training", "quantile/alpha", "region/lower", "region/upper")
    below, above = (study.listed(part[part["algorithm"].isin(tracked["algorithm"])], 100, 0, "%") for part in parts)
    return f"{over}, share of bundles below the tracked lower quantile: {below}; above the upper one: {above}."


def signal(study: Study) -> str:
    over, parts = _last(study, "training", "share/zero_variance", "share/zero_advantage")
    equal, zero = (study.listed(part, 100, 0, "%") for part in parts)
    return f"{over}: questions with equal rewards {equal}; responses of zero advantage {zero}."


# Risk profiles


def risk_profiles(study: Study) -> str:
    part = _of(study.table("09_risk_profiles/risk_profiles"), "Pass@1", base=False)
    return f"Pass@1 after training, on all questions: {study.listed(part, 100, 1, '%')}."


# Beyond one machine


def tolerance(study: Study) -> str:
    drifts, tolerated = study.table("12_scale/drift"), study.table("12_scale/tolerated")
    fastest = drifts.sort_values("drift").iloc[-1]
    text = f"The fastest change of accuracy in this profile, {study.name(fastest['algorithm'])}'s, is "
    text += f"{tables.cell(1000 * fastest['drift'])} ‰ a step, of which "
    text += f"RiskPO's quantiles tolerate {fastest['rule']:.0f} steps by the rule. "
    return text + scale_findings.tolerated(tolerated)


def learning_from_old(study: Study) -> str:
    return scale_findings.lost(study.table("12_scale/lost"))


# Quantile curves


def tails(quantity: str) -> Finding:
    """Of the log-probability of a response or of a token."""

    def finding(study: Study) -> str:
        table = study.table("05_quantile_logprob/monotonicity")
        table = table[table["quantity"] == quantity]
        ends = table[table["step"] == table.groupby("algorithm")["step"].transform("max")]
        if ends.empty:
            return "No tail has two levels to compare."
        words = ("rises", "falls", "undecided")
        sentences = [
            f"In the {tail} tail (assumed to {part['assumed'].iloc[0].removesuffix('s')}), "
            f"{study.verdict(part, words=words)}."
            for tail, part in ends.groupby("tail", sort=False)
        ]
        return f"Change through a tail, of the base model and of the trained ones, in nats. {' '.join(sentences)}"

    return finding
