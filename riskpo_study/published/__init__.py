"""Numbers that the paper reports (arXiv 2510.00911), from the CSV files beside this module; sources: its README.

All are Pass@1 in percent, of single training runs without intervals.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import pandas as pd

__all__ = ["Factor", "Suite", "ablation", "averages", "base_model", "notes", "read", "risk_profiles", "scores"]

Suite = Literal["hard math", "easy math"]
Factor = Literal["quantile_levels", "bundle_size", "omega"]

_AVERAGES: dict[Suite, tuple[str, str]] = {
    "hard math": ("hard_math_pass1", "average"),
    "easy math": ("easy_math_code_multimodal_pass1", "math_average"),
}


def read(name: str) -> pd.DataFrame:
    """The file `<name>.csv` as it is.

    Raises:
        FileNotFoundError: where there is none of this name.
    """
    with files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def scores(suite: Suite) -> pd.DataFrame:
    """Table 1 or 2: a row a method, a column a benchmark, and `average` behind the benchmarks that it is over."""
    name, average = _AVERAGES[suite]
    table = read(name).set_index("method").rename(columns={average: "average"})
    return table.drop(columns=["table", "base_model", "note"], errors="ignore").astype(float)


def base_model(suite: Suite) -> str:
    """The model that was post-trained."""
    (name,) = read(_AVERAGES[suite][0])["base_model"].unique()
    return str(name)


def averages(suite: Suite) -> dict[str, float]:
    """Method → average over the benchmarks of Table 1 (hard math) or the two math ones of Table 2 (easy math)."""
    return {str(method): value for method, value in scores(suite)["average"].items()}


def notes(suite: Suite) -> dict[str, str]:
    """Method → remark on its numbers, of those that have one."""
    table = read(_AVERAGES[suite][0])
    if "note" not in table:
        return {}
    remarked = table.dropna(subset="note")
    return dict(zip(remarked["method"], remarked["note"].astype(str), strict=True))


def ablation(factor: Factor) -> dict[str, float]:
    """Setting, as `B = 5`, → average over MATH and GSM8K: Tables 3, 4 and 5."""
    table = read("ablations_easy_math_average")
    table = table[table["factor"] == factor]
    return dict(zip(table["setting"].map(_worded), table["average"].astype(float), strict=True))


def _worded(text: str) -> str:
    """A setting of the files in symbols: `alpha=0.2 beta=0.8` is `α = 0.2, β = 0.8`."""
    for plain, symbol in {"alpha": "α", "beta": "β", "omega": "ω", "=": " = ", " β": ", β"}.items():
        text = text.replace(plain, symbol)
    return text


def risk_profiles() -> dict[str, tuple[float, float]]:
    """`risk_averse` and `risk_seeking` → Pass@1 on MATH before and after training: Fig. 6."""
    table = read("risk_profiles_pass1").set_index("risk_profile")
    return {str(name): (float(row["start_pass1"]), float(row["end_pass1"])) for name, row in table.iterrows()}
