r"""Judging answers to mathematical questions: responses and gold answers in, verdicts out.

    check(["... so it is \boxed{\frac12}", "The answer is 3."], ["0.5", "4"])  # [True, False]

A response is cut to its final answer (`final_answer`) and spelled plainly (`notation`). What its text does not decide
(`equivalence`, where the rules are) goes to math-verify (`symbolic`) in a pool of worker processes, each answer with a
limit of time and memory. Needs the extra ``math``.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from riskpo_study.errors import ConfigError, DataError
from riskpo_study.verify.equivalence import canonical, equivalent
from riskpo_study.verify.final_answer import LONGEST, final_answer
from riskpo_study.verify.notation import balanced, elements, plain
from riskpo_study.verify.worker_pool import Outcome, WorkerPool

__all__ = ["LIBRARIES", "Grade", "MathGrader", "check", "close", "grade", "spelled_gold"]

LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy")
"""Distributions whose versions decide verdicts, too."""

Status = Literal["right", "wrong", "unparsed", "limit"]
_Pair = tuple[str | None, str]  # final answer and gold answer in plain spelling


@dataclass(frozen=True)
class Grade:
    """The verdict on a response.

    ``status`` is "unparsed" when there is no answer or none that can be read, "limit" when judging it took too long or
    too much memory. ``answer``, for majority voting, is the answer in canonical spelling, equal for answers that mean
    the same as far as that is cheap to tell. Right answers have that of the gold one, what was not judged has None.
    """

    status: Status
    answer: str | None

    @property
    def right(self) -> bool:
        return self.status == "right"


class MathGrader:
    """Judges answers with settings of its own; `grade` and `check` of this module use a common one.

    Args:
        workers: processes that run math-verify; None: one for each core, at most eight. They start when first needed.
        seconds: limit for one answer.
        cache: pairs of final answer and gold answer whose verdicts are remembered, the latest.

    Raises ConfigError when math-verify is not installed.
    """

    def __init__(self, workers: int | None = None, seconds: float = 5.0, cache: int = 100_000) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError(
                "Judging mathematical answers needs math-verify: pip install -e '.[math]' -c constraints.txt"
            )
        if cache < 0:
            raise ConfigError(f"cache = {cache} of a grader must not be negative.")
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        self._pool = WorkerPool("riskpo_study.verify.symbolic:judge", workers, seconds)
        self._cache: OrderedDict[_Pair, Grade] = OrderedDict()
        self._cache_size = cache
        self._lock = threading.Lock()

    def check(self, responses: Sequence[str], golds: Sequence[str | float]) -> list[bool]:
        """Whether each response ends in its gold answer; the rest is as in `grade`."""
        return [grade.right for grade in self.grade(responses, golds)]

    def grade(self, responses: Sequence[str], golds: Sequence[str | float]) -> list[Grade]:
        r"""The verdict on each response.

        Args:
            responses: (n,) whole texts of a model, untrusted.
            golds: (n,) answers such as ``\frac{1}{2}``, or texts that end in one, after ``####`` or in a box.

        Raises DataError when a gold answer cannot be read. What only math-verify cannot read is matched by its text.
        """
        if len(responses) != len(golds):
            raise DataError(f"There are {len(responses)} responses and {len(golds)} gold answers: give one to each.")
        spelled = {gold: spelled_gold(gold) for gold in dict.fromkeys(golds)}
        pairs = [
            (_spelled_answer(text, spelled[gold]), spelled[gold]) for text, gold in zip(responses, golds, strict=True)
        ]
        with self._lock:
            grades: dict[_Pair, Grade] = {}
            undecided: list[_Pair] = []
            for pair in dict.fromkeys(pairs):
                if known := self._cache.get(pair) or _by_text(*pair):
                    grades[pair] = known
                else:
                    undecided.append(pair)
            for pair, outcome in zip(undecided, self._pool.map(undecided), strict=True):
                grades[pair] = _by_worker(pair[1], outcome)
            for pair, verdict in grades.items():
                self._cache[pair] = verdict
                self._cache.move_to_end(pair)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return [grades[pair] for pair in pairs]

    def close(self) -> None:
        """End the workers; the grader cannot be used afterwards."""
        self._pool.close()

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_common: MathGrader | None = None
_common_lock = threading.Lock()


def _grader() -> MathGrader:
    global _common
    with _common_lock:
        _common = _common or MathGrader()
        return _common


def check(responses: Sequence[str], golds: Sequence[str | float]) -> list[bool]:
    """`MathGrader.check` with the default settings; its workers stay for the next call."""
    return _grader().check(responses, golds)


def grade(responses: Sequence[str], golds: Sequence[str | float]) -> list[Grade]:
    """`MathGrader.grade` with the default settings; its workers stay for the next call."""
    return _grader().grade(responses, golds)


def close() -> None:
    """End the workers of `check` and `grade`, as the end of the program does; the next call starts new ones."""
    global _common
    with _common_lock:
        if _common is not None:
            _common.close()
        _common = None


def spelled_gold(gold: str | float) -> str:
    """A gold answer in plain spelling. Raises DataError for one that cannot be read."""
    text = str(gold)
    answer = final_answer(text) if re.search(r"boxed|fbox|####", text) else text
    spelled = plain(answer) if answer and len(answer) <= LONGEST else ""
    if not _readable(spelled):
        raise DataError(
            f"The gold answer {text[:100]!r} cannot be read: an answer has a letter or a digit, as many opening as "
            f"closing braces and at most {LONGEST} characters."
        )
    return spelled


def _spelled_answer(response: str, gold: str) -> str | None:
    answer = final_answer(response, several=len(elements(gold).parts) > 1)
    spelled = plain(answer) if answer else ""
    return spelled if _readable(spelled) else None


def _readable(text: str) -> bool:
    return bool(re.search(r"\w", text)) and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text) and balanced(text)


class _Undecided(Exception):
    """The text alone does not tell."""


def _ask(answer: str, gold: str) -> bool:
    raise _Undecided


def _by_text(answer: str | None, gold: str) -> Grade | None:
    """The verdict where no worker is needed for it."""
    if answer is None:
        return Grade("unparsed", None)
    try:
        right = equivalent(answer, gold, _ask)
        return Grade("right", canonical(gold)) if right else Grade("wrong", canonical(answer))
    except _Undecided:
        return None
    except RecursionError:  # brackets in brackets in brackets
        return Grade("unparsed", None)


def _by_worker(gold: str, outcome: Outcome) -> Grade:
    match outcome.status:
        case "done" if outcome.value["status"] == "right":
            return Grade("right", canonical(gold))
        case "done":
            return Grade(**outcome.value)
        case "error":  # nested too deeply for the parser
            return Grade("unparsed", None)
    return Grade("limit", None)
