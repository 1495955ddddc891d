"""Worker processes for jobs that may hang, crash or eat memory, with a hard limit of time on each job.

Workers are fresh interpreters that import the job's function and nothing of the parent's, no torch either. Parent and
worker exchange JSON lines through pipes. The parent reads the clock: a worker that overruns is killed and replaced,
the others work on. Workers are in sessions of their own, so that Ctrl-C and Jupyter's interrupt reach the parent alone,
and they end with it, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from riskpo_study.errors import ConfigError, RunError

__all__ = ["Outcome", "WorkerPool"]

START_SECONDS = 120.0  # imports from a cold disk on a busy machine take long
LONGEST_COMPLAINT = 2000  # characters of what a worker that did not start wrote


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    ``value`` is what the function returned when ``status`` is "done". Otherwise the job ran into the limit of time or
    of memory, raised an error, or its worker died, twice (a segmentation fault, say); ``detail`` says more.
    """

    status: Literal["done", "limit", "memory", "error", "died"]
    value: Any = None
    detail: str = ""


class WorkerPool:
    """Calls the function that ``target`` makes, "module:factory", with jobs in ``workers`` processes.

    Jobs and results are what JSON can hold. Workers start with the first job. A pool may be used from any thread;
    calls of `map` take turns. In a forked child it starts workers of its own.

    Args:
        seconds: limit of wall-clock time for one job; starting a worker does not count.
        memory: bytes of address space of a worker (where the system can limit it).
        jobs_per_worker: jobs after which a worker is replaced, so that what its libraries cache stays bounded.

    Raises ConfigError for a setting out of range. `map` raises RunError when a worker cannot start.
    """

    def __init__(
        self, target: str, workers: int, seconds: float, memory: int = 2**30, jobs_per_worker: int = 10_000
    ) -> None:
        for name, value in [
            ("workers", workers), ("seconds", seconds), ("memory", memory), ("jobs_per_worker", jobs_per_worker),
        ]:  # fmt: skip
            if not value > 0:
                raise ConfigError(f"{name} = {value} of a worker pool must be positive.")
        self.workers, self.seconds, self.jobs_per_worker = workers, seconds, jobs_per_worker
        self._command = [sys.executable, "-P", "-m", "riskpo_study.verify.worker", target, str(seconds), str(memory)]
        self._lock = threading.Lock()
        self._closed = False
        self._adopt([])

    def map(self, jobs: Sequence[Any]) -> list[Outcome]:
        """The outcome of every job, in the order of the jobs. An interrupt leaves no job running."""
        with self._lock, selectors.DefaultSelector() as selector:
            if self._closed:
                raise RunError("The worker pool is closed: make a new one.")
            if self._owner != os.getpid():  # in a forked child these workers are the parent's
                self._finalizer.detach()
                self._adopt([])
            try:
                return self._run([json.dumps(job).encode() + b"\n" for job in jobs], selector)
            except BaseException:
                _kill_all(self._crew, self._owner)
                raise

    def close(self) -> None:
        """Kill the workers; the pool cannot be used afterwards."""
        with self._lock:
            self._closed = True
            self._finalizer()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _adopt(self, crew: list[_Worker]) -> None:
        self._crew, self._owner = crew, os.getpid()
        # Runs at `close`, when the pool is garbage, and when the interpreter exits.
        self._finalizer = weakref.finalize(self, _kill_all, self._crew, self._owner)

    def _run(self, jobs: list[bytes], selector: selectors.BaseSelector) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        waiting, tried_again = deque(range(len(jobs))), set[int]()
        for worker in self._crew:
            worker.join(selector)
        while len(outcomes) < len(jobs):
            while len(self._crew) < min(self.workers, len(jobs) - len(outcomes)):
                self._crew.append(_Worker(self._command))
                self._crew[-1].join(selector)
            for worker in self._crew:
                if worker.idle and waiting:
                    worker.begin(waiting[0], jobs[waiting.popleft()], self.seconds)
            patience = min(worker.deadline for worker in self._crew) - time.monotonic()
            for key, _ in selector.select(max(patience, 0)):
                key.data.exchange()
            now = time.monotonic()
            for worker in list(self._crew):
                job = worker.job
                if worker.message is not None:
                    outcome = worker.finish()
                    if job is not None:
                        outcomes[job] = outcome
                        if outcome.status == "memory" or worker.jobs == self.jobs_per_worker:
                            self._dismiss(worker)
                elif worker.ended or now >= worker.deadline:
                    self._dismiss(worker)
                    if not worker.ready:
                        raise RunError(f"A worker of the pool did not start: {worker.complaint}")
                    if job is None:  # killed from outside while it had nothing to do
                        continue
                    if now >= worker.deadline:
                        outcomes[job] = Outcome("limit", detail=f"took longer than {self.seconds:g} s")
                    elif job in tried_again:
                        outcomes[job] = Outcome("died", detail=f"exit status {worker.process.returncode}")
                    else:  # something else on the machine may have been to blame
                        tried_again.add(job)
                        waiting.appendleft(job)
        return [outcomes[number] for number in range(len(jobs))]

    def _dismiss(self, worker: _Worker) -> None:
        self._crew.remove(worker)
        worker.kill()


class _Worker:
    """A worker process as its parent sees it: starting, idle, or busy with a job."""

    def __init__(self, command: list[str]) -> None:
        # The worker finds what the parent would import. Its hash seed is fixed, so that a library that walks through a
        # set does so in the same order in every worker.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self._pipes = self.process.stdin, self.process.stdout, self.process.stderr
        for pipe in self._pipes[:2]:
            os.set_blocking(pipe.fileno(), False)
        self.ready = self.ended = False
        self.job: int | None = None
        self.jobs = 0
        self.deadline = time.monotonic() + START_SECONDS
        self.message: dict[str, Any] | None = None
        self.complaint = ""
        self._selector: selectors.BaseSelector | None = None
        self._unsent, self._received = b"", bytearray()

    @property
    def idle(self) -> bool:
        return self.ready and self.job is None and not self.ended

    def join(self, selector: selectors.BaseSelector) -> None:
        """Be waited for by this call of `map`."""
        self._selector = selector
        selector.register(self._pipes[1], selectors.EVENT_READ, self)

    def begin(self, job: int, line: bytes, seconds: float) -> None:
        """Take a job; it is sent when the pipe has room."""
        assert self._selector
        self.job, self.deadline = job, time.monotonic() + seconds
        self._unsent = line
        self._selector.register(self._pipes[0], selectors.EVENT_WRITE, self)

    def exchange(self) -> None:
        """Send and receive what is possible without waiting."""
        assert self._selector
        try:
            if self._unsent:
                self._unsent = self._unsent[os.write(self._pipes[0].fileno(), self._unsent) :]
                if not self._unsent:
                    self._selector.unregister(self._pipes[0])
            received = os.read(self._pipes[1].fileno(), 2**16)
        except BlockingIOError:
            return
        except BrokenPipeError:
            received = b""
        self.ended = not received
        self._received += received
        if self._received.endswith(b"\n"):
            self.message = json.loads(self._received)
            self._received.clear()

    def finish(self) -> Outcome:
        """Take the answer to the job, or the report that the worker is ready; the worker is idle then."""
        assert self.message is not None
        outcome = Outcome(**(self.message if self.ready else {"status": "done"}))
        self.jobs += self.job is not None
        self.ready, self.job, self.message, self.deadline = True, None, None, math.inf
        return outcome

    def kill(self) -> None:
        """End the process, at once, with whatever it has started."""
        for pipe in self._pipes[:2]:
            with contextlib.suppress(KeyError):  # not waited for at the moment
                if self._selector:
                    self._selector.unregister(pipe)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not self.ready:
            self.complaint = self._pipes[2].read().decode(errors="replace").strip()[-LONGEST_COMPLAINT:]
        for pipe in self._pipes:
            pipe.close()


def _kill_all(crew: list[_Worker], owner: int) -> None:
    if owner == os.getpid():  # a forked child leaves its parent's workers alone
        while crew:
            crew.pop().kill()
