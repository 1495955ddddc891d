"""The records of a whole study, in four files: all that its figures, tables and report are made from.

`python -m riskpo_study.records` joins what the runs of `params.yaml` recorded. The folders of the runs are
large and only in the DVC cache; `results/<profile>/records/` is small and in git, so that figures need no
training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from riskpo_study import config as configuration
from riskpo_study import files
from riskpo_study.config import Config
from riskpo_study.errors import DataError, exit_code
from riskpo_study.runs import differences, read_manifest

__all__ = ["BASE", "Record", "collect", "missing", "read"]

BASE = "base"
"""The algorithm by whose name the records of the base model go; its seed is −1."""

Record = Literal["metrics", "evaluations", "counts", "quantile_logprob"]
_QUESTION = ("algorithm", "seed", "step", "question_id")
_KEYS: dict[Record, tuple[str, ...]] = {
    "metrics": ("algorithm", "seed", "step"),
    "evaluations": _QUESTION,
    "counts": _QUESTION,
    "quantile_logprob": ("algorithm", "seed", "step", "level"),
}
_ANSWERS = ("difficulty", "n", "correct", "entropy")
_COLUMNS: dict[Record, tuple[str, ...]] = {"evaluations": _ANSWERS, "counts": _ANSWERS}
_REMEDY = "restore it (git checkout), or make it again (dvc repro records)"
OF_BASE: tuple[Record, ...] = ("counts", "quantile_logprob")


def collect(results: Path, config: Config) -> list[str]:
    """Join each kind of record over the runs: `records/<record>.parquet`, with algorithm and seed in front.

    A run whose folder is not here, since it was made on another machine or in another clone, keeps the records that
    were joined before.

    Args:
        results: folder of the profile, `config.results`; has `runs/<algorithm>-<seed>/` and `base/`.

    Returns:
        The runs that have not been made yet, as `algorithm-seed`: a study can be looked at before it is finished.

    Raises:
        DataError: where a run has been made in part, no run at all, or two with different data.
    """
    _refuse_other_data([results / "runs" / f"{a}-{s}" for a, s in config.runs.all])
    absent: dict[str, None] = {}
    for record in get_args(Record):
        path = results / "records" / f"{record}.parquet"
        keys = ["algorithm", "seed"]
        before = files.read_table(path, _REMEDY, keys) if path.is_file() else pd.DataFrame(columns=keys)
        runs = [(BASE, -1, results / "base")] if record in OF_BASE else []
        runs += [(a, s, results / "runs" / f"{a}-{s}") for a, s in config.runs.all]
        frames = []
        for algorithm, seed, folder in runs:
            frame = before[(before["algorithm"] == algorithm) & (before["seed"] == seed)]
            if folder.is_dir():
                try:
                    frame = pd.read_parquet(folder / f"{record}.parquet")
                except FileNotFoundError as error:
                    raise DataError(f"{folder} has no {record}.parquet: finish the run first (dvc repro).") from error
                frame.insert(0, "algorithm", algorithm)
                frame.insert(1, "seed", seed)
            if frame.empty:
                absent[f"{algorithm}-{seed}"] = None
            else:
                frames.append(frame)
        if not frames:
            raise DataError(f"{results} has no run with {record}.parquet: train first (dvc repro).")
        with files.atomic(path) as temporary:
            pd.concat(frames, ignore_index=True).to_parquet(temporary, index=False)
    return list(absent)


def _refuse_other_data(folders: Sequence[Path]) -> None:
    """Raise DataError where two runs were trained or evaluated on different data."""
    known = {folder: manifest["identity"].get("data") for folder in folders if (manifest := read_manifest(folder))}
    for folder, data in known.items():
        if found := next(differences(data, next(iter(known.values()))), None):
            first = next(iter(known))
            raise DataError(
                f"{folder.name} and {first.name} have different data, {found}: make one of them again (dvc repro)."
            )


def read(
    results: Path, record: Record, config: Config, base: bool = False, algorithms: Sequence[str] | None = None
) -> pd.DataFrame:
    """One kind of record of the runs of `config`, with the columns algorithm and seed in front.

    Args:
        results: folder of the profile, `config.results`.
        base: also those of the base model, as algorithm `BASE` of seed −1.
        algorithms: of which all seeds are read; by default `runs.algorithms`.

    Raises:
        DataError: where no run has the record.
    """
    path = results / "records" / f"{record}.parquet"
    if not path.is_file():
        raise DataError(f"{results.name} has no records/{path.name}: make the records first (dvc repro).")
    wanted = {*_runs(config, algorithms), *([(BASE, -1)] if base else [])}
    keys = list(_KEYS[record])
    frame = files.read_table(path, _REMEDY, [*keys, *_COLUMNS.get(record, ())])
    if frame.duplicated(keys).any():
        raise DataError(f"{path} has rows of the same {', '.join(keys)}: {_REMEDY}.")
    chosen = [run in wanted for run in zip(frame["algorithm"], frame["seed"], strict=True)]
    if not any(chosen):
        asked = f"the runs of {', '.join(algorithms)}" if algorithms is not None else "the runs of params.yaml"
        raise DataError(f"records/{path.name} of {results.name} has none of {asked}: use dvc repro.")
    return frame[chosen].reset_index(drop=True)


def missing(results: Path, record: Record, config: Config, algorithms: Sequence[str] | None = None) -> list[str]:
    """The runs that have no such record, as `algorithm-seed`; arguments as `read`'s."""
    path = results / "records" / f"{record}.parquet"
    keys = ["algorithm", "seed"]
    frame = files.read_table(path, _REMEDY, keys)[keys] if path.is_file() else pd.DataFrame()
    found = set(frame.itertuples(index=False, name=None))
    return [f"{algorithm}-{seed}" for algorithm, seed in _runs(config, algorithms) if (algorithm, seed) not in found]


def _runs(config: Config, algorithms: Sequence[str] | None) -> list[tuple[str, int]]:
    chosen = config.runs.algorithms if algorithms is None else algorithms
    return [(algorithm, seed) for algorithm, seed in config.runs.all if algorithm in chosen]


def _collect() -> None:
    config = configuration.load()
    if absent := collect(config.results, config):
        print(f"Runs that are not there yet: {', '.join(absent)}.", file=sys.stderr)


def main() -> int:
    return exit_code(_collect)


if __name__ == "__main__":
    sys.exit(main())
