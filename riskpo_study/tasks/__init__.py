"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riskpo_study.errors import ConfigError
from riskpo_study.tasks.countdown import Countdown
from riskpo_study.tasks.protocol import Question, Task, Verdict

if TYPE_CHECKING:
    from riskpo_study.config import Task as TaskConfig

__all__ = ["TASKS", "Question", "Task", "Verdict", "build"]

TASKS: dict[str, Callable[[TaskConfig], Task]] = {"countdown": Countdown}


def build(config: TaskConfig) -> Task:
    """The task that ``config.name`` names; ConfigError for a name that is not in ``TASKS``."""
    if config.name not in TASKS:
        raise ConfigError(f"task.name is {config.name!r}; choose one of: {', '.join(sorted(TASKS))}.")
    return TASKS[config.name](config)
