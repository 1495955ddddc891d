"""The ablations: families of variants that differ from one algorithm in some options, each compared with it.

Which variants there are says the configuration (`algorithms: …: {preset: riskpo, omega: 1.0}`); the family of a
variant follows from the options that it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from riskpo_study import algorithms, analysis
from riskpo_study.config import Config
from riskpo_study.errors import ConfigError, DataError

__all__ = ["FAMILIES", "Family", "cells", "compared", "family", "settings", "without_variants"]


@dataclass(frozen=True)
class Family:
    """Variants of `preset` that change nothing but `options`, compared with `centre`."""

    title: str
    options: Mapping[str, str]  # and how tables call them
    preset: str = "riskpo"
    centre: str = "riskpo"


FAMILIES = {
    "levels": Family("Levels of the two quantiles (the paper's Table 3)", {"alpha": "α", "beta": "β"}),
    "bundle_size": Family("Questions in a bundle (the paper's Table 4)", {"bundle_size": "B"}),
    "omega": Family("Weight of the lower tail (the paper's Table 5)", {"omega": "ω"}),
    "estimator": Family("Baseline, and tracker of the quantiles", {"baseline": "baseline", "tracker": "tracker"}),
    "credit": Family(
        "The paper's estimator and the released code's, by its credit", {"credit": "credit"}, preset="riskpo_released"
    ),
}


def family(name: str) -> Family:
    """The family of a name; ConfigError for one that is not in `FAMILIES`."""
    if name not in FAMILIES:
        raise ConfigError(f"The ablation {name!r} is unknown; known are {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def settings(config: Config, algorithm: str) -> dict[str, Any]:
    """All options of an algorithm of the configuration, those of the risk measure included.

    The ω of the released code is the one that its `tail_weight` amounts to.
    """
    own = config.algorithms[algorithm]
    preset = algorithms.ALGORITHMS[algorithms.preset_name(algorithm, own)]
    values = {**asdict(config.risk), **(preset.risk or {}), **preset.options, **own}
    if "tail_weight" in values:  # the released code's; docs/paper_vs_released_code.md
        alpha, beta = values["alpha"], values["beta"]
        values["omega"] = values["tail_weight"] * (beta - alpha) / alpha - 1
    return values


def cells(config: Config, of: Family) -> dict[str, str]:
    """The algorithms of a family, the centre first, and how tables call them: `α = 0.1, β = 0.8`.

    Left out is a variant that changes the options to what the centre has anyway, and one with a learning rate of its
    own. The configuration should have the tuned options (`tuning.applied`).
    """
    found = {of.centre: "RiskPO" if of.centre != of.preset else _label(config, of, of.centre)}
    tuned, central = settings(config, of.preset), settings(config, of.centre)
    for name in config.runs.names:
        if name == of.centre or algorithms.preset_name(name, config.algorithms[name]) != of.preset:
            continue
        own = settings(config, name)
        changed = {key for key in {**tuned, **own} if key != "preset" and own.get(key) != tuned.get(key)}
        repeats = of.preset == of.centre and all(own[key] == central[key] for key in of.options)
        if changed <= set(of.options) and not repeats:
            found[name] = _label(config, of, name)
    return found


def _label(config: Config, of: Family, algorithm: str) -> str:
    values = settings(config, algorithm)
    label = ", ".join(f"{shown} = {_plain(values[option])}" for option, shown in of.options.items())
    return label if of.preset == of.centre else f"released, {label}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def compared(
    counts: pd.DataFrame, metrics: list[str], centre: str, resampler: analysis.Resampler
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every cell, and every cell minus the centre, on the seeds that all of them have: two tidy frames.

    Args:
        counts: a row a question, see `analysis.measures`, of the algorithms of a family.

    Raises:
        DataError: where the algorithms share no seed.
    """
    seeds = [set(group["seed"]) for _, group in counts.groupby("algorithm")]
    shared = set.intersection(*seeds)
    if not shared:
        raise DataError("The algorithms of the ablation share no seed: train them with one seed at least.")
    part = counts[counts["seed"].isin(shared)]
    return (
        analysis.summary(part, metrics, resampler),
        analysis.differences(part, metrics, centre, resampler),
    )


def without_variants(config: Config, name: str, counts: pd.DataFrame) -> str:
    """What to do where there is but the centre of a family, to be shown; empty where a variant has runs.

    Raises:
        DataError: where the profile lists the family, and so should have some.
    """
    centre = family(name).centre
    if not set(counts["algorithm"]) <= {centre}:
        return ""
    text = (
        f"No variant of {centre} in the ablation {name} has runs in profile {config.profile}: list some in "
        "runs.further_algorithms, and the family in runs.ablations, as conf/profile/study.yaml does."
    )
    if name in config.runs.ablations:
        raise DataError(text)
    return text
