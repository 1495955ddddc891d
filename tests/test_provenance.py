"""How results were made: gathered from manifests, kept for runs of other machines, told in a few lines."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from riskpo_study import config, provenance


@pytest.fixture
def study(settings: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    """Two finished runs on different processors and one that still goes on."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    study = replace(settings, runs=config.Runs(("grpo", "riskpo"), (0,), ("grpo",), (1,)))
    for run, cpu, status in (("grpo-0", "A", "finished"), ("riskpo-0", "B", "finished"), ("grpo-1", "B", "running")):
        folder = study.results / "runs" / run
        folder.mkdir(parents=True)
        manifest = {
            "status": status, "commit": "0123456789abcdef", "changes": [],
            "versions": {"torch": "2.13.0", "python": "3.11.7", "vllm": None},
            "hardware": {"cores": 2, "processor": cpu, "gpus": []}, "started": "2026-11-25T10:00:00+0000",
            "wall_seconds": 90.0, "identity": {},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return study


def test_finished_runs_are_told_in_a_few_lines(study: config.Config) -> None:
    assert provenance.read(study) is None
    assert sorted(provenance.gather(study)) == ["grpo-0", "riskpo-0"]
    found = provenance.read(study)
    assert found is not None
    table = provenance.as_table(found).set_index("What")["Values"]
    assert table["Runs"] == "2" and table["Commit"] == "0123456789ab"
    assert table["Time of a run"] == "1.5 minutes in the median, 0.1 hours of all together"
    assert table["Hardware"] == "2 cores, A (1 runs); 2 cores, B (1 runs)"
    assert table["Versions"] == "python 3.11.7, torch 2.13.0"


def test_what_differed_from_the_commit_is_named_where_it_was_recorded(study: config.Config) -> None:
    for run, changes in (("grpo-0", ["riskpo_study/trainer.py"]), ("riskpo-0", None)):
        path = study.results / "runs" / run / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["changes"]  # as older runs
        path.write_text(json.dumps(manifest | ({"changes": changes} if changes else {"dirty": True})))
    table = provenance.as_table(provenance.gather(study)).set_index("What")["Values"]
    assert table["Commit"] == "0123456789ab with changes in riskpo_study/trainer.py (1 runs); 0123456789ab (1 runs)"


def test_runs_of_another_machine_are_kept(study: config.Config) -> None:
    provenance.gather(study)
    shutil.rmtree(study.results / "runs" / "grpo-0")
    assert sorted(provenance.gather(study)) == ["grpo-0", "riskpo-0"]


def test_without_manifests_nothing_is_written(study: config.Config) -> None:
    shutil.rmtree(study.results / "runs")
    assert provenance.gather(study) == {} and provenance.read(study) is None
