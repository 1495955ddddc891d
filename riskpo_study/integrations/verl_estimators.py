"""RiskPO in verl: advantage estimators, a callback that keeps their state in the checkpoints, a reward from 0 to 1.

    algorithm.adv_estimator=riskpo
    +algorithm.riskpo.bundle_size=5            any option of the algorithm, its measure, and `seed`
    trainer.checkpoint_callback_class=riskpo_study.integrations.verl_estimators.TrackerCheckpoint
    reward.custom_reward_function.path=pkg://riskpo_study.integrations.verl_estimators
    reward.custom_reward_function.name=accuracy
    actor_rollout_ref.actor.policy_loss.loss_mode=gspo      RiskPO's sequence-level ratio

verl calls an estimator in one process, the driver's, with the whole batch: bundles and quantiles are global. It passes
no bundle and no group, only `index`, the id of each row's question, and rows in any order. `examples/verl` holds whole
command lines, docs/scale_out.md what they cost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.core_algos import register_adv_est
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path
from verl.utils.reward_score import default_compute_score

from riskpo_study.errors import ConfigError, DataError
from riskpo_study.integrations.batch_advantages import FAMILY, STATE_FILE, BatchAdvantages

__all__ = ["ESTIMATORS", "Estimator", "TrackerCheckpoint", "accuracy", "group", "register"]

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)


class Estimator:
    """An advantage estimator as verl calls it. Its state begins with the first batch, or with `TrackerCheckpoint`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.advantages: BatchAdvantages | None = None
        self.most_rows: int | None = None

    def start(self, config: DictConfig | Mapping[str, Any], most_rows: int | None = None) -> BatchAdvantages:
        """Begin anew.

        Args:
            config: verl's section `algorithm`, with the options in `riskpo`.
            most_rows: rows that a question may have, where that is known.

        Raises:
            ConfigError: for an unknown option or a bad value, or where there is no seed.
        """
        section = config.get("riskpo", {})
        given: Any = OmegaConf.to_container(section) if OmegaConf.is_config(section) else section
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"algorithm.riskpo = {given!r} holds no options: set them one by one, as +algorithm.riskpo.seed=0"
            )
        options = dict(given)
        if "seed" not in options:
            raise ConfigError("verl hands its seeds to no estimator: give the bundles one, +algorithm.riskpo.seed=0")
        seed = options.pop("seed")
        self.advantages, self.most_rows = BatchAdvantages(self.name, options, seed), most_rows
        _log.info("riskpo_study: %s", self.advantages)
        return self.advantages

    def __call__(
        self,
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: np.ndarray | None = None,
        config: DictConfig | Mapping[str, Any] | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns, the same (R, T), of R rows in any order.

        Rows without a response token, which are padding or were rejected, have no part in a bundle; a question that
        lacks rows because of them is left out (see `BatchAdvantages`).

        Args:
            token_level_rewards: (R, T), summed to the reward of a row.
            response_mask: (R, T).
            index: (R,) ids of the questions.
            config: verl's section `algorithm`.

        Raises:
            DataError: without ids, for too many rows of a question, or rewards outside [0, 1].
        """
        if index is None:
            raise DataError(
                "the batch has no `uid` to tell which rows answer the same question: verl's datasets give one"
            )
        if self.advantages is None:
            self.advantages = self.start(config or {})
            _log.warning(
                "riskpo_study: no checkpoint has the quantiles; set trainer.checkpoint_callback_class=%s.%s",
                __name__, TrackerCheckpoint.__name__,
            )  # fmt: skip
        rewards, rows = group(token_level_rewards.sum(1), response_mask.any(1), index)
        if self.most_rows is not None and rows.shape[1] > self.most_rows:
            raise DataError(
                f"a question has {rows.shape[1]} rows and not {self.most_rows}: agents with several outputs a session "
                "are not supported, for each would count as a response"
            )
        # Neighbours in the data might be alike.
        order = torch.randperm(len(rows), generator=self.advantages.generator("questions"))
        rewards, rows = rewards[order], rows[order]
        found = self.advantages(rewards)
        present = rows >= 0
        advantages = torch.zeros_like(token_level_rewards)
        advantages[rows[present]] = found[present].unsqueeze(1).to(advantages)
        advantages = advantages * response_mask
        said = ", ".join(f"{name} {value:.3g}" for name, value in self.advantages.metrics.items())
        _log.info("riskpo_study: batch %d: %s", self.advantages.batches, said)
        return advantages, advantages


def group(rewards: Tensor, answered: Tensor, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rewards by question, and where they come from.

    Args:
        rewards: (R,).
        answered: (R,) bool, rows that count.
        index: (R,) ids of the questions.

    Returns:
        Rewards (Q, G) on the CPU, NaN where a question has fewer than G rows, and the rows (Q, G), -1 there. Questions
        are in the order of their first rows: verl draws their ids anew in every run.
    """
    rows = answered.cpu().nonzero().squeeze(1)
    numbers: dict[Any, int] = {}
    found = [numbers.setdefault(one, len(numbers)) for one in index[rows.numpy()].tolist()]
    question = torch.tensor(found, dtype=torch.int64)
    sizes = question.bincount()
    order = question.argsort(stable=True)
    question, rows = question[order], rows[order]
    place = torch.arange(len(rows)) - (sizes.cumsum(0) - sizes)[question]
    table = torch.full((len(sizes), int(sizes.max()) if len(sizes) else 0), -1)
    table[question, place] = rows
    return rewards.double().cpu()[table.clamp(min=0)].masked_fill(table < 0, torch.nan), table


ESTIMATORS = {name: Estimator(name) for name in FAMILY}


def register() -> tuple[str, ...]:
    """Make the estimators known to verl; returns their names."""
    for name, estimator in ESTIMATORS.items():
        register_adv_est(name)(estimator)
    return FAMILY


class TrackerCheckpoint(CheckpointCallback):  # type: ignore[misc]
    """Keeps the quantiles in verl's checkpoints, as `global_step_N/riskpo.pt`, and restores them where verl resumes.

    verl makes it before the first rollouts, so that a bad option or batch size ends the run at once.

    Raises:
        ConfigError: for an algorithm without quantiles, a bad option or batch size, a KL penalty in the rewards, or no
            path to resume from where one is asked for.
        DataError: where the quantiles to resume from are another run's, or cannot be read.
    """

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config=config)
        name = str(config.algorithm.adv_estimator)
        if name not in ESTIMATORS:
            raise ConfigError(
                f"adv_estimator = {name} has no quantiles to keep: leave out trainer.checkpoint_callback_class"
            )
        if config.algorithm.get("use_kl_in_reward", False):
            raise ConfigError(
                "use_kl_in_reward = True takes a penalty off the rewards that bundles count: set it to False, and "
                "actor_rollout_ref.actor.use_kl_loss=True for a penalty in the loss"
            )
        responses = config.actor_rollout_ref.rollout.n
        self.advantages = ESTIMATORS[name].start(config.algorithm, responses)
        mode = config.trainer.v1.get(config.trainer.v1.trainer_mode, {})
        # A step of the asynchronous trainer takes several batches.
        questions = config.data.train_batch_size // mode.get("parameter_sync_step", 1)
        self.advantages.check(questions, responses)
        if (folder := _resumed(config.trainer)) is not None:
            path = folder / STATE_FILE
            if path.is_file():
                _log.info("riskpo_study: %s", self.advantages.load(path))
            else:
                _log.warning("riskpo_study: there is no %s: the quantiles begin with those of the next batch", path)

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        self.advantages.save(Path(checkpoint_dir) / STATE_FILE)


def _resumed(trainer: DictConfig) -> Path | None:
    """The checkpoint that verl goes on from, by the rule of its `PPOTrainer._load_checkpoint`."""
    if trainer.resume_mode == "disable":
        return None
    if trainer.resume_mode == "resume_path":
        if not trainer.resume_from_path:
            raise ConfigError("resume_mode = resume_path needs trainer.resume_from_path=…/global_step_N")
        return Path(trainer.resume_from_path)
    found = find_latest_ckpt_path(str(Path(trainer.default_local_dir).absolute()))
    return None if found is None else Path(found)


def accuracy(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **options: Any
) -> dict[str, Any] | float:
    """verl's own reward of a response, with 0 for a wrong one also where verl gives −1 (`math_dapo`, `aime…`)."""
    found = default_compute_score(data_source, solution_str, ground_truth, extra_info, **options)
    return found | {"score": float(found["acc"])} if isinstance(found, dict) else found
