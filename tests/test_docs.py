"""What the documentation names exists: functions, algorithms, options, parameters, metrics, files."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from riskpo_study.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def resolve(name: str) -> Any:
    """The object of a dotted name; raises where there is none.

    Of a module that stands on another trainer, which this environment lacks, the source must define the name.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            source = ROOT / f"{'/'.join(parts[:cut])}.py"
            if error.name in ("verl", "trl", "omegaconf") and source.is_file():
                body = ast.parse(source.read_text(encoding="utf-8")).body
                defined = {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
                return defined[parts[cut]] if parts[cut:] else body
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


@page
def test_every_dotted_name_resolves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    examples = re.findall(r"(?m)^# (riskpo_study/[\w/]+)\.py$", text)  # of files that the reader writes
    written = {path.replace("/", ".") for path in examples}
    for name in set(re.findall(r"riskpo_study(?:\.\w+)+", text)) - written:
        if not name.endswith(".py"):
            resolve(name)


def test_a_name_that_does_not_exist_is_noticed() -> None:
    plugin = "riskpo_study.integrations.verl_estimators"
    for name in ("riskpo_study.risk.no_such_measure", "riskpo_study.no_such_module", f"{plugin}.NoSuchCallback"):
        with pytest.raises((AttributeError, KeyError, ModuleNotFoundError)):
            resolve(name)


@page
def test_every_option_and_parameter_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, option in re.findall(r"`algorithms\.(\w+)\.(\w+)", text):
        preset = ALGORITHMS[name]
        assert option in {*preset.options, *(f"clip_{key}" for key in preset.clip), "learning_rate"}
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section in ("runs", "task", "base_model", "risk", "train", "rollouts", "tuning", "evaluation"):
        for key in re.findall(rf"`{section}\.(\w+)[:`]", text):
            assert key in params[section], f"{section}.{key}"


@page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text):
        if re.match(r"[a-z]+:", target):  # http:, mailto:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_its_row(name: str) -> None:
    row = next(line for line in METHOD.splitlines() if line.startswith(f"| `{name}` |"))
    preset = ALGORITHMS[name]
    assert f"`{preset.aggregation}`" in row
    source = re.search(r"\d{4}\.\d{5}", preset.source).group()  # type: ignore[union-attr]
    assert source in row or name == "riskpo_released"
    for option in preset.options if "as `riskpo`" not in row and name != "riskpo" else ():
        assert f"`algorithms.{name}.{option}`" in row


@pytest.mark.parametrize("option", ALGORITHMS["riskpo"].options)
def test_every_option_of_riskpo_is_explained(option: str) -> None:
    assert f"`algorithms.riskpo.{option}" in METHOD


def test_every_metric_is_recorded() -> None:
    groups = "covariance|entropy|quantile|region|share|risk|clip_ratio|kl"
    modules = ("diagnostics.py", "trainer.py", "update.py")
    recorded = "".join((ROOT / "riskpo_study" / name).read_text(encoding="utf-8") for name in modules)
    names = re.findall(rf"`((?:{groups})/\w+)`", METHOD)
    assert len(names) > 15
    for name in names:
        assert f'"{name}"' in recorded, name
