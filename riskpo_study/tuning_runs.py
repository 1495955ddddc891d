"""Equal tuning: every algorithm tries its candidates on development questions and keeps the most accurate.

A candidate is trained like any run of the study, with a seed that no run of the study has, and answers questions
that are neither trained on nor held out. Where there is but one candidate there is nothing to try.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from riskpo_study import experiment, files, runs, seeds, tasks, tuning
from riskpo_study.config import Config
from riskpo_study.errors import RunError
from riskpo_study.evaluation import avg_at_k, interval, pass_at_k
from riskpo_study.model_evaluation import respond
from riskpo_study.sampling import counts

__all__ = ["tune"]


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
        trained = [index for index, one in enumerate(tried) if not one["failure"]]
        if not trained:
            raise RunError(f"No candidate of {algorithm} could be trained; the last one: {tried[-1]['failure']}.")
        best = max(trained, key=lambda index: tried[index]["accuracy"])
        rows = [row | {"chosen": index == best} for index, row in enumerate(tried)]
    table = pd.DataFrame(rows)
    table.insert(0, "algorithm", algorithm)
    with files.atomic(tuning.path(config, algorithm)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    files.remove(folder)
    return table


def _tried(
    config: Config, algorithm: str, candidate: Mapping[str, Any], base_model: Path, folder: Path
) -> dict[str, Any]:
    """Train with one candidate and answer the development questions."""
    settings, steps = config.tuning, config.train.steps
    name = "-".join(f"{key}={value}" for key, value in candidate.items())
    options = {**config.algorithms.get(algorithm, {}), **candidate}
    setting = replace(
        config,
        algorithms={**config.algorithms, algorithm: options},
        train=replace(config.train, evaluate_every=steps, snapshot_every=steps),
    )
    try:
        run = experiment.train(setting, algorithm, settings.seed, base_model, folder / name, "replace")
    except RunError as error:
        if not list((folder / name).glob("failed-step-*.pt")):
            raise
        return {"accuracy": 0.0, "failure": str(error).partition(";")[0]}
    task = tasks.build(replace(config, task=replace(config.task, questions=settings.questions)))
    model = run / "snapshots" / f"step-{steps:06d}"
    questions, seed = task.questions("development"), seeds.derive(settings.seed, "tuning")
    answered = counts(respond(config, model, task, questions, settings.samples, seed, name))
    accuracy = interval(
        avg_at_k(answered["n"], answered["correct"]),
        config.evaluation.resamples,
        np.random.default_rng(seeds.derive(settings.seed, "tuning", "bootstrap")),
        config.evaluation.confidence,
    )
    metrics = runs.read_records(run, "metrics")
    return {
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        f"pass_at_{settings.samples}": float(pass_at_k(answered["n"], answered["correct"], settings.samples).mean()),
        "entropy": float(answered["entropy"].mean()),
        "kl_step": float(metrics["kl/step"].mean()),
        "failure": "",
    }


def _described(candidate: Mapping[str, Any]) -> dict[str, Any]:
    others = {key: value for key, value in candidate.items() if key != "learning_rate"}
    return {"learning_rate": candidate["learning_rate"], "options": json.dumps(others) if others else ""}
