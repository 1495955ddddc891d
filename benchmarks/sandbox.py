"""Programs judged in a second, and the CPU time of each, with every isolation that works on this machine.

Small programs: a function with eight cases, called in one process, and a program that reads standard input. The first
row is what a fresh interpreter for every program costs, with no isolation at all. CPU time counts this process, the
workers and the candidates, so that a busy machine changes it less than the rate.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from report import machine, publish, render

from riskpo_study.errors import RunError
from riskpo_study.verify.sandbox import Case, Isolation, Limits, Program, Sandbox

FUNCTION = Program(
    "def f(xs):\n    return [x * x for x in xs if x % 2]",
    [Case([[1, 2, 3, i]], [1, 9, *([i * i] if i % 2 else [])]) for i in range(8)],
    "f",
)
STDIN = Program("print(sum(map(int, input().split())))", [Case("1 2 3", "6")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=500, help="programs in a round (default: 500)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="workers of a sandbox (default: 2)")
    parser.add_argument("--publish", action="store_true", help="write results/sandbox.json and README.md")
    options = parser.parse_args()

    result = {
        "machine": machine(),
        "settings": f"Best of {options.rounds} rounds of {options.programs} programs, {options.workers} workers.",
        "cells": measured(options.programs, options.rounds, options.workers),
    }
    print(render(result))
    if options.publish:
        publish("sandbox", result)


def measured(programs: int, rounds: int, workers: int) -> list[Mapping[str, object]]:
    """A row for each isolation."""
    rows = [row("a fresh interpreter, no sandbox", fresh_interpreters, programs // 10, rounds)]
    for namespaces in ("none", "unshare", "bubblewrap"):
        if namespaces == "bubblewrap" and not shutil.which("bwrap"):
            continue
        isolation = Isolation.strongest(namespaces)
        name = {"none": "no namespaces"}.get(namespaces, namespaces)
        try:
            Sandbox(Limits(), workers, isolation).close()
        except RunError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        layers = [layer for layer in ("seccomp", "landlock", "own_user") if getattr(isolation, layer)]

        def judge(program: Program, n: int, isolation: Isolation = isolation) -> float:
            with Sandbox(Limits(), workers, isolation) as sandbox:
                start = time.perf_counter()
                outcomes = sandbox.judge([program] * n)
                seconds = time.perf_counter() - start
            assert {outcome.status for outcome in outcomes} == {"passed"}, outcomes[0]
            return seconds

        rows.append(row(" + ".join([name, *layers]).replace("_", " "), judge, programs, rounds))
    return rows


def row(name: str, judge: Callable[[Program, int], float], n: int, rounds: int) -> Mapping[str, object]:
    cells: dict[str, object] = {"isolation": name}
    for style, program in (("function", FUNCTION), ("stdin", STDIN)):
        starting = cpu_seconds()
        judge(program, 1)
        starting = cpu_seconds() - starting
        seconds, cpu = [], []
        for _ in range(rounds):
            before = cpu_seconds()
            seconds.append(judge(program, n))
            cpu.append(cpu_seconds() - before - starting)
        cells[f"{style}: programs/s"] = f"{n / min(seconds):,.0f}"
        cells[f"{style}: CPU ms"] = f"{1e3 * min(cpu) / n:.1f}"
    return cells


def fresh_interpreters(program: Program, n: int) -> float:
    """The program alone, one after the other, without cases."""
    start = time.perf_counter()
    for _ in range(n):
        subprocess.run([sys.executable, "-I", "-S", "-c", program.source], input=b"1", check=True, capture_output=True)
    return time.perf_counter() - start


def cpu_seconds() -> float:
    """User and system time of this process and of the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
