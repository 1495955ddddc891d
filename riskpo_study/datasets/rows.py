"""The rows of published files, one at a time, and how an error names one."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from riskpo_study.errors import DataError

__all__ = ["Row", "from_json", "instead_of", "misfit", "rows"]

Row = Mapping[str, Any]

DEEPEST = 200  # lists and objects in each other: whatever copies, compares or hashes them calls itself for each
LONGEST_ID = 100  # characters, in a message


def rows(name: str, files: Iterable[Path], batch: int) -> Iterator[Row]:
    """The rows of parquet or JSON lines files of the dataset ``name``; of parquet ``batch`` are decoded at once.

    A byte-order mark and blank lines do no harm.

    Raises:
        DataError: naming the file and how many of its rows could be read.
    """
    for file in files:
        count = 0
        try:
            for row in _parquet(file, batch) if file.suffix == ".parquet" else _json_lines(file):
                count += 1
                yield row
        except (OSError, ValueError) as error:
            reason = str(error).rstrip(". ")
            raise DataError(f"{name}: {file} cannot be read after {count} rows ({reason}): get it again.") from error


def _parquet(file: Path, batch: int) -> Iterator[Row]:
    from datasets import load_dataset

    # Streamed, as it otherwise writes a second copy of everything to the disk.
    stream = load_dataset("parquet", data_files=str(file), split="train", streaming=True)
    for some in stream.with_format("arrow").iter(batch_size=batch):
        yield from some.to_pylist()


def _json_lines(file: Path) -> Iterator[Row]:
    # Not by `datasets`: of a column with numbers and texts it makes texts, in which texts are quoted.
    with file.open(encoding="utf-8-sig") as lines:
        for line in filter(str.strip, lines):
            row = from_json(line)
            if not isinstance(row, dict):
                raise ValueError(f"{reprlib.repr(line)} is no JSON object")
            yield row


def from_json(text: str) -> Any:
    """What a JSON text says; ValueError where it is none, or has more than `DEEPEST` values in each other."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"JSON nested more than {DEEPEST} deep") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError(f"JSON nested more than {DEEPEST} deep")


def instead_of(wanted: str, value: Any) -> str:
    """For `misfit`: what a field holds, shortened, and what it should."""
    return f"is {'missing' if value is None else reprlib.repr(value)}, not {wanted}"


def misfit(question_id: str, number: int, field: str | None, reason: str) -> DataError:
    """What is wrong with a field of a row, from 1; the id is `<dataset>/<published identifier>`, shortened."""
    name = question_id.partition("/")[0]
    return DataError(f"{name}: row {number} (id {question_id[:LONGEST_ID]}): field {field!r} {reason}.")
