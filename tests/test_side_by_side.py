"""The paper's tables with ours beside them: from records of every profile, whole, partial and almost none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import counts

from riskpo_study import ablations, analysis, config, datasets, profiles, published, side_by_side, tables
from riskpo_study.analysis import Resampler
from riskpo_study.config import Config
from riskpo_study.records import BASE
from riskpo_study.tasks.code import EVALUATION

ROOT = Path(__file__).parents[1]
HARD = ("aime_2025", "aime_2024", "amc_2023", "math_500", "minerva_math", "olympiad_bench")
PROFILES = profiles.available(ROOT / "conf")
Compose = Callable[[str], Config]


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Shipped profiles, in a project without results: nothing has been tuned."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "dvc.yaml", folder)
    return cache(lambda name: profiles.compose(name, folder / "params.yaml"))


@pytest.fixture(autouse=True)
def _elsewhere(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)


def answered(settings: Config, shares: Mapping[str, float], runs: Mapping[str, tuple[int, ...]]) -> pd.DataFrame:
    """Scored answers of algorithms to the questions of a profile, 8 to each, with about these shares of right ones."""
    names = {"math": settings.math.evaluation, "code": ("livecodebench",), "programs": ("3 operations", "4 operations")}
    asked = {d: 5 + i for i, d in enumerate(names.get(settings.task.name, settings.task.numbers))}
    draws = np.random.default_rng(0)
    frames = [
        counts(draws.binomial(8, shares[algorithm], questions), 8, algorithm, seed, difficulty=difficulty)
        for algorithm, seeds in runs.items()
        for seed in seeds
        for difficulty, questions in asked.items()
    ]
    return analysis.measures(pd.concat(frames, ignore_index=True), [1])[0]


def filled(settings: Config, scored: pd.DataFrame) -> pd.DataFrame:
    """All tables, after checking what holds of every cell."""
    resampler = Resampler(200, 0.95)
    cells = pd.concat([side_by_side.cells(n, scored, settings, resampler) for n in side_by_side.FORMS])
    cells = cells.reset_index(drop=True)
    assert (cells["value"].notna() ^ cells["reason"].notna()).all()
    numbers = cells[cells["value"].notna()]
    ours = numbers["source"] == "ours"
    assert (numbers.loc[ours, "value"].between(numbers.loc[ours, "low"], numbers.loc[ours, "high"])).all()
    assert numbers.loc[ours, ["n", "questions", "seeds"]].notna().all(axis=None)
    assert numbers.loc[~ours, ["low", "high", "n", "seeds"]].isna().all(axis=None)
    for number in side_by_side.FORMS:
        told = side_by_side.shown(number, cells, settings)
        part = cells[cells["table"] == number]
        assert (told.table == "–").to_numpy()[:, 2:].sum() == part["reason"].notna().sum()
        for _, cell in part[part["reason"].notna()].drop_duplicates(["source", "reason"]).iterrows():
            assert any(line.endswith(f"({cell['source']}): {cell['reason']}.") for line in told.notes)
    return cells


def cell(cells: pd.DataFrame, number: int, row: str, source: str, column: str) -> pd.Series:
    place = {"table": number, "row": row, "source": source, "column": column}
    (found,) = cells[np.logical_and.reduce([cells[key] == value for key, value in place.items()])].index
    return cells.loc[found]


def lines(settings: Config, cells: pd.DataFrame, number: int) -> str:
    return "\n".join(side_by_side.shown(number, cells, settings).notes)


# The paper's side


@pytest.mark.parametrize("suite", ["hard math", "easy math"])
def test_printed_average_is_the_plain_mean_of_the_benchmarks_before_it(suite: published.Suite) -> None:
    table = published.scores(suite)
    before = table.iloc[:, : list(table.columns).index("average")]
    assert (before.mean(axis=1) - table["average"]).abs().max() < 0.01


def test_every_row_and_column_of_the_paper_is_known() -> None:
    for form in side_by_side.FORMS.values():
        table = published.scores(form.suite)
        assert set(table.index) <= set(side_by_side.METHODS)
        assert set(table.columns) <= {*side_by_side.BENCHMARKS, *side_by_side.DOMAINS, "average"}
        assert form.family is None or form.family in ablations.FAMILIES
    of_math = set(side_by_side.BENCHMARKS.values()) - {EVALUATION}
    assert all(datasets.DATASETS[name].role == "evaluation" for name in of_math)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_tables_with_the_base_model_alone(compose: Compose, name: str) -> None:
    settings = compose(name)
    cells = filled(settings, answered(settings, {BASE: 0.3}, {BASE: (-1,)}))
    ours = cells[cells["source"] == "ours"]
    assert set(ours.loc[ours["value"].notna(), "algorithm"]) <= {BASE}
    printed = cells[(cells["source"] == "paper") & (cells["column"] != "difference")].set_index(["row", "column"])
    for number, suite in ((1, "hard math"), (2, "easy math")):
        expected = published.scores(suite).stack()  # type: ignore[arg-type]
        found = printed.loc[printed["table"] == number, "value"].dropna()
        assert found.to_dict() == pytest.approx((expected / 100).to_dict())
    averages = printed[printed["table"] == 4].xs("average", level="column")["value"].dropna()
    assert averages.to_dict() == pytest.approx({"B = 1": 0.658, "B = 5": 0.6825, "B = 10": 0.6665})
    missing = {run for text in ours["missing"].dropna() for run in text.split()}
    assert f"riskpo-{settings.runs.seeds[0]}" in missing
    assert missing <= {f"{algorithm}-{seed}" for algorithm, seed in settings.runs.all}


# Countdown


@pytest.fixture
def countdown(compose: Compose) -> Config:
    return compose("quick")


def test_countdown_stands_beside_the_paper_with_what_there_is(countdown: Config) -> None:
    """One seed of riskpo is missing, and all of dapo."""
    scored = answered(countdown, {BASE: 0.1, "grpo": 0.3, "riskpo": 0.7}, {BASE: (-1,), "grpo": (0, 1), "riskpo": (0,)})
    cells = filled(countdown, scored)
    of = scored[scored["algorithm"] == "grpo"]
    means = of.groupby("difficulty")["Pass@1"].mean()
    average = cell(cells, 1, "GRPO", "ours", "average")
    assert average["value"] == pytest.approx(means.mean())
    assert average["value"] != pytest.approx(
        of["Pass@1"].mean()
    )  # the difficulties have different numbers of questions
    assert (average["n"], average["questions"], average["seeds"]) == (8, 11, "0 1")
    assert cell(cells, 1, "GRPO", "ours", "4")["value"] == pytest.approx(means[4])
    assert cell(cells, 1, "GRPO", "ours", "4")["questions"] == 6
    assert cell(cells, 1, "GRPO", "paper", "4")["reason"] == side_by_side.UNASKED
    assert cell(cells, 1, "GRPO", "ours", "AMC")["reason"] == side_by_side.UNEVALUATED
    assert cell(cells, 1, "DAPO", "ours", "average")["reason"] == side_by_side.UNMADE
    assert cell(cells, 1, "GMPO", "ours", "average")["reason"] == side_by_side.UNTRAINED
    gap = cell(cells, 1, "GRPO", "ours", "difference")
    paired = analysis.differences(scored, ["Pass@1"], "riskpo", Resampler(200, 0.95))
    parts = paired[(paired["algorithm"] == "grpo") & (paired["difficulty"] != "all")]
    assert gap["value"] == pytest.approx(parts["value"].mean()) and gap["seeds"] == "0"
    assert cell(cells, 1, "GRPO", "paper", "difference")["value"] == pytest.approx(0.4041 - 0.4665)

    one = side_by_side.shown(1, cells, countdown)
    assert list(one.table.columns)[-4:] == ["3 numbers", "4 numbers", "Average", "Minus RiskPO"]
    table = one.table.set_index(["Method", "Source"])
    printed = table.loc[("GRPO", "paper, one run"), ["AMC", "3 numbers", "Average"]]
    assert printed.tolist() == ["56.6", "–", "40.41"]
    named = tables.names(countdown)["riskpo"]
    assert (named, "ours, seed 0") in table.index and ("DAPO", "ours") in table.index
    assert one.order.startswith(
        "Averages minus that of RiskPO, in percentage points. The paper: lower GRPO (−6.24), DAPO"
    )
    assert f"Ours: lower Base model ({table.loc[('Base model', 'ours'), 'Minus RiskPO']}), GRPO" in one.order
    notes = "\n".join(one.notes)
    assert "Missing runs: dapo-0, dapo-1, riskpo-1." in notes
    assert "questions: 3 numbers 5, 4 numbers 6; 8 responses to each. Other questions and another model" in notes
    assert "DAPO (ours): the runs are missing." in notes and "GMPO (ours): not trained in this profile." in notes
    assert "3 numbers; 4 numbers (paper): questions of this profile" in notes
    two = lines(countdown, cells, 2)
    assert "LiveCodeBench (ours): another domain than this profile's: programs." in two
    assert "DAPO: secondary sources disagree" in two


def test_a_profile_of_code_fills_the_papers_column(compose: Compose) -> None:
    settings = compose("paper_code")
    runs = {BASE: (-1,), "grpo": (0, 1), "riskpo": (0, 1)}
    cells = filled(settings, answered(settings, {BASE: 0.1, "grpo": 0.3, "riskpo": 0.4}, runs))
    ours = cell(cells, 2, "GRPO", "ours", "LiveCodeBench")
    assert ours["questions"] == 5 and cell(cells, 2, "GRPO", "paper", "LiveCodeBench")["value"] == 0.258
    two = lines(settings, cells, 2)
    assert "questions: LiveCodeBench 5; 8 responses to each." in two and "Another model" not in two
    assert "MATH; GSM8K (ours): not a benchmark of this profile." in two


def test_settings_of_an_ablation_that_the_profile_lacks_are_named(countdown: Config) -> None:
    cells = filled(countdown, answered(countdown, {"riskpo": 0.5}, {"riskpo": (0, 1)}))
    assert cell(cells, 4, "B = 5", "ours", "average")["seeds"] == "0 1"
    assert "B = 1; B = 10 (ours): no such ablation in this profile." in lines(countdown, cells, 4)
    assert side_by_side.shown(5, cells, countdown).order.endswith(
        "The paper: nothing to compare. Ours: nothing to compare."
    )


def test_an_ablation_is_on_the_seeds_that_its_settings_share(compose: Compose) -> None:
    """As in `ablations.compared`, so that its averages and differences go together; on none where there are none."""
    study = compose("study")
    runs = {"riskpo": (0, 1, 3, 4), "riskpo_bundle_1": (3, 4), "riskpo_bundle_8": (3,), "grpo": (0, 1)}
    scored = answered(study, dict.fromkeys(runs, 0.4), runs)
    cells = filled(study, scored)
    averages = cells[(cells["table"] == 4) & (cells["column"] == "average")].dropna(subset="seeds")
    assert averages.set_index("row")["seeds"].to_dict() == {"B = 1": "3", "B = 5": "3", "B = 8": "3"}
    assert cell(cells, 1, "RiskPO", "ours", "average")["seeds"] == "0 1 3 4"
    values = averages.set_index("row")["value"]
    gap = cell(cells, 4, "B = 1", "ours", "difference")["value"]
    assert gap == pytest.approx(values["B = 1"] - values["B = 5"])
    assert cell(cells, 4, "B = 2", "ours", "average")["reason"] == side_by_side.UNMADE
    assert cell(cells, 4, "B = 2", "paper", "average")["reason"] == side_by_side.UNREAD
    assert "riskpo-2, " in lines(study, cells, 4) and "riskpo_bundle_8-4" in lines(study, cells, 4)
    settings = cells.loc[cells["table"] == 4, "row"].unique().tolist()
    assert settings == ["B = 1", "B = 2", "B = 5", "B = 8", "B = 10"]

    apart = answered(study, dict.fromkeys(runs, 0.4), {"riskpo": (0,), "riskpo_bundle_1": (3,)})
    cells = filled(study, apart)
    assert cell(cells, 4, "B = 1", "ours", "average")["seeds"] == "3"
    assert cell(cells, 4, "B = 1", "ours", "difference")["reason"] == side_by_side.UNSHARED
    assert "Minus B = 5 of B = 1 (ours): no run with a seed of the reference." in lines(study, cells, 4)


# The paper's benchmarks


def test_hard_math_fills_the_columns_of_the_paper(compose: Compose) -> None:
    hard = compose("paper_hard")
    assert hard.math.evaluation == HARD
    shares = {BASE: 0.2, "grpo": 0.5, "riskpo": 0.4, "riskpo_released": 0.4}
    runs = {BASE: (-1,), "grpo": (0, 1, 2), "riskpo": (0, 1), "riskpo_released": (2,)}
    scored = answered(hard, shares, runs)
    cells = filled(hard, scored)
    means = scored[scored["algorithm"] == "grpo"].groupby("difficulty")["Pass@1"].mean()
    for column in ("AIME25", "Minerva"):
        found = cell(cells, 1, "GRPO", "ours", column)["value"]
        assert found == pytest.approx(means[side_by_side.BENCHMARKS[column]])
    assert cell(cells, 1, "GRPO", "ours", "average")["value"] == pytest.approx(means.mean())
    released = tables.names(hard)["riskpo_released"].partition(" (")[0]
    assert cell(cells, 1, released, "ours", "difference")["reason"] == side_by_side.UNSHARED
    assert cell(cells, 1, "GRPO", "ours", "difference")["seeds"] == "0 1"
    one = side_by_side.shown(1, cells, hard)
    benchmarks = [name for name, dataset in side_by_side.BENCHMARKS.items() if dataset in HARD]
    assert list(one.table.columns) == ["Method", "Source", *benchmarks, "Average", "Minus RiskPO"]
    assert one.table["Source"].tolist() == [
        "ours", "paper, one run", "ours, seeds 0, 1, 2", "paper, one run", "ours", "paper, one run", "ours",
        "paper, one run", "ours, seeds 0, 1", "ours, seed 2",
    ]  # fmt: skip
    notes = "\n".join(one.notes)
    assert "questions: AIME25 5, AIME24 6, AMC 7" in notes and "orders compare" not in notes
    two = lines(hard, cells, 2)
    assert "MATH; GSM8K (ours): not a benchmark of this profile." in two
    assert "Average; Minus RiskPO (ours): not all of its benchmarks are in this profile." in two
    other = replace(hard, base_model=replace(hard.base_model, pretrained="somebody/Else-1B"))
    assert "Another model than the paper's, somebody/Else-1B: orders compare" in lines(other, cells, 1)


def test_part_of_the_benchmarks_has_no_average(compose: Compose) -> None:
    hard = compose("paper_hard")
    few = replace(hard, math=replace(hard.math, evaluation=HARD[:2]))
    cells = filled(few, answered(few, {"grpo": 0.5, "riskpo": 0.4}, {"grpo": (0,), "riskpo": (0,)}))
    assert cell(cells, 1, "GRPO", "ours", "AIME24")["value"] > 0
    assert cell(cells, 1, "GRPO", "ours", "AMC")["reason"] == side_by_side.UNEVALUATED
    assert cell(cells, 1, "GRPO", "ours", "average")["reason"] == side_by_side.INCOMPLETE
    assert "AMC; MATH500; Minerva; OlympiadBench (ours): not a benchmark of this profile." in lines(few, cells, 1)


def test_easy_math_fills_the_ablations(compose: Compose) -> None:
    easy = compose("paper_easy")
    easy = replace(
        easy, runs=replace(easy.runs, seeds=(3,), further_seeds=(0,), further_algorithms=("riskpo_bundle_1",))
    )
    runs = {"riskpo": (3,), "riskpo_bundle_1": (0,), "grpo": (3,)}
    cells = filled(easy, answered(easy, dict.fromkeys(runs, 0.5), runs))
    columns = cells.loc[cells["table"] == 4, "column"].unique().tolist()
    assert columns == ["MATH", "GSM8K", "average", "difference"]
    parts = [cell(cells, 4, "B = 1", "ours", column) for column in columns]
    assert parts[2]["value"] == pytest.approx((parts[0]["value"] + parts[1]["value"]) / 2)
    assert parts[3]["reason"] == side_by_side.UNSHARED
    assert cell(cells, 4, "B = 1", "paper", "MATH")["reason"] == side_by_side.UNREAD
    assert "MATH; GSM8K (paper): the paper has no such number" in lines(easy, cells, 4)
    assert "B = 10 (ours): no such ablation in this profile." in lines(easy, cells, 4)
    assert "Geometry3K (ours): another domain than this profile's: answers about images." in lines(easy, cells, 2)


# Files


def test_saved_cells_say_the_same(countdown: Config) -> None:
    scored = answered(countdown, {BASE: 0.1, "grpo": 0.3, "riskpo": 0.7}, {BASE: (-1,), "grpo": (0,), "riskpo": (0, 1)})
    cells = filled(countdown, scored)
    settings = config.load()
    assert side_by_side.read(settings) is None
    folder = settings.results / "tables" / "13_tables"
    side_by_side.save(folder, cells, countdown)
    again = side_by_side.read(settings)
    assert again is not None
    shown = [side_by_side.shown(number, cells, countdown) for number in side_by_side.FORMS]
    text = side_by_side.as_markdown([side_by_side.shown(number, again, countdown) for number in side_by_side.FORMS])
    assert text == side_by_side.as_markdown(shown)
    assert (folder / "tables.md").read_text() == f"{side_by_side.about(countdown)}\n\n{text}"
    assert (
        text.startswith("## Table 1: hard math\n")
        and "\n## Table 5: weight of the lower tail\n" in text
        and "nan" not in text
    )
