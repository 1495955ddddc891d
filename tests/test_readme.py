"""The numbers of the README, and of the log's last entries, are those of the committed results."""

import re

import pandas as pd
import pytest

from riskpo_study.algorithms import ALGORITHMS
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


def estimates(text: str) -> list[tuple[str, str, str]]:
    """Every estimate with its interval: `2.2 points [0.3, 3.9]` as 2.2, 0.3 and 3.9, wherever lines break."""
    number = r"(−?\d+(?:\.\d+)?)"
    found = re.findall(rf"{number}(?: (?:points|%|nats))? \[{number}, {number}\]", re.sub(r"\s+", " ", text))
    return [(value, low, high) for value, low, high in found]


def turned(number: str) -> str:
    return number.removeprefix("−") if number.startswith("−") or float(number) == 0 else f"−{number}"


@pytest.mark.parametrize(
    ("page", "title", "profile", "least"),
    [
        ("README.md", "## The result at a glance", "quick", 15),
        ("README.md", "## The complete study", "study", 15),
        ("docs/log.md", "## 2026-11-26 · The study, read again", "study", 5),
        ("docs/log.md", "## 2026-11-26 · The study", "study", 5),
    ],
)
def test_every_estimate_stands_in_a_table_of_the_report(page: str, title: str, profile: str, least: int) -> None:
    """With the same sign or, told from the other side, with the opposite one."""
    section = (root() / page).read_text(encoding="utf-8").partition(f"{title}\n")[2].partition("\n## ")[0]
    found = estimates(section)
    assert len(found) >= least
    # Of `study` also the profiles of the other tasks.
    made = "".join(path.read_text(encoding="utf-8") for path in (root() / "results").glob(f"{profile}*/**/*.md"))
    for value, low, high in found:
        other = f"{turned(value)} [{turned(high)}, {turned(low)}]"
        assert f"{value} [{low}, {high}]" in made or other in made, (value, low, high)


def test_the_verdicts_are_counted_as_in_the_report() -> None:
    text = re.sub(r"\s+", " ", (root() / "README.md").read_text(encoding="utf-8"))
    made = (root() / "results" / "study" / "claims.md").read_text(encoding="utf-8")
    counted = re.search(r"Of \d+ claims[^.]+\.", made)
    assert counted and re.sub(r"^Of (\d+) claims", r"Of \1 claims,", counted[0]) in text


def test_ours_are_told_as_they_are() -> None:
    text = re.sub(r"\s+", " ", (root() / "README.md").read_text(encoding="utf-8"))
    preset = ALGORITHMS["riskpo_stratified"]
    assert preset.risk == ALGORITHMS["mvar_accuracy"].risk == ALGORITHMS["mvar_log_accuracy"].risk and preset.risk
    said = ", ".join(f"{key} = {preset.risk[of]:g}" for key, of in (("α", "alpha"), ("β", "beta"), ("ω", "omega")))
    assert said in text
    assert (preset.options["credit"], preset.options["bundling"]) == ("marginal", "stratified")
    assert ALGORITHMS["riskpo_marginal"].options == ALGORITHMS["riskpo"].options | {"credit": "marginal"}
