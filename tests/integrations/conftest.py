"""The integrations are tested in environments of their own (`make test-integrations`), each with one of the engines."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
collect_ignore = [
    file.name for engine in ("verl", "trl") if find_spec(engine) is None for file in HERE.glob(f"test_{engine}*.py")
]
