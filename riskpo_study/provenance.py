"""How the committed results of a profile were made: commit, versions, hardware, time.

`make reference` gathers it from the manifests of the runs, which only the machine has that trained them. It says when
and where, so that it is no output of the pipeline: a rerun leaves it as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from riskpo_study import files, runs
from riskpo_study.config import Config
from riskpo_study.errors import DataError

__all__ = ["as_table", "gather", "read"]


def gather(config: Config) -> dict[str, Any]:
    """Write `results/<profile>/provenance.json` from the manifests of the runs that are here.

    Runs of other machines keep what was gathered there.
    """
    found = dict(read(config) or {})
    for algorithm, seed in config.runs.all:
        manifest = runs.read_manifest(config.results / "runs" / f"{algorithm}-{seed}")
        if manifest is not None and manifest["status"] == "finished":
            kept = ("commit", "changes", "versions", "hardware", "sandbox", "started", "wall_seconds")
            found[f"{algorithm}-{seed}"] = {key: manifest[key] for key in kept if key in manifest}
    if found:
        with files.atomic(config.results / "provenance.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return found


def read(config: Config) -> dict[str, Any] | None:
    """What `gather` wrote, run by run; None where there was nothing to write."""
    path = config.results / "provenance.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): restore it (git checkout).") from error
    return found


def as_table(found: dict[str, Any]) -> pd.DataFrame:
    """In a few lines; of what differs between the runs, every value with their number."""
    made = list(found.values())
    seconds = pd.Series([run["wall_seconds"] for run in made])
    hardware = [run["hardware"] for run in made]
    rows = [
        ("Runs", str(len(made))),
        ("Trained", f"{min(run['started'] for run in made)[:10]} to {max(run['started'] for run in made)[:10]}"),
        (
            "Time of a run",
            f"{seconds.median() / 60:.1f} minutes in the median, {seconds.sum() / 3600:.1f} hours of all together",
        ),
        (
            "Hardware",
            _counted(", ".join([f"{one['cores']} cores", one["processor"], *one["gpus"]]) for one in hardware),
        ),
        ("Versions", _counted(map(_versions, made))),
        ("Commit", _counted(map(_commit, made))),
    ]
    if sandboxes := [_sandbox(run) for run in made if "sandbox" in run]:
        rows.append(("Sandbox", _counted(sandboxes)))
    return pd.DataFrame(rows, columns=["What", "Values"])


def _versions(run: dict[str, Any]) -> str:
    """Of the packages that were installed."""
    return ", ".join(f"{package} {version}" for package, version in sorted(run["versions"].items()) if version)


def _sandbox(run: dict[str, Any]) -> str:
    """What kept generated programs in."""
    held = run["sandbox"]["isolation"]
    others = [name.replace("_", " ") for name in ("seccomp", "landlock", "own_user") if held[name]]
    return ", ".join([f"namespaces: {held['namespaces']}", *others])


def _commit(run: dict[str, Any]) -> str:
    """With the files that differed from it, where that was recorded."""
    changed = run.get("changes") or []
    return f"{(run['commit'] or 'unknown')[:12]}{' with changes in ' if changed else ''}{', '.join(changed)}"


def _counted(values: Iterable[str]) -> str:
    count = Counter(values)
    if len(count) == 1:
        return next(iter(count))
    return "; ".join(f"{value} ({times} runs)" for value, times in count.most_common())
