"""LiveCodeBench, code generation (arXiv 2403.07974): contest problems with the dates on which they were published.

The evaluation set of the paper's Table 2. A release holds all problems up to its time; a window of dates later than a
model's training data keeps out what it may have seen.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import reprlib
import zlib
from datetime import date, datetime
from pathlib import Path
from typing import Any

from riskpo_study.datasets.code_problems import (
    BATCH,
    CodeProblem,
    Loaded,
    find_files,
    function_name,
    functional_case,
    provenance,
)
from riskpo_study.datasets.rows import Row, from_json, instead_of, misfit, rows
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
    rows_by_id: dict[str, int] = {}
    files = find_files(NAME, REPOSITORY, revision, names, folder)
    for count, row in enumerate(rows(NAME, files, BATCH), start=1):
        day = _day(row, count)
        if (start is None or start <= day) and (end is None or day <= end):
            problems.append(problem(row, count))
            other = rows_by_id.setdefault(problems[-1].problem_id, count)
            if other != count:  # verdicts are kept by it
                raise _misfit(row, count, "question_id", f"is that of row {other}, too")
    if count != published:
        remarks.append(f"{count} rows; {release} has {published}")
        if folder is None:
            raise DataError(f"{NAME}: {remarks[0]}: the download is not complete; delete it and load again.")
    origin = {"name": NAME, "repository": REPOSITORY, "revision": revision if folder is None else None}
    window = {"release": release, "start": str(start or ""), "end": str(end or "")}
    return Loaded(tuple(problems), provenance(problems, remarks, **origin, **window))


def problem(row: Row, number: int) -> CodeProblem:
    """The problem of a published row, from 1; public and private tests together, as they are judged.

    DataError where a field is not as published.
    """
    entry_point = _entry_point(row, number)
    fields = ("public_test_cases", "private_test_cases")
    cases = tuple(case for field in fields for case in _cases(row, number, field, entry_point))
    if not cases:
        raise _misfit(row, number, fields[1], f"has no tests, nor has {fields[0]!r}")
    return CodeProblem(
        problem_id=f"{NAME}/{_text(row, number, 'question_id')}",
        question=_text(row, number, "question_content"),
        starter_code=_text(row, number, "starter_code", may_be_empty=True),
        entry_point=entry_point,
        cases=cases,
        difficulty=_text(row, number, "difficulty"),
        published=_day(row, number),
    )


def _misfit(row: Row, number: int, field: str, reason: str) -> DataError:
    return misfit(f"{NAME}/{row.get('question_id')}", number, field, f"{reason}: correct it, or get the file again")


def _text(row: Row, number: int, field: str, *, may_be_empty: bool = False) -> str:
    text = row.get(field)
    if not isinstance(text, str) or not (text.strip() or may_be_empty):
        raise _misfit(row, number, field, instead_of("a text", text))
    return text


def _day(row: Row, number: int) -> date:
    day = row.get("contest_date")
    try:
        return datetime.fromisoformat(day).date()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _misfit(row, number, "contest_date", instead_of("a date in ISO format", day)) from None


def _entry_point(row: Row, number: int) -> str | None:
    """The function to write; None where it is a program."""
    text = _text(row, number, "metadata")
    try:
        metadata = from_json(text)
        if not isinstance(metadata, dict):
            raise ValueError("no JSON object")
        name = metadata.get("func_name")
        return None if name is None else function_name(name)
    except ValueError as error:
        raise _misfit(row, number, "metadata", f"is of no use ({error}): {reprlib.repr(text)}") from error


def _cases(row: Row, number: int, field: str, entry_point: str | None) -> list[Case]:
    """The tests in a field of a row, all of the type that the entry point asks for."""
    text = _text(row, number, field)
    try:
        tests = decode_tests(text)
    except ValueError as error:
        raise _misfit(row, number, field, f"holds no tests that can be read ({error}): {reprlib.repr(text)}") from error
    kind, case = ("functional", functional_case) if entry_point else ("stdin", Case)
    cases = []
    for i, test in enumerate(tests):
        if test.get("testtype") != kind:
            raise _misfit(row, number, f"{field}.{i}.testtype", instead_of(repr(kind), test.get("testtype")))
        for name in ("input", "output"):
            if not isinstance(test.get(name), str):
                raise _misfit(row, number, f"{field}.{i}.{name}", instead_of("a text", test.get(name)))
        try:
            cases.append(case(test["input"], test["output"]))
        except ValueError as error:
            raise _misfit(row, number, f"{field}.{i}", f"is of no use ({error}): {reprlib.repr(test)}") from error
    return cases


def decode_tests(text: str) -> list[dict[str, Any]]:
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
    tests = from_json(text)
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
