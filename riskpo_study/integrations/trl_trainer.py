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

from riskpo_study.errors import ConfigError
from riskpo_study.integrations.batch_advantages import STATE_FILE, BatchAdvantages

__all__ = ["RiskPOConfig", "RiskPOTrainer"]

_log = logging.get_logger(__name__)


@dataclass
class RiskPOConfig(GRPOConfig):  # type: ignore[misc]
    """`GRPOConfig` with an algorithm of the RiskPO family; its other defaults are RiskPO's surrogate.

    The generation batch must hold whole bundles: `generation_batch_size / num_generations` questions, on all processes
    together, are a multiple of the bundle size. Rewards, weighted and summed, must lie in [0, 1].

    `riskpo_released` has another surrogate: `loss_type="dapo", importance_sampling_level="token", delta=3.0`.

    Raises:
        ConfigError: for an unknown algorithm or option, a bad value, or a batch of no whole number of bundles.
    """

    _VALID_DICT_FIELDS: ClassVar = [*GRPOConfig._VALID_DICT_FIELDS, "risk"]

    algorithm: str = field(default="riskpo", metadata={"help": "Which of the RiskPO family: see `FAMILY`."})
    risk: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Options of the algorithm and its measure, such as alpha, beta, omega, bundle_size, tracker."
        },
    )
    loss_type: str = field(
        default="grpo", metadata={"help": "Mean over responses of the mean over tokens (TRL: dapo)."}
    )
    importance_sampling_level: str = field(
        default="sequence", metadata={"help": "Ratio of a whole response, normalised by its length (TRL: token)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ConfigError(
                f"multi_objective_aggregation = {self.multi_objective_aggregation!r} normalises within a question, "
                "before bundles are scored: choose sum_then_normalize"
            )
        self.advantages().check(self.generation_batch_size // self.num_generations, self.num_generations)

    def advantages(self) -> BatchAdvantages:
        """The estimator at its start."""
        assert not isinstance(self.risk, str)  # TRL has parsed it
        return BatchAdvantages(self.algorithm, self.risk or {}, self.seed)


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
