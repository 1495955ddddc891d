"""Runs of several processes against those of one: real ones, started with torchrun, on CPUs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from riskpo_study import distributed, runs, tasks
from riskpo_study.base_model import pretrain
from riskpo_study.errors import ConfigError, RunError
from riskpo_study.experiment import train


@pytest.fixture(scope="module")
def study(settings):
    """Two shards, and a task that is easy enough for a model of seconds to be right now and then."""
    return replace(
        settings,
        task=replace(settings.task, numbers=(2,), largest_number=9, largest_target=20),
        base_model=replace(settings.base_model, layers=1, width=64, heads=2, kv_heads=1, mlp_width=128, numbers=(2,),
                           steps=150, batch_size=128, warmup_steps=5),
        train=replace(settings.train, learning_rate=1e-3, warmup_steps=0),
        hardware=replace(settings.hardware, shards=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    pretrain(tasks.build(study), study.base_model, folder, progress=False)
    return folder


def of_two(settings, **changes):
    return replace(settings, hardware=replace(settings.hardware, processes=2, **changes))


@pytest.mark.parametrize(("algorithm", "layout"), [("riskpo", "prefix_tree"), ("dapo", "packed")])
def test_two_processes_train_the_policy_that_one_trains(algorithm, layout, study, base, tmp_path):
    study = replace(study, train=replace(study.train, layout=layout, kl_coefficient=0.01))
    alone = train(study, algorithm, 0, base, tmp_path / "alone")
    together = train(of_two(study), algorithm, 0, base, tmp_path / "together")
    for step in (2, 4):
        ours, theirs = (
            load_file(run / "snapshots" / f"step-{step:06d}" / "model.safetensors") for run in (together, alone)
        )
        start = load_file(base / "model.safetensors")
        assert any((start[name] - theirs[name]).abs().max() > 1e-3 for name in start)
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, atol=1e-5, rtol=0)
    ours, theirs = (runs.read_records(run, "metrics") for run in (together, alone))
    quantiles = [name for name in ours if name.startswith(("quantile/", "reward/", "risk/", "region/"))]
    pd.testing.assert_frame_equal(ours[quantiles], theirs[quantiles], check_exact=True)
    assert theirs["reward/mean"].gt(0).all()
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-4, rtol=1e-4)
    pd.testing.assert_frame_equal(
        runs.read_records(together, "rollouts"), runs.read_records(alone, "rollouts"), check_exact=False, atol=1e-4
    )
    pd.testing.assert_frame_equal(
        runs.read_records(together, "evaluations"),
        runs.read_records(alone, "evaluations"),
        check_exact=False,
        atol=1e-4,
    )
    assert runs.read_manifest(together)["identity"] == runs.read_manifest(alone)["identity"]


def test_a_run_goes_on_with_another_number_of_processes(study, base, tmp_path):
    whole = train(study, "riskpo", 0, base, tmp_path / "whole")
    folder = tmp_path / "split"
    saved = replace(study, train=replace(study.train, checkpoint_every=2))
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(saved.as_dict()))
    half = f"""
import sys
from pathlib import Path
from riskpo_study import config, experiment, trainer
step = trainer.Trainer.step
def stopping(self):
    if self.steps_done == 3:
        raise KeyboardInterrupt
    return step(self)
trainer.Trainer.step = stopping
experiment.train(config.load({str(params)!r}), "riskpo", 0, Path({str(base)!r}), Path({str(folder)!r}))
"""
    assert subprocess.run([sys.executable, "-c", half], capture_output=True, check=False).returncode
    assert runs.read_manifest(folder)["status"] == "running"
    train(of_two(saved), "riskpo", 0, base, folder)
    ours, theirs = (runs.read_records(run, "rollouts") for run in (folder, whole))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-4)


def test_a_failure_in_any_process_ends_the_run(study, base, tmp_path, capfd):
    runs.RunFolder(tmp_path / "run", {"algorithm": "another"})
    with pytest.raises(RunError, match="one of 2 processes of riskpo_study.experiment failed"):
        train(of_two(study), "riskpo", 0, base, tmp_path / "run")
    assert "holds another run: algorithm is 'riskpo' here and 'another' there" in capfd.readouterr().err


def test_processes_must_divide_the_shards(settings):
    with pytest.raises(ConfigError, match="hardware.shards = 3 must be a multiple of hardware.processes = 2"):
        replace(settings.hardware, processes=2, shards=3)


def test_shares_of_several_processes_come_back_in_order(monkeypatch):
    """What each of three processes takes of seven items, put together as `gathered` does."""
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "size", lambda: 3)
        shares.append(distributed.share(range(7)))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]

    def everybody(output, mine):
        output[:] = shares

    monkeypatch.setattr(distributed.distributed, "all_gather_object", everybody)
    assert distributed.gathered(shares[0]) == list(range(7))


def test_the_number_of_shards_decides_the_responses_and_is_in_the_identity(study, base, tmp_path):
    train(study, "grpo", 0, base, tmp_path / "run")
    with pytest.raises(RunError, match=r"hardware.shards is 1 here and 2 there"):
        train(replace(study, hardware=replace(study.hardware, shards=1)), "grpo", 0, base, tmp_path / "run")


def test_metrics_reach_tensorboard(study, base, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    followed = replace(study, hardware=replace(study.hardware, tracker="tensorboard"))
    run = train(followed, "grpo", 0, base, tmp_path / "run")
    (events,) = run.rglob("events.out.tfevents.*")
    seen = EventAccumulator(str(events.parent)).Reload()
    rewards = [event.value for event in seen.Scalars("reward/mean")]
    np.testing.assert_allclose(rewards, runs.read_records(run, "metrics")["reward/mean"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"), [("tensorbored", "is unknown; choose one of none, "), ("aim", "not installed")]
)
def test_unknown_and_missing_trackers_are_named(name, reason, study, base, tmp_path):
    with pytest.raises(ConfigError, match=f"hardware.tracker = '{name}' .*{reason}"):
        train(replace(study, hardware=replace(study.hardware, tracker=name)), "grpo", 0, base, tmp_path / "run")
