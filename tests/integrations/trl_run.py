"""Training runs with TRL on the Countdown task, one after the other, as a script of one or several processes.

`trl_run.py RUNS`, a JSON list of settings: each rank writes `rank-R.pt` into the run's folder, with what it learned
from, what it logged and the state of the quantiles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from riskpo_study import seeds
from riskpo_study.config import Task
from riskpo_study.integrations.trl_trainer import RiskPOConfig, RiskPOTrainer
from riskpo_study.tasks.countdown import Countdown

# In float32 and without what a CPU or a tiny model does not need. TRL then computes what this package's trainer does.
PLAIN: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "model_init_kwargs": {"dtype": "float32"}, "gradient_checkpointing": False,
    "optim": "adamw_torch_fused", "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
    "temperature": 1.0, "top_p": 1.0, "top_k": 0, "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


def task() -> Countdown:
    """Two or three small numbers, so that a model learns it in seconds."""
    return Countdown(Task(name="countdown", numbers=(2, 3), largest_number=9, largest_target=20, questions=10))


class Recorder:
    """Beside a trainer's class: keeps what every generation gave."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.generations: list[dict[str, Any]] = []
        super().__init__(*arguments, **named)

    def _calculate_rewards(self, inputs: Any, prompts: Any, *others: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, *others)  # type: ignore[misc]
        self.generations.append({"prompts": prompts, "rewards": rewards})
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        logged = list(self._logs["advantages"])  # type: ignore[attr-defined]
        self.generations[-1] |= {"output": output, "logged": logged, "training": self.model.training}  # type: ignore[attr-defined]
        return output


class Vanilla(Recorder, GRPOTrainer):  # type: ignore[misc]
    pass


class RiskPO(Recorder, RiskPOTrainer):
    pass


def trainer(model: str, folder: Path, algorithm: str | None, questions: int = 80, **options: Any) -> Vanilla | RiskPO:
    """TRL's trainer, or with an algorithm ours, for so many questions; `options` are of its configuration."""
    drawn = task().sample(questions, seeds.generator(0, "questions"))
    asked = {task().prompt(question): question for question in drawn}

    def right(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [task().verify(asked[prompt], text).reward for prompt, text in zip(prompts, completions, strict=True)]

    data = Dataset.from_list([{"prompt": prompt} for prompt in asked])
    common = PLAIN | {"output_dir": str(folder), "num_generations": 4, "max_completion_length": 10} | options
    if algorithm is None:
        return Vanilla(model, right, GRPOConfig(**common), train_dataset=data, eval_dataset=data.select(range(6)))
    arguments = RiskPOConfig(**common, algorithm=algorithm)
    return RiskPO(model, right, arguments, train_dataset=data, eval_dataset=data.select(range(6)))


def main() -> None:
    torch.set_num_threads(1)
    for settings in json.loads(sys.argv[1]):
        resume, folder = settings.pop("resume", None), Path(settings.pop("folder"))
        run = trainer(folder=folder, **settings)
        run.train(resume_from_checkpoint=resume)
        found: dict[str, Any] = {"generations": run.generations, "history": run.state.log_history}
        found["weights"] = torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])
        if isinstance(run, RiskPO):
            found["state"] = run.risk_advantages.algorithm.estimator.state_dict()
        torch.save(found, folder / f"rank-{run.accelerator.process_index}.pt")


if __name__ == "__main__":
    main()
