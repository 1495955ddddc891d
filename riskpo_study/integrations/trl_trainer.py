"""RiskPO in TRL: `GRPOTrainer` with the advantages of the RiskPO family.

    from riskpo_study.integrations.trl_trainer import RiskPOConfig, RiskPOTrainer

    RiskPOTrainer(model, reward, RiskPOConfig(output_dir, num_generations=8, risk={"omega": 0.5}), dataset).train()

This is the one module that uses TRL's private names. tests/integrations/test_trl_trainer.py says what it expects of
them, so that another TRL breaks a test and not a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.errors import ConfigError
from riskpo_study.integrations.batch_advantages import STATE_FILE, BatchAdvantages
from riskpo_study.surrogates import sequence_clip

__all__ = ["RiskPOConfig", "RiskPOTrainer"]

_log = logging.get_logger(__name__)


@dataclass
class RiskPOConfig(GRPOConfig):  # type: ignore[misc]
    """`GRPOConfig` with an algorithm of the RiskPO family, whose surrogate is the default of TRL's own settings of it.

    The generation batch must hold whole bundles: `generation_batch_size / num_generations` questions, on all processes
    together, are a multiple of the bundle size. Rewards, weighted and summed, must lie in [0, 1].

    The advantages are not those that TRL scales: instead of `scale_rewards` there is `risk={"scale": "batch_std"}`.

    Raises:
        ConfigError: for an unknown algorithm or option, a bad value, a setting without effect, or a batch of no whole
            number of bundles.
    """

    _VALID_DICT_FIELDS: ClassVar = [*GRPOConfig._VALID_DICT_FIELDS, "risk"]

    algorithm: str = field(default="riskpo", metadata={"help": "Which of the RiskPO family: see `FAMILY`."})
    risk: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Options of the algorithm and its measure, such as alpha, beta, omega, bundle_size, tracker."
        },
    )
    loss_type: str | None = field(
        default=None, metadata={"help": "TRL's; the algorithm's by default: the mean over responses is `grpo`."}
    )
    importance_sampling_level: str | None = field(
        default=None, metadata={"help": "TRL's; the algorithm's by default: RiskPO's ratio is that of the `sequence`."}
    )
    delta: float | None = field(
        default=None, metadata={"help": "TRL's; the algorithm's by default: `riskpo_released` has a dual clip at 3."}
    )

    def __post_init__(self) -> None:
        self._complete()
        super().__post_init__()
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ConfigError(
                f"multi_objective_aggregation = {self.multi_objective_aggregation!r} normalises within a question, "
                "before bundles are scored: choose sum_then_normalize"
            )
        if self.scale_rewards != "group":
            raise ConfigError(
                f"scale_rewards = {self.scale_rewards!r} has no effect on the advantages of bundles: leave it out; "
                'risk={"scale": "batch_std"} divides by the spread of their scores'
            )
        self.advantages().check(self.generation_batch_size // self.num_generations, self.num_generations)
        if self._saves_within_a_generation():
            _log.warning(
                "riskpo_study: save_steps = %s saves between two generations, and a run resumed there draws and counts "
                "its batch again: choose multiples of steps_per_generation · num_iterations / "
                "gradient_accumulation_steps = %g", self.save_steps,
                self.steps_per_generation * self.num_iterations / self.gradient_accumulation_steps,
            )  # fmt: skip

    def _complete(self) -> None:
        """Take what is not given of the surrogate from the algorithm's preset."""
        if (preset := ALGORITHMS.get(self.algorithm)) is None:
            return  # `advantages` names it
        if self.loss_type is None:
            self.loss_type = {"sequence_mean": "grpo", "token_mean": "dapo"}[preset.aggregation]
        if self.importance_sampling_level is None:
            self.importance_sampling_level = "sequence" if preset.surrogate is sequence_clip else "token"
        if self.delta is None:
            self.delta = preset.clip.get("dual")

    def _saves_within_a_generation(self) -> bool:
        if self.save_strategy != "steps" or self.save_steps < 1:  # below 1 it is a share of the run
            return False
        passes: int = self.steps_per_generation * self.num_iterations
        return bool(self.save_steps * self.gradient_accumulation_steps % passes)

    def advantages(self) -> BatchAdvantages:
        """The estimator at its start."""
        options = self.risk or {}
        if not isinstance(options, dict):  # TRL has parsed JSON
            raise ConfigError(f'risk = {self.risk!r} holds no options: give a dictionary, or JSON: {{"omega": 1}}')
        return BatchAdvantages(self.algorithm, options, self.seed)


class RiskPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` that replaces the advantages of what it generates for training.

    They are computed from the rewards of all processes, on each of them alike. Evaluation, whose batches need not hold
    whole bundles, keeps TRL's own and moves no quantile. Metrics have the prefix `riskpo/`.

    Args:
        args: a `RiskPOConfig`.
        others: as `GRPOTrainer`'s.
    """

    def __init__(self, model: Any, reward_funcs: Any, args: RiskPOConfig, *others: Any, **named: Any) -> None:
        if not isinstance(args, RiskPOConfig):
            raise ConfigError(f"RiskPOTrainer needs a RiskPOConfig and was given {type(args).__name__}")
        self.risk_advantages = args.advantages()
        self._rewards: Tensor | None = None
        super().__init__(model, reward_funcs, args, *others, **named)
        _log.info("riskpo_study: %s", self.risk_advantages)

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(*arguments, **named)  # (rows of all processes, reward functions)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        rewards = self._rewards
        assert rewards is not None
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        total[rewards.isnan().all(1)] = torch.nan  # no function has scored it: its question is left out
        found = self.risk_advantages(total.view(-1, self.num_generations)).flatten().to(output["advantages"])
        rows = len(output["advantages"])
        first = self.accelerator.process_index * rows
        output["advantages"] = found[first : first + rows]
        logged = self._logs["advantages"]
        for _ in found:
            logged.pop()
        logged.extend(found.tolist())
        for name, value in self.risk_advantages.metrics.items():
            self._metrics["train"][f"riskpo/{name}"].append(value)
        return output

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.risk_advantages.save(folder / STATE_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / STATE_FILE
        if path.is_file():
            said = self.risk_advantages.load(path)
        else:
            said = f"there is no {path}: the quantiles begin with those of the next batch"
        if self.accelerator.is_main_process:
            _log.warning("riskpo_study: %s", said)
