"""Runs of several processes against those of one: real ones, started with torchrun, on CPUs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import in_two_processes
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from riskpo_study import distributed, runs, sharding, tasks
from riskpo_study.base_model import pretrain
from riskpo_study.errors import ConfigError, RunError
from riskpo_study.experiment import train
from riskpo_study.trainer import Trainer

RUNS = {
    "riskpo": ("riskpo", "prefix_tree", {}),
    "dapo": ("dapo", "packed", {}),
    "dapo_split": ("dapo", "packed", {"shard_weights": True, "gradient_checkpointing": True}),
    "riskpo_split": ("riskpo", "prefix_tree", {"shard_weights": True}),
}
"""Runs of two processes: name → algorithm, layout, changes to the section hardware."""
INTERRUPTED = {"riskpo_split": 3}
"""Name → steps before the interruption."""


@pytest.fixture(scope="module")
def study(settings):
    """Two shards, and a task that is easy enough for a model of seconds to be right now and then."""
    return replace(
        settings,
        task=replace(settings.task, numbers=(2,), largest_number=9, largest_target=20),
        base_model=replace(settings.base_model, layers=1, width=64, heads=2, kv_heads=1, mlp_width=128,
                           difficulties=(2,), steps=150, batch_size=128, warmup_steps=5),
        train=replace(settings.train, learning_rate=1e-3, warmup_steps=0, micro_batch=2, kl_coefficient=0.01),
        hardware=replace(settings.hardware, shards=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    pretrain(tasks.build(study), study.base_model, folder, progress=False)
    return folder


def changed(study, layout="prefix_tree", **hardware):
    return replace(study, train=replace(study.train, layout=layout), hardware=replace(study.hardware, **hardware))


@pytest.fixture(scope="module")
def alone(study, base, tmp_path_factory):
    """Runs of one process by algorithm and layout, each made once, and followed in TensorBoard."""
    folder = tmp_path_factory.mktemp("alone")

    @cache
    def run(algorithm, layout="prefix_tree"):
        return train(changed(study, layout, tracker="tensorboard"), algorithm, 0, base, folder / algorithm)

    return run


@pytest.fixture(scope="module")
def together(study, base, tmp_path_factory):
    """Folder of all that two processes do: `RUNS`, and a split update."""
    folder = tmp_path_factory.mktemp("together")
    for name, (_, layout, hardware) in RUNS.items():
        settings = changed(study, layout, processes=2, **hardware)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings.as_dict()))
    planned = [(name, algorithm, INTERRUPTED.get(name)) for name, (algorithm, _, _) in RUNS.items()]
    (folder / "runs.json").write_text(json.dumps(planned))
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [in_two_processes.__file__, str(base), str(folder)]
    ended = subprocess.run([*agent, *script], capture_output=True, text=True, check=False)
    assert not ended.returncode, ended.stderr
    return folder


def trained_by_accelerate(study, algorithm, base, folder):
    """With its FSDP, of which the configuration says nothing."""
    params = folder.with_suffix(".yaml")
    params.write_text(yaml.safe_dump(study.as_dict()))
    launch = "accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 --num_machines 1 --mixed_precision no"
    arguments = "--dynamo_backend", "no", "-m", "riskpo_study.experiment", params, algorithm, "0", base, folder
    agent = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *launch.split()[1:]]
    subprocess.run([*agent, *map(str, arguments)], check=True)
    return folder


@pytest.mark.parametrize("name", ["riskpo", "dapo", "dapo_split"])
def test_two_processes_train_the_policy_that_one_trains(name, alone, together, base):
    algorithm, layout, _ = RUNS[name]
    assert_the_same_policy(together / name, alone(algorithm, layout), base)


def test_accelerates_fsdp_trains_the_policy_that_one_process_trains(study, alone, base, tmp_path):
    found = trained_by_accelerate(changed(study), "riskpo", base, tmp_path / "run")
    assert_the_same_policy(found, alone("riskpo"), base)


def assert_the_same_policy(together, alone, base):
    start = load_file(base / "model.safetensors")
    for step in (2, 4):
        ours, theirs = (
            load_file(run / "snapshots" / f"step-{step:06d}" / "model.safetensors") for run in (together, alone)
        )
        assert any((start[name] - theirs[name]).abs().max() > 1e-3 for name in start)
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, atol=1e-5, rtol=0)
    ours, theirs = (runs.read_records(run, "metrics") for run in (together, alone))
    quantiles = [name for name in ours if name.startswith(("quantile/", "reward/", "risk/", "region/"))]
    pd.testing.assert_frame_equal(ours[quantiles], theirs[quantiles], check_exact=True)
    assert theirs["reward/mean"].gt(0).all()
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-4, rtol=1e-4)
    for records in ("rollouts", "evaluations"):
        ours, theirs = (runs.read_records(run, records) for run in (together, alone))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-4)
    assert runs.read_manifest(together)["identity"] == runs.read_manifest(alone)["identity"]


def assert_goes_on(study, base, folder, whole):
    """From the checkpoint of step 2 to the end of a run that was never interrupted."""
    assert runs.read_manifest(folder)["status"] == "running"
    assert (folder / "checkpoints" / "step-000002").is_dir()
    train(study, "riskpo", 0, base, folder)
    ours, theirs = (runs.read_records(run, "rollouts") for run in (folder, whole))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-4)


def test_a_run_goes_on_in_more_processes_that_split_the_weights(study, base, alone, tmp_path, monkeypatch):
    step = Trainer.step

    def stopping(trainer):
        if trainer.steps_done == 3:
            raise KeyboardInterrupt
        return step(trainer)

    whole = alone("riskpo")
    monkeypatch.setattr(Trainer, "step", stopping)  # of this process: the others have their own
    with pytest.raises(KeyboardInterrupt):
        train(changed(study), "riskpo", 0, base, tmp_path / "run")
    assert_goes_on(changed(study, processes=2, shard_weights=True), base, tmp_path / "run", whole)


def test_a_run_that_split_the_weights_goes_on_in_one_process(study, base, alone, together):
    assert_goes_on(changed(study), base, together / "riskpo_split", alone("riskpo"))


def test_each_process_holds_its_part_of_weights_and_optimiser_and_saves_the_whole(base, together):
    alone, its_optimizer = in_two_processes.load(base, split=False)
    norm = in_two_processes.update(alone, its_optimizer)
    main, other = (torch.load(together / f"process-{rank}.pt", weights_only=True) for rank in range(2))
    parameters = sum(parameter.numel() for parameter in alone.model.parameters())
    for name, size in (("parameters", 2), ("optimizer", 12)):  # bytes of each: bfloat16; float32 copy and two moments
        assert main["held"][name] + other["held"][name] == size * parameters
        assert 0.45 < main["held"][name] / (size * parameters) < 0.55

    assert main["norm"] == other["norm"] == pytest.approx(norm, rel=1e-2)  # gradients are rounded to bfloat16
    saved, expected = main["state"], its_optimizer.state_dict()
    assert len(saved["masters"]) == len(expected["masters"]) > 5
    for ours, theirs in zip(saved["masters"], expected["masters"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(main["weights"][name], weight, atol=1e-4, rtol=1e-2)
    continued, optimizer = in_two_processes.load(base, split=False)
    optimizer.load_state_dict(saved)
    assert continued.model.state_dict().keys() == main["weights"].keys()
    for of_one in optimizer.adam.state.values():
        assert of_one["step"] == 1 and of_one["exp_avg"].abs().sum() > 0


def test_splitting_what_cannot_be_split_is_refused(settings, policy, monkeypatch):
    with pytest.raises(ConfigError, match=r"hardware.shard_weights = true .* hardware.processes is 1"):
        replace(settings.hardware, shard_weights=True)
    policy.model._no_split_modules = set()
    with pytest.raises(ConfigError, match=r"Qwen2ForCausalLM does not say what its blocks are: set it to false"):
        policy.shard()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ConfigError, match=r"fsdp_offload_params = true in accelerate's configuration"):
        sharding.wanted(False)


def test_a_failure_in_any_process_ends_the_others_and_is_told(tmp_path, monkeypatch, capfd):
    (tmp_path / "half_broken.py").write_text(
        "import os, sys, time\nsys.exit('the second is broken') if os.environ['RANK'] == '1' else time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RunError, match="one of 2 processes of half_broken failed; what it said is above"):
        distributed.launch(2, "half_broken")
    assert "the second is broken" in capfd.readouterr().err


def test_processes_must_divide_the_shards(settings):
    with pytest.raises(ConfigError, match="hardware.shards = 3 must be a multiple of hardware.processes = 2"):
        replace(settings.hardware, processes=2, shards=3)


def test_shares_of_several_processes_come_back_in_order(together):
    """Also where the last share is the shorter."""
    first, second = (json.loads((together / f"exchanged-{rank}.json").read_text()) for rank in range(2))
    assert (first["mine"], second["mine"]) == ([0, 2, 4, 6], [1, 3, 5])
    assert first["gathered"] == second["gathered"] == list(range(7))


def test_the_number_of_shards_decides_the_responses_and_is_in_the_identity(study, base, alone):
    with pytest.raises(RunError, match=r"hardware.shards is 1 here and 2 there"):
        train(changed(study, shards=1), "riskpo", 0, base, alone("riskpo"))


def test_metrics_reach_tensorboard(alone):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = alone("riskpo")
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
