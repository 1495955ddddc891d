"""The numbers of the README, and of the log's last entries, are those of the committed results; its examples run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


TRAINED = """
import pathlib
from dataclasses import replace
from riskpo_study import base_model, errors, experiment, profiles, runs, seeds, tasks

root = pathlib.Path.cwd()
small = ["base_model.steps=40", "base_model.batch_size=64", "base_model.learning_rate=0.01", "base_model.layers=1"]
small += ["base_model.warmup_steps=5", "train.steps=2", "train.curve_questions=4", "train.curve_samples=8"]
settings = profiles.compose("sorting", root / "params.yaml", small)
task = tasks.build(settings)
training, held_out = task.sample(40, seeds.generator(0, "some")), task.questions("held_out")
assert len(held_out) == 2 * settings.task.questions and len({q.id for q in held_out + training}) == len(held_out) + 40
try:
    tasks.build(replace(settings, task=replace(settings.task, questions=400))).questions("held_out")
except errors.ConfigError as error:
    assert "of 400 wanted" in str(error)
else:
    raise AssertionError("there are not so many of three digits")
question = held_out[0]
right = question.payload["answer"]
assert [task.verify(question, text).reward for text in (right, f" {right} ", "", right[::-1])] == [1, 1, 0, 0]
base_model.obtain(task, settings.base_model, root / "base")
run = experiment.train(settings, "riskpo", 0, root / "base", root / "run")
metrics = runs.read_records(run, "metrics")
assert len(metrics) == 2 and metrics["accuracy/3 digits"].gt(0).any(), metrics["accuracy/3 digits"]
assert set(runs.read_records(run, "evaluations")["difficulty"]) == {"3 digits", "4 digits"}
"""


def test_the_task_of_the_readme_trains(tmp_path: Path) -> None:
    """Its files, written where it says, in a copy of the package."""
    text = (root() / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Add a task\n")[2].partition("\n## ")[0]
    assert section.count("\n") < 60
    for name in ("riskpo_study", "conf"):
        shutil.copytree(root() / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root() / "dvc.yaml", tmp_path)
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        named = re.search(r"# ((?:riskpo_study|conf)/[\w/]+\.\w+)", block)
        assert named
        with (tmp_path / named[1]).open("a", encoding="utf-8") as file:
            file.write(block)
    command = re.search(r"make repro PROFILE=(\w+)", section)
    assert command and (tmp_path / "conf" / "profile" / f"{command[1]}.yaml").is_file()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAINED], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
