"""One training run from a configuration to a folder; stopped at any moment, it continues from its last checkpoint."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from tqdm import tqdm

from riskpo_study import algorithms, checkpoints, distributed, files, rollouts, runs, seeds, tasks, tracking
from riskpo_study.config import Config, load
from riskpo_study.errors import exit_code
from riskpo_study.policy import Policy
from riskpo_study.sampling import counts, sample_batches
from riskpo_study.tasks.protocol import Question, Task
from riskpo_study.trainer import Trainer

__all__ = ["run_identity", "train"]


def run_identity(config: Config, algorithm: str, seed: int, base_model: Path, task: Task) -> dict[str, Any]:
    """Everything that decides the results of a run, JSON-like."""
    plain = config.as_dict()
    return {
        "algorithm": algorithm,
        "seed": seed,
        **{section: plain[section] for section in ("task", "risk", "train")},
        "data": task.provenance,
        "hardware": config.hardware.deciding,
        "rollouts": config.rollouts.deciding,
        "options": plain["algorithms"].get(algorithm, {}),
        "base_model": files.digest(
            *sorted(base_model.glob("*.safetensors")), *base_model.glob("preprocessor_config.json")
        ),
        "code": runs.code_digest(*task.modules),
    }


def train(
    config: Config, algorithm: str, seed: int, base_model: Path, folder: Path, existing: runs.Existing = "resume"
) -> Path:
    """Train the base model with one algorithm and one seed; returns the run's folder.

    A finished run is left as it is, an interrupted one continues; either needs the same identity (see `run_identity`).

    Args:
        config: of which the sections task, risk, train, rollouts and the algorithm's options are used.
        algorithm: a name of `algorithms.ALGORITHMS`, or of a variant in the configuration.
        base_model: folder of the model and tokenizer to start from.
        folder: the run's folder.
        existing: see `runs.RunFolder`.

    Raises:
        ConfigError: for a bad option; RunError: for a folder of another run, a failed write, a non-finite loss.
    """
    options = config.algorithms.get(algorithm, {})
    built = algorithms.build(algorithm, options, config.risk)
    if config.hardware.processes > 1 and not distributed.launched():
        _launch(config, algorithm, seed, base_model, folder, existing)
        return folder
    distributed.start()
    torch.set_num_threads(config.train.threads)
    settings = replace(config.train, learning_rate=options.get("learning_rate", config.train.learning_rate))
    task = tasks.build(config)
    reference = Policy.load(base_model, settings.layout, config.hardware)
    identity = run_identity(config, algorithm, seed, base_model, task)
    run = distributed.main_first(lambda: runs.RunFolder(folder, identity, existing, distributed.is_main()))
    if run.finished:
        return run.path
    if distributed.is_main() and hasattr(task, "sandbox"):
        run.note("sandbox", task.sandbox.describe())

    found = checkpoints.latest(run.checkpoints)
    policy = Policy.load(base_model if found is None else found[0] / "model", settings.layout, config.hardware)
    engine = rollouts.build(config.rollouts, policy, base_model)
    cap, shards = config.rollouts.importance_cap, config.hardware.shards
    trainer = Trainer(policy, reference, engine, task, built, settings, seed, run.path, cap, shards)
    curve = first_questions(task, settings.curve_questions)
    name = f"{algorithm} seed {seed}"

    def evaluate() -> None:
        batches = sample_batches(
            policy, engine, task, curve, settings.curve_samples, settings.temperature, settings.max_new_tokens,
            seeds.derive(seed, "curve", trainer.steps_done),
        )  # fmt: skip
        with engine.drawing():
            answered = distributed.gathered(list(map(counts, batches)))
        run.record("evaluations", pd.concat(answered).assign(step=trainer.steps_done))

    if found is None:
        run.rewind(-1)
        evaluate()
    else:
        trainer.load_state_dict(found[1])
        run.rewind(trainer.steps_done)
    del found  # as large as the optimiser's state

    with (
        tracking.tracker(config.hardware.tracker, name, run.path) as track,
        tqdm(
            total=settings.steps, initial=trainer.steps_done, desc=name, unit="step", mininterval=5,
            disable=not distributed.is_main(),
        ) as bar,
    ):  # fmt: skip
        while trainer.steps_done < settings.steps:
            result = trainer.step()
            step, last = trainer.steps_done, trainer.steps_done == settings.steps
            track({**result.metrics, **result.timings}, step)
            run.record("metrics", pd.DataFrame([result.metrics]))
            run.record("timings", pd.DataFrame([result.timings]))
            run.record("rollouts", result.rollouts)
            if last or step % settings.evaluate_every == 0:
                evaluate()
            if last or step % settings.snapshot_every == 0:
                weights = policy.collected()
                if run.writer:
                    with files.atomic(run.snapshot(step)) as temporary:
                        policy.save(temporary, weights)
            if last or step % settings.checkpoint_every == 0:
                weights, state = policy.collected(), trainer.state_dict()
                if run.writer:
                    run.flush(step)
                    checkpoints.save(run.checkpoints, step, state, partial(policy.save, weights=weights))
            shown = {"reward": result.metrics["reward/mean"], "entropy": result.metrics["entropy/mean"]}
            bar.set_postfix({name: f"{value:.2f}" for name, value in shown.items()}, refresh=False)
            bar.update()
    run.finish()
    return run.path


def first_questions(task: Task, each: int) -> list[Question]:
    """The first `each` held-out questions of every difficulty: those of the learning curves."""
    held_out = task.questions("held_out")
    by_difficulty = (
        [question for question in held_out if question.difficulty == difficulty]
        for difficulty in dict.fromkeys(question.difficulty for question in held_out)
    )
    return [question for questions in by_difficulty for question in questions[:each]]


def _launch(config: Config, algorithm: str, seed: int, base_model: Path, folder: Path, existing: str) -> None:
    """`train` in several processes, each of which gets the configuration from a file."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "params.yaml"
        path.write_text(yaml.safe_dump(config.as_dict()), encoding="utf-8")
        arguments = (path, algorithm, seed, base_model, folder, existing)
        distributed.launch(config.hardware.processes, __name__, *map(str, arguments))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.experiment", description=__doc__)
    parser.add_argument("params", type=Path, help="a configuration, such as params.yaml")
    parser.add_argument("algorithm")
    parser.add_argument("seed", type=int)
    parser.add_argument("base_model", type=Path, help="folder of the model to start from")
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("existing", choices=["resume", "replace"], nargs="?", default="resume")
    given = parser.parse_args(arguments)
    run = (given.algorithm, given.seed, given.base_model, given.folder, given.existing)
    return exit_code(lambda: train(load(given.params), *run))


if __name__ == "__main__":
    sys.exit(main())
