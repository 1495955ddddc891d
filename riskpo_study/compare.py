"""This run's table of Pass@k against the committed reference, results/<profile>/reference.csv.

`python -m riskpo_study.compare` writes the comparison to tables/07_compare of the profile and prints one
line; with `--accept` the present table becomes the reference, and it is written down how the runs were made
(`provenance`). Trainings on two machines differ by rounding
and from there by chance, so a rerun is expected to agree within the intervals, not to the byte.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from riskpo_study import config as configuration
from riskpo_study import provenance, tables
from riskpo_study.analysis import mover
from riskpo_study.errors import DataError, exit_code
from riskpo_study.evaluation import Interval

__all__ = ["accept", "against", "compare"]

KEYS = ["algorithm", "difficulty", "metric"]
NOTE = """\
Each estimate of this run minus the reference's, in percentage points. Both have an interval; taken as
independent, the two join to the interval of the difference (MOVER, Zou and Donner 2008), and an estimate is
inside where that holds 0. As both answer the same questions, it is too wide rather than too narrow: what is
marked as outside most likely differs, the others may differ a little."""


def against(present: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Two tidy tables side by side, joined by algorithm, difficulty and metric.

    Returns:
        These columns; `present` and `reference`, the estimates; `value`, their difference, with `low` and
        `high`; `agreement`: inside, outside, or new and gone for rows that only one of the two has.
    """
    keys = pd.concat([present, reference])[KEYS].drop_duplicates()
    joined = keys.merge(present, "left", KEYS).merge(reference, "left", KEYS, suffixes=("", "_"))
    rows = []
    for row in joined.to_dict("records"):
        here = Interval(row["value"], row["low"], row["high"])
        there = Interval(row["value_"], row["low_"], row["high_"])
        gap = mover(here, there)
        if pd.isna(gap.mean):
            agreement = "gone" if pd.isna(here.mean) else "new"
        else:
            agreement = "inside" if gap.low <= 0 <= gap.high else "outside"
        rows.append([*(row[key] for key in KEYS), here.mean, there.mean, *gap, agreement])
    columns = [*KEYS, "present", "reference", "value", "low", "high", "agreement"]
    return pd.DataFrame(rows, columns=columns)


def compare(results: Path, names: Mapping[str, str]) -> str:
    """Write tables/07_compare/against_reference.csv and .md of a profile; returns the summary, a line.

    A missing reference is what the line then says; it is no error.

    Raises:
        DataError: where the profile has no table of Pass@k yet.
    """
    here, there = _table(results), _reference(results)
    present = tables.read(here)
    if present is None:
        raise DataError(f"{results.name} has no tables/06_passk/passk.csv: make it first (dvc repro).")
    reference = tables.read(there)
    folder = results / "tables" / "07_compare"
    if reference is None:
        line = f"No reference to compare with: there is no {results.name}/{there.name} yet. "
        line += "python -m riskpo_study.compare --accept makes it of the present table."
        tables.save(folder, "against_reference", against(present, present.iloc[:0]), line)
        return line
    found = against(present, reference)
    line = _summary(found, names, identical=here.read_bytes() == there.read_bytes())
    marked = found.assign(mark=found["agreement"].map({"outside": " outside", "gone": " gone"}).fillna(""))
    shown = tables.by_difficulty(marked, names, scale=100, digits=1)
    tables.save(folder, "against_reference", found, f"{line}\n\n{NOTE}", shown)
    return line


def accept(results: Path) -> Path:
    """Make the profile's present table of Pass@k its reference; returns the reference's path.

    Raises:
        DataError: where there is no table yet.
    """
    if not _table(results).is_file():
        raise DataError(f"{results.name} has no tables/06_passk/passk.csv: make it first (dvc repro).")
    shutil.copyfile(_table(results), _reference(results))
    return _reference(results)


def _table(results: Path) -> Path:
    return results / "tables" / "06_passk" / "passk.csv"


def _reference(results: Path) -> Path:
    return results / "reference.csv"


def _summary(found: pd.DataFrame, names: Mapping[str, str], identical: bool) -> str:
    if identical:
        return f"Identical to the reference, in all {len(found)} estimates."
    count = found["agreement"].value_counts()
    compared = found[found["agreement"].isin(["inside", "outside"])]
    parts = [f"{count.get('inside', 0)} of {len(compared)} estimates agree with the reference within the intervals"]
    if len(compared):
        position = compared["value"].abs().to_numpy().argmax()
        algorithm, metric, value = compared[["algorithm", "metric", "value"]].to_numpy()[position]
        which = f"{metric} of {names.get(algorithm, algorithm)}"
        parts.append(f"the largest difference is {tables.cell(100 * value, digits=1)} points, {which}")
    parts += [f"{count[of]} are {text}" for of, text in (("new", "new"), ("gone", "gone")) if of in count]
    return f"{'; '.join(parts)}."


def _compare(*, accepted: bool) -> None:
    config = configuration.load()
    if accepted:
        print(f"The reference is now {accept(config.results).relative_to(configuration.root())}; commit it.")
        provenance.gather(config)
    print(compare(config.results, tables.names(config)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.compare", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="make the present table the reference")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _compare(accepted=options.accept))


if __name__ == "__main__":
    sys.exit(main())
