"""The records of all runs, joined: complete, in order, and without what the configuration does not name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from riskpo_study import config, records
from riskpo_study.errors import DataError


@pytest.fixture
def study(settings: config.Config) -> config.Config:
    return replace(settings, runs=config.Runs(("riskpo", "grpo"), (0, 1)))


@pytest.fixture
def results(study: config.Config, tmp_path: Path) -> Path:
    """Folders of four runs and the base model; each record is two rows that say whose they are."""
    runs = [f"runs/{a}-{s}" for a in study.runs.algorithms for s in study.runs.seeds]
    for folder in [*runs, "base"]:
        (tmp_path / folder).mkdir(parents=True)
        for record in get_args(records.Record):
            rows = {"step": [1, 2], "of": folder, "question_id": "a", "level": 0.5}
            answers = {"difficulty": 3, "n": 8, "correct": 4, "entropy": 0.5}
            pd.DataFrame(rows | answers).to_parquet(tmp_path / folder / f"{record}.parquet")
    records.collect(tmp_path, study)
    return tmp_path


def test_every_run_is_there_in_the_order_of_the_configuration(results: Path, study: config.Config) -> None:
    metrics = records.read(results, "metrics", study)
    assert list(metrics.columns)[:4] == ["algorithm", "seed", "step", "of"]
    assert list(metrics["of"]) == [f"runs/{a}-{s}" for a in ("riskpo", "grpo") for s in (0, 1) for _ in range(2)]
    assert (metrics["of"] == "runs/" + metrics["algorithm"] + "-" + metrics["seed"].astype(str)).all()


def test_the_base_model_comes_first_where_asked_for(results: Path, study: config.Config) -> None:
    assert "base" not in set(records.read(results, "counts", study)["of"])
    first = records.read(results, "counts", study, base=True).iloc[0]
    assert (first["algorithm"], first["seed"], first["of"]) == (records.BASE, -1, "base")
    assert "base" not in set(records.read(results, "metrics", study, base=True)["of"])


def test_only_the_runs_of_the_configuration_are_read(results: Path, study: config.Config) -> None:
    fewer = replace(study, runs=config.Runs(("grpo",), (1,)))
    assert set(records.read(results, "counts", fewer)["of"]) == {"runs/grpo-1"}
    other = replace(study, runs=config.Runs(("grpo", "dapo"), (1, 2)))
    assert records.missing(results, "counts", other) == ["grpo-2", "dapo-1", "dapo-2"]
    assert records.missing(results, "counts", study) == []
    assert records.missing(results / "nowhere", "counts", fewer) == ["grpo-1"]
    with pytest.raises(DataError, match="has none of the runs of params.yaml"):
        records.read(results, "counts", replace(study, runs=config.Runs(("dapo",), (7,))))


def test_the_same_records_give_the_same_bytes(results: Path, study: config.Config) -> None:
    before = [(results / "records" / f"{record}.parquet").read_bytes() for record in get_args(records.Record)]
    records.collect(results, study)
    assert before == [(results / "records" / f"{record}.parquet").read_bytes() for record in get_args(records.Record)]


def test_a_missing_record_is_named(results: Path, study: config.Config) -> None:
    (results / "runs" / "grpo-1" / "counts.parquet").unlink()
    with pytest.raises(DataError, match=r"runs/grpo-1 has no counts\.parquet"):
        records.collect(results, study)
    with pytest.raises(DataError, match=r"has no records/counts\.parquet"):
        records.read(results / "nowhere", "counts", study)


def test_a_run_of_another_machine_keeps_its_records(results: Path, study: config.Config) -> None:
    before = records.read(results, "counts", study)
    shutil.rmtree(results / "runs" / "grpo-1")
    shutil.rmtree(results / "base")
    records.collect(results, study)
    pd.testing.assert_frame_equal(records.read(results, "counts", study), before)


def test_further_runs_are_read_by_name(results: Path, study: config.Config) -> None:
    runs = config.Runs(("riskpo",), (0, 1), ("grpo",), (0, 1))
    more = replace(study, runs=runs, algorithms={**study.algorithms, "grpo": {"preset": "riskpo"}})
    assert runs.names == ("riskpo", "grpo") and runs.all[-1] == ("grpo", 1)
    assert set(records.read(results, "counts", more)["algorithm"]) == {"riskpo"}
    assert set(records.read(results, "counts", more, algorithms=["grpo"])["of"]) == {"runs/grpo-0", "runs/grpo-1"}
    assert records.missing(results, "counts", more, algorithms=["grpo"]) == []


def test_a_study_can_be_looked_at_before_it_is_finished(results: Path, study: config.Config, tmp_path: Path) -> None:
    runs = replace(study.runs, further_algorithms=("dapo",), further_seeds=(7,))
    more = replace(study, runs=runs, algorithms={**study.algorithms, "dapo": {"preset": "grpo"}})
    assert records.collect(results, more) == ["dapo-7"]
    assert records.missing(results, "counts", more, ["dapo"]) == ["dapo-7"]
    with pytest.raises(DataError, match="has no run with metrics.parquet: train first"):
        records.collect(tmp_path / "empty", study)


def test_damaged_records_are_named_with_a_remedy(results: Path, study: config.Config) -> None:
    path = results / "records" / "counts.parquet"
    frame = pd.read_parquet(path)
    for damaged, message in (
        (frame.drop(columns="correct"), r"counts.parquet has no column correct: restore it \(git checkout\)"),
        (pd.concat([frame, frame.iloc[:1]]), "counts.parquet has rows of the same algorithm, seed, step, question_id"),
    ):
        damaged.to_parquet(path)
        with pytest.raises(DataError, match=message):
            records.read(results, "counts", study)
    path.write_bytes(path.read_bytes()[:50])
    for reading in (records.read, records.missing):
        with pytest.raises(DataError, match=r"counts.parquet cannot be read \(.*\): restore it"):
            reading(results, "counts", study)
