"""DeepCoder-Preview-Dataset: problems to train on, each with tests that a reference solution passes.

Chosen among the public sets because it was made for training by reinforcement and evaluation on LiveCodeBench: every
problem has at least five tests and a program that passes them, texts that occur twice and those of later
LiveCodeBench problems were removed, and its three parts come as plain parquet files, without a loading script. They
keep the schemas of their sources, so that this module reads those too: TACO and APPS (`taco`), Prime Intellect's
SYNTHETIC-1 (`primeintellect`) and LiveCodeBench from May 2023 to July 2024 (`lcbv5`).
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from riskpo_study.datasets.code_problems import (
    BATCH,
    CodeProblem,
    Loaded,
    attainable,
    find_files,
    function_name,
    functional_case,
    provenance,
)
from riskpo_study.datasets.rows import from_json, instead_of, rows
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.verify.sandbox import Case, same_output

__all__ = ["PARTS", "load", "problem"]

NAME = "deepcoder"
REPOSITORY = "agentica-org/DeepCoder-Preview-Dataset"
COMMIT = "177913a7bd43791646ef6a43645caa3c871ab3db"
PARTS = ("taco", "primeintellect", "lcbv5")


def load(part: str, most_cases: int, *, folder: Path | None = None, revision: str = COMMIT) -> Loaded:
    """The training problems of a part, each with at most ``most_cases`` different tests: those of the longest inputs.

    A training step cannot afford hundreds of tests for a response; the longest rarely miss what the others find.
    Rows that cannot be used, as with tests that contradict each other, are left out, with a remark.

    Args:
        folder: has `<part>/train-*.parquet` as published, maybe with fewer rows; by default from the hub.

    Raises:
        ConfigError: for an unknown part; DataError: where a file cannot be read, or no row can be used.
    """
    if part not in PARTS:
        raise ConfigError(f"{NAME}: part = {part!r} is unknown; choose one of {', '.join(PARTS)}.")
    if most_cases < 1:
        raise ConfigError(f"{NAME}: most_cases = {most_cases} must be at least 1.")
    problems, unusable = [], []
    files = find_files(NAME, REPOSITORY, revision, [f"{part}/train-*.parquet"], folder)
    for number, row in enumerate(rows(NAME, files, BATCH)):
        try:
            problems.append(problem(row, part, number, most_cases))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            unusable.append(f"row {number}: {error!r}")
    if not problems:
        reason = unusable[0] if unusable else "there is none"
        raise DataError(f"{NAME}: no row of {', '.join(map(str, files))} can be used ({reason}): get it again.")
    remarks = [f"{len(unusable)} rows left out, the first being {unusable[0]}"] if unusable else []
    origin = {"name": f"{NAME}/{part}", "repository": REPOSITORY, "revision": revision if folder is None else None}
    return Loaded(tuple(problems), provenance(problems, remarks, **origin, most_cases=most_cases))


def problem(row: Mapping[str, Any], part: str, number: int, most_cases: int) -> CodeProblem:
    """The problem of a published row; KeyError, TypeError or ValueError where it is no such."""
    tests = from_json(row["tests"])
    if isinstance(tests, dict):  # TACO and APPS: {"inputs", "outputs", "fn_name"}
        for name in ("inputs", "outputs"):
            if not isinstance(tests[name], list):
                raise ValueError(f"field 'tests.{name}' {instead_of('a list', tests[name])}")
        pairs, entry_point = list(zip(tests["inputs"], tests["outputs"], strict=True)), tests.get("fn_name")
        if entry_point is not None:
            function_name(entry_point)
    else:  # a list of {"input", "output", …}
        pairs = [(test["input"], test["output"]) for test in tests]
        entry_point = _entry_point(tests[0]) if tests else None
    if not pairs:
        raise ValueError("there are no tests")
    case = _called if entry_point else _printed
    pairs = sorted(_distinct(pairs, case), key=lambda pair: len(str(pair[0])), reverse=True)[:most_cases]
    question, starter_code = row["problem"], row.get("starter_code")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"field 'problem' {instead_of('a text', question)}")
    if not isinstance(starter_code, str | None):
        raise ValueError(f"field 'starter_code' {instead_of('a text', starter_code)}")
    return CodeProblem(
        problem_id=f"{NAME}/{part}/{number}",
        question=question.strip(),
        starter_code=starter_code or "",
        entry_point=entry_point,
        cases=tuple(case(*pair) for pair in pairs),
    )


def _entry_point(test: Mapping[str, Any]) -> str | None:
    if test.get("type") == "function_call":  # Prime Intellect
        return function_name(test["fn_name"])
    if test.get("testtype") == "functional":  # LiveCodeBench
        return function_name(test["metadata"]["func_name"])
    return None


def _distinct(pairs: list[tuple[Any, Any]], case: Callable[[Any, Any], Case]) -> list[tuple[Any, Any]]:
    """The first test of each input; ValueError where another expects what contradicts it."""
    first: dict[str, tuple[Any, Any]] = {}
    for pair in pairs:
        earlier = first.setdefault(json.dumps(pair[0]), pair)
        if earlier[1] != pair[1] and not _agree(case(*earlier), case(*pair)):
            raise ValueError(
                f"for the input {reprlib.repr(pair[0])} tests expect {reprlib.repr(earlier[1])} and "
                f"{reprlib.repr(pair[1])}"
            )
    return list(first.values())


def _agree(one: Case, other: Case) -> bool:
    """Whether an answer can pass both."""
    if isinstance(one.given, str):
        return same_output(one.expected, other.expected)
    passing = (other.expected, *other.alternatives)
    return any(value in passing for value in (one.expected, *one.alternatives))


def _called(arguments: Any, expected: Any) -> Case:
    """Arguments as a list and the value alone or in a list of one, either of which counts; or LiveCodeBench's texts."""
    if isinstance(arguments, str):
        return functional_case(arguments, expected)
    if not isinstance(arguments, list):
        raise ValueError(f"arguments are {reprlib.repr(arguments)}, not a list")
    inner = (expected[0],) if isinstance(expected, list) and len(expected) == 1 else ()
    return Case(arguments, attainable(expected), inner)


def _printed(given: Any, expected: Any) -> Case:
    return Case(_text(given), _text(expected))


def _text(lines: Any) -> str:
    """Standard input or output, which may be given line by line."""
    if isinstance(lines, list):
        return "\n".join(map(_text, lines))
    if not isinstance(lines, str):
        raise ValueError(f"{reprlib.repr(lines)} is no text")
    return lines
