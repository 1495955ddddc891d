"""RiskPO in TRL: real training runs in one and two processes, and what the trainer expects of TRL's private names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import trl
from packaging.requirements import Requirement
from transformers import HfArgumentParser
from trl import GRPOConfig, GRPOTrainer

from integrations.trl_run import PLAIN, RiskPO, Vanilla, trainer
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.integrations import trl_trainer
from riskpo_study.integrations.batch_advantages import FAMILY, BatchAdvantages
from riskpo_study.integrations.trl_trainer import RiskPOConfig, RiskPOTrainer

ROOT = Path(__file__).parents[2]
OPTIONS = {"omega": 1.0, "tracker": "histogram"}


class Runs(NamedTuple):
    """Runs by name: what each rank wrote, and what they all said."""

    folder: Path
    ranks: dict[str, list[dict[str, Any]]]
    said: str


# Training runs


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def runs(request: pytest.FixtureRequest, trained_model: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Four steps with 20 questions each, vanilla and RiskPO, and the last two of them again from the checkpoint."""
    root, processes = tmp_path_factory.mktemp("runs"), request.param
    common = {
        "model": trained_model, "per_device_train_batch_size": 40 // processes, "gradient_accumulation_steps": 2,
        "max_steps": 4, "save_steps": 2, "learning_rate": 1e-3,
    }  # fmt: skip
    riskpo = common | {"algorithm": "riskpo", "risk": OPTIONS}
    grpo = common | {"algorithm": None, "loss_type": "grpo"}
    names = ["riskpo", "riskpo-resumed", "grpo", "grpo-resumed"]
    settings = []
    for name in names:
        of = riskpo if name.startswith("riskpo") else grpo
        resume = {"resume": str(root / name.split("-")[0] / "checkpoint-2")} if name.endswith("resumed") else {}
        settings.append(of | resume | {"folder": str(root / name)})
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), str(Path(__file__).with_name("trl_run.py"))]
    result = subprocess.run([*command, json.dumps(settings)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    written = {
        name: [torch.load(root / name / f"rank-{rank}.pt", weights_only=False) for rank in range(processes)]
        for name in names
    }
    return Runs(root, written, result.stderr)


def test_a_run_learns_from_the_librarys_advantages(runs: Runs) -> None:
    """Each rank has its slice of those of the whole batch; with two, neither has whole bundles of its own questions."""
    ranks = runs.ranks["riskpo"]
    estimator = BatchAdvantages("riskpo", OPTIONS, seed=42)
    assert len(ranks[0]["generations"]) == 4
    for parts in zip(*(rank["generations"] for rank in ranks), strict=True):
        rewards = parts[0]["rewards"]
        assert rewards.shape == (80, 1)
        assert all(torch.equal(part["rewards"], rewards) for part in parts)
        expected = estimator(rewards.view(20, 4)).flatten().float()
        assert torch.equal(torch.cat([part["output"]["advantages"] for part in parts]), expected)
        assert expected.any()
        for part in parts:
            torch.testing.assert_close(torch.tensor(part["logged"]), expected)  # of all ranks
    state = estimator.algorithm.estimator.state_dict()
    for rank in ranks:
        assert rank["state"]["values"] == state["values"]
        assert torch.equal(rank["state"]["histogram"], state["histogram"])


def test_what_a_run_logs(runs: Runs) -> None:
    history = [entry for entry in runs.ranks["riskpo"][0]["history"] if "reward" in entry]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    assert history[0]["riskpo/quantile/beta"] == history[0]["riskpo/quantile/beta_batch"]
    assert all(entry["riskpo/share/left_out"] == 0 and entry["grad_norm"] > 0 for entry in history)
    assert 0 < history[0]["reward"] < 1 and history[0]["entropy"] > 0


def test_rows_of_a_question_are_neighbours_in_the_order_of_the_ranks(runs: Runs) -> None:
    """TRL's sampler: the estimator sees the gathered rewards as (questions, responses)."""
    for name in ("riskpo", "grpo"):
        for parts in zip(*(rank["generations"] for rank in runs.ranks[name]), strict=True):
            prompts = [prompt for part in parts for prompt in part["prompts"]]
            groups = [set(prompts[at : at + 4]) for at in range(0, 80, 4)]
            assert all(len(group) == 1 for group in groups)
            assert len(set.union(*groups)) == 20


@pytest.mark.parametrize("name", ["riskpo", "grpo"])
def test_a_resumed_run_is_the_uninterrupted_one(runs: Runs, name: str) -> None:
    for straight, resumed in zip(runs.ranks[name], runs.ranks[f"{name}-resumed"], strict=True):
        for one, other in zip(straight["generations"][2:], resumed["generations"], strict=True):
            assert torch.equal(one["rewards"], other["rewards"])
            assert torch.equal(one["output"]["advantages"], other["output"]["advantages"])
        assert torch.equal(straight["weights"], resumed["weights"])
        assert torch.equal(straight["weights"], runs.ranks[name][0]["weights"])
    if name == "riskpo":
        path = runs.folder / "riskpo" / "checkpoint-2" / "riskpo.pt"
        assert runs.said.count(f"riskpo_study: restored from {path}: 2 batches seen, quantiles") == 1


def test_evaluation_moves_no_quantile(trained_model: str, tmp_path: Path) -> None:
    """Its batch of 6 questions has no whole number of bundles; it keeps TRL's own advantages."""
    run = trainer(trained_model, tmp_path, "riskpo", per_device_train_batch_size=40, per_device_eval_batch_size=24)
    assert isinstance(run, RiskPO)
    before = run.risk_advantages.algorithm.estimator.state_dict()
    metrics = run.evaluate()
    (generation,) = run.generations
    assert not generation["training"] and generation["rewards"].shape == (24, 1)
    rewards = generation["rewards"].view(6, 4)
    centred = rewards - rewards.mean(1, keepdim=True)
    expected = centred / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(generation["output"]["advantages"], expected.flatten())
    assert (run.risk_advantages.batches, run.risk_advantages.algorithm.estimator.state_dict()) == (0, before)
    assert not [name for name in metrics if "riskpo/" in name]


def test_responses_without_a_score_leave_their_question_out(trained_model: str, tmp_path: Path) -> None:
    run = trainer(trained_model, tmp_path, "riskpo", per_device_train_batch_size=80, max_steps=1, save_strategy="no")
    scored = run.reward_funcs[0]
    run.reward_funcs = [lambda **given: [None, *scored(**given)[1:]]]
    run.train()
    (generation,) = run.generations
    found = generation["output"]["advantages"].view(20, 4)
    assert not found[0].any() and not found[16:].any() and found.any()  # and as many more as do not fill a bundle
    assert run.state.log_history[0]["riskpo/share/left_out"] == pytest.approx(5 / 20)


def test_rewards_are_weighted_and_summed(trained_model: str, tmp_path: Path) -> None:
    run = trainer(
        trained_model, tmp_path, "riskpo", per_device_train_batch_size=80, max_steps=1, save_strategy="no",
    )  # fmt: skip
    run.reward_funcs = [run.reward_funcs[0], lambda completions, **_: [float(len(text) % 2) for text in completions]]
    run.reward_func_names, run.reward_processing_classes = ["right", "odd"], [None, None]
    run.reward_weights = torch.tensor([0.75, 0.25])
    run.train()
    (generation,) = run.generations
    total = 0.75 * generation["rewards"][:, 0] + 0.25 * generation["rewards"][:, 1]
    expected = BatchAdvantages("riskpo", {}, seed=42)(total.view(20, 4)).flatten().float()
    torch.testing.assert_close(generation["output"]["advantages"], expected)
    run.reward_weights = torch.tensor([1.0, 1.0])
    with pytest.raises(DataError, match="bundles count rewards from 0 to 1"):
        run.train()


def test_a_checkpoint_without_quantiles_is_said(
    trained_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(trained_model, tmp_path, "riskpo", per_device_train_batch_size=40)
    said: list[str] = []
    monkeypatch.setattr(trl_trainer._log, "warning", lambda text, *given: said.append(text % given))
    run._load_optimizer_and_scheduler(str(tmp_path))
    assert said == [f"riskpo_study: there is no {tmp_path}/riskpo.pt: the quantiles begin with those of the next batch"]


# Settings


def test_the_configuration_is_riskpos(tmp_path: Path) -> None:
    made = RiskPOConfig(str(tmp_path), per_device_train_batch_size=40, use_cpu=True, bf16=False)
    assert (made.loss_type, made.importance_sampling_level, made.algorithm) == ("grpo", "sequence", "riskpo")
    assert (made.epsilon, made.epsilon_high, made.beta, made.num_iterations) == (0.2, None, 0.0, 1)
    line = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "False", "--per_device_train_batch_size", "40"]
    (parsed,) = HfArgumentParser(RiskPOConfig).parse_args_into_dataclasses([*line, "--risk", '{"omega": 1.0}'])
    assert parsed.advantages().settings["omega"] == 1.0


@pytest.mark.parametrize("algorithm", FAMILY)
def test_the_surrogate_is_the_algorithms_unless_given(algorithm: str, tmp_path: Path) -> None:
    common = {"output_dir": str(tmp_path), "per_device_train_batch_size": 40, "algorithm": algorithm} | PLAIN
    made, preset = RiskPOConfig(**common), ALGORITHMS[algorithm]
    expected = {
        "riskpo_released": ("dapo", "token", 3.0), "mvar_accuracy": ("grpo", "token", None),
        "mvar_log_accuracy": ("grpo", "token", None),
    }  # fmt: skip
    surrogate = (made.loss_type, made.importance_sampling_level, made.delta)
    assert surrogate == expected.get(algorithm, ("grpo", "sequence", None))
    assert (preset.clip["low"], preset.clip["high"], preset.clip.get("dual")) == (
        made.epsilon,
        made.epsilon,
        made.delta,
    )
    given = RiskPOConfig(**common, loss_type="dr_grpo", importance_sampling_level="token")
    assert (given.loss_type, given.importance_sampling_level) == ("dr_grpo", "token")


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, True), ({"save_steps": 4}, False), ({"save_strategy": "epoch"}, False), ({"num_iterations": 1}, False),
        ({"gradient_accumulation_steps": 2}, False), ({"save_steps": 0.5}, False),
    ],
)  # fmt: skip
def test_saves_within_a_generation_are_warned_of(
    changes: dict[str, Any], warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(trl_trainer._log, "warning", lambda text, *given: said.append(text % given))
    common = {"output_dir": str(tmp_path), "per_device_train_batch_size": 40, "steps_per_generation": 2}
    RiskPOConfig(**common | {"num_iterations": 2, "save_steps": 2, "save_strategy": "steps"} | PLAIN | changes)
    assert len(said) == warned and all("save_steps = 2 saves between two generations" in one for one in said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_device_train_batch_size": 24}, "3 questions do not fill bundles of 5"),
        ({"risk": {"bundle_size": 3}}, "5 questions do not fill bundles of 3"),
        ({"risk": {"alpa": 0.1}}, "algorithms.riskpo.alpa is unknown"),
        ({"risk": {"clip_low": 0.1}}, "clip_low = 0.1 is no option of the advantage"),
        ({"risk": {"credit": "sharde"}}, "credit = 'sharde' is unknown"),
        ({"risk": "nojson"}, "risk = 'nojson' holds no options: give a dictionary"),
        ({"risk": [1]}, r"risk = \[1\] holds no options"),
        ({"scale_rewards": "batch"}, "scale_rewards = 'batch' has no effect on the advantages of bundles"),
        ({"algorithm": "grpo"}, "'grpo' has no risk measure"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "choose sum_then_normalize"),
    ],
)
def test_bad_settings_are_named_before_a_model_is_loaded(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        RiskPOConfig(**{"output_dir": str(tmp_path), "per_device_train_batch_size": 40} | PLAIN | changes)


def test_the_trainer_wants_its_own_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a RiskPOConfig and was given GRPOConfig"):
        RiskPOTrainer("no model", [], GRPOConfig(str(tmp_path), per_device_train_batch_size=8, **PLAIN))  # type: ignore[arg-type]


# What the trainer expects of TRL


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_load_optimizer_and_scheduler", ["self", "checkpoint"]),
        ("_get_output_dir", ["self", "trial"]),
    ],
)
def test_the_methods_have_the_signatures_that_are_overridden(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == parameters


def test_the_first_arguments_of_the_trainer() -> None:
    assert list(inspect.signature(GRPOTrainer).parameters)[:3] == ["model", "reward_funcs", "args"]


def test_what_a_generation_gives(runs: Runs) -> None:
    """The output's keys and shapes, of one advantage a row, and logs of as many rows as were gathered."""
    for rank in runs.ranks["grpo"]:
        for generation in rank["generations"]:
            output = generation["output"]
            rows = len(generation["prompts"])
            assert set(output) == {
                "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch",
            }  # fmt: skip
            assert output["advantages"].shape == (rows,) and output["advantages"].dtype == torch.float32
            assert output["completion_ids"].shape[0] == rows and generation["rewards"].shape == (80, 1)
            assert len(generation["logged"]) == 80 and generation["training"]
            local = generation["rewards"].view(20, 4)
            advantage = (local - local.mean(1, keepdim=True)) / (local.std(1, keepdim=True) + 1e-4)
            torch.testing.assert_close(torch.tensor(generation["logged"]), advantage.flatten())


def test_the_sampler_repeats_each_question_and_reuses_the_batch(trained_model: str, tmp_path: Path) -> None:
    run = trainer(
        trained_model, tmp_path, None, per_device_train_batch_size=20, steps_per_generation=2, num_iterations=3
    )
    assert isinstance(run, Vanilla)
    order = list(run._get_train_sampler())
    batch = order[:40]
    assert batch == order[40:80] == order[5 * 40 : 6 * 40] and batch != order[6 * 40 : 7 * 40]
    assert all(len(set(batch[at : at + 4])) == 1 for at in range(0, 40, 4)) and len(set(batch)) == 10


def test_the_names_that_are_used_exist(trained_model: str, tmp_path: Path) -> None:
    run = trainer(trained_model, tmp_path, None, per_device_train_batch_size=40)
    assert run._logs["advantages"].maxlen == run.args.generation_batch_size
    run._metrics["train"]["anything"].append(1.0)
    assert run.reward_weights.shape == (1,) and run.num_generations == 4
    assert run.accelerator.process_index == 0 and run.accelerator.is_main_process


def test_the_installed_trl_is_one_that_the_extra_allows() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["trl"]
    assert Requirement(extra[0]).specifier.contains(trl.__version__)
