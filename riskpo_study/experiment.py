"""One training run from a configuration to a folder; stopped at any moment, it continues from its last checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from riskpo_study import algorithms, checkpoints, files, rollouts, runs, seeds, tasks
from riskpo_study.config import Config
from riskpo_study.policy import Policy
from riskpo_study.sampling import counts, sample_batches
from riskpo_study.tasks.protocol import Question, Task
from riskpo_study.trainer import Trainer

__all__ = ["run_identity", "train"]


def run_identity(config: Config, algorithm: str, seed: int, base_model: Path) -> dict[str, Any]:
    """Everything that decides the results of a run, JSON-like."""
    plain = config.as_dict()
    return {
        "algorithm": algorithm,
        "seed": seed,
        **{section: plain[section] for section in ("task", "risk", "train")},
        "rollouts": config.rollouts.deciding,
        "options": plain["algorithms"].get(algorithm, {}),
        "base_model": files.digest(*sorted(base_model.glob("*.safetensors"))),
        "code": runs.code_digest(),
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
    torch.set_num_threads(config.train.threads)
    options = config.algorithms.get(algorithm, {})
    built = algorithms.build(algorithm, options, config.risk)
    settings = replace(config.train, learning_rate=options.get("learning_rate", config.train.learning_rate))
    task = tasks.build(config.task)
    reference = Policy.load(base_model, settings.layout)
    run = runs.RunFolder(folder, run_identity(config, algorithm, seed, base_model), existing)
    if run.finished:
        return run.path

    found = checkpoints.latest(run.checkpoints)
    policy = Policy.load(base_model if found is None else found[0] / "model", settings.layout)
    engine = rollouts.build(config.rollouts, policy, base_model)
    cap = config.rollouts.importance_cap
    trainer = Trainer(policy, reference, engine, task, built, settings, seed, run.path, cap)
    curve = first_questions(task, settings.curve_questions)

    def evaluate() -> None:
        batches = sample_batches(
            policy, engine, task, curve, settings.curve_samples, settings.temperature, settings.max_new_tokens,
            seeds.derive(seed, "curve", trainer.steps_done),
        )  # fmt: skip
        run.record("evaluations", pd.concat(map(counts, batches)).assign(step=trainer.steps_done))

    if found is None:
        run.rewind(-1)
        evaluate()
    else:
        trainer.load_state_dict(found[1])
        run.rewind(trainer.steps_done)

    with tqdm(
        total=settings.steps, initial=trainer.steps_done, desc=f"{algorithm} seed {seed}", unit="step", mininterval=5
    ) as bar:
        while trainer.steps_done < settings.steps:
            result = trainer.step()
            step, last = trainer.steps_done, trainer.steps_done == settings.steps
            run.record("metrics", pd.DataFrame([result.metrics]))
            run.record("timings", pd.DataFrame([result.timings]))
            run.record("rollouts", result.rollouts)
            if last or step % settings.evaluate_every == 0:
                evaluate()
            if last or step % settings.snapshot_every == 0:
                with files.atomic(run.snapshot(step)) as temporary:
                    policy.save(temporary)
            if last or step % settings.checkpoint_every == 0:
                run.flush(step)
                checkpoints.save(run.checkpoints, step, trainer.state_dict(), policy.save)
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
        for difficulty in sorted({question.difficulty for question in held_out})
    )
    return [question for questions in by_difficulty for question in questions[:each]]
