"""Published mathematical questions: trained on some datasets, evaluated on others, answers judged by what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from riskpo_study import datasets
from riskpo_study.errors import ConfigError
from riskpo_study.tasks.protocol import Difficulty, Prompt, Question, Split, Task, Verdict
from riskpo_study.tasks.splits import draw, set_aside
from riskpo_study.verify.math_answers import LIBRARIES, MathGrader

if TYPE_CHECKING:
    from riskpo_study.config import Math as MathConfig
    from riskpo_study.config import Task as TaskConfig

__all__ = ["Math"]


class Math(Task):
    """The task of the sections ``task`` and ``math``: the difficulty of a question is the dataset it is from.

    Raises ConfigError for a folder that is not there and where the extra ``math`` is not installed. Datasets are loaded
    when first asked for: DataError where one cannot be had, ConfigError where development leaves nothing to train on.
    """

    name = "math"
    modules: tuple[str, ...] = (
        "tasks/math", "tasks/splits", "datasets/loading", "datasets/gold_answers", "datasets/prompts",
        "datasets/registry", "datasets/hub", "datasets/rows", "verify/math_answers", "verify/final_answer",
        "verify/notation", "verify/equivalence", "verify/symbolic", "verify/worker", "verify/worker_pool",
    )  # fmt: skip

    def __init__(self, task: TaskConfig, config: MathConfig) -> None:
        if config.folder != "none" and not Path(config.folder).is_dir():
            raise ConfigError(
                f"math.folder = {config.folder!r} is no folder: name one that holds the datasets, or none for the hub."
            )
        self.config, self.each = config, task.questions
        self._loaded: dict[str, datasets.Loaded] = {}
        self._grader = MathGrader(config.workers, config.seconds)

    @property
    def difficulties(self) -> Sequence[Difficulty]:
        """The training datasets."""
        return self.config.training

    @property
    def provenance(self) -> Mapping[str, Any]:
        """By dataset its commit and the hash of its content, how its questions are used, and what judges answers."""
        names = (*self.config.training, *self.config.evaluation)
        return {
            **self.config.deciding,
            "grader": {library: version(library) for library in LIBRARIES},
            "datasets": {name: self._load(name).provenance for name in names},
        }

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different training questions, uniformly drawn. Raises ConfigError where there are fewer."""
        _, training = self._training
        remedy = f"lower math.development = {self.config.development}"
        return draw(training, n, generator, self.config.training, remedy)

    def prompt(self, question: Question) -> Prompt:
        """One message of the user: the question in its instruction, with its images where it has some."""
        from riskpo_study.datasets import illustrated

        images = question.payload["images"]
        return illustrated(question.prompt, images) if images else question.prompt  # type: ignore[arg-type]

    def verify(self, question: Question, response: str) -> Verdict:
        """Reward 1 for a response that ends in the gold answer, or in one that means the same, else 0."""
        return self.verify_all([(question, response)])[0]

    def verify_all(self, pairs: Sequence[tuple[Question, str]]) -> list[Verdict]:
        """``verify`` of many, in worker processes."""
        golds = [question.payload["answer"] for question, _ in pairs]
        grades = self._grader.grade([response for _, response in pairs], golds)
        return [Verdict(float(grade.right), grade.answer) for grade in grades]

    def questions(self, split: Split) -> list[Question]:
        """The first ``task.questions`` of every evaluation dataset, or of the questions that training leaves out."""
        if split == "development":
            return self._training[0][: self.each]
        return [question for name in self.config.evaluation for question in self._questions(name)[: self.each]]

    def overlap(self) -> pd.DataFrame:
        """How many questions of each evaluation dataset training has as well, see `datasets.overlap_by_source`."""
        training, evaluation = (
            [question for name in names for question in self._load(name).questions]
            for names in (self.config.training, self.config.evaluation)
        )
        return datasets.overlap_by_source(datasets.overlap(training, evaluation))

    @cached_property
    def _training(self) -> tuple[list[Question], list[Question]]:
        """The questions set aside for development, and those to train on."""
        questions = [question for name in self.config.training for question in self._questions(name)]
        return set_aside(questions, self.config.development, self.name)

    def _questions(self, name: str) -> list[Question]:
        """All of a dataset, in published order; of a training dataset those up to ``math.longest_question``."""
        limit = self.config.longest_question if name in self.config.training else None
        return [
            Question(
                id=one.question_id,
                prompt=datasets.messages(one.question, self.config.instruction),
                difficulty=one.source,
                payload={"answer": one.answer, "level": one.difficulty, "images": one.images},
            )
            for one in self._load(name).questions
            if limit is None or len(one.question) <= limit
        ]

    def _load(self, name: str) -> datasets.Loaded:
        if name not in self._loaded:
            folder = None if self.config.folder == "none" else Path(self.config.folder)
            self._loaded[name] = datasets.load(name, revision=self.config.revisions.get(name), folder=folder)
        return self._loaded[name]
