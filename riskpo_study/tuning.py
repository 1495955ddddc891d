"""Equal tuning: every algorithm tries its candidates on development questions and keeps the most accurate.

A candidate is trained like any run of the study, with a seed that no run of the study has, and answers questions
that are neither trained on nor held out. `results/<profile>/tuning/<algorithm>.csv` has a row a candidate; runs take
the options of the chosen one (`applied`). Where there is but one candidate there is nothing to try.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from riskpo_study import experiment, files, runs, seeds, tasks
from riskpo_study.algorithms import preset_name
from riskpo_study.config import Config
from riskpo_study.errors import DataError, RunError
from riskpo_study.evaluation import avg_at_k, interval, pass_at_k
from riskpo_study.model_evaluation import respond
from riskpo_study.sampling import counts

__all__ = ["applied", "outcomes", "tune"]


def tune(config: Config, algorithm: str, base_model: Path) -> pd.DataFrame:
    """Try the candidates of an algorithm, write their outcomes, choose the most accurate: a row a candidate.

    Stopped at any moment, it goes on where it was. A candidate whose training fails counts as 0.
    """
    candidates = config.tuning.of(algorithm)
    folder = config.results / "tuning_runs" / algorithm
    if len(candidates) == 1:
        rows = [_described(candidates[0]) | {"chosen": True}]
    else:
        tried = [_described(one) | _tried(config, algorithm, one, base_model, folder) for one in candidates]
        best = max(range(len(tried)), key=lambda index: tried[index]["accuracy"])
        rows = [row | {"chosen": index == best} for index, row in enumerate(tried)]
    table = pd.DataFrame(rows)
    table.insert(0, "algorithm", algorithm)
    with files.atomic(_path(config, algorithm)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    files.remove(folder)
    return table


def _tried(
    config: Config, algorithm: str, candidate: Mapping[str, Any], base_model: Path, folder: Path
) -> dict[str, Any]:
    """Train with one candidate and answer the development questions."""
    tuning, steps = config.tuning, config.train.steps
    name = "-".join(f"{key}={value}" for key, value in candidate.items())
    options = {**config.algorithms.get(algorithm, {}), **candidate}
    setting = replace(
        config,
        algorithms={**config.algorithms, algorithm: options},
        train=replace(config.train, evaluate_every=steps, snapshot_every=steps),
    )
    try:
        run = experiment.train(setting, algorithm, tuning.seed, base_model, folder / name, "replace")
    except RunError as error:
        if not list((folder / name).glob("failed-step-*.pt")):
            raise
        return {"accuracy": 0.0, "failure": str(error).partition(";")[0]}
    task = tasks.build(replace(config.task, questions=tuning.questions))
    model = run / "snapshots" / f"step-{steps:06d}"
    answered = counts(
        respond(config, model, task.questions("development"), tuning.samples, seeds.derive(tuning.seed, "tuning"), name)
    )
    accuracy = interval(
        avg_at_k(answered["n"], answered["correct"]),
        config.evaluation.resamples,
        np.random.default_rng(seeds.derive(tuning.seed, "tuning", "bootstrap")),
        config.evaluation.confidence,
    )
    metrics = runs.read_records(run, "metrics")
    return {
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        f"pass_at_{tuning.samples}": float(pass_at_k(answered["n"], answered["correct"], tuning.samples).mean()),
        "entropy": float(answered["entropy"].mean()),
        "kl_step": float(metrics["kl/step"].mean()),
        "failure": "",
    }


def _described(candidate: Mapping[str, Any]) -> dict[str, Any]:
    others = {key: value for key, value in candidate.items() if key != "learning_rate"}
    return {"learning_rate": candidate["learning_rate"], "options": json.dumps(others) if others else ""}


def outcomes(config: Config, algorithm: str) -> pd.DataFrame:
    """What `tune` wrote for an algorithm.

    Raises:
        DataError: where it has not been tuned yet.
    """
    path = _path(config, algorithm)
    if not path.is_file():
        raise DataError(
            f"{algorithm} of {config.profile} has not been tuned yet: run notebooks/07_tuning.ipynb for it first "
            f"(dvc repro tune@{config.profile}-{algorithm})"
        )
    return pd.read_csv(path).fillna({"options": "", "failure": ""})


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


def _path(config: Config, algorithm: str) -> Path:
    return config.results / "tuning" / f"{algorithm}.csv"
