"""What the optimiser keeps besides the weights, and that it comes back."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from riskpo_study import config
from riskpo_study.optimizer import Optimizer


def updated(weights: list[nn.Parameter], optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for index, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, 0.1 * step - 0.2 * index)
        optimizer.gather()
        optimizer.step()


@pytest.mark.parametrize("dtypes", list(product([torch.float32, torch.bfloat16], repeat=2)))
def test_a_restored_optimiser_goes_on_as_if_nothing_had_happened(
    dtypes: tuple[torch.dtype, ...], settings: config.Config
) -> None:
    """At a rate at which bfloat16 alone would not move, so that the float32 copies decide; for mixed weights, too."""
    train = replace(settings.train, steps=100, mini_batches=1, learning_rate=1e-4, warmup_steps=2, schedule="cosine")
    weights = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    straight = Optimizer(weights, train)
    updated(weights, straight, range(1, 4))
    state = copy.deepcopy(straight.state_dict())
    assert len(state["masters"]) == dtypes.count(torch.bfloat16)
    resumed_weights = [nn.Parameter(weight.detach().clone()) for weight in weights]
    resumed = Optimizer(resumed_weights, train)
    resumed.load_state_dict(state)
    assert resumed.learning_rate == straight.learning_rate
    for one, optimizer in ((weights, straight), (resumed_weights, resumed)):
        updated(one, optimizer, range(4, 80))
    for master, ours in zip(straight.masters, resumed.masters, strict=True):
        assert torch.equal(master, ours) and not torch.equal(master, torch.ones(3))
    for weight, ours in zip(weights, resumed_weights, strict=True):
        assert torch.equal(weight, ours) and weight.dtype == ours.dtype and weight[0] != 1
