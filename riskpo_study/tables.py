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
from riskpo_study.analysis import OVERALL, heading, joined
from riskpo_study.config import Config
from riskpo_study.records import BASE

__all__ = [
    "as_html", "as_markdown", "basis", "by_difficulty", "cell", "compared", "headline", "lengths", "matched_table",
    "names", "of_settings", "pairs", "questions", "rate", "read", "read_parts", "save", "seed_list", "stacked",
    "starred", "stars", "tails", "tuning_table", "wide",
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
_UNSAID = ("preset", "learning_rate", "matched_to")  # rates have a table of their own


def names(config: Config) -> dict[str, str]:
    """How tables and figures call the algorithms: the field's name, and options that tell estimators apart.

    Options are those that tuning chose, where it has. A variant `matched_to` another is called after its step, one
    with a learning rate of its own after that.

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
        if "matched_to" in chosen:
            name += f", {_NAMES.get(chosen['matched_to'], chosen['matched_to'])}'s step"
        elif behind != algorithm and "learning_rate" in chosen:
            common = config.algorithms.get(behind, {}).get("learning_rate", config.train.learning_rate)
            name += f" at rate {rate(chosen['learning_rate'])}" if chosen["learning_rate"] != common else ""
        found[algorithm] = f"{name} ({', '.join(shown)})" if shown else name
    return found


def compared(config: Config) -> list[str]:
    """What tables and figures set beside each other: `runs.algorithms`, and variants matched to one of them."""
    matched = [name for name in config.runs.names if "matched_to" in config.algorithms[name]]
    return list(dict.fromkeys([*config.runs.algorithms, *matched]))


def basis(tidy: pd.DataFrame, config: Config, absent: Sequence[str] = ()) -> str:
    """What estimates rest on, in a line: profile, seeds, questions and samples, and which runs are missing.

    Args:
        tidy: estimates by question (with columns seeds, questions and n), others (seeds) or records (seed).
        absent: runs of the configuration without records.
    """
    parts = [f"Profile {config.profile}", *_seeds(tidy, config)]
    if "n" in tidy:
        parts.append(questions(tidy, config))
    if absent:
        listed = ", ".join(absent) if len(absent) <= _LISTED else f"{len(absent)} runs, see the report"
        parts.append(f"missing: {listed}")
    return " · ".join(parts)


def _seeds(tidy: pd.DataFrame, config: Config) -> list[str]:
    """`seeds 0–2; 0–4 for GRPO and RiskPO`: those of most algorithms, and of the others by name; none of none."""
    trained = tidy[tidy["algorithm"] != BASE]
    own: dict[str, set[int]] = {}
    for algorithm, of in zip(trained["algorithm"], trained["seeds" if "seeds" in trained else "seed"], strict=True):
        own.setdefault(algorithm, set()).update(map(int, str(of).split()))
    groups: dict[tuple[int, ...], list[str]] = {}
    for algorithm, found in own.items():
        groups.setdefault(tuple(sorted(found)), []).append(algorithm)
    if not groups:
        return []
    most, *others = sorted(groups, key=lambda seeds: -len(groups[seeds]))
    called = names(config) if others else {}
    text = f"seed{'s' * (len(most) > 1)} {seed_list(most)}"
    for seeds in others:
        text += f"; {seed_list(seeds)} for {joined([called.get(of, of).partition(' (')[0] for of in groups[seeds]])}"
    return [text]


def seed_list(seeds: Sequence[int] | str) -> str:
    """`0–4`, `0, 1` or `0, 2, 5` of seeds in ascending order, as numbers or as text with spaces between them."""
    found = list(map(int, seeds.split())) if isinstance(seeds, str) else list(seeds)
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]}–{found[-1]}"
    return ", ".join(map(str, found))


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
    """A row for each algorithm (and what else `rows` names), a column for each of `columns`, and one for the seeds.

    Estimates are text; rows and columns are in their order of appearance.

    Args:
        tidy: estimates with `value`, `low` and `high`; a column `mark`, if any, is put after them, and the training
            `seeds`, if any, at the end of the row.
        names: what to call the algorithms.
        scale: what the estimates are multiplied with: 100 shows shares as percentages.
    """
    estimates = zip(tidy["value"], tidy["low"], tidy["high"], strict=True)
    texts = [cell(scale * value, scale * low, scale * high, digits) for value, low, high in estimates]
    marked = [f"{text}{mark}" for text, mark in zip(texts, tidy.get("mark", [""] * len(texts)), strict=True)]
    table = tidy.assign(text=marked).pivot(index=list(rows), columns=columns, values="text")
    table = table[tidy[columns].unique()].fillna("–")
    if "seeds" in tidy:
        table["Seeds"] = tidy.groupby(list(rows))["seeds"].agg(_one_for_all)
    table = table.reset_index().rename_axis(columns=None)
    positions = {name: {value: i for i, value in enumerate(tidy[name].unique())} for name in rows}
    order = pd.DataFrame({name: table[name].map(position) for name, position in positions.items()})
    table = table.loc[order.sort_values(list(rows)).index].reset_index(drop=True)
    table["algorithm"] = [names.get(algorithm, algorithm) for algorithm in table["algorithm"]]
    labels = {name: name.capitalize() for name in rows}
    if columns == "difficulty":
        labels |= {difficulty: heading(difficulty) for difficulty in tidy[columns]}
    return table.rename(columns=labels)


def _one_for_all(seeds: pd.Series[str]) -> str:
    """The seeds of a row; where its cells have different ones, all of these."""
    found = [seed_list(one) for one in seeds.unique() if one != "none"]
    return " or ".join(found) or "–"


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


def pairs(tidy: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """`analysis.of_pairs` for readers: a row a pair, shares in percentage points and entropies in nats per token."""
    both = list(zip(tidy["algorithm"], tidy["reference"], strict=True))
    short = {of: name.partition(" (")[0] for of, name in names.items()}
    called = {f"{ours} {theirs}": f"{short[ours]} − {short[theirs]}" for ours, theirs in both}
    of = tidy.assign(algorithm=[" ".join(pair) for pair in both])
    shares, entropies = of[of["metric"] != "entropy"], of[of["metric"] == "entropy"]
    table = wide(shares, called, scale=100, digits=1).rename(columns={"Algorithm": "Pair"})
    if len(entropies):
        table.insert(len(table.columns) - 1, "Entropy", wide(entropies, called, digits=3)["entropy"])
    return table


def lengths(tidy: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Mean KL divergence within a step, with `learning_rate`: a row an algorithm, the longest steps first."""
    ordered = tidy.sort_values("value", ascending=False, kind="stable")
    table = wide(ordered, names, scale=1e3, digits=3)
    table.insert(1, "Learning rate", [rate(of) for of in ordered["learning_rate"]])
    return table.rename(columns={"kl/step": "KL within a step, 10⁻³ nats"})


def of_settings(parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of an ablation, whose rows are settings of one algorithm."""
    return {title: table.rename(columns={"Algorithm": "Setting"}) for title, table in parts.items()}


def tuning_table(outcomes: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """`tuning.outcomes` of several algorithms for readers: a row a candidate, the chosen one marked."""
    (reach,) = (str(column) for column in outcomes if str(column).startswith("pass_at_"))
    rows = []
    for row in outcomes.to_dict("records"):
        options = ", ".join(f"{key} {value}" for key, value in json.loads(row["options"] or "{}").items())
        accuracy = cell(100 * row["accuracy"], 100 * row["low"], 100 * row["high"], 1)
        rows.append({
            "Algorithm": str(names.get(row["algorithm"], row["algorithm"])).partition(" (")[0],
            "Learning rate": rate(row["learning_rate"]),
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
            "Learning rate": rate(row["learning_rate"]),
            "KL within a step, 10⁻³ nats": cell(1e3 * row["ours"], digits=3),
            "The other's": cell(1e3 * row["theirs"], digits=3),
            "Ratio": cell(row["value"], row["low"], row["high"]),
            "Seeds": seed_list(row["seeds"]),
        }
        for row in matched
    ]
    return pd.DataFrame(rows)


def rate(value: float) -> str:
    """A learning rate as tables write it."""
    return f"{value:.2g}"


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
