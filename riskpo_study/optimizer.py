"""AdamW with a schedule, on float32 weights also where the model has others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from riskpo_study import distributed, sharding
from riskpo_study.config import Train


class Optimizer:
    """Decoupled AdamW on gradients summed over the processes and clipped to a norm.

    Weights of less than float32 keep a float32 copy, which is what the updates add up in: at a learning rate of 1e-6
    bfloat16 would round every one of them away. Of weights that are split over the processes each updates its part.

    Args:
        parameters: of the model.
        train: section of the configuration.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], train: Train) -> None:
        self.parameters, self.train = list(parameters), train
        self.masters = [
            parameter if parameter.dtype == torch.float32 else nn.Parameter(parameter.detach().float())
            for parameter in self.parameters
        ]
        self.adam = torch.optim.AdamW(self.masters, lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.adam, partial(_rate, train))

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return float(self.scheduler.get_last_lr()[0])

    def gather(self) -> float:
        """Sum the gradients over the processes, unless that is done, and clip them; returns their norm before that."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter.grad is None and distributed.size() > 1:  # nothing to do here, but elsewhere
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                master.grad = parameter.grad.float()
                if not sharding.is_split(master.grad):
                    distributed.add_up(master.grad)
        return sharding.gathered(torch.nn.utils.clip_grad_norm_(self.masters, self.train.max_grad_norm)).item()

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights, then forget the gradients."""
        self.adam.step()
        self.scheduler.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)
            parameter.grad = master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state and the schedule's; `masters`, the float32 copies, in the order of their parameters.

        Of split weights all processes call it, and the main one gets it, as if they were not split.
        """
        adam = self.adam.state_dict()
        moments = {
            index: {name: sharding.collected(value) for name, value in of_one.items()}
            for index, of_one in adam["state"].items()
        }
        return {
            "optimizer": adam | {"state": moments},
            "scheduler": self.scheduler.state_dict(),
            "masters": [sharding.collected(copy) for copy in self._copies()],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, with weights of the same dtypes; every process takes its part of it."""
        adam = state["optimizer"]
        moments = {
            index: {
                name: value if name == "step" else sharding.split_like(value, self.masters[index])
                for name, value in of_one.items()
            }
            for index, of_one in adam["state"].items()
        }
        self.adam.load_state_dict(adam | {"state": moments})
        self.scheduler.load_state_dict(state["scheduler"])
        for master, copy in zip(self._copies(), state["masters"], strict=True):
            master.copy_(sharding.split_like(copy, master))

    def _copies(self) -> list[Tensor]:
        """The masters that are no parameters themselves."""
        return [
            master.data
            for parameter, master in zip(self.parameters, self.masters, strict=True)
            if master is not parameter
        ]


def _rate(train: Train, updates: int) -> float:
    """Share of the learning rate for the update after so many: a linear warm-up, then constant or half a cosine."""
    if updates < train.warmup_steps:
        return (updates + 1) / (train.warmup_steps + 1)
    if train.schedule == "constant":
        return 1.0
    done = (updates - train.warmup_steps) / (train.steps * train.mini_batches - train.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
