"""RiskPO in verl: registration, the library's numbers by verl's own code, state in checkpoints, the launch scripts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verl
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.checkpoint_callback import build_checkpoint_callback
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.utils.config import validate_config

from riskpo_study import advantages, bundles, risk, seeds
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.integrations import verl_estimators
from riskpo_study.integrations.batch_advantages import FAMILY
from riskpo_study.integrations.verl_estimators import ESTIMATORS, TrackerCheckpoint, accuracy, group

ROOT = Path(__file__).parents[2]
OPTIONS = {"alpha": 0.2, "beta": 0.8, "bundle_size": 5, "seed": 3}


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Every test is a run of its own."""
    for estimator in ESTIMATORS.values():
        estimator.advantages = None


def algorithm(**options: Any) -> DictConfig:
    """verl's section `algorithm`, as Hydra composes it."""
    return OmegaConf.create({"adv_estimator": "riskpo", "norm_adv_by_std_in_grpo": True, "riskpo": OPTIONS | options})


def drawn(questions: int = 20, responses: int = 4, seed: int = 0, longest: int = 6) -> tuple[torch.Tensor, DataProto]:
    """Rewards (Q, G) by question, and the same as verl's batch: rows in any order, the reward on the last token."""
    generator = torch.Generator().manual_seed(seed)
    table = (
        torch.rand(questions, responses, generator=generator) < torch.rand(questions, 1, generator=generator)
    ).float()
    rows = torch.randperm(questions * responses, generator=generator)
    lengths = torch.randint(1, longest + 1, (len(rows),), generator=generator)
    mask = (torch.arange(longest) < lengths[:, None]).long()
    rewards = torch.zeros(len(rows), longest)
    rewards[torch.arange(len(rows)), lengths - 1] = table.flatten()[rows]
    uid = np.array([f"question-{row // responses:03d}" for row in rows.tolist()], dtype=object)
    batch = TensorDict({"token_level_rewards": rewards, "response_mask": mask}, batch_size=len(rows))
    return table, DataProto(batch=batch, non_tensor_batch={"uid": uid})


def by_question(data: DataProto) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q, G) rewards and advantages of the rows; all tokens of a row have its advantage."""
    mask, found = data.batch["response_mask"], data.batch["advantages"]
    assert torch.equal(found, found[:, :1] * mask)
    rewards, rows = group(data.batch["token_level_rewards"].sum(1), mask.any(1), data.non_tensor_batch["uid"])
    return rewards, found[:, 0][rows].double()


def pairing(batch: int, questions: int = 20, responses: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(questions, generator=seeds.generator(3, "questions", batch))
    return order, bundles.permutations(questions, responses, 5, seeds.generator(3, "bundles", batch))


# Registration


def test_importing_verl_registers_the_family() -> None:
    assert {"riskpo", "riskpo_released", "risk_seeking"} <= set(FAMILY)
    assert all(core_algos.get_adv_estimator_fn(name) is ESTIMATORS[name] for name in FAMILY)
    assert not set(FAMILY) & {estimator.value for estimator in core_algos.AdvantageEstimator}


def start(environment: dict[str, str], before: str = "") -> subprocess.Popen[str]:
    script = f"import sys\n{before}\nimport verl\nfrom verl.trainer.ppo import core_algos\n"
    script += "print('registered', 'riskpo' in core_algos.ADV_ESTIMATOR_REGISTRY)"
    return subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_log_says_in_one_line_whether_it_worked() -> None:
    """By the entry point, by the variable, and where the estimators cannot be loaded, which verl itself hides."""
    module = {"VERL_USE_EXTERNAL_MODULES": "riskpo_study.integrations.verl_plugin", "VERL_USE_EXTERNAL_PLUGINS": "none"}
    broken = "sys.modules['riskpo_study.integrations.verl_estimators'] = None"
    processes = [start({}), start(module), start({}, broken), start(module, broken)]
    results = [(*process.communicate(), process.returncode) for process in processes]
    lines = [[line for line in errors.splitlines() if "riskpo_study:" in line] for _, errors, _ in results]
    for (printed, _, code), said in zip(results[:2], lines[:2], strict=True):
        assert (printed.strip(), code) == ("registered True", 0)
        assert len(said) == 1 and said[0].endswith(f"advantage estimators for verl: {', '.join(FAMILY)}")
    for said in lines[2:]:
        assert len(said) == 1 and said[0].startswith("ERROR") and "cannot be loaded: ModuleNotFoundError" in said[0]
    assert (results[2][0].strip(), results[2][2]) == ("registered False", 0)
    assert results[3][2] != 0 and "ModuleNotFoundError" in results[3][1]  # asked for by name, it is an error


# Numbers


@pytest.mark.parametrize("compute", [compute_advantage, compute_advantage_for_multi_trajectories])
@pytest.mark.parametrize("name", ["riskpo", "risk_seeking"])
def test_verl_computes_the_librarys_advantages(name: str, compute: Any) -> None:
    """Two batches, the second with tracked quantiles, through what both of verl's trainers call."""
    function = {"riskpo": advantages.riskpo, "risk_seeking": advantages.risk_seeking}[name]
    tracker = risk.QuantileTracker((0.2, 0.8), 5)
    config = algorithm(omega=1.5, baseline="batch")
    keys = {} if compute is compute_advantage else {"batch_keys": [f"question_{row}_0" for row in range(80)]}
    for number in range(2):
        table, data = drawn(seed=number)
        data = compute(data, adv_estimator=name, config=config, num_repeat=4, **keys)
        rewards, found = by_question(data)
        assert torch.equal(rewards.sum(1).sort().values, table.double().sum(1).sort().values)
        order, permutation = pairing(number)
        scores = bundles.scores(rewards[order], permutation)
        tracker.start(scores)
        expected = function(rewards[order], permutation, *tracker.values, omega=1.5, baseline="batch")
        tracker.update(scores)
        torch.testing.assert_close(found[order], expected, rtol=0, atol=1e-6)
        assert torch.equal(data.batch["returns"], data.batch["advantages"])
        assert data.batch["advantages"].dtype == torch.float32


def test_verl_computes_the_released_advantages() -> None:
    _, data = drawn(responses=5)
    config = algorithm(beta=0.9, credit="std", natural_baseline=True)
    rewards, found = by_question(compute_advantage(data, "riskpo_released", config=config))
    order, _ = pairing(0)
    expected = advantages.riskpo_released(rewards[order], 5, 0.2, 0.9, credit="std", natural_baseline=True)
    torch.testing.assert_close(found[order], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_every_estimator_gives_finite_advantages(name: str) -> None:
    _, data = drawn()
    found = compute_advantage(data, name, config=algorithm()).batch["advantages"]
    assert found.isfinite().all() and found.any()


@pytest.mark.parametrize("ids", ["uuids", "numbers", "numbers and names"])
def test_what_ids_verl_draws_does_not_matter(ids: str) -> None:
    """verl gives a question another id in every run."""
    found = []
    for kind in ("names", ids):
        ESTIMATORS["riskpo"].advantages = None
        _, data = drawn()
        uid = data.non_tensor_batch["uid"]
        numbers = [int(name.split("-")[1]) for name in uid]
        other = {
            "names": list(uid), "uuids": [str(uuid.UUID(int=(number * 2**61 + 5) % 2**128)) for number in numbers],
            "numbers": [100 - number for number in numbers],
            "numbers and names": [number if number % 2 else f"{number}" for number in numbers],
        }[kind]  # fmt: skip
        data.non_tensor_batch["uid"] = np.array(other, dtype=object)
        found.append(compute_advantage(data, "riskpo", config=algorithm()).batch["advantages"])
    assert found[0].any() and torch.equal(*found)


# Rows without a partner


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 2**32))
def test_rows_are_grouped_by_question_whatever_their_order(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = np.array([f"q{question}" for question, size in enumerate(sizes) for _ in range(size + 2)], dtype=object)
    answered = torch.tensor(
        [place >= 2 for size in sizes for place in range(size + 2)]
    )  # two rows of each do not count
    rows = torch.randperm(len(ids), generator=generator)
    ids, answered = ids[rows.numpy()], answered[rows]
    rewards = torch.rand(len(ids), generator=generator)
    table, back = group(rewards, answered, ids)
    present = [size for size in sizes if size]
    assert table.shape == back.shape == (len(present), max(present, default=0))
    in_order = list(dict.fromkeys(ids[answered.numpy()].tolist()))  # by their first rows that count
    assert (back >= 0).sum(1).tolist() == [sizes[int(name[1:])] for name in in_order]
    assert sorted(back[back >= 0].tolist()) == answered.nonzero().squeeze(1).tolist()
    for values, places in zip(table, back, strict=True):
        known = places >= 0
        assert len(set(ids[places[known].numpy()])) == 1
        torch.testing.assert_close(values[known], rewards[places[known]].double())
        assert values[~known].isnan().all()


def test_padding_and_rejected_rows_have_no_part() -> None:
    """What verl's trainer appends to fill a batch, a question that lost a row, and one that lost all of them."""
    _, data = drawn(22, seed=1)
    uid = data.non_tensor_batch["uid"]
    one = np.flatnonzero(uid == "question-004")[:1]
    every = np.flatnonzero(uid == "question-011")
    data.batch["response_mask"][np.concatenate([one, every])] = 0
    # Padding has one token, a mask of 0 and an id of its own.
    padding = {"token_level_rewards": torch.zeros(3, 6), "response_mask": torch.zeros(3, 6, dtype=torch.long)}
    rows = DataProto(TensorDict(padding, batch_size=3), {"uid": np.array(["pad0"] * 3, dtype=object)})
    data = compute_advantage(DataProto.concat([data, rows]), "riskpo", config=algorithm())
    found, uid = data.batch["advantages"], data.non_tensor_batch["uid"]
    assert not found[np.isin(uid, ["question-004", "question-011", "pad0"])].any()
    assert ESTIMATORS["riskpo"].advantages.metrics["share/left_out"] == pytest.approx(1 / 21)
    # The other 20 questions are bundled among themselves.
    rewards, places = group(data.batch["token_level_rewards"].sum(1), data.batch["response_mask"].any(1), uid)
    order = torch.randperm(21, generator=seeds.generator(3, "questions", 0))
    whole = order[~rewards[order].isnan().any(1)]
    permutation = bundles.permutations(20, 4, 5, seeds.generator(3, "bundles", 0))
    quantiles = [risk.quantile(bundles.scores(rewards[whole], permutation).flatten(), level) for level in (0.2, 0.8)]
    expected = advantages.riskpo(rewards[whole], permutation, *quantiles, omega=0.5)
    torch.testing.assert_close(found[:, 0][places[whole]].double(), expected, rtol=0, atol=1e-6)


def test_what_verl_does_not_say_is_asked_for() -> None:
    _, data = drawn()
    with pytest.raises(ConfigError, match=r"verl hands its seeds to no estimator: .*\+algorithm.riskpo.seed=0"):
        compute_advantage(data, "riskpo", config=OmegaConf.create({"adv_estimator": "riskpo"}))
    data.non_tensor_batch.pop("uid")
    with pytest.raises(DataError, match="the batch has no `uid`"):
        compute_advantage(data, "riskpo", config=algorithm())


def test_rewards_of_minus_one_are_refused() -> None:
    _, data = drawn()
    data.batch["token_level_rewards"] -= (data.batch["response_mask"].cumsum(1) == 1) * 0.5
    with pytest.raises(DataError, match="bundles count rewards from 0 to 1"):
        compute_advantage(data, "riskpo", config=algorithm())


@pytest.mark.parametrize(("answer", "right"), [("Answer: 34", True), ("Answer: 35", False)])
def test_the_reward_is_verls_own_from_zero_to_one(answer: str, right: bool) -> None:
    asked = {"solution_str": f"so it is\n{answer}", "ground_truth": "34", "extra_info": {"num_turns": 1}}
    found = accuracy("math_dapo", **asked)
    assert isinstance(found, dict) and (found["score"], found["acc"]) == (float(right), right)
    boxed = asked | {"solution_str": f"\\boxed{{{answer[8:]}}}"}
    assert accuracy("lighteval/MATH", **boxed) == float(right)


# The launch scripts, the checkpoints


@pytest.fixture(scope="module")
def composed() -> dict[tuple[str, str], DictConfig]:
    """What verl composes from the command lines of examples/verl; nothing is run."""
    asked = [("hard", "riskpo"), ("easy", "riskpo_released")]
    processes = [
        subprocess.Popen(
            ["bash", ROOT / "examples" / "verl" / "run.sh", run, "--cfg", "job"], text=True, stdout=subprocess.PIPE,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ESTIMATOR": estimator},
        )
        for run, estimator in asked
    ]  # fmt: skip
    return {which: OmegaConf.create(process.communicate()[0]) for which, process in zip(asked, processes, strict=True)}


@pytest.fixture
def config(composed: dict[tuple[str, str], DictConfig], tmp_path: Path) -> DictConfig:
    """The hard run, in a folder of the test."""
    found = OmegaConf.create(OmegaConf.to_container(composed["hard", "riskpo"]))
    found.trainer.default_local_dir = str(tmp_path / "checkpoints")
    OmegaConf.resolve(found)
    return found


def test_the_launch_scripts_are_the_papers_runs(composed: dict[tuple[str, str], DictConfig]) -> None:
    for (run, estimator), found in composed.items():
        validate_config(found, use_reference_policy=False, use_critic=False)
        data, actor, rollout = found.data, found.actor_rollout_ref.actor, found.actor_rollout_ref.rollout
        ESTIMATORS[estimator].start(found.algorithm).check(data.train_batch_size, rollout.n)
        assert found.algorithm.adv_estimator == estimator
        assert actor.ppo_mini_batch_size * rollout.n % (found.trainer.nnodes * found.trainer.n_gpus_per_node) == 0
        assert (actor.optim.lr, actor.use_kl_loss, actor.entropy_coeff, actor.ppo_epochs) == (1e-6, False, 0, 1)
        paper = {"hard": (512, 10, 3072, 500, 4), "easy": (1024, 5, 1024, 200, 2)}[run]
        assert data.train_batch_size == pytest.approx(paper[0], rel=0.07)
        updates = data.train_batch_size / actor.ppo_mini_batch_size
        assert (rollout.n, data.max_response_length, found.trainer.total_training_steps, updates) == paper[1:]
        assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1, -1)
    paper, released = composed.values()
    sequence = (paper.actor_rollout_ref.actor.policy_loss.loss_mode, paper.actor_rollout_ref.actor.loss_agg_mode)
    assert sequence == ("gspo", "seq-mean-token-mean")
    token = released.actor_rollout_ref.actor
    assert (token.policy_loss.loss_mode, token.loss_agg_mode, token.clip_ratio_c) == ("vanilla", "token-mean", 3.0)


class Workers:
    """Stands in for the GPU workers, which hold the model; everything else of the trainer is verl's."""

    def save_checkpoint(self, path: str, *_: Any, **__: Any) -> None:
        Path(path).mkdir(parents=True)

    def load_checkpoint(self, **_: Any) -> None:
        pass


class Loader:
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def trainer(config: DictConfig) -> PPOTrainer:
    """verl's trainer as far as it goes without a GPU: its callback, and its own saving and loading of checkpoints."""
    found: PPOTrainer = object.__new__(get_trainer_cls("sync"))
    found.config = config
    found.checkpoint_callback = build_checkpoint_callback(config)
    found.actor_rollout_wg, found.train_dataloader = Workers(), Loader()
    found.use_critic, found.trainer_mode = False, config.trainer.v1.trainer_mode
    found._load_checkpoint()
    return found


def advantages_of(config: DictConfig, seed: int) -> torch.Tensor:
    _, data = drawn(seed=seed)
    return compute_advantage(data, config.algorithm.adv_estimator, config=config.algorithm).batch["advantages"]


@pytest.mark.parametrize("mode", ["auto", "resume_path", "disable"])
def test_the_quantiles_go_with_verls_checkpoints(
    config: DictConfig, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = trainer(config)
    assert isinstance(first.checkpoint_callback, TrackerCheckpoint)
    for step in range(1, 4):
        advantages_of(config, seed=step)
        if step == 2:
            first.global_steps = step
            first._save_checkpoint()
            expected = [advantages_of(config, seed=seed) for seed in (7, 8)]
    folder = Path(config.trainer.default_local_dir)
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "2"

    caplog.clear()
    config.trainer.resume_mode = mode
    if mode == "resume_path":
        config.trainer.resume_from_path = str(folder / "global_step_2")
    resumed = trainer(config)
    state = ESTIMATORS["riskpo"].advantages
    assert resumed.global_steps == (0 if mode == "disable" else 2) == state.batches
    if mode == "disable":
        assert "restored" not in caplog.text
        return
    assert f"restored from {folder}/global_step_2/riskpo.pt: 2 batches seen, quantiles" in caplog.text
    assert all(torch.equal(advantages_of(config, seed), old) for seed, old in zip((7, 8), expected, strict=True))


def test_a_checkpoint_without_quantiles_is_said(config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = trainer(config)
    first.global_steps = 5
    first._save_checkpoint()
    path = Path(config.trainer.default_local_dir) / "global_step_5" / "riskpo.pt"
    path.unlink()
    assert trainer(config).global_steps == 5
    assert f"there is no {path}: the quantiles begin with those of the next batch" in caplog.text


def test_quantiles_that_nobody_saves_are_said_once(config: DictConfig, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(2):
        advantages_of(config, seed)
    name = f"{verl_estimators.__name__}.TrackerCheckpoint"
    assert caplog.text.count(f"set trainer.checkpoint_callback_class={name}") == 1
    assert config.trainer.checkpoint_callback_class == name


def test_several_outputs_of_an_agent_are_no_responses(config: DictConfig) -> None:
    """One question with eleven rows would make all others incomplete, and nothing would be learned."""
    trainer(config)
    _, data = drawn(responses=10)
    uid = data.non_tensor_batch["uid"]
    uid[np.flatnonzero(uid == "question-003")[0]] = "question-004"
    with pytest.raises(DataError, match="a question has 11 rows and not 10: agents with several outputs"):
        compute_advantage(data, "riskpo", config=config.algorithm)


def test_bad_settings_end_the_run_before_the_first_rollout(config: DictConfig) -> None:
    cases = {
        "512 questions do not fill bundles of 5": {"data.train_batch_size": 512},
        "alpha = 0.9 is not below beta = 0.8": {"algorithm.riskpo.alpha": 0.9},
        "credit = 'sharde' is unknown": {"algorithm.riskpo.credit": "sharde"},
        "use_kl_in_reward = True takes a penalty off the rewards": {"algorithm.use_kl_in_reward": True},
        "resume_mode = resume_path needs trainer.resume_from_path": {"trainer.resume_mode": "resume_path"},
        "adv_estimator = grpo has no quantiles to keep": {"algorithm.adv_estimator": "grpo"},
        # Four batches of 30 questions a step: 120 questions alone would do.
        "30 questions do not fill bundles of 4": {
            "data.train_batch_size": 120, "algorithm.riskpo.bundle_size": 4,
            "trainer.v1.trainer_mode": "separate_async",
        },
    }  # fmt: skip
    for message, changes in cases.items():
        changed = OmegaConf.create(OmegaConf.to_container(config))
        for key, value in changes.items():
            OmegaConf.update(changed, key, value)
        with pytest.raises(ConfigError, match=message):
            build_checkpoint_callback(changed)


@pytest.mark.parametrize("section", [None, "abc", [1]])
def test_options_that_are_none_are_named(section: object) -> None:
    with pytest.raises(ConfigError, match=r"algorithm.riskpo = .* holds no options: set them one by one"):
        ESTIMATORS["riskpo"].start(OmegaConf.create({"riskpo": section}))


def test_the_installed_verl_is_one_that_the_extra_allows() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["verl"]
    assert Requirement(extra[0]).specifier.contains(verl.__version__)
