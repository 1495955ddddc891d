"""What the workers of `test_worker_pool` run; a factory per kind of job."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def chores() -> Callable[[dict[str, Any]], Any]:
    """Does what the job says: its keys are tried in turn, ``return`` comes last."""

    def work(job: dict[str, Any]) -> Any:
        if "note" in job:
            with Path(job["note"]).open("a") as file:
                file.write(f"{os.getpid()}\n")
        while "meet" in job and len(Path(job["note"]).read_text().split()) < job["meet"]:
            time.sleep(0.01)
        if "print" in job:
            print(job["print"], flush=True)
            os.write(1, job["print"].encode())
            os.write(2, job["print"].encode())
        if "sleep" in job:
            time.sleep(job["sleep"])
        match job.get("disaster"):
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "power":
                return 9 ** (9**9)  # one call into C, which no signal handler of Python interrupts
            case "memory":
                return len(bytearray(2**40))
            case "recursion":
                return work(job)
            case "error":
                raise ValueError("no such answer")
            case "unserializable":
                return object()
        if "modules" in job:
            return [name for name in job["modules"] if name in sys.modules]
        return {"pid": os.getpid()} if "pid" in job else job.get("return")

    return work


def broken() -> Callable[[Any], Any]:
    raise ImportError("a package of the worker is missing")
