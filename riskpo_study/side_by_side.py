"""Tables 1 to 5 of the paper in its form, the numbers of a profile beside its own.

`cells` fills a table: a tidy frame in which every cell has a value or the reason why there is none. `shown` says it to
readers. Where a profile asks other questions than the paper, its difficulties are further columns, and what can be
compared is the order of the averages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from riskpo_study import ablations, analysis, published, tables
from riskpo_study.analysis import AVERAGE, Resampler
from riskpo_study.config import Config
from riskpo_study.records import BASE

__all__ = ["FORMS", "Form", "Shown", "about", "as_markdown", "cells", "read", "save", "shown"]

PAPER, OURS = "paper", "ours"
METRIC = "Pass@1"
DIFFERENCE = "difference"
"""The column of averages minus that of `REFERENCE`, which in an ablation has the paper's setting."""

METHODS = {"GRPO": "grpo", "DAPO": "dapo", "GMPO": "gmpo", "RiskPO": "riskpo"}
"""Row of the paper → algorithm."""
REFERENCE = METHODS["RiskPO"]

BENCHMARKS = {
    "AIME25": "aime_2025", "AIME24": "aime_2024", "AMC": "amc_2023", "MATH500": "math_500", "Minerva": "minerva_math",
    "OlympiadBench": "olympiad_bench", "MATH": "math_test", "GSM8K": "gsm8k_test", "LiveCodeBench": "livecodebench",
}  # fmt: skip
"""Column of the paper → difficulty in the tasks `math` and `code`, where that is the dataset."""
DOMAINS = {"LiveCodeBench": "programs", "Geometry3K": "answers about images"}
"""Column of the paper that is of another domain → what it asks for."""

UNREAD = "the paper has no such number, or it could not be read"
UNASKED = "questions of this profile, not of the paper"
UNTRAINED = "not trained in this profile"
UNVARIED = "no such ablation in this profile"
UNMADE = "the runs are missing"
UNEVALUATED = "not a benchmark of this profile"
INCOMPLETE = "not all of its benchmarks are in this profile"
UNSHARED = "no run with a seed of the reference"


@dataclass(frozen=True)
class Form:
    """What a table of the paper is about.

    Attributes:
        suite: of whose benchmarks.
        family: of `ablations.FAMILIES`, where rows are settings instead of methods; `factor` in the paper's files.
    """

    title: str
    suite: published.Suite
    family: str | None = None
    factor: published.Factor | None = None


FORMS = {
    1: Form("hard math", "hard math"),
    2: Form("easy math, code and multi-modal questions", "easy math"),
    3: Form("levels of the two quantiles", "easy math", "levels", "quantile_levels"),
    4: Form("questions in a bundle", "easy math", "bundle_size", "bundle_size"),
    5: Form("weight of the lower tail", "easy math", "omega", "omega"),
}
"""Number of the table → its form."""


# The cells


def cells(number: int, scored: pd.DataFrame, config: Config, resampler: Resampler) -> pd.DataFrame:
    """A table of the paper as a tidy frame, a row for each cell of either source.

    Args:
        scored: a row a question after training, with the column Pass@1 (`analysis.measures`), of the base model and of
            all runs of the configuration that have records.
        config: with the tuned options (`tuning.so_far`), by which the settings of an ablation are told apart.

    Returns:
        table, row, algorithm, source (paper or ours), column; value, low, high, as shares; n, questions, seeds; reason,
        where there is no value; missing, the runs of the row without records. An ablation is on the seeds that all of
        its settings have, where they share some, as in `ablations.compared`.

    Raises:
        DataError: where algorithms answered different questions.
    """
    form = FORMS[number]
    asked = [str(difficulty) for difficulty in sorted(scored["difficulty"].unique())]
    own = [] if set(asked) & set(BENCHMARKS.values()) else asked
    columns, averaged = _columns(form, asked, own)
    rows = _rows(form, config)
    configured = {algorithm for algorithm in rows.values() if algorithm in {BASE, *config.runs.names}}
    part = scored[scored["algorithm"].isin(configured)].assign(difficulty=scored["difficulty"].astype(str))
    seeds = {str(algorithm): set(group["seed"]) for algorithm, group in part.groupby("algorithm")}
    if form.family and (shared := set.intersection(*seeds.values()) if seeds else set()):
        part = part[part["seed"].isin(shared)]
    estimates = _estimates(part, averaged, resampler)
    printed = _printed(form, next(row for row, algorithm in rows.items() if algorithm == REFERENCE))

    def theirs(row: str, column: str) -> dict[str, Any]:
        if (row, column) in printed:
            return {"value": printed[row, column]}
        return {"reason": UNASKED if column in own and (row, AVERAGE) in printed else UNREAD}

    def ours(algorithm: str | None, column: str) -> dict[str, Any]:
        if algorithm not in configured:
            return {"reason": UNVARIED if form.family else UNTRAINED}
        if algorithm not in seeds:
            return {"reason": UNMADE}
        key = algorithm, BENCHMARKS.get(column, column)
        return estimates.get(key) or {"reason": _why_not(column, complete=set(averaged) <= set(asked))}

    def missing(algorithm: str | None) -> str | None:
        runs = [seed for name, seed in config.runs.all if name == algorithm and seed not in seeds.get(name, ())]
        return " ".join(f"{algorithm}-{seed}" for seed in runs) or None

    filled = []
    for row, algorithm in rows.items():
        for source in (PAPER, OURS) if form.family or row in METHODS else (OURS,):
            for column in columns:
                what = {"table": number, "row": row, "algorithm": algorithm, "source": source, "column": column}
                found = theirs(row, column) if source == PAPER else ours(algorithm, column)
                filled.append(what | {"missing": missing(algorithm) if source == OURS else None} | found)
    return pd.DataFrame(filled).reindex(columns=[*what, *_ESTIMATE, "reason", "missing"])


_ESTIMATE = ("value", "low", "high", "n", "questions", "seeds")


def _columns(form: Form, asked: Sequence[str], own: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns of a table, and the difficulties that our average is over."""
    printed = list(published.scores(form.suite).columns)
    at = printed.index(AVERAGE)
    before, after = printed[:at], printed[at + 1 :]
    averaged = list(own) or [BENCHMARKS[name] for name in before]
    if form.family:  # of the paper's ablations only averages could be read
        before, after = [name for name in before if BENCHMARKS[name] in asked], []
    return [*before, *own, AVERAGE, DIFFERENCE, *after], averaged


def _rows(form: Form, config: Config) -> dict[str, str | None]:
    """Row → algorithm, None for settings of the paper that the configuration lacks."""
    if form.family is None or form.factor is None:
        names = {name: text.partition(" (")[0] for name, text in tables.names(config).items()}
        compared = {method: METHODS[method] for method in published.averages(form.suite)}
        released = [name for name in ("riskpo_released",) if name in config.runs.names]
        return {names[BASE]: BASE, **compared, **{names[name]: name for name in released}}
    found = {label: name for name, label in ablations.cells(config, ablations.family(form.family)).items()}
    settings = dict.fromkeys([*published.ablation(form.factor), *found])
    return {setting: found.get(setting) for setting in sorted(settings, key=_numbers)}


def _numbers(setting: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", setting)]


def _printed(form: Form, reference: str) -> dict[tuple[str, str], float]:
    """(row, column) → the paper's number, as a share."""
    table = published.scores(form.suite)
    if form.factor is not None:
        table = pd.Series(published.ablation(form.factor)).to_frame(AVERAGE)
    if reference in table.index:
        table[DIFFERENCE] = table[AVERAGE] - float(table[AVERAGE].to_dict()[reference])
    shares = ((row, column, number / 100) for column in table for row, number in table[column].items())
    return {(str(row), str(column)): share for row, column, share in shares if pd.notna(share)}


def _estimates(
    scored: pd.DataFrame, averaged: Sequence[str], resampler: Resampler
) -> dict[tuple[str, str], dict[str, Any]]:
    """(algorithm, difficulty, `AVERAGE` or `DIFFERENCE`) → our number, its interval and what it rests on."""
    parts = {str(key): part for key, part in scored.groupby("difficulty")}
    tidy = {key: analysis.summary(part, [METRIC], resampler) for key, part in parts.items()}
    if set(averaged) <= set(parts):
        within = pd.concat([parts[key] for key in averaged])
        tidy[AVERAGE] = analysis.macro_averages(within, [METRIC], resampler)
        if REFERENCE in set(within["algorithm"]):
            tidy[DIFFERENCE] = analysis.macro_averages(within, [METRIC], resampler, REFERENCE)
    rows = ((column, row) for column, frame in tidy.items() for row in frame.to_dict("records"))
    return {(row["algorithm"], column): {key: row[key] for key in _ESTIMATE} for column, row in rows}


def _why_not(column: str, complete: bool) -> str:
    """Why an algorithm with records has no number in a column."""
    if column in DOMAINS:
        return f"another domain than this profile's: {DOMAINS[column]}"
    if column in BENCHMARKS:
        return UNEVALUATED
    return UNSHARED if complete else INCOMPLETE


# For readers


@dataclass(frozen=True)
class Shown:
    """A table for readers.

    Attributes:
        order: which averages are above and which below that of RiskPO, in a sentence.
        notes: what stands under the table: what it rests on, and a line for each reason why cells are missing.
    """

    title: str
    order: str
    table: pd.DataFrame
    notes: tuple[str, ...]


def about(config: Config) -> str:
    """What all five tables have in common."""
    return (
        "Pass@1 in percent. The paper's numbers are of single runs, without intervals. Ours are means with "
        f"{100 * config.evaluation.confidence:g}% bootstrap intervals over training seeds and questions, over "
        "questions alone where there is one seed. An average is the plain mean of the columns before it, as in the "
        "paper, and not over pooled questions; its interval resamples the questions of each column apart and the seeds "
        "for all columns together. Differences are paired by seed and question, on the seeds that both have, and not "
        "corrected for many comparisons; an ablation is on the seeds that all its settings have, if they share any. A "
        "dash is a number that is missing; the lines under the table say why."
    )


def shown(number: int, filled: pd.DataFrame, config: Config) -> Shown:
    """A table of the paper, `number`, from the cells of all."""
    form, part = FORMS[number], filled[filled["table"] == number]
    reference = str(part.loc[part["algorithm"] == REFERENCE, "row"].iloc[0])
    headings = {AVERAGE: "Average", DIFFERENCE: f"Minus {reference}"}
    own = [column for column in part["column"].unique() if column not in {*BENCHMARKS, *DOMAINS, *headings}]
    headings |= {column: analysis.heading(column) for column in own}
    names = {} if form.family else tables.names(config)
    rows = []
    for _, group in part.groupby(["row", "source"], sort=False):
        line = _lines(group)
        row, algorithm = line[0]["row"], line[0]["algorithm"]
        rows.append({
            "Setting" if form.family else "Method": names.get(algorithm, row) if line[0]["source"] == OURS else row,
            "Source": _source(group),
            **{headings.get(cell["column"], cell["column"]): _text(cell) for cell in line},
        })  # fmt: skip
    notes = [*_basis(part, form, config, headings), *_missing(part, headings)]
    return Shown(f"Table {number}: {form.title}", _order(part, reference), pd.DataFrame(rows), tuple(notes))


def _lines(cells: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in cell.items()} for cell in cells.to_dict("records")]


def _text(cell: Mapping[str, Any]) -> str:
    """A number as the paper prints it, averages with two decimals, or ours with its interval."""
    digits = 2 if cell["source"] == PAPER and cell["column"] in {AVERAGE, DIFFERENCE} else 1
    low, high = (None if pd.isna(cell[end]) else 100 * cell[end] for end in ("low", "high"))
    return tables.cell(100 * cell["value"], low, high, digits)


def _source(cells: pd.DataFrame) -> str:
    """Whose numbers a row has, and of which runs."""
    source = str(cells["source"].iloc[0])
    found = cells[cells["value"].notna() & (cells["column"] != DIFFERENCE)]
    if found.empty or found["seeds"].iloc[0] == "none":
        return source
    if source == PAPER:
        return f"{source}, one run"
    seeds = str(found["seeds"].iloc[0]).split()
    return f"{source}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def _order(part: pd.DataFrame, reference: str) -> str:
    gaps = part[(part["column"] == DIFFERENCE) & (part["row"] != reference) & part["value"].notna()]
    said = []
    for source, name, unclear in ((PAPER, "The paper", "equal"), (OURS, "Ours", "not shown to differ")):
        rows = gaps[gaps["source"] == source]
        above, below = (rows[end].fillna(rows["value"]) for end in ("low", "high"))
        groups = {"higher": above > 0, "lower": below < 0, unclear: (above <= 0) & (below >= 0)}
        listed = {word: [f"{cell['row']} ({_text(cell)})" for cell in _lines(rows[of])] for word, of in groups.items()}
        parts = [f"{word} {', '.join(texts)}" for word, texts in listed.items() if texts]
        said.append(f"{name}: {'; '.join(parts) or 'nothing to compare'}.")
    return f"Averages minus that of {reference}, in percentage points. {' '.join(said)}"


def _basis(part: pd.DataFrame, form: Form, config: Config, headings: Mapping[str, str]) -> Iterator[str]:
    """What the numbers of either source rest on, and how far they compare."""
    model = published.base_model(form.suite)
    remarks = [f"{method}: {note}." for method, note in published.notes(form.suite).items()]
    if form.family:
        remarks = ["Averages of MATH and GSM8K; settings that could not be read are left out."]
    yield " ".join([f"Paper: {model}, single runs.", *remarks])
    ours = part[part["source"] == OURS]
    numbers = ours[ours["value"].notna() & ~ours["column"].isin([AVERAGE, DIFFERENCE])].drop_duplicates("column")
    if len(numbers):
        listed = zip(numbers["column"], numbers["questions"], strict=True)
        questions = ", ".join(f"{headings.get(column, column)} {count:.0f}" for column, count in listed)
        text = f"Ours: profile {config.profile}; questions: {questions}; {numbers['n'].iloc[0]:.0f} responses to each."
        if not set(numbers["column"]) & set(BENCHMARKS):
            text += " Other questions and another model than the paper's: orders compare, levels do not."
        elif config.base_model.pretrained.rpartition("/")[2] != model:
            text += f" Another model than the paper's, {config.base_model.pretrained}: orders compare, levels do not."
        yield text
    if absent := " ".join(ours["missing"].dropna().unique()).split():
        yield f"Missing runs: {', '.join(absent)}."


def _missing(part: pd.DataFrame, headings: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason: rows without a number at all, then columns, with the rows where only some lack it."""
    for (source, reason), cells in part[part["value"].isna()].groupby(["source", "reason"], sort=False):
        of = part[part["source"] == source]
        each = of["column"].nunique()
        subjects = [str(row) for row, group in cells.groupby("row", sort=False) if len(group) == each]
        for column, rest in cells[~cells["row"].isin(subjects)].groupby("column", sort=False):
            name = headings.get(str(column), str(column))
            some = of.loc[of["column"] == column, "value"].notna().any()
            subjects.append(f"{name} of {' and '.join(rest['row'])}" if some else name)
        yield f"{'; '.join(subjects)} ({source}): {reason}."


# Files


def save(folder: Path, filled: pd.DataFrame, config: Config) -> None:
    """Write `cells.csv`, the cells of all tables, and `tables.md`, the tables for readers."""
    tables.save(folder, "cells", filled)
    text = as_markdown([shown(number, filled, config) for number in FORMS])
    (folder / "tables.md").write_text(f"{about(config)}\n\n{text}", encoding="utf-8")


def as_markdown(found: Sequence[Shown]) -> str:
    """Tables below each other, each under its title and above its notes."""
    sections = (
        f"## {one.title}\n\n{one.order}\n\n{tables.as_markdown(one.table)}\n"
        + "".join(f"- {line}\n" for line in one.notes)
        for one in found
    )
    return "\n".join(sections)


def read(config: Config) -> pd.DataFrame | None:
    """The cells that the notebook saved; None where it has not run yet."""
    return tables.read(config.results / "tables" / "13_tables" / "cells.csv")
