"""Evaluation of saved models: their responses, and from these the records that the figures are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from riskpo_study import files, rollouts, seeds, tasks, vision
from riskpo_study.config import Config
from riskpo_study.errors import ConfigError, RunError
from riskpo_study.evaluation import pass_at_k
from riskpo_study.policy import Policy
from riskpo_study.quantile_curve import quantile_curve
from riskpo_study.sampling import counts, sample_batches
from riskpo_study.tasks.protocol import Prompt, Question, Task

__all__ = ["BASE", "Unseen", "evaluate", "pass_table", "respond", "saved_models"]

BASE = "base"
"""Stands for the base model where an algorithm is asked for."""

_EARLIER_SAMPLES = 16  # of each question by the models before the last: enough for their quantile curves


def saved_models(config: Config, algorithm: str, seed: int) -> tuple[Path, dict[int, Path]]:
    """Folder of the records of a finished training run, and folders of the models that it saved, by step.

    Args:
        algorithm: one of the configuration, or `base` for the base model, which is of step 0 and of no seed.

    Raises:
        ConfigError: for an unknown algorithm; RunError: where the run has no model of its last step.
    """
    if algorithm == BASE:
        return config.results / BASE, {0: config.results / "base_model"}
    if algorithm not in config.algorithms:
        raise ConfigError(f"algorithm {algorithm!r} is unknown; known are {', '.join([BASE, *config.algorithms])}.")
    run = config.results / "runs" / f"{algorithm}-{seed}"
    saved = sorted((run / "snapshots").glob("step-*"))
    models = {int(path.name.removeprefix("step-")): path for path in saved}
    if config.train.steps not in models:
        there = f"its snapshots are of steps {sorted(models)}" if models else "it has no snapshots"
        raise RunError(
            f"{run} is no finished run of {config.train.steps} steps: {there}. Train it to its end first "
            "(notebooks/02_train.ipynb or dvc repro)"
        )
    return run, models


def evaluate(config: Config, models: Mapping[int, Path], folder: Path, seed: int) -> pd.DataFrame:
    """Sample responses of models to the held-out questions and write the records of it to `folder`.

    `samples.parquet` holds every response (`sampling.sample_batches`), `counts.parquet` a row a question
    (`sampling.counts`) and `quantile_logprob.parquet` a row a quantile level (`quantile_curve`), each of them
    with the model's step as the first column.

    Args:
        config: of which the sections task, risk, rollouts, evaluation and the sampling settings of train are used.
        models: folders of saved models by training step. The last answers each question `evaluation.samples`
            times, those before it at most 16 times.
        seed: of the responses, the bundles and the bootstrap.

    Returns:
        The counts.
    """
    settings = config.evaluation
    task = tasks.build(config)
    questions = task.questions("held_out")
    records: dict[str, list[pd.DataFrame]] = {"samples": [], "counts": [], "quantile_logprob": []}
    for step, model in sorted(models.items()):
        n = settings.samples if step == max(models) else min(_EARLIER_SAMPLES, settings.samples)
        samples = respond(config, model, task, questions, n, seeds.derive(seed, "held_out", step), f"step {step}")
        curve = quantile_curve(
            samples,
            config.risk.bundle_size,
            settings.quantile_levels,
            settings.resamples,
            settings.confidence,
            seeds.derive(seed, "held_out", step),
        )
        for name, frame in zip(records, (samples, counts(samples), curve), strict=True):
            frame.insert(0, "step", step)
            records[name].append(frame)
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in records.items()}
    for name, frame in joined.items():
        with files.atomic(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    return joined["counts"]


def respond(
    config: Config,
    model: Path,
    task: Task,
    questions: Sequence[Question],
    samples: int,
    seed: int,
    label: str = "responses",
) -> pd.DataFrame:
    """`samples` scored responses of a saved model to each question: the rows of `sampling.sample_batches`.

    The task asks and judges; progress is shown under `label`.
    """
    torch.set_num_threads(config.train.threads)
    policy = Policy.load(model, config.train.layout, config.hardware)
    batches = sample_batches(
        policy,
        rollouts.build(config.rollouts, policy, model),
        task,
        questions,
        samples,
        config.train.temperature,
        config.train.max_new_tokens,
        seed,
    )
    frames = []
    with tqdm(total=len(questions) * samples, desc=label, unit="response", mininterval=5) as bar:
        for frame in batches:
            frames.append(frame)
            bar.update(len(frame))
    return pd.concat(frames, ignore_index=True)


class Unseen:
    """A task whose images are white, each of its size: what a policy that looks at them cannot solve."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def prompt(self, question: Question) -> Prompt:
        """The task's, with white images."""
        prompt = self._task.prompt(question)
        if not vision.images_of(prompt):
            return prompt
        messages = cast("Sequence[Mapping[str, Any]]", prompt)
        return [{**message, "content": _white(message["content"])} for message in messages]


def _white(content: str | Sequence[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    if isinstance(content, str):
        return content
    return [
        {**part, "image": Image.new("RGB", part["image"].size, "white")} if part["type"] == "image" else part
        for part in content
    ]


def pass_table(counts: pd.DataFrame, ks: Sequence[int]) -> pd.DataFrame:
    """Mean Pass@k over the questions of each difficulty, and of each step where the counts have steps.

    NaN for a k that is larger than the number of samples.
    """
    by = [name for name in ("step", "difficulty") if name in counts]
    rows = []
    for key, questions in counts.groupby(by):
        n, correct = questions["n"], questions["correct"]
        means = {f"Pass@{k}": pass_at_k(n, correct, k).mean() if k <= n.min() else float("nan") for k in ks}
        rows.append({**dict(zip(by, key, strict=True)), "questions": len(n), "samples": n.min(), **means})
    return pd.DataFrame(rows).set_index(by)
