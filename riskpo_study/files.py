"""Files written so that a kill at any moment leaves the old content or the new, and read with an error that helps."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from riskpo_study.errors import DataError, RunError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write a file or folder to; on success it takes the place of `path`.

    Raises:
        RunError: naming `path` and the remedy, where the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        yield temporary
        if path.is_dir():
            remove(path)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"cannot write {path}: {reason}. Free space there or make it writable, then start again: "
            "what was written before is intact and the run continues from its last checkpoint"
        ) from error
    finally:
        remove(temporary)


def read_table(path: Path, remedy: str, columns: Collection[str] = (), **options: Any) -> pd.DataFrame:
    """A CSV or parquet file with at least these columns; options are pandas'.

    Raises:
        DataError: naming the path and the remedy, where it cannot be read or lacks a column.
    """
    try:
        frame = pd.read_parquet(path, **options) if path.suffix == ".parquet" else pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({str(error).partition('. ')[0]}): {remedy}.") from error
    if lacking := [column for column in columns if column not in frame]:
        raise DataError(f"{path} has no column {', '.join(lacking)}: {remedy}.")
    return frame


def remove(path: Path) -> None:
    """Delete a file or a folder with what is in it; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def digest(*paths: Path) -> str:
    """Hex digest of the contents of files, in the given order."""
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        total.update(hashlib.blake2b(path.read_bytes()).digest())
    return total.hexdigest()
