"""The commands of docs/paper_scale.md: what they download, override, run and name is what there is."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from riskpo_study import config, profiles
from riskpo_study.datasets import DATASETS, deepcoder, livecodebench

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper_scale.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL))
INLINE = [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))]
COMMANDS = [line.partition(" #")[0].strip() for line in BLOCKS.splitlines()] + INLINE


@cache
def composed(profile: str) -> config.Config:
    return profiles.composed(profile, ROOT / "conf")[1]


def test_downloads_are_the_pinned_models_and_datasets_of_the_profiles() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("repository")
    parser.add_argument("--repo-type")
    parser.add_argument("--revision")
    parser.add_argument("--include", action="append", default=[])
    given = [parser.parse_args(shlex.split(line)[2:]) for line in COMMANDS if line.startswith("hf download")]
    models = {(one.repository, one.revision) for one in given if one.repo_type is None}
    files = {
        (one.repository, one.revision, name) for one in given if one.repo_type == "dataset" for name in one.include
    }
    both = [composed(profile) for profile in ("paper_hard", "paper_easy")]
    assert models == {(one.base_model.pretrained, one.base_model.revision) for one in both}
    sources = [DATASETS[name] for one in both for name in (*one.math.training, *one.math.evaluation)]
    code = composed("paper_code").code
    parts = {(deepcoder.REPOSITORY, deepcoder.COMMIT, f"{part}/train-*.parquet") for part in code.training}
    contests, _ = livecodebench.RELEASES[code.release]
    of_code = {(livecodebench.REPOSITORY, livecodebench.COMMIT, name) for name in contests} | parts
    assert files == {(source.repository, source.commit, source.files) for source in sources} | of_code
    assert (composed("paper_code").base_model.pretrained, composed("paper_code").base_model.revision) in models


def test_profiles_compose_with_the_overrides_of_the_page() -> None:
    lines = [line for line in COMMANDS if line.startswith("python -m riskpo_study.profiles")]
    assert len(lines) >= 4
    for line in lines:
        profile, *overrides = shlex.split(line)[3:]
        profiles.composed(profile, ROOT / "conf", overrides)
    for text in INLINE:  # overrides alone
        if re.fullmatch(r"'?\w+\.\w+=\S+( \w+\.\w+=\S+)*", text):
            profiles.composed("paper_hard", ROOT / "conf", shlex.split(text))


def test_modules_and_targets_exist() -> None:
    for name in {name for line in COMMANDS for name in re.findall(r"python -m (riskpo_study\.\w+)", line)}:
        assert hasattr(importlib.import_module(name), "main")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {target for line in COMMANDS for target in re.findall(r"(?:^|&& )make ([a-z][a-z-]*)", line)}
    assert {"install", "repro", "figures"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)]


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [extra for line in COMMANDS for group in re.findall(r"\.\[([\w,-]+)\]", line) for extra in group.split(",")]
    assert named and set(named) <= set(extras)


def test_stages_exist() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    text = "\n".join(COMMANDS)
    named = re.findall(r"\b(\w+)@(paper_\w+)(?:-(\w+)-(\d+))?", text)
    assert named
    for stage, profile, algorithm, seed in named:
        assert stage in stages
        assert not algorithm or (algorithm, int(seed)) in composed(profile).runs.all
    for name in re.findall(r"dvc repro (\w+)", text) + re.findall(r"grep '\^(\w+)'", text):
        assert name in stages
    for name in re.findall(r"dvc repro --single-item (\w+)(?!\w*@)\b(?!@)", text):
        assert name in stages


def test_every_metric_and_key_is_one() -> None:
    code = "".join((ROOT / "riskpo_study" / f"{name}.py").read_text() for name in ("diagnostics", "update", "trainer"))
    metrics = [text for text in INLINE if re.fullmatch(r"[a-z_]+/[a-z]+", text) or text == "loss"]
    assert len(metrics) > 20
    for metric in metrics:
        assert f'"{metric}"' in code, metric
    params = composed("paper_hard").as_dict()
    keys = [text.split(".") for text in INLINE if re.fullmatch(r"[a-z_]+\.[a-z_]+", text) and ".md" not in text]
    assert len(keys) >= 3
    for section, key in keys:
        assert key in params[section]


@pytest.mark.parametrize("profile", ["paper_hard", "paper_easy", "paper_code"])
def test_numbers_of_the_profiles_are_those_of_the_page(profile: str) -> None:
    train = composed(profile).train
    each = train.questions // train.mini_batches
    assert f"{train.mini_batches} × {each}" in PAGE
    assert f"{train.questions:,}".replace(",", " ") in PAGE
    assert train.evaluate_every == 20
