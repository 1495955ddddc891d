"""Problems that a task draws itself: as many of a split as are asked for, and mixtures of difficulties.

Countdown, the task of the study, draws a thousand expressions at a time, and so has a way of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol, TypeVar

import torch

from riskpo_study.errors import ConfigError
from riskpo_study.seeds import derive
from riskpo_study.tasks.protocol import Split

__all__ = ["TENTHS", "Problem", "first", "mixture", "part", "seeded"]

TENTHS: tuple[Split | Literal["training"], ...] = (
    "held_out", "development", "training", "training", "training",
    "training", "training", "training", "training", "training",
)  # fmt: skip
"""The usual splits, for `part`."""


class Problem(Protocol):
    """What can be asked: ``name`` is its identity, which alone decides its ``split``."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...


P = TypeVar("P", bound=Problem)
T = TypeVar("T")


def part(parts: Sequence[T], *purpose: str | int) -> T:
    """Which of them a hash of the purpose chooses, whatever the seeds and settings."""
    return parts[derive(0, *purpose) % len(parts)]


def seeded(generator: torch.Generator) -> random.Random:
    """Python's generator, which draws from short lists far faster, with a seed drawn from torch's."""
    return random.Random(int(torch.randint(2**62, (1,), generator=generator)))


def first(
    n: int, split: str, draw: Callable[[], P | None], taken: set[str] | None, *, patience: int, kind: str, remedy: str
) -> list[P]:
    """The first ``n`` drawn problems of a split; those whose name is ``taken`` are passed over, and all become so.

    With ``taken`` None, problems as often as they are drawn. ``draw`` gives None where what it drew is no good problem.
    Raises ConfigError, with the ``kind`` of problem and the remedy, after ``patience`` draws in a row for nothing.
    """
    found: list[P] = []
    fruitless = 0
    while len(found) < n:
        problem = draw()
        if problem is None or problem.split != split or (taken is not None and problem.name in taken):
            fruitless += 1
            if fruitless == patience:
                raise ConfigError(
                    f"There are only about {len(found)} {split} problems {kind}, of {n} wanted: ask for fewer, or "
                    f"{remedy}."
                )
            continue
        fruitless = 0
        found.append(problem)
        if taken is not None:
            taken.add(problem.name)
    return found


def mixture(n: int, difficulties: Collection[int], rng: random.Random, take: Callable[[int, int], list[P]]) -> list[P]:
    """``n`` problems in random order, equally many of each difficulty; chance decides which get the remainder.

    ``take(count, difficulty)`` gives them.
    """
    shuffled = rng.sample(list(difficulties), len(difficulties))
    mixed: list[P] = []
    for i, difficulty in enumerate(shuffled):
        mixed += take(len(range(i, n, len(shuffled))), difficulty)
    return rng.sample(mixed, n)
