"""Published questions to train on: some are set aside for development, the others drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from riskpo_study.errors import ConfigError
from riskpo_study.seeds import derive
from riskpo_study.tasks.protocol import Question

__all__ = ["draw", "set_aside"]


def set_aside(questions: Sequence[Question], count: int, task: str) -> tuple[list[Question], list[Question]]:
    """``count`` questions in random order, and the others in their order.

    A hash of the question alone decides, so that the first are the same whatever the seeds. Raises ConfigError where
    none would be left.
    """
    if 0 < len(questions) <= count:
        raise ConfigError(f"{task}.development = {count} sets aside all {len(questions)} training questions: lower it.")
    ranked = sorted(questions, key=lambda question: derive(0, task, "development", question.id))
    aside = ranked[:count]
    kept = {question.id for question in aside}
    return aside, [question for question in questions if question.id not in kept]


def draw(
    training: Sequence[Question], n: int, generator: torch.Generator, sources: Sequence[str], remedy: str
) -> list[Question]:
    """``n`` different questions, uniformly drawn. Raises ConfigError, with the remedy, where there are fewer."""
    if n > len(training):
        raise ConfigError(
            f"{n} questions are asked for at a time, and {', '.join(sources)} have {len(training)} to train on: "
            f"ask for fewer, or {remedy}."
        )
    return [training[i] for i in torch.randperm(len(training), generator=generator)[:n].tolist()]
