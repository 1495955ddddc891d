"""Weights split over the processes, for models that do not fit one device: torch's FSDP, a unit for each block.

Every process keeps a part of each weight, of its gradient and of the optimiser's state, as a DTensor. A unit's weights
are whole only while it runs. So all processes run equally many passes, forward and backward, in the same order.

This is what accelerate's `prepare` does with `fsdp_version: 2`, done here because `prepare` makes the output layer a
unit of its own, whole only while its `forward` runs, which `log_probs.token_scores` never calls; because it averages
gradients, which add up here; and because it would replace the parameters under an optimiser that has copies of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from riskpo_study import distributed
from riskpo_study.errors import ConfigError


def wanted(configured: bool) -> bool:
    """Whether to split weights: where there are processes, and the configuration or accelerate's own asks for it.

    Raises:
        ConfigError: where accelerate's asks to keep the weights on the CPU as well.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":  # which `accelerate launch --use_fsdp` sets
        return configured and distributed.size() > 1
    if os.environ.get("FSDP_OFFLOAD_PARAMS") == "true":
        raise ConfigError(
            "fsdp_offload_params = true in accelerate's configuration: weights stay on the devices here; set it to "
            "false, and take more of them"
        )
    return distributed.size() > 1


def shard(root: nn.Module, blocks: Iterable[nn.Module]) -> None:
    """Split the weights of `root` and move them to this process's device, block by block; gradients will add up.

    Args:
        root: the module whose `forward` will be called; what is in none of the blocks is whole throughout it.
        blocks: modules in it, none within another.
    """
    mesh = init_device_mesh(distributed.device().type, (distributed.size(),))
    precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in (*blocks, root):
        # The root too: kept whole after a pass without gradient, it would miss the next update.
        unit = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=precision)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


@contextmanager
def whole(root: nn.Module) -> Iterator[None]:
    """All weights in every process meanwhile, for as many passes without gradient as each of them likes.

    Nothing happens where they are not split. All processes enter and leave together.
    """
    units = [module for module in root.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def is_split(tensor: Tensor) -> bool:
    """Whether this process has only a part of it."""
    return isinstance(tensor, DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """All of a split tensor, in every process; another as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def collected(tensor: Tensor) -> Tensor:
    """All of a split tensor in the main process's memory, empty in the others; another as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    everything = tensor.full_tensor()
    return everything.cpu() if distributed.is_main() else everything.new_empty(0)


def split_like(tensor: Tensor, example: Tensor) -> Tensor:
    """This process's part of a tensor that all have, where `example`, of the same shape, is split."""
    if not isinstance(example, DTensor):
        return tensor
    return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements, src_data_rank=None)
