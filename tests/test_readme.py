"""The numbers of the README are those of the committed results."""

import pandas as pd

from riskpo_study.config import root

NAMES = {"base": "base model", "grpo": "GRPO", "dapo": "DAPO", "riskpo": "RiskPO"}


def test_the_table_is_that_of_the_quick_profile() -> None:
    tables = root() / "results" / "quick" / "tables" / "06_passk"
    frame = pd.concat([pd.read_csv(tables / "passk.csv"), pd.read_csv(tables / "answers.csv")])
    cells = frame[frame["difficulty"] == "all"].drop_duplicates(["algorithm", "metric"])
    cells = cells.set_index(["algorithm", "metric"])[["value", "low", "high"]]

    def cell(algorithm: str, metric: str, scale: int, digits: int) -> str:
        value, low, high = (f"{scale * number:.{digits}f}" for number in cells.loc[(algorithm, metric)])
        return f"{value} [{low}, {high}]"

    rows = [
        f"| {name} | {cell(algorithm, 'Pass@1', 100, 1)} | {cell(algorithm, 'Pass@8', 100, 1)} "
        f"| {cell(algorithm, 'Pass@64', 100, 1)} | {cell(algorithm, 'entropy', 1, 2)} |"
        for algorithm, name in NAMES.items()
    ]
    readme = (root() / "README.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in readme
