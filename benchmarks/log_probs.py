"""Peak memory and time of log-probabilities and entropies of real shapes, against the plain computation.

One response of 3 072 tokens from a random head of hidden size 1 536 and a vocabulary of 151 936 (Qwen2.5-1.5B), forward
and backward, in float32. Each contender runs in a process of its own; what is measured is the peak memory beyond
hidden states and head, and without their gradients, which stay. Both must give the same numbers. Runs on a GPU where
there is one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from report import machine, publish, render
from torch import Tensor

from riskpo_study.log_probs import token_scores

Scorer = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """All logits at once; the entropies without gradient, as trainers take them."""
    log_p = (hidden @ weight.T).log_softmax(1)
    with torch.no_grad():
        entropies = -(log_p.exp() * log_p).sum(1)
    return log_p.gather(1, targets[:, None]).squeeze(1), entropies


CONTENDERS: dict[str, Scorer] = {"all logits at once": plain, "`log_probs.token_scores`": token_scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=3072, help="of the response (default: 3072)")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="(default: 151936)")
    parser.add_argument("--hidden", type=int, default=1536, help="hidden size (default: 1536)")
    parser.add_argument("--publish", action="store_true", help="write results/log_probs.json and README.md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = options.tokens, options.vocabulary, options.hidden
    if options.contender:
        name, path = options.contender.split("=")
        torch.save(measured(CONTENDERS[name], *shape), path)
        return

    description = machine()
    with TemporaryDirectory() as folder:
        results = {name: in_its_own_process(name, Path(folder) / "result.pt") for name in CONTENDERS}
    expected, *others = results.values()
    for result in others:
        for ours, theirs in zip(result["numbers"], expected["numbers"], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    cells = [
        {
            "": name,
            "peak memory (GiB)": f"{result['memory']:.2f}",
            "without the gradients": f"{result['extra']:.2f}",
            "its share": f"1 / {expected['extra'] / result['extra']:.1f}",
            "seconds": f"{result['seconds']:.3g}",
        }
        for name, result in results.items()
    ]
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    result = {
        "machine": description,
        "settings": f"{shape[0]:,} tokens, vocabulary of {shape[1]:,}, hidden size {shape[2]:,}, forward and "
        f"backward in float32; {place}. Numbers and gradients agree to 1e-5.",
        "cells": cells,
    }
    print(render(result))
    if options.publish:
        publish("log_probs", result)


def in_its_own_process(name: str, path: Path) -> dict[str, object]:
    subprocess.run([sys.executable, *sys.argv, "--contender", f"{name}={path}"], check=True)
    result: dict[str, object] = torch.load(path)
    return result


def measured(score: Scorer, tokens: int, vocabulary: int, size: int) -> dict[str, object]:
    """Peak memory in GiB beyond the inputs, seconds, and log-probabilities, entropies and the gradient."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, size, generator=generator).to(device).requires_grad_()
    weight = (0.05 * torch.randn(vocabulary, size, generator=generator)).to(device).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator).to(device)
    warm = slice(0, 2)  # libraries take memory of their own at the first call
    score(hidden[warm], weight[:64], targets[warm] % 64)[0].sum().backward()
    hidden.grad = weight.grad = None
    peak, start = Peak(device), time.perf_counter()
    log_probs, entropies = score(hidden, weight, targets)
    log_probs.sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    assert hidden.grad is not None and weight.grad is not None
    norms = weight.grad.norm(dim=1)[::1000]
    numbers = [part.detach().cpu() for part in (log_probs, entropies, hidden.grad[::100], norms)]
    memory = peak.bytes() / 2**30
    gradients = (hidden.grad.nbytes + weight.grad.nbytes) / 2**30
    return {"memory": memory, "extra": memory - gradients, "seconds": seconds, "numbers": numbers}


class Peak:
    """Bytes used at most since it was made, beyond those in use then: of tensors on a GPU, else of this process."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest mark falls to the present use
            self.start = self._status("VmRSS")

    def bytes(self) -> int:
        used = torch.cuda.max_memory_allocated() if self.device == "cuda" else self._status("VmHWM")
        return used - self.start

    def _status(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


if __name__ == "__main__":
    main()
