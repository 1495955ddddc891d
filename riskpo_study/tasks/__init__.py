"""Tasks by name, each in the module of that name, which is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from riskpo_study.errors import ConfigError
from riskpo_study.tasks.protocol import Question, Task, Verdict

if TYPE_CHECKING:
    from riskpo_study.config import Config

__all__ = ["TASKS", "Question", "Task", "Verdict", "build"]


def _countdown(config: Config) -> Task:
    from riskpo_study.tasks.countdown import Countdown

    return Countdown(config.task)


def _programs(config: Config) -> Task:
    from riskpo_study.tasks.programs import Programs

    return Programs(config.task, config.programs)


def _math(config: Config) -> Task:
    from riskpo_study.tasks.math import Math

    return Math(config.task, config.math)


def _code(config: Config) -> Task:
    from riskpo_study.tasks.code import Code

    return Code(config.task, config.code)


def _geometry(config: Config) -> Task:
    from riskpo_study.tasks.geometry import Geometry

    return Geometry(config.task, config.geometry)


TASKS: dict[str, Callable[[Config], Task]] = {
    "countdown": _countdown,
    "programs": _programs,
    "math": _math,
    "code": _code,
    "geometry": _geometry,
}


def build(config: Config) -> Task:
    """The task that ``task.name`` names; ConfigError for a name that is not in ``TASKS``."""
    if config.task.name not in TASKS:
        raise ConfigError(f"task.name is {config.task.name!r}; choose one of: {', '.join(sorted(TASKS))}.")
    return TASKS[config.task.name](config)
