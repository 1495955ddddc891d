"""The process at the other end of `worker_pool`: reads jobs from its standard input, one JSON line each.

Run as ``python -m riskpo_study.verify.worker MODULE:FACTORY SECONDS MEMORY``. ``FACTORY()`` does the expensive imports
and returns the function that is called with every job; its result goes back as a JSON line.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

GRACE = 1.0  # seconds after the limit at which the kernel ends a worker whose parent is gone
LONGEST_DETAIL = 200  # characters of an error that are sent


def main(target: str, seconds: float, memory: int) -> None:
    """Serve until the standard input ends, as it does when the parent dies, however it dies."""
    module, _, factory = target.partition(":")
    function = getattr(importlib.import_module(module), factory)()
    jobs, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # whatever a library prints stays out of the protocol and fills no pipe
        os.dup2(nothing, descriptor)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, memory)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _send(results, b"{}")  # ready
    for line in jobs:
        # A parent that lives kills at the limit. If it does not, SIGALRM does, also inside a long call into C.
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
        outcome = _outcome(function, line)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(results, outcome)


def _outcome(function: Any, line: bytes) -> bytes:
    try:
        return json.dumps({"status": "done", "value": function(json.loads(line))}).encode()
    except MemoryError:
        return b'{"status": "memory"}'
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"[:LONGEST_DETAIL]
        return json.dumps({"status": "error", "detail": detail}).encode()


def _limit(kind: int, amount: int) -> None:
    """At most ``amount``; where the system knows no such limit, as macOS for memory, there is none."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (amount, amount))


def _send(results: BinaryIO, message: bytes) -> None:
    results.write(message + b"\n")
    results.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
