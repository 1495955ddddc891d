"""Tidy frames as readers see them: an estimate with its interval in a cell, as Markdown and as HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from riskpo_study import algorithms, files, tuning
from riskpo_study.analysis import OVERALL, heading
from riskpo_study.config import Config
from riskpo_study.records import BASE

__all__ = [
    "as_html", "as_markdown", "basis", "by_difficulty", "cell", "headline", "matched_table", "names",
    "questions", "read", "read_parts", "save", "stacked", "starred", "stars", "tails", "tuning_table", "wide",
]  # fmt: skip

_NAMES = {
    BASE: "Base model", "grpo": "GRPO", "dr_grpo": "Dr. GRPO", "dapo": "DAPO", "gpg": "GPG", "gmpo": "GMPO",
    "gspo": "GSPO", "rloo": "RLOO", "reinforce_pp": "REINFORCE++", "pass_at_k": "PKPO",
    "quantile_baseline": "QAE", "max_rl": "MaxRL", "focal": "Focal", "entropic": "RS-GRPO",
    "riskpo": "RiskPO", "riskpo_released": "RiskPO as released", "risk_seeking": "Risk-seeking",
    "riskpo_marginal": "RiskPO, marginal", "riskpo_stratified": "RiskPO, stratified",
    "mvar_accuracy": "MVaR of accuracies", "mvar_log_accuracy": "MVaR of log accuracies",
}  # fmt: skip
# What tells estimators of one name apart: said wherever the name stands, also where it is the preset's value.
_SAID = {
    "riskpo": ("baseline", "scale"), "risk_seeking": ("baseline", "scale"), "riskpo_released": ("credit",),
    "riskpo_marginal": ("baseline",), "riskpo_stratified": ("baseline",),
    "pass_at_k": ("k",),
}  # fmt: skip
_LISTED = 4  # more missing runs than this are counted only
_UNSAID = ("preset", "learning_rate")  # rates have a table of their own


def names(config: Config) -> dict[str, str]:
    """How tables and figures call the algorithms: the field's name, and options that tell estimators apart.

    Options are those that tuning chose, where it has.

    >>> names(config)["riskpo"]
    'RiskPO (baseline group, scale none)'
    """
    config = tuning.so_far(config)
    found = dict(_NAMES)
    for algorithm in dict.fromkeys([*algorithms.ALGORITHMS, *config.algorithms]):
        chosen = config.algorithms.get(algorithm, {})
        behind = algorithms.preset_name(algorithm, chosen)
        preset = algorithms.ALGORITHMS[behind]
        options = dict(preset.options) | {f"clip_{key}": value for key, value in preset.clip.items()}
        own = [key for key, value in chosen.items() if value != options.get(key) and key not in _UNSAID]
        said = dict.fromkeys([*_SAID.get(behind, ()), *own])
        shown = [f"{key} {(options | dict(chosen))[key]}" for key in said]
        name = _NAMES.get(behind, behind)
        found[algorithm] = f"{name} ({', '.join(shown)})" if shown else name
    return found


def basis(tidy: pd.DataFrame, config: Config, absent: Sequence[str] = ()) -> str:
    """What estimates rest on, in a line: profile, seeds, questions and samples, and which runs are missing.

    Args:
        tidy: estimates by question (with columns seeds, questions and n), others (seeds) or records (seed).
        absent: runs of the configuration without records.
    """
    trained = tidy[tidy["algorithm"] != BASE]
    found = trained["seeds"] if "seeds" in trained else trained["seed"]
    seeds = sorted({seed for of in found for seed in str(of).split()}, key=int)
    parts = [f"Profile {config.profile}"]
    if seeds:
        parts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
    if "n" in tidy:
        parts.append(questions(tidy, config))
    if absent:
        listed = ", ".join(absent) if len(absent) <= _LISTED else f"{len(absent)} runs, see the report"
        parts.append(f"missing: {listed}")
    return " · ".join(parts)


def questions(tidy: pd.DataFrame, config: Config) -> str:
    """How many questions and responses estimates rest on, and what their intervals cover."""
    over = "seeds and questions" if tidy["seeds"].str.contains(" ").any() else "questions"
    asked = f"{tidy['questions'].max()} questions × {tidy['n'].max()} responses"
    return f"{asked} · {100 * config.evaluation.confidence:g}% bootstrap intervals over {over}"


def cell(value: float, low: float | None = None, high: float | None = None, digits: int = 2) -> str:
    """An estimate and its interval, `0.47 [0.44, 0.50]`; a dash for NaN."""
    if pd.isna(value):
        return "–"
    shown = [_number(x, digits) for x in (value, low, high) if x is not None]
    return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def wide(
    tidy: pd.DataFrame,
    names: Mapping[str, str],
    columns: str = "metric",
    scale: float = 1.0,
    digits: int = 2,
    rows: Sequence[str] = ("algorithm",),
) -> pd.DataFrame:
    """A row for each algorithm (and what else `rows` names), a column for each of `columns`.

    Estimates are text; rows and columns are in their order of appearance.

    Args:
        tidy: estimates with `value`, `low` and `high`; a column `mark`, if any, is put after them.
        names: what to call the algorithms.
        scale: what the estimates are multiplied with: 100 shows shares as percentages.
    """
    estimates = zip(tidy["value"], tidy["low"], tidy["high"], strict=True)
    texts = [cell(scale * value, scale * low, scale * high, digits) for value, low, high in estimates]
    marked = [f"{text}{mark}" for text, mark in zip(texts, tidy.get("mark", [""] * len(texts)), strict=True)]
    table = tidy.assign(text=marked).pivot(index=list(rows), columns=columns, values="text")
    table = table[tidy[columns].unique()].fillna("–").reset_index().rename_axis(columns=None)
    positions = {name: {value: i for i, value in enumerate(tidy[name].unique())} for name in rows}
    order = pd.DataFrame({name: table[name].map(position) for name, position in positions.items()})
    table = table.loc[order.sort_values(list(rows)).index].reset_index(drop=True)
    table["algorithm"] = [names.get(algorithm, algorithm) for algorithm in table["algorithm"]]
    labels = {name: name.capitalize() for name in rows}
    if columns == "difficulty":
        labels |= {difficulty: heading(difficulty) for difficulty in tidy[columns]}
    return table.rename(columns=labels)


def by_difficulty(
    tidy: pd.DataFrame, names: Mapping[str, str], scale: float = 1.0, digits: int = 2
) -> dict[str, pd.DataFrame]:
    """The wide table of each difficulty under its heading; arguments as `wide`'s."""
    return {
        heading(str(difficulty)): wide(part, names, scale=scale, digits=digits)
        for difficulty, part in tidy.groupby("difficulty", sort=False)
    }


def stacked(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other, under their headings."""
    return pd.concat(parts) if parts else pd.DataFrame(index=["nothing to compare"])


def starred(tidy: pd.DataFrame, config: Config) -> pd.DataFrame:
    """With a star as the mark of the differences whose `p_holm` is below 1 minus the confidence; see `stars`."""
    return tidy.assign(mark=["*" if p < 1 - config.evaluation.confidence else "" for p in tidy["p_holm"]])


def stars(config: Config) -> str:
    """What the stars of `starred` say."""
    return f"Stars mark differences of Holm-corrected p < {1 - config.evaluation.confidence:.2g}."


def tails(tidy: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """`analysis.monotonicity` for readers: a row an algorithm and step, a column a tail with its finding."""
    questions = tidy["tail"].str.capitalize() + " tail (" + tidy["assumed"] + "?)"
    marked = tidy.assign(tail=questions, mark=", " + tidy["finding"])
    return wide(marked, names, columns="tail", rows=["algorithm", "step"])


def tuning_table(outcomes: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """`tuning.outcomes` of several algorithms for readers: a row a candidate, the chosen one marked."""
    (reach,) = (str(column) for column in outcomes if str(column).startswith("pass_at_"))
    rows = []
    for row in outcomes.to_dict("records"):
        options = ", ".join(f"{key} {value}" for key, value in json.loads(row["options"] or "{}").items())
        accuracy = cell(100 * row["accuracy"], 100 * row["low"], 100 * row["high"], 1)
        rows.append({
            "Algorithm": str(names.get(row["algorithm"], row["algorithm"])).partition(" (")[0],
            "Learning rate": f"{row['learning_rate']:.2g}",
            "Options": options or "–",
            "Accuracy, %": row["failure"] or accuracy,
            f"Pass@{reach.removeprefix('pass_at_')}, %": cell(100 * row[reach], digits=1),
            "Entropy, nats per token": cell(row["entropy"]),
            "KL within a step, 10⁻³ nats": cell(1e3 * row["kl_step"], digits=3),
            "": "chosen" if row["chosen"] else "–",
        })  # fmt: skip
    return pd.DataFrame(rows)


def matched_table(matched: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """How well steps were matched: a row for each of `analysis.ratio`, with algorithm, other and learning_rate."""
    rows = [
        {
            "Algorithm": names[row["algorithm"]].partition(" (")[0],
            "Matched to": names[row["other"]].partition(" (")[0],
            "Learning rate": f"{row['learning_rate']:.2g}",
            "KL within a step, 10⁻³ nats": cell(1e3 * row["ours"], digits=3),
            "The other's": cell(1e3 * row["theirs"], digits=3),
            "Ratio": cell(row["value"], row["low"], row["high"]),
            "Seeds": ", ".join(row["seeds"].split()),
        }
        for row in matched
    ]
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    """A pipe table; numbers to the right."""
    rule = ["---:" if numeric else "---" for numeric in _numeric(table)]
    lines = [list(map(str, table.columns)), rule]
    lines += [[str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_html(table: pd.DataFrame) -> str:
    """The same as `<table>`; numbers have the class `number`."""
    classes = [' class="number"' if numeric else "" for numeric in _numeric(table)]

    def row(tag: str, values: Sequence[object]) -> str:
        cells = zip(values, classes, strict=True)
        return f"<tr>{''.join(f'<{tag}{of}>{html.escape(str(value))}</{tag}>' for value, of in cells)}</tr>\n"

    body = "".join(row("td", values) for values in table.itertuples(index=False))
    return f"<table>\n<thead>{row('th', list(table.columns))}</thead>\n<tbody>{body}</tbody>\n</table>\n"


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [all(str(value)[:1] in "0123456789−–" for value in table[column]) for column in table]


def headline(tidy: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Overall estimates as algorithm → metric → value, for `dvc metrics show`."""
    overall = tidy[tidy["difficulty"] == OVERALL]
    found: dict[str, dict[str, float]] = {}
    for algorithm, metric, value in zip(overall["algorithm"], overall["metric"], overall["value"], strict=True):
        found.setdefault(algorithm, {})[metric.lower()] = float(f"{value:.6g}")
    return found


def read(path: Path) -> pd.DataFrame | None:
    """A table that `save` wrote; None where there is none."""
    if not path.is_file():
        return None
    return files.read_table(path, "make it again (dvc repro)", dtype={"difficulty": str, "seeds": str})


def read_parts(path: Path) -> tuple[str, dict[str, pd.DataFrame]]:
    """Note and tables by heading of a `.md` that `save` wrote."""
    note, *sections = path.read_text(encoding="utf-8").split("\n## ")
    parts = {}
    for section in sections:
        title, _, text = section.partition("\n")
        header, _, *rows = (re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in text.strip().splitlines())
        parts[title] = pd.DataFrame([[cell.replace("\\|", "|") for cell in row] for row in rows], columns=header)
    return note.strip(), parts


def save(
    folder: Path,
    name: str,
    tidy: pd.DataFrame,
    note: str = "",
    parts: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write `name.csv`, the tidy frame, and with a note `name.md`: the note, each part under its heading.

    Numbers have six significant digits, so that rounding in another order does not change the bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tidy.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    if note:
        sections = [f"## {title}\n\n{as_markdown(part)}" for title, part in (parts or {}).items()]
        (folder / f"{name}.md").write_text("\n".join([f"{note}\n", *sections]), encoding="utf-8")
