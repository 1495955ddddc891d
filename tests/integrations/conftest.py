"""The integrations are tested in environments of their own (`make test-integrations`), each with one of the engines."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from riskpo_study import base_model, config, tasks

HERE = Path(__file__).parent
collect_ignore = [
    file.name for engine in ("verl", "trl") if find_spec(engine) is None for file in HERE.glob(f"test_{engine}*.py")
]


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny base model that solves a fifth of small Countdown questions, trained in seconds."""
    shipped = config.load(config.root() / "params.yaml")
    small = replace(shipped.task, numbers=(2, 3), largest_number=9, largest_target=20, questions=10)
    task = tasks.build(replace(shipped, task=small))
    shape = replace(
        shipped.base_model, layers=2, width=32, heads=4, kv_heads=2, mlp_width=64, difficulties=(2, 3), steps=150,
        batch_size=80, learning_rate=1e-2, warmup_steps=5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("base") / "model"
    base_model.pretrain(task, shape, folder, progress=False)  # type: ignore[arg-type]
    return str(folder)
