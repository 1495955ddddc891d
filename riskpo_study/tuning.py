"""What tuning chose: the outcomes of every algorithm's candidates, and the configuration with the chosen options.

`tuning_runs` makes them: `results/<profile>/tuning/<algorithm>.csv` has a row a candidate, and one of them is chosen.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from riskpo_study import files
from riskpo_study.algorithms import preset_name
from riskpo_study.config import Config
from riskpo_study.errors import DataError

__all__ = ["applied", "outcomes", "path", "so_far"]


def path(config: Config, algorithm: str) -> Path:
    """The file of an algorithm's outcomes."""
    return config.results / "tuning" / f"{algorithm}.csv"


def outcomes(config: Config, algorithm: str) -> pd.DataFrame:
    """What `tuning_runs.tune` wrote for an algorithm, a row a candidate.

    Raises:
        DataError: where it has not been tuned yet.
    """
    file = path(config, algorithm)
    if not file.is_file():
        raise DataError(
            f"{algorithm} of {config.profile} has not been tuned yet: run notebooks/07_tuning.ipynb for it first "
            f"(dvc repro tune@{config.profile}-{algorithm})"
        )
    texts = {"options": "str", "failure": "str"}
    remedy = f"make it again (dvc repro tune@{config.profile}-{algorithm})"
    return files.read_table(file, remedy, ("learning_rate", "chosen"), dtype=texts).fillna(dict.fromkeys(texts, ""))


def applied(config: Config, *names: str) -> Config:
    """The configuration with the tuned options of some algorithms, or of all that have runs.

    A variant (`preset`) takes what its preset chose, under its own options. One with `matched_to` takes the learning
    rate at which its preset moves as far in a step (KL divergence) as that algorithm, from a line through the
    logarithms of both over its preset's candidates.

    Raises:
        DataError: where an algorithm has not been tuned yet.
    """
    algorithms = dict(config.algorithms)
    for name in names or config.runs.names:
        own = config.algorithms.get(name, {})
        options = {**_chosen(config, preset_name(name, own)), **own}
        if "matched_to" in own:
            options["learning_rate"] = _matched(config, preset_name(name, own), own["matched_to"])
        algorithms[name] = options
    return replace(config, algorithms=algorithms)


def so_far(config: Config) -> Config:
    """The configuration with the tuned options of the algorithms that have been tuned, and the others as they are."""
    tuned = [name for name in config.runs.names if all(path(config, one).is_file() for one in _needed(config, name))]
    return applied(config, *tuned) if tuned else config


def _needed(config: Config, name: str) -> list[str]:
    """The algorithms whose outcomes decide the options of one."""
    own = config.algorithms[name]
    return [preset_name(name, own), *([own["matched_to"]] if "matched_to" in own else [])]


def _chosen(config: Config, algorithm: str) -> dict[str, Any]:
    table = outcomes(config, algorithm)
    (row,) = table[table["chosen"]].to_dict("records")
    return {"learning_rate": float(row["learning_rate"]), **(json.loads(row["options"]) if row["options"] else {})}


def _matched(config: Config, algorithm: str, other: str) -> float:
    table, target = outcomes(config, algorithm), outcomes(config, other)
    if "kl_step" not in table or "kl_step" not in target or table["kl_step"].notna().sum() < 2:
        raise DataError(f"{algorithm} can be matched to {other} only after tuning with at least two candidates each.")
    table = table.dropna(subset="kl_step").sort_values("kl_step")
    slope, level = np.polyfit(np.log(table["kl_step"]), np.log(table["learning_rate"]), 1)
    wanted = float(target.loc[target["chosen"], "kl_step"].iloc[0])
    return float(f"{math.exp(level + slope * math.log(wanted)):.3g}")
