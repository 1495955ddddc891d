"""Whole runs: stopped, killed, damaged, mixed up."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from riskpo_study import algorithms, checkpoints, runs
from riskpo_study.errors import RunError
from riskpo_study.experiment import first_questions, train
from riskpo_study.tasks.code import Code
from riskpo_study.tasks.countdown import Countdown
from riskpo_study.tasks.geometry import Geometry
from riskpo_study.tasks.math import Math
from riskpo_study.tasks.programs import Programs

DETERMINISTIC = ("metrics", "evaluations", "rollouts")

CHILD = """
import sys, torch
from pathlib import Path
from riskpo_study import config
from riskpo_study.experiment import train
settings, base, folder = sys.argv[1:4]
train(config.load(settings), "riskpo", 0, Path(base), Path(folder))
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on the clock: records and snapshots."""
    paths = [folder / f"{name}.parquet" for name in DETERMINISTIC] + sorted((folder / "snapshots").rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def long(settings):
    """Twelve steps, so that there are moments to stop at."""
    return replace(
        settings, train=replace(settings.train, steps=12, checkpoint_every=2, evaluate_every=3, snapshot_every=6)
    )


def child(settings, base_model, folder, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(settings.as_dict()))
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(base_model), str(folder)], stderr=subprocess.PIPE, text=True
    )


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(long, base_model, tmp_path):
    long = replace(long, train=replace(long.train, steps=60))
    whole = train(long, "riskpo", 0, base_model, tmp_path / "whole")
    folder = tmp_path / "killed"
    chance = random.Random(0)
    kills = 0
    for wanted in (chance.randint(1, 3), chance.randint(6, 12)):  # kill once so many checkpoints were written
        process = child(long, base_model, folder, tmp_path)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            done = [int(path.name[5:]) for path in folder.glob("checkpoints/step-*")]
            if max(done, default=0) >= 2 * wanted:
                time.sleep(chance.uniform(0, 0.15))
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.01)
        assert process.poll() is not None
    assert kills == 2 and not (folder / "metrics.parquet").exists()
    train(long, "riskpo", 0, base_model, folder)
    assert contents(folder) == contents(whole)
    timings = pd.read_parquet(folder / "timings.parquet")
    assert timings.step.tolist() == list(range(1, 61))


def interrupted(settings, base_model, folder, monkeypatch, after=7):
    """A run whose process dies in step `after` + 1."""
    from riskpo_study import trainer

    step = trainer.Trainer.step

    def dying(self):
        if self.steps_done == after:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(settings, "riskpo", 0, base_model, folder)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(long, base_model, tmp_path, monkeypatch):
    whole = train(long, "riskpo", 0, base_model, tmp_path / "whole")
    folder = tmp_path / "run"
    interrupted(long, base_model, folder, monkeypatch)
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-000004", "step-000006"]
    state = folder / "checkpoints" / "step-000006" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"step-000006 is damaged \(state.pt has changed\); the one before it is used"):
        train(long, "riskpo", 0, base_model, folder)
    assert contents(folder) == contents(whole)


def test_where_every_checkpoint_is_damaged_the_run_starts_over(long, base_model, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupted(long, base_model, folder, monkeypatch)
    for path in (folder / "checkpoints").iterdir():
        (path / "digests.json").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        train(long, "riskpo", 0, base_model, folder)
    assert runs.read_records(folder, "metrics").step.tolist() == list(range(1, 13))


def test_only_the_last_two_checkpoints_are_kept_and_none_of_a_finished_run(long, base_model, tmp_path):
    folder = train(long, "grpo", 0, base_model, tmp_path / "run")
    assert not (folder / "checkpoints").exists() and not (folder / "segments").exists()
    assert sorted(path.name for path in (folder / "snapshots").iterdir()) == ["step-000006", "step-000012"]


def test_a_finished_run_is_left_as_it_is(settings, base_model, tmp_path):
    folder = train(settings, "grpo", 0, base_model, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    train(settings, "grpo", 0, base_model, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_of_another_configuration_is_refused_by_name_or_replaced(settings, base_model, tmp_path):
    folder = train(settings, "grpo", 0, base_model, tmp_path / "run")
    other = replace(settings, train=replace(settings.train, learning_rate=5e-4))
    before = contents(folder)
    with pytest.raises(
        RunError, match="holds another run: train.learning_rate is 0.0005 here and 0.001 there.*replace"
    ):
        train(other, "grpo", 0, base_model, folder)
    with pytest.raises(RunError, match="seed is 1 here and 0 there"):
        train(settings, "grpo", 1, base_model, folder)
    with pytest.raises(RunError, match="existing = 'overwrite' is unknown; choose resume or replace"):
        train(settings, "grpo", 0, base_model, folder, existing="overwrite")
    assert contents(folder) == before
    train(other, "grpo", 0, base_model, folder, existing="replace")
    assert contents(folder) != before


def test_changed_code_does_not_continue_an_old_run(settings, base_model, tmp_path, monkeypatch):
    folder = train(settings, "grpo", 0, base_model, tmp_path / "run")
    monkeypatch.setattr(runs, "code_digest", lambda *others: "another")
    with pytest.raises(RunError, match="code is 'another' here"):
        train(settings, "grpo", 0, base_model, folder)


LOADED = """
import importlib, os, sys
import riskpo_study.experiment

for task in sys.argv[1:]:
    if os.fork() == 0:  # this interpreter goes on without what the task loads
        importlib.import_module(f"riskpo_study.tasks.{task}")
        print(task, *[name for name in sys.modules if name.startswith("riskpo_study.")], flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{task} cannot be imported")
"""
TASKS = (Countdown, Programs, Math, Code, Geometry)


@pytest.fixture(scope="module")
def loaded_by_task():
    """By the task's name all modules of the package that a training process loads."""
    command = [sys.executable, "-c", LOADED, *(task.name for task in TASKS)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: modules for name, *modules in map(str.split, said.splitlines())}


@pytest.mark.parametrize("task", TASKS)
def test_all_training_code_is_in_the_identity(task, loaded_by_task):
    """Every module that a training process loads from the package is either digested or cannot change a number."""
    loaded = loaded_by_task[task.name]
    without_numbers = {"config", "errors", "files", "tasks", "tasks.protocol", "rollouts", "tracking"}
    packages = {"verify", "verify.sandbox_worker", "datasets"}
    counting = {"datasets.overlap"}  # of what training and evaluation share
    training = {name.replace("/", ".") for name in runs.TRAINING_CODE}
    of_task = {name.replace("/", ".") for name in task.modules}
    assert training <= (found := {name.removeprefix("riskpo_study.") for name in loaded})
    assert found - training - without_numbers - packages - counting <= of_task
    assert all((Path(runs.__file__).parent / f"{name}.py").is_file() for name in task.modules)


def test_the_manifest_says_who_and_where(settings, base_model, tmp_path):
    folder = train(settings, "grpo", 3, base_model, tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["wall_seconds"] > 0
    assert manifest["identity"]["seed"] == 3 and manifest["identity"]["train"]["steps"] == settings.train.steps
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["hardware"]["cores"] == os.cpu_count()
    assert (manifest["versions"]["vllm"] is None) == (importlib.util.find_spec("vllm") is None)


def test_what_a_run_writes_is_no_change_of_the_code(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    written = ("params.yaml", "dvc.lock", "results/quick/report.md")
    for name in (*written, "code/one.py", "code/two.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    assert runs.changes(tmp_path) is None
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    for name in (*written, "results/quick/new.csv"):
        (tmp_path / name).write_text("2")
    assert runs.changes(tmp_path / "code") == []
    (tmp_path / "code/two.py").write_text("2")
    (tmp_path / "code/three.py").write_text("3")
    assert runs.changes(tmp_path / "code") == ["code/three.py", "code/two.py"]


def test_an_unwritable_folder_is_named(settings, base_model, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"cannot write .*results.*make it writable"):
        train(settings, "grpo", 0, base_model, tmp_path / "results" / "run")


FULL = CHILD.replace(
    "import sys, torch", "import sys, torch, resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
).replace("train(config", "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\ntrain(config")


def test_a_full_disk_stops_the_run_with_a_clear_error_and_it_continues_later(long, base_model, tmp_path, monkeypatch):
    """The file size limit stands in for a full disk: the kernel refuses the write in the same way."""
    whole = train(long, "riskpo", 0, base_model, tmp_path / "whole")
    folder = tmp_path / "run"
    interrupted(long, base_model, folder, monkeypatch)
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(long.as_dict()))
    full = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(base_model), str(folder)], capture_output=True, text=True
    )
    assert full.returncode != 0 and "RunError: cannot write" in full.stderr and "Free space there" in full.stderr
    train(long, "riskpo", 0, base_model, folder)
    assert contents(folder) == contents(whole)


def test_records_can_be_read_while_the_run_goes_on(long, base_model, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupted(long, base_model, folder, monkeypatch)
    assert runs.read_records(folder, "metrics").step.tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunError, match="has no metrics: train this run first"):
        runs.read_records(tmp_path, "metrics")


def test_learning_curves_use_the_first_questions_of_each_difficulty(task):
    chosen = first_questions(task, 2)
    assert [question.difficulty for question in chosen] == [2, 2, 3, 3]
    assert chosen[:2] == task.questions("held_out")[:2]


def test_checkpoint_state_holds_the_tracker(settings, base_model, tmp_path, monkeypatch, long):
    folder = tmp_path / "run"
    interrupted(long, base_model, folder, monkeypatch)
    found = checkpoints.latest(folder / "checkpoints")
    assert found is not None
    state = found[1]
    metrics = runs.read_records(folder, "metrics")
    estimator = algorithms.build("riskpo", {}, settings.risk).estimator
    estimator.load_state_dict(state["estimator"])
    assert len(estimator.tracker.values) == 2 and state["steps_done"] == metrics.step.max() == 6


def test_a_run_whose_manifest_is_lost_starts_over(tmp_path):
    """Nobody knows any more what its checkpoints belong to."""
    runs.RunFolder(tmp_path / "run", {"seed": 0})
    (tmp_path / "run" / "checkpoints" / "step-000050").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text('{"identity": {"se')
    with pytest.warns(UserWarning, match=r"manifest.json is damaged .*; the run starts over"):
        runs.RunFolder(tmp_path / "run", {"seed": 1})
    assert not (tmp_path / "run" / "checkpoints").exists()
