"""Results of the benchmarks: one JSON file each in results/, and from it a table in README.md.

`python benchmarks/report.py` writes the tables again from the JSON files.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from riskpo_study import sections

HERE = Path(__file__).parent
README = HERE / "README.md"

Record = Mapping[str, float]  # one round of one contender, by column heading; what is timed comes first


def machine() -> dict[str, Any]:
    """What the times depend on. `load` is the average of the last minute before the first round."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def render(result: Mapping[str, Any]) -> str:
    """Markdown of a result: `machine`, `settings` (a sentence) and `cells`, the rows, or `rounds`.

    `rounds` are a record a round for each contender; a row gives the median, minimum and maximum of the time, the
    medians of the other columns, and how many times faster than the first contender this one is: the median over the
    rounds, of neighbours in time.
    """
    versions = ", ".join(f"{name} {result['machine'][name]}" for name in ("python", "torch", "transformers"))
    host = "{processor}, {cores} cores, load {load}".format(**result["machine"])
    if "cells" in result:
        header, count = list(result["cells"][0]), ""
        rows = [[str(value) for value in row.values()] for row in result["cells"]]
    else:
        header, rows = _timed(result["rounds"])
        count = f" {len(next(iter(result['rounds'].values())))} rounds."
    return f"{result['settings']}{count} Machine: {host}; {versions}.\n\n{sections.table(header, rows)}"


def _timed(rounds: Mapping[str, list[Record]]) -> tuple[list[str], list[list[str]]]:
    first = next(iter(rounds.values()))
    timed, *others = first[0]
    header = ["", f"{timed}: median", "min", "max", *others, "speed-up"]
    rows = []
    for name, records in rounds.items():
        times = [record[timed] for record in records]
        medians = [median(record[key] for record in records) for key in others]
        speed_up = median(peer[timed] / time for peer, time in zip(first, times, strict=True))
        numbers = [median(times), min(times), max(times), *medians]
        rows.append([name, *map(_number, numbers), f"{speed_up:.2f} ×"])
    return header, rows


def publish(name: str, result: Mapping[str, Any]) -> None:
    """Write `results/<name>.json` and the section `name` of README.md."""
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sections.write(README, name, render(result))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    for file in sorted((HERE / "results").glob("*.json")):
        sections.write(README, file.stem, render(json.loads(file.read_text(encoding="utf-8"))))
