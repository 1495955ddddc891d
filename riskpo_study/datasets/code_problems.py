"""Programming problems with tests: how a model is asked, what of its response is the program, how it is judged.

All as LiveCodeBench does it (github.com/LiveCodeBench/LiveCodeBench, `lcb_runner`), on which the paper evaluates.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
import shlex
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from datetime import date
from keyword import iskeyword
from pathlib import Path
from typing import Any

from riskpo_study.datasets import hub
from riskpo_study.datasets.rows import from_json
from riskpo_study.errors import DataError
from riskpo_study.verify.sandbox import Case, Limits, Program, same_value

__all__ = [
    "BATCH",
    "LIMITS",
    "PRELOAD",
    "CodeProblem",
    "Loaded",
    "attainable",
    "extract_program",
    "find_files",
    "function_name",
    "functional_case",
    "messages",
    "provenance",
]

LIMITS = Limits(cpu_seconds=6, wall_seconds=12.0, memory_bytes=4 << 30, output_bytes=16 << 20, temporary_bytes=16 << 20)
"""Six seconds for a test, as published; the memory, which is not limited there, is that of `reliability_guard`."""

PRELOAD = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
"""The modules that every program finds imported, in this order: for `Sandbox(preload=…)`."""

PREAMBLE = "\n".join(
    [
        *(f"from {module} import *" for module in PRELOAD),
        f"import {', '.join(module for module in PRELOAD if module not in ('builtins', 'typing'))}",
        "sys.setrecursionlimit(50000)\n",
    ]
)
SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
WITH_STARTER_CODE = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
WITHOUT_STARTER_CODE = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)
FENCE = "```"

BATCH = 64  # rows decoded at once: some are huge


@dataclass(frozen=True)
class CodeProblem:
    """A problem and its tests: standard input and output, or, with an ``entry_point``, arguments and returned value."""

    problem_id: str
    """`<dataset>/<published identifier>`, or the row's number from 0 where it has none."""
    question: str
    starter_code: str
    """Empty where a whole program is asked for."""
    entry_point: str | None
    cases: tuple[Case, ...]
    difficulty: str | None = None
    """As published: easy, medium, hard; None where it is not known."""
    published: date | None = None
    """Of the contest."""

    def program(self, response: str) -> tuple[str, Program, str] | None:
        """For `tasks.sandboxed.verdicts`: the identifier, the program in a response with the tests, and what it says.

        None where there is none. The sandbox should have `LIMITS` and `PRELOAD`.
        """
        source = extract_program(response)
        if source is None:
            return None
        return self.problem_id, Program(f"{PREAMBLE}\n{source}", self.cases, self.entry_point), source.strip()


@dataclass(frozen=True)
class Loaded:
    """Problems in published order, and for a manifest what they are; equal `sha256` means equal problems."""

    problems: tuple[CodeProblem, ...]
    provenance: dict[str, Any] = field(hash=False)


def messages(problem: CodeProblem) -> list[dict[str, str]]:
    """The conversation that `tokenizer.apply_chat_template` turns into a prompt: LiveCodeBench's generic one."""
    wanted, code = WITHOUT_STARTER_CODE, "# YOUR CODE HERE"
    if problem.starter_code:
        wanted, code = WITH_STARTER_CODE, problem.starter_code
    text = (
        f"### Question:\n{problem.question}\n\n### Format: {wanted}\n{FENCE}python\n{code}\n{FENCE}\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def extract_program(response: str) -> str | None:
    """What stands between the last two lines with a fence; None where there are no two."""
    lines = response.split("\n")
    fences = [i for i, line in enumerate(lines) if FENCE in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else None


def functional_case(arguments: str, expected: str) -> Case:
    """LiveCodeBench's test of a function: an argument in JSON on each line, and the expected value in JSON.

    ValueError where it is not JSON, or no value passes.
    """
    return Case([from_json(line) for line in arguments.split("\n")], attainable(from_json(expected)))


def attainable(expected: Any) -> Any:
    """An expected value as it is; ValueError where no answer equals it, as none does NaN."""
    if not same_value(json.dumps(expected).encode(), expected):
        raise ValueError(f"no answer equals {reprlib.repr(expected)}")
    return expected


def function_name(name: Any) -> str:
    """The published name of a function or method as it is; ValueError where no program can define one."""
    if not (isinstance(name, str) and name.isidentifier() and not iskeyword(name)):
        raise ValueError(f"{reprlib.repr(name)} cannot name a function")
    return name


def find_files(name: str, repository: str, revision: str, patterns: Sequence[str], folder: Path | None) -> list[Path]:
    """The files of a dataset that match, in the patterns' order: of a local copy, or from the hub at a revision.

    Raises DataError where there is none for a pattern: with the command that downloads them.
    """
    if folder is None:
        folder, _ = hub.snapshot(name, repository, revision, patterns)
    found = []
    for pattern in patterns:
        files = sorted(folder.glob(pattern))
        if not files:
            command = hub.download_command(repository, revision, [pattern])
            raise DataError(
                f"{name}: {folder} has no file {pattern}: {command} --local-dir {shlex.quote(str(folder))}; or name "
                "another folder."
            )
        found += files
    return found


def provenance(problems: Sequence[CodeProblem], remarks: Sequence[str], **origin: Any) -> dict[str, Any]:
    """Where problems come from, how many they are and a hash over all that they say."""
    total = hashlib.sha256()
    for problem in problems:
        total.update(json.dumps(astuple(problem), default=str).encode() + b"\n")
    return {**origin, "problems": len(problems), "remarks": list(remarks), "sha256": total.hexdigest()}
