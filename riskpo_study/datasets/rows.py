"""The rows of published files, one at a time."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from riskpo_study.errors import DataError

__all__ = ["Row", "rows"]

Row = Mapping[str, Any]


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
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{reprlib.repr(line)} is no JSON object")
            yield row
