"""The whole pipeline with profile smoke, in a copy of the working tree, as `make repro` runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks or would track, as a clean repository without results of smoke."""
    folder = tmp_path_factory.mktemp("clone") / "study"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    _execute(folder, "git", "init", "-q")
    _commit(folder)
    return folder


def _execute(folder: Path, *command: str) -> str:
    """What the command prints, run in `folder` with this environment and the folder's own package."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def _make(folder: Path, *arguments: str) -> str:
    """make without its installation step: the interpreter that runs the tests has everything."""
    return _execute(folder, "make", "--old-file=.venv/.installed", *arguments)


def _commit(folder: Path) -> None:
    _execute(folder, "git", "add", "--all")
    _execute(folder, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "state")


def _stages_to_run(folder: Path) -> set[str]:
    """Names of the stages that DVC would run for what changed in their own parameters, code and inputs."""
    printed = _execute(folder, "dvc", "repro", "--dry")
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")}


def test_smoke_pipeline_from_parameters_to_report(copy: Path) -> None:
    printed = _make(copy, "repro", "PROFILE=smoke")
    results = copy / "results" / "smoke"
    assert "results/smoke/report.html" in printed
    assert "grpo seed 0" in printed and "riskpo seed 0" in printed  # the progress of both runs is visible
    for name in ("report.md", "report.html", "metrics.json", "tables/07_compare/against_reference.md"):
        assert (results / name).stat().st_size > 0

    # Nothing is written where git would see it, but for the profile's parameters and the lock file.
    changes = _execute(copy, "git", "status", "--porcelain").splitlines()
    assert {line[3:] for line in changes} <= {"params.yaml", "dvc.lock", "results/quick/stages.lock"}

    # Again: nothing to do.
    printed = _make(copy, "repro", "PROFILE=smoke")
    assert "Running stage" not in printed and "dvc repro base_model" not in printed
    assert _execute(copy, "dvc", "status").strip() == "Data and pipelines are up to date."
    _commit(copy)

    # One parameter: what reads it runs again, and nothing that it does not reach.
    parameters = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(parameters.replace("  - 16\n  resamples", "  resamples"))
    evaluations = {"evaluate@smoke-grpo-0", "evaluate@smoke-riskpo-0", "evaluate_base@smoke"}
    evaluations |= {"evaluate_further@smoke-grpo_matched-1"}
    assert _stages_to_run(copy) == evaluations | {"passk@smoke", "claims@smoke", "report@smoke"}
    (copy / "params.yaml").write_text(parameters.replace("  riskpo: {}\n", "  riskpo:\n    step: 0.2\n"))
    trained = {stage for stage in _stages_to_run(copy) if stage.startswith(("base_model", "train", "evaluate"))}
    assert trained == {"train@smoke-riskpo-0"}
    (copy / "params.yaml").write_text(parameters)

    # DVC's own commands find the numbers.
    assert "metrics.json" in _execute(copy, "dvc", "metrics", "show")
    assert "index.html" in _execute(copy, "dvc", "plots", "show")

    # Without models, rollouts, samples and cache, as in somebody else's clone: the same figures, to the byte.
    shutil.rmtree(copy / ".dvc" / "cache")
    for name in ("base", "base_model", "runs", "notebooks"):
        shutil.rmtree(results / name)
    _execute(copy, "git", "add", "--force", "results/smoke")
    _commit(copy)
    _make(copy, "figures", "PROFILE=smoke", "FIGURES=passk report")
    assert _execute(copy, "git", "status", "--porcelain") == ""
