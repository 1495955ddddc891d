"""What every compared algorithm is, from its preset and the configuration: source, options, risk measure, bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from riskpo_study import ablations, tables
from riskpo_study.algorithms import ALGORITHMS, NOT_OPTIONS, Preset, preset_name
from riskpo_study.config import Config

__all__ = ["as_table", "ours"]

_MEASURE = {"alpha": "α", "beta": "β", "omega": "ω", "bundle_size": "B"}
_PAPER = "riskpo"  # from which ours are told


def as_table(config: Config, names: Mapping[str, str], steps: pd.DataFrame | None) -> pd.DataFrame:
    """A row an algorithm, as it was trained.

    Args:
        config: with the tuned options (`tuning.so_far`).
        steps: what `04_entropy` wrote of the lengths of steps; None where it was not made.
    """
    compared = tables.compared(config)
    rows = []
    for name in compared:
        values = _options(config, name)
        measure = [f"{symbol} {_plain(values.pop(key))}" for key, symbol in _MEASURE.items() if key in values]
        others = [f"{key} {_plain(value)}" for key, value in values.items()]
        rows.append({
            "Algorithm": names[name].partition(" (")[0],
            "Key": f"`{name}`",
            "Source": _preset(config, name).source,
            "Risk measure and bundles": ", ".join(measure) or "–",
            "Other options": ", ".join(others) or "–",
            "Learning rate": tables.rate(config.algorithms[name].get("learning_rate", config.train.learning_rate)),
            "Seeds": tables.seed_list([seed for run, seed in config.runs.all if run == name]),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    if steps is not None:
        estimates = zip(*(1e3 * steps[end] for end in ("value", "low", "high")), strict=True)
        said = (tables.cell(value, low, high, 3) for value, low, high in estimates)
        kl = dict(zip(steps["algorithm"], said, strict=True))
        table.insert(len(table.columns) - 1, "KL within a step, 10⁻³ nats", [kl.get(name, "–") for name in compared])
    return table


def ours(config: Config, names: Mapping[str, str]) -> str:
    """In what the algorithms that are ours differ from the paper's RiskPO, in a sentence; empty where none is."""
    if _PAPER not in config.algorithms:
        return ""
    papers = _options(config, _PAPER)
    sentences = []
    for name in tables.compared(config):
        preset, own = _preset(config, name), _options(config, name)
        if "ours" not in preset.source:
            continue
        changed = [
            f"{_MEASURE.get(key, key)} {_plain(value)}" + (f" ({_plain(papers[key])})" if key in papers else "")
            for key, value in own.items()
            if value != papers.get(key)
        ]
        sentences.append(f"{names[name].partition(' (')[0]}, {preset.source.partition(', ')[2]}: {', '.join(changed)}")
    return f"With what the paper's RiskPO has in brackets: {'; '.join(sentences)}." if sentences else ""


def _preset(config: Config, name: str) -> Preset:
    return ALGORITHMS[preset_name(name, config.algorithms[name])]


def _options(config: Config, name: str) -> dict[str, Any]:
    """The options of its sampling, clip and estimator; those of the risk measure, or of bundles, where it has any."""
    preset = _preset(config, name)
    values: dict[str, Any] = {f"clip_{key}": value for key, value in preset.clip.items()}
    if preset.dynamic_sampling:
        values["dynamic sampling"] = "yes"
    if preset.risk is not None:
        values |= ablations.settings(config, name)
        if "credit" not in preset.options:  # nothing is shared in bundles
            del values["bundle_size"]
    values |= {**preset.options, **config.algorithms[name]}
    return {key: value for key, value in values.items() if key not in NOT_OPTIONS}


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
