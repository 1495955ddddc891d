"""What test_distributed has two processes do, one thing after the other: run as a script, in each of them.

Starting processes takes far longer than what they do, so that they do all of it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from riskpo_study import config, distributed, experiment
from riskpo_study.optimizer import Optimizer
from riskpo_study.policy import Policy, Responses
from riskpo_study.trainer import Trainer

RESPONSES = Responses(
    ((5, 6, 7), (8,), (9, 10)),
    torch.arange(3 * 2 * 4).view(3, 2, 4) % 7 + 3,
    torch.tensor([[4, 2], [1, 3], [2, 2]]),
)


# Runs


def train(params: Path, algorithm: str, base: Path, folder: Path, steps: int | None) -> None:
    """A run of seed 0; with `steps` it is interrupted before the step that follows so many."""
    step = Trainer.step

    def interrupted(trainer: Trainer) -> Any:
        if trainer.steps_done == steps:
            raise KeyboardInterrupt
        return step(trainer)

    Trainer.step = interrupted  # type: ignore[method-assign]
    try:
        experiment.train(config.load(params), algorithm, 0, base, folder)
    except KeyboardInterrupt:
        assert steps is not None
    finally:
        Trainer.step = step  # type: ignore[method-assign]


# An update


def load(model: Path, split: bool) -> tuple[Policy, Optimizer]:
    """In bfloat16, so that the optimiser has float32 copies."""
    study = config.load()
    hardware = replace(study.hardware, dtype="bfloat16", processes=2, shards=2, shard_weights=split)
    policy = Policy.load(model, "padded", hardware)
    train = replace(study.train, learning_rate=1e-3, warmup_steps=0, max_grad_norm=1.0)
    return policy, Optimizer(policy.model.parameters(), train)


def update(policy: Policy, optimizer: Optimizer) -> float:
    """On three questions, of which the second of two processes has one, and then none; returns the gradient's norm."""
    for rows in distributed.share([*torch.arange(3).split(1), torch.empty(0, dtype=torch.long)]):
        (-policy.score(RESPONSES.select(rows)).log_probs.sum()).backward()
    norm = optimizer.gather()
    optimizer.step()
    return norm


def split_update(model: Path, folder: Path) -> None:
    """Of a policy whose weights the processes share; each saves what it holds of it and what it collects."""
    policy, optimizer = load(model, split=True)
    norm = update(policy, optimizer)
    moments = [value for of_one in optimizer.adam.state.values() for name, value in of_one.items() if name != "step"]
    tensors = {"parameters": optimizer.parameters, "optimizer": [*optimizer.masters, *moments]}
    held = {name: sum(one.to_local().nbytes for one in split) for name, split in tensors.items()}
    state, weights = optimizer.state_dict(), policy.collected()
    saved = {"norm": norm, "held": held, "state": state, "weights": weights}
    torch.save(saved, folder / f"process-{distributed.rank()}.pt")


def main(base: Path, folder: Path) -> None:
    """Exchange numbers, do the runs of `folder/runs.json`, and update a split policy.

    A run is [name, algorithm, steps], see `train`; its configuration is in `folder/name.yaml`.
    """
    distributed.start()
    mine = distributed.share(range(7))
    exchanged = {"mine": mine, "gathered": distributed.gathered(mine)}
    (folder / f"exchanged-{distributed.rank()}.json").write_text(json.dumps(exchanged))
    for name, algorithm, steps in json.loads((folder / "runs.json").read_text()):
        train(folder / f"{name}.yaml", algorithm, base, folder / name, steps)
    split_update(base, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
