"""Several processes that work on one run, a device each: who does what, and their results put together.

`accelerate launch`, torchrun or `launch` start them. All make the same decisions from the same numbers: what one has
computed reaches the others before anything depends on it. A process alone needs none of this.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from riskpo_study.errors import RunError

T = TypeVar("T")


def launch(processes: int, module: str, *arguments: str) -> None:
    """Run `python -m module arguments` in so many processes and wait for them.

    Raises:
        RunError: where one of them fails; what it said is above.
    """
    agent = [sys.executable, "-m", __name__, str(processes), module, *arguments]
    with subprocess.Popen(agent, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        while said := os.read(running.stderr.fileno(), 2**12):  # progress bars, which never end their line
            sys.stderr.write(said.decode(errors="replace"))
            sys.stderr.flush()
    if running.returncode:
        raise RunError(f"one of {processes} processes of {module} failed; what it said is above")


def launched() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start() -> None:
    """Meet the other processes, if there are any."""
    if launched() and not distributed.is_initialized():
        # With `accelerate launch --use_fsdp` transformers would read weights in one process, and leave it to accelerate
        # to pass them on.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and talks."""
    return rank() == 0


def device() -> torch.device:
    """Of this process."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def share(items: Iterable[T]) -> list[T]:
    """What this process does of a list of work, which all of them hold: every `size`-th item."""
    return list(items)[rank() :: size()]


def gathered(mine: Sequence[T]) -> list[T]:
    """The results for all items from what every process has for its `share`, in the order of the list."""
    if size() == 1:
        return list(mine)
    everybody: list[list[T]] = [[] for _ in range(size())]
    distributed.all_gather_object(everybody, list(mine))
    return [results[i] for i in range(max(map(len, everybody))) for results in everybody if i < len(results)]


def add_up(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes, in place. What one has not computed it leaves at zero."""
    if size() == 1:
        return
    for tensor in tensors:
        moved = tensor.to(device())
        distributed.all_reduce(moved)
        if moved is not tensor:
            tensor.copy_(moved)


def main_first(work: Callable[[], T]) -> T:
    """Do something in the main process, then, when it is done there, in the others."""
    if is_main():
        result = work()
    if size() > 1:
        distributed.barrier()
    if not is_main():
        result = work()
    return result


def _supervise(processes: int, module: str, *arguments: str) -> int:
    """What `launch` starts: torchrun's agent, which ends all processes where one fails; the exit code."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process has spoken
    config = LaunchConfig(
        1, 1, processes, run_id="riskpo_study", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_supervise(int(sys.argv[1]), *sys.argv[2:]))
