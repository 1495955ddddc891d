"""Checkpoints: written aside and renamed, verified when read, the damaged ones passed over."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from riskpo_study import files

_KEPT = 2  # the last and, should that turn out damaged, the one before it


def save(folder: Path, step: int, state: dict[str, Any], save_model: Callable[[Path], None]) -> None:
    """Write `folder/step-XXXXXX` with the model (by `save_model`), the state and their digests; prune older ones."""
    with files.atomic(folder / f"step-{step:06d}") as temporary:
        temporary.mkdir()
        save_model(temporary / "model")
        buffer = io.BytesIO()  # torch.save to a file would report a full disk as a RuntimeError without a reason
        torch.save({"step": step, **state}, buffer)
        (temporary / "state.pt").write_bytes(buffer.getbuffer())
        digests = {str(path.relative_to(temporary)): files.digest(path) for path in _contents(temporary)}
        (temporary / "digests.json").write_text(json.dumps(digests, indent=2))
    for old in _steps(folder)[:-_KEPT]:
        files.remove(old)


def latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The last intact checkpoint: (its folder, with `model/` in it, and its state), or None. Damaged ones are named."""
    for path in reversed(_steps(folder)):
        problem = _problem(path)
        if problem is None:
            # Not to where it was saved from, the GPU of one process: each puts its own on its own.
            return path, torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        warnings.warn(f"checkpoint {path} is damaged ({problem}); the one before it is used", stacklevel=2)
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _contents(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _problem(path: Path) -> str | None:
    try:
        digests = json.loads((path / "digests.json").read_text())
        for name, expected in digests.items():
            if files.digest(path / name) != expected:
                return f"{name} has changed"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return None
