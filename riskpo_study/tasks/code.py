"""Published programming problems: trained on DeepCoder, evaluated on LiveCodeBench, judged by all their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from riskpo_study.errors import ConfigError
from riskpo_study.tasks.protocol import Difficulty, Question, Split, Task, Verdict
from riskpo_study.tasks.sandboxed import SANDBOX, verdicts
from riskpo_study.tasks.splits import draw, set_aside

if TYPE_CHECKING:
    from riskpo_study.config import Code as CodeConfig
    from riskpo_study.config import Task as TaskConfig
    from riskpo_study.datasets.code_problems import CodeProblem, Loaded
    from riskpo_study.verify.sandbox import Sandbox

__all__ = ["Code"]

EVALUATION = "livecodebench"


class Code(Task):
    """The task of the sections ``task`` and ``code``: a difficulty is the part or the benchmark a problem is from.

    Asked and judged as LiveCodeBench does it, see ``datasets.code_problems``. Datasets are loaded when first asked for:
    DataError where one cannot be had, ConfigError where the window or development leaves no problem.
    """

    name = "code"
    modules: tuple[str, ...] = (
        "tasks/code", "tasks/splits", "datasets/code_problems", "datasets/deepcoder", "datasets/livecodebench",
        "datasets/hub", "datasets/rows", *SANDBOX,
    )  # fmt: skip

    def __init__(self, task: TaskConfig, config: CodeConfig) -> None:
        self.config, self.each = config, task.questions
        self._loaded: dict[str, Loaded] = {}

    @property
    def difficulties(self) -> Sequence[Difficulty]:
        """The parts of DeepCoder that are trained on."""
        return self.config.training

    @property
    def provenance(self) -> Mapping[str, Any]:
        """By dataset its revision and the hash of its content, and how its problems are used."""
        names = (*self.config.training, EVALUATION)
        return {**self.config.deciding, "datasets": {name: self._load(name).provenance for name in names}}

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different training problems, uniformly drawn. Raises ConfigError where there are fewer."""
        _, training = self._training
        remedy = f"lower code.development = {self.config.development}"
        return draw(training, n, generator, self.config.training, remedy)

    def verify(self, question: Question, response: str) -> Verdict:
        """Reward 1 for a response whose last fenced block passes all tests, else 0."""
        return self.verify_all([(question, response)])[0]

    def verify_all(self, pairs: Sequence[tuple[Question, str]]) -> list[Verdict]:
        """``verify`` of many, as fast as the sandbox can; equal programs for a problem run once."""
        programs = [question.payload["problem"].program(response) for question, response in pairs]
        return verdicts(self.sandbox, programs)

    @cached_property
    def sandbox(self) -> Sandbox:
        """Where responses run; started when first needed, closed with the task."""
        from riskpo_study.datasets.code_problems import LIMITS, PRELOAD
        from riskpo_study.verify.sandbox import Sandbox

        return Sandbox(LIMITS, self.config.workers, preload=PRELOAD)

    def questions(self, split: Split) -> list[Question]:
        """The first ``task.questions`` problems of LiveCodeBench's window, or of those that training leaves out."""
        if split == "development":
            return self._training[0][: self.each]
        found = self._questions(EVALUATION)[: self.each]
        if not found:
            raise ConfigError(
                f"{self.config.release} has no problem from code.start = {self.config.start!r} to code.end = "
                f"{self.config.end!r}: widen the window, or take a later release."
            )
        return found

    def overlap(self) -> pd.DataFrame:
        """How many problems of the evaluation training has as well, see ``datasets.overlap_by_source``."""
        from riskpo_study.datasets import Question as Text
        from riskpo_study.datasets import overlap, overlap_by_source

        training, evaluation = (
            [
                Text(problem.problem_id, problem.question, answer="", source=name)
                for name in names
                for problem in self._load(name).problems
            ]
            for names in (self.config.training, (EVALUATION,))
        )
        return overlap_by_source(overlap(training, evaluation))

    @cached_property
    def _training(self) -> tuple[list[Question], list[Question]]:
        """The problems set aside for development, and those to train on."""
        limit = self.config.longest_question
        questions = [
            question
            for name in self.config.training
            for question in self._questions(name)
            if len(question.payload["problem"].question) <= limit
        ]
        return set_aside(questions, self.config.development, self.name)

    def _questions(self, name: str) -> list[Question]:
        return [_question(problem, name) for problem in self._load(name).problems]

    def _load(self, name: str) -> Loaded:
        from riskpo_study.datasets import deepcoder, livecodebench

        if name not in self._loaded:
            root = None if self.config.folder == "none" else Path(self.config.folder)
            if name == EVALUATION:
                folder = root and root / "livecodebench"
                self._loaded[name] = livecodebench.load(self.config.release, *self.config.window, folder=folder)
            else:
                folder = root and root / "deepcoder"
                self._loaded[name] = deepcoder.load(name, self.config.most_cases, folder=folder)
        return self._loaded[name]


def _question(problem: CodeProblem, source: str) -> Question:
    from riskpo_study.datasets.code_problems import messages

    return Question(problem.problem_id, messages(problem), source, {"problem": problem, "level": problem.difficulty})
