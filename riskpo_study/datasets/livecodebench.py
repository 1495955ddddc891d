"""LiveCodeBench, code generation (arXiv 2403.07974): contest problems with the dates on which they were published.

The evaluation set of the paper's Table 2. A release holds all problems up to its time; a window of dates later than a
model's training data keeps out what it may have seen.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from riskpo_study.datasets.code_problems import (
    BATCH,
    CodeProblem,
    Loaded,
    find_files,
    functional_case,
    provenance,
)
from riskpo_study.datasets.rows import rows
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.verify.sandbox import Case

__all__ = ["RELEASES", "decode_tests", "load", "problem"]

NAME = "livecodebench"
REPOSITORY = "livecodebench/code_generation_lite"
COMMIT = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
RELEASES = {  # files and problems: the dataset's loading script and card
    f"release_v{n}": (["test.jsonl", *(f"test{i}.jsonl" for i in range(2, n + 1))], problems)
    for n, problems in enumerate((400, 511, 612, 713, 880, 1055), start=1)
}
LARGEST = 1 << 28  # bytes of one problem's tests
TEXT_ONLY = {  # operations of a pickle that make one text and remember it
    *("PROTO", "FRAME", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"),
}


def load(
    release: str,
    start: date | None = None,
    end: date | None = None,
    *,
    folder: Path | None = None,
    revision: str = COMMIT,
) -> Loaded:
    """The problems of a release whose contest was from ``start`` to ``end``, both included.

    Args:
        release: `release_v1`, of May 2023 to March 2024, to `release_v6`, to April 2025.
        folder: has the files as published, maybe with fewer rows; by default they come from the hub.

    Raises:
        ConfigError: for an unknown release or an empty window; DataError: where a file or a row is not as published.
    """
    if release not in RELEASES:
        raise ConfigError(f"{NAME}: release = {release!r} is unknown; choose one of {', '.join(RELEASES)}.")
    if start and end and start > end:
        raise ConfigError(f"{NAME}: start = {start} is after end = {end}: exchange them.")
    names, published = RELEASES[release]
    problems, remarks, count = [], [], 0
    for number, row in enumerate(rows(NAME, find_files(NAME, REPOSITORY, revision, names, folder), BATCH)):
        count = number + 1
        day = _day(row, number)
        if (start is None or start <= day) and (end is None or day <= end):
            problems.append(problem(row, number))
    if count != published:
        remarks.append(f"{count} rows; {release} has {published}")
        if folder is None:
            raise DataError(f"{NAME}: {remarks[0]}: the download is not complete; delete it and load again.")
    origin = {"name": NAME, "repository": REPOSITORY, "revision": revision if folder is None else None}
    window = {"release": release, "start": str(start or ""), "end": str(end or "")}
    return Loaded(tuple(problems), provenance(problems, remarks, **origin, **window))


def problem(row: Mapping[str, Any], number: int) -> CodeProblem:
    """The problem of a published row; public and private tests together, as they are judged."""
    try:
        tests = [*decode_tests(row["public_test_cases"]), *decode_tests(row["private_test_cases"])]
        entry_point = json.loads(row["metadata"]).get("func_name")
        if not tests:
            raise ValueError("there are no tests")
        wanted = "functional" if entry_point else "stdin"
        if other := {test["testtype"] for test in tests} - {wanted}:
            raise ValueError(f"a test is of type {', '.join(map(str, other))}, not {wanted}")
        case = functional_case if entry_point else Case
        return CodeProblem(
            problem_id=f"{NAME}/{row['question_id']}",
            question=row["question_content"],
            starter_code=row["starter_code"],
            entry_point=entry_point,
            cases=tuple(case(test["input"], test["output"]) for test in tests),
            difficulty=row["difficulty"],
            published=_day(row, number),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{NAME}: row {number} ({row.get('question_id')}) is not as published: {error!r}.") from error


def _day(row: Mapping[str, Any], number: int) -> date:
    try:
        return datetime.fromisoformat(row["contest_date"]).date()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{NAME}: row {number} has no contest_date in ISO format: {error!r}.") from error


def decode_tests(text: str) -> list[dict[str, str]]:
    """The tests in a field: JSON, or JSON pickled as a text, compressed with zlib and written in base64.

    The pickle is read, never run: of its operations only those that make one text are understood. ValueError for
    anything else, and for more than 256 MiB.
    """
    if not text.lstrip().startswith("["):
        try:
            decompressor = zlib.decompressobj()
            packed = decompressor.decompress(base64.b64decode(text, validate=True), LARGEST)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"the tests are neither JSON nor packed ({error})") from error
        if decompressor.unconsumed_tail:
            raise ValueError(f"the tests have more than {LARGEST} bytes")
        text = _pickled_text(packed)
    tests = json.loads(text)
    if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
        raise ValueError("the tests are no list of objects")
    return tests


def _pickled_text(packed: bytes) -> str:
    texts = []
    for operation, argument, _ in pickletools.genops(packed):
        if operation.name not in TEXT_ONLY:
            raise ValueError(f"the pickle holds more than a text: {operation.name}")
        if isinstance(argument, str):
            texts.append(argument)
    if len(texts) != 1:
        raise ValueError(f"the pickle holds {len(texts)} texts, not one")
    return texts[0]
