"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riskpo_study.errors import ConfigError
from riskpo_study.tasks.countdown import Countdown
from riskpo_study.tasks.protocol import Question, Task, Verdict

if TYPE_CHECKING:
    from riskpo_study.config import Config

__all__ = ["TASKS", "Question", "Task", "Verdict", "build"]


def _math(config: Config) -> Task:
    from riskpo_study.tasks.math import Math  # its datasets and checker are no part of a plain run

    return Math(config.task, config.math)


TASKS: dict[str, Callable[[Config], Task]] = {"countdown": lambda config: Countdown(config.task), "math": _math}


def build(config: Config) -> Task:
    """The task that ``task.name`` names; ConfigError for a name that is not in ``TASKS``."""
    if config.task.name not in TASKS:
        raise ConfigError(f"task.name is {config.task.name!r}; choose one of: {', '.join(sorted(TASKS))}.")
    return TASKS[config.task.name](config)
