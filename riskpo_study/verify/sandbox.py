"""Run untrusted Python programs and judge what they answer; `docs/sandbox.md` says what this promises.

Workers, small Python processes without this one's environment, memory or files, wait for requests and fork a
candidate for each (`sandbox_worker/`). A candidate learns the program and the inputs, never the expected answers, and
returns bytes: this process alone compares. So a candidate can lie about nothing but its own output.
"""

from __future__ import annotations

import json
import marshal
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from operator import eq
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from signal import SIGKILL, SIGXCPU, Signals
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self

from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.verify.sandbox_worker import kernel

__all__ = ["Case", "Isolation", "Limits", "Outcome", "Program", "Sandbox", "same_output", "same_value"]

Namespaces = Literal["bubblewrap", "unshare", "none"]
Status = Literal["passed", "wrong", "error", "limit"]

CHUNK = 1 << 16
GRACE = 10.0  # seconds in which a worker must have ended a candidate before it is replaced
START = 60.0  # seconds in which it must have started, from a cold disk on a busy machine
ATTEMPTS = 2  # a program whose worker dies twice is held to be the reason
USERS = range(61184, 65520)  # user ids for candidates, those that systemd sets aside for the purpose
LONGEST_MESSAGE = 200
LONGEST_SPELLING = 64  # JSON texts of equal values differ in length by less than this: 1e+308 and its 309 digits by 52
SIGNALS = {signal.value: signal.name for signal in Signals}  # those in real time have no names

_START = "import sys; sys.path.append({folder!r}); from {package} import loop; loop.run()"


@dataclass(frozen=True)
class Limits:
    """What one candidate process may use. CPU and wall time are per case."""

    cpu_seconds: int = 5
    wall_seconds: float = 10.0
    memory_bytes: int = 512 << 20
    """Address space, which includes about 30 MB of the interpreter."""
    processes: int = 8
    """Threads, and processes where no system call filter forbids them."""
    open_files: int = 32
    output_bytes: int = 1 << 20
    """Standard output, standard error and returned values together."""
    temporary_bytes: int = 16 << 20
    """Size of the temporary folder, and of a file in it."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ConfigError(f"Limits: {limit.name} = {getattr(self, limit.name)} must be positive.")
        if self.open_files > kernel.OPEN_FILES:
            raise ConfigError(f"Limits: open_files = {self.open_files} must be at most {kernel.OPEN_FILES}.")


@dataclass(frozen=True)
class Case:
    """A test: standard input and the expected output, or a list of arguments and the expected value of JSON types."""

    given: str | Sequence[Any]
    expected: Any
    alternatives: Sequence[Any] = ()
    """Values that count as well as the expected one."""


@dataclass(frozen=True)
class Program:
    """A program with its tests.

    Without ``entry_point`` it is run once for each case and reads standard input. With one it is loaded once,
    and the function, or method of a class ``Solution``, of that name is called for each case.
    """

    source: str
    cases: Sequence[Case]
    entry_point: str | None = None

    def __post_init__(self) -> None:
        kind = list if self.entry_point else str
        for i, case in enumerate(self.cases):
            if not isinstance(case.given, kind if kind is str else (list, tuple)):
                style = f"arguments of {self.entry_point}" if self.entry_point else "standard input"
                raise DataError(f"Case {i}: {style} must be a {kind.__name__}, not {type(case.given).__name__}.")
            for value in (case.expected, *case.alternatives):
                if not (_can_be_returned(value) if self.entry_point else isinstance(value, str)):
                    returned = f"what {self.entry_point} can return, of JSON's types and not NaN"
                    wanted = returned if self.entry_point else "a str"
                    raise DataError(
                        f"Case {i}: an expected answer must be {wanted}, not {_shown(value)}: correct it or leave out "
                        "the case."
                    )


@dataclass(frozen=True)
class Outcome:
    """``passed`` has a value for each case; those after the first that failed are not run and count as failed."""

    status: Status
    passed: tuple[bool, ...]
    message: str
    """Why not; of at most 200 printable characters, chosen by the program where it raised."""


@dataclass(frozen=True)
class Isolation:
    """What keeps candidates in, beside the limits."""

    namespaces: Namespaces
    """Who makes the namespaces and the private root; with "none" host files may be read as far as ``landlock`` lets."""
    seccomp: bool
    """Only permitted system calls: no processes, programs, sockets or tracing."""
    landlock: bool
    """Only the files of Python's library, read-only; needed where there is no private root."""
    own_user: bool
    """Each worker's candidates have a user id of their own; needs root."""

    @classmethod
    def strongest(cls, namespaces: Namespaces) -> Self:
        """All that this kernel and user allow beside these namespaces."""
        landlock = namespaces == "none" and kernel.landlock_version() > 0
        return cls(namespaces, kernel.has_seccomp(), landlock, os.geteuid() == 0)


class Sandbox:
    """A pool of ``workers`` processes that judge programs within ``limits``; close it, or use it in a ``with``.

    ``isolation``: "auto" takes the strongest that works here, and none that would let a program signal this process.
    ``preload`` names modules of the standard library that most programs import: loaded once, they make the start of
    those programs faster, of all others slower. Raises RunError where no isolation, or not the one asked for, works.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int,
        isolation: Isolation | Literal["auto"] = "auto",
        preload: Sequence[str] = (),
    ) -> None:
        if sys.platform != "linux":
            raise RunError(f"The sandbox needs Linux, not {sys.platform}: run the study in a Linux container.")
        if workers < 1:
            raise ConfigError(f"workers = {workers} must be at least 1.")
        self.limits = limits
        self.preload = tuple(preload)
        self._lock = Lock()
        self._resources = ExitStack()
        self._finalizer = weakref.finalize(self, self._resources.close)
        self._workers: list[_Worker] = []
        refusals = []
        for candidate in [isolation] if isinstance(isolation, Isolation) else _automatic():
            self.isolation = candidate
            try:
                self._start(workers)
                return
            except RunError as error:
                refusals.append(f"{candidate.namespaces}: {error}")
                self._stop()
        raise RunError(
            f"No isolation for generated programs works here ({'; '.join(refusals) or 'none is safe'}). Allow user "
            "namespaces (sysctl user.max_user_namespaces), install bubblewrap, or run as root in a container."
        )

    def describe(self) -> dict[str, Any]:
        """What is in force, for a run's manifest."""
        return {
            "isolation": asdict(self.isolation),
            "limits": asdict(self.limits),
            "workers": len(self._workers),
            "python": platform.python_version(),
            "kernel": platform.release(),
        }

    def judge(self, programs: Sequence[Program]) -> list[Outcome]:
        """An outcome for each program, in their order. May be called from any thread; calls take turns."""
        trials = [_Trial(program, self.limits) for program in programs]
        with self._lock:
            if not self._workers:
                raise RunError("The sandbox is closed: make a new one.")
            self._run(deque(trial for trial in trials if trial.program.cases))
        return [trial.outcome() for trial in trials]

    def close(self) -> None:
        """End the workers and whatever runs in them."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self, workers: int) -> None:
        users = _reserve_users(workers, self._resources) if self.isolation.own_user else [None] * workers
        self._workers = [self._worker(user) for user in users]
        self._resources.callback(_close_all, self._workers)
        for worker in self._workers:
            worker.wait_until_ready()
        (outcome,) = self.judge([Program("print(input())", [Case("ready", "ready")])])
        if outcome.status != "passed":
            raise RunError(f"a program that should pass does not: {outcome.status}, {outcome.message!r}")

    def _worker(self, user: int | None) -> _Worker:
        return _Worker(self.isolation, self.limits, self.preload, user)

    def _stop(self) -> None:
        self._resources.close()
        self._workers = []

    def _run(self, waiting: deque[_Trial]) -> None:
        with DefaultSelector() as selector:
            try:
                while True:
                    for i, worker in enumerate(self._workers):
                        if worker.dead:
                            worker.close()
                            worker = self._workers[i] = self._worker(worker.user)
                            worker.wait_until_ready()
                        if worker.trial is None and waiting:
                            worker.begin(waiting.popleft(), selector)
                    busy = [worker for worker in self._workers if worker.trial is not None]
                    if not busy:
                        return
                    for key, _ in selector.select(max(0.0, min(w.deadline for w in busy) - time.monotonic())):
                        key.data(key.fd, selector)
                    for worker in busy:
                        if (again := worker.settle(selector)) is not None:
                            waiting.appendleft(again)
            except BaseException:
                for worker in self._workers:
                    worker.abandon()
                raise


class _Trial:
    """A program on its way to an outcome."""

    def __init__(self, program: Program, limits: Limits) -> None:
        self.program = program
        self.limits = limits
        self.passed = 0
        self.failure: tuple[Status, str] | None = None
        self.deaths = 0
        self.begin()

    def begin(self) -> None:
        """Before each process that runs the program."""
        self.answer, self.errors, self.size = bytearray(), bytearray(), 0

    @property
    def request(self) -> bytes:
        """What the process is told: of a program that reads standard input the next case, of a function all."""
        program = self.program
        cases = program.cases if program.entry_point else program.cases[self.passed : self.passed + 1]
        inputs = [case.given for case in cases]
        try:
            return marshal.dumps({"source": program.source, "entry": program.entry_point, "inputs": inputs})
        except ValueError as error:
            raise DataError(
                f"A case has other arguments than JSON's types: {str(inputs)[:LONGEST_MESSAGE]}."
            ) from error

    @property
    def decided(self) -> bool:
        return self.failure is not None or self.passed == len(self.program.cases)

    def fail(self, status: Status, message: str) -> None:
        """The first failure counts."""
        if not self.decided:
            printable = "".join(c if c.isprintable() else " " for c in message[:LONGEST_MESSAGE])
            self.failure = status, printable.strip()

    def receive(self, buffer: bytearray, data: bytes) -> bool:
        """Take in output; whether a further case has passed."""
        if self.decided:
            return False  # until the process is dead
        self.size += len(data)
        buffer += data
        if self.size > self.limits.output_bytes:
            self.fail("limit", f"more than {self.limits.output_bytes} bytes of output")
        return (
            self.program.entry_point is not None and buffer is self.answer and b"\n" in data and self._compare_lines()
        )

    def _compare_lines(self) -> bool:
        before = self.passed
        *lines, rest = self.answer.split(b"\n")
        self.answer[:] = rest
        for line in lines:
            if self.decided:
                break
            if _among(same_value, bytes(line), self.program.cases[self.passed]):
                self.passed += 1
            else:
                self.fail("wrong", f"case {self.passed}: {line[:LONGEST_MESSAGE].decode(errors='replace')}")
        return self.passed > before

    def end(self, status: int, cpu_seconds: float) -> None:
        """The process has ended: by its exit status or, negative, a signal."""
        if self.decided:
            return
        allowed = self.limits.cpu_seconds * (len(self.program.cases) if self.program.entry_point else 1)
        # The kernel counts CPU time in ticks, hence roughly.
        if status == -SIGXCPU or (status == -SIGKILL and cpu_seconds >= 0.5 * allowed):
            self.fail("limit", f"more than {self.limits.cpu_seconds} s of CPU time")
        elif status < 0:
            self.fail("error", f"ended by {SIGNALS.get(-status, f'signal {-status}')}")
        elif status > 0:
            last = self.errors.decode(errors="replace").strip().splitlines()[-1:]
            self.fail("error", last[0] if last else f"exit status {status}")
        elif self.program.entry_point:
            self.fail("error", "ended before it had answered")
        elif _among(same_output, output := self.answer.decode(errors="replace"), self.program.cases[self.passed]):
            self.passed += 1
        else:
            self.fail("wrong", f"case {self.passed}: {output}")

    def outcome(self) -> Outcome:
        total = len(self.program.cases)
        status, message = self.failure or ("passed", "")
        return Outcome(status, tuple(i < self.passed for i in range(total)), message)


class _Worker:
    """A worker process as this one sees it: idle, or with a trial."""

    def __init__(self, isolation: Isolation, limits: Limits, preload: Sequence[str], user: int | None) -> None:
        self.user = user
        self.limits = limits
        self.trial: _Trial | None = None
        self.deadline = 0.0
        self.killed = self.dead = False
        self.report: dict[str, Any] | None = None
        self.pipes: dict[int, bytearray] = {}  # read ends, and where what they bring goes
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = {"isolation": asdict(isolation), "limits": asdict(limits), "preload": preload, "user": user}
        with theirs:
            self.process = subprocess.Popen(
                _command(isolation, limits, theirs.fileno(), json.dumps(options)),
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for the parent
            )

    def wait_until_ready(self) -> None:
        """RunError with what it says where it does not come up."""
        self.control.settimeout(START)
        try:
            message = self.control.recv(CHUNK)
        except OSError as error:
            raise RunError(f"the worker did not start: {error}") from error
        finally:
            self.control.settimeout(None)
        assert self.process.stderr
        if not message:
            raise RunError(f"the worker did not start: {self.process.stderr.read(CHUNK).decode(errors='replace')}")
        if "error" in (reply := json.loads(message)):
            raise RunError(reply["error"])

    def begin(self, trial: _Trial, selector: DefaultSelector) -> None:
        trial.begin()
        self.trial, self.report, self.killed = trial, None, False
        told, request = trial.request, os.memfd_create("request")
        answer, answer_end = os.pipe()
        errors, errors_end = os.pipe()
        try:
            os.write(request, told)
            os.lseek(request, 0, os.SEEK_SET)
            for descriptor, buffer in ((answer, trial.answer), (errors, trial.errors)):
                self.pipes[descriptor] = buffer
                os.set_blocking(descriptor, False)
                selector.register(descriptor, EVENT_READ, self._read)
            selector.register(self.control, EVENT_READ, self._read_report)
            socket.send_fds(self.control, [b"r"], [request, answer_end, errors_end])
        except ConnectionError:
            self.dead = True
        finally:
            for descriptor in (request, answer_end, errors_end):
                os.close(descriptor)
        self.deadline = time.monotonic() + self.limits.wall_seconds

    def _read(self, descriptor: int, selector: DefaultSelector) -> bool:
        """Hand on what there is to read; whether there may be more."""
        assert self.trial
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            selector.unregister(descriptor)
            self.pipes.pop(descriptor)
            os.close(descriptor)
            return False
        if self.trial.receive(self.pipes[descriptor], data) and not self.killed:
            self.deadline = time.monotonic() + self.limits.wall_seconds
        return True

    def _read_report(self, _: int, __: DefaultSelector) -> None:
        try:
            message = self.control.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        self.report = json.loads(message) if message else None
        self.dead = not message

    def settle(self, selector: DefaultSelector) -> _Trial | None:
        """After events: end what is over, kill what is decided or has had its time.

        Returns a trial that must be run again.
        """
        trial = self.trial
        assert trial
        late = time.monotonic() >= self.deadline
        if late:
            # Or only this process is, which may have compared another program's output meanwhile.
            self._read_report(self.control.fileno(), selector)
            self._drain(trial, selector)
            late = time.monotonic() >= self.deadline
        if self.report is None and not self.dead:
            if late and self.killed:
                self.dead = True  # it does not obey
            elif late or (trial.decided and not self.killed):
                trial.fail("limit", f"more than {self.limits.wall_seconds} s")
                self._kill()
            if not self.dead:
                return None
        self._finish(trial, selector)
        return None if trial.decided else trial

    def _kill(self) -> None:
        self.killed, self.deadline = True, time.monotonic() + GRACE
        with suppress(OSError):
            self.control.send(b"k")

    def _drain(self, trial: _Trial, selector: DefaultSelector) -> None:
        for descriptor in list(self.pipes):
            while not trial.decided and self._read(descriptor, selector):
                pass

    def _finish(self, trial: _Trial, selector: DefaultSelector) -> None:
        self._drain(trial, selector)
        for descriptor in self.pipes:
            selector.unregister(descriptor)
        selector.unregister(self.control)
        if self.report is not None:
            trial.end(int(self.report["status"]), self.report["cpu_seconds"])
            self.dead = not self.report["clean"]
        else:
            trial.deaths += 1
            if trial.deaths == ATTEMPTS:
                trial.fail("error", "the sandbox's worker died")
        self.abandon()

    def abandon(self) -> None:
        """Forget the trial; a worker that still runs it cannot be used again."""
        if self.trial is not None and self.report is None:
            self.dead = True
        self.trial = None
        for descriptor in self.pipes:
            os.close(descriptor)
        self.pipes.clear()

    def close(self) -> None:
        """The worker kills its candidate and ends when the socket closes."""
        self.control.close()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def _automatic() -> list[Isolation]:
    found = [Isolation.strongest("bubblewrap")] if shutil.which("bwrap") else []
    found.append(Isolation.strongest("unshare"))
    last = Isolation.strongest("none")
    return [*found, last] if last.own_user or (last.seccomp and last.landlock) else found


def _close_all(workers: Iterable[_Worker]) -> None:
    for worker in workers:
        worker.control.close()
    for worker in workers:
        worker.close()


def _reserve_users(n: int, resources: ExitStack) -> list[int | None]:
    """User ids that no other sandbox of this machine uses: each is held by a socket's name, freed with the process."""
    found: list[int | None] = []
    for user in USERS:
        if len(found) == n:
            break
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0riskpo_study.sandbox.{user}")
        except OSError:
            holder.close()
            continue
        resources.enter_context(holder)
        found.append(user)
    if len(found) < n:
        raise RunError(f"only {len(found)} of {n} user ids are free")
    return found


def _environment() -> dict[str, str]:
    """Sets iterate in the same order in every run; what the loader needs is handed on; nothing else."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": "0", **kept}


def _command(isolation: Isolation, limits: Limits, control: int, options: str) -> list[str]:
    python = os.path.realpath(sys.executable)
    package = Path(kernel.__file__).resolve().parent
    folder = package.parent if isolation.namespaces != "bubblewrap" else Path("/sandbox")
    start = _START.format(folder=str(folder), package=package.name)
    command = [python, "-s", "-S", "-P", "-B", "-c", start, str(control), options]
    if isolation.namespaces != "bubblewrap":
        return command
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise RunError("bwrap is not on the PATH: install bubblewrap")
    wrapped = [bubblewrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
    wrapped += ["--cap-drop", "ALL"] if isolation.own_user else ["--unshare-user"]
    for capability in ("SETUID", "SETGID", "KILL", "DAC_OVERRIDE") if isolation.own_user else ():
        wrapped += ["--cap-add", f"CAP_{capability}"]
    for path in kernel.readable():
        for parent in reversed(Path(path).parents[:-1]):
            wrapped += ["--perms", "0755", "--dir", str(parent)]  # not as closed as the host's may be
        link = Path(path).is_symlink()
        wrapped += ["--symlink", str(Path(path).readlink()), path] if link else ["--ro-bind", path, path]
    wrapped += ["--ro-bind", python, python, "--ro-bind", str(package), f"{folder}/{package.name}"]
    for device in kernel.DEVICES:
        wrapped += ["--dev-bind", device, device]
    wrapped += ["--perms", "1777", "--size", str(limits.temporary_bytes), "--tmpfs", kernel.TEMPORARY]
    return [*wrapped, "--chdir", kernel.TEMPORARY, "--remount-ro", "/", "--", *command]


def _among(same: Callable[[Any, Any], bool], answer: str | bytes, case: Case) -> bool:
    return any(same(answer, value) for value in (case.expected, *case.alternatives))


def _can_be_returned(value: Any) -> bool:
    """Whether some answer is the `same_value`."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return "NaN" not in text or same_value(text.encode(), value)  # it may be a word in a text


def _shown(value: Any) -> str:
    try:
        return repr(value)[:LONGEST_MESSAGE]
    except (ValueError, RecursionError):
        return f"one of type {type(value).__name__} that is too large to print"


def same_output(output: str, expected: str) -> bool:
    """LiveCodeBench's comparison: equal lines but for the space around them, or lines of equal decimal numbers."""
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):
        return False  # before a large output is cut into lines
    pairs = zip(output.split("\n"), expected.split("\n"), strict=True)
    return all(ours.strip() == theirs.strip() or _same_numbers(ours, theirs) for ours, theirs in pairs)


def _same_numbers(output: str, expected: str) -> bool:
    """Whether lines are of equal numbers. No more words of a long output are cut off than are expected, and one."""
    theirs = expected.split()
    ours = output.split(maxsplit=len(theirs))
    try:
        return len(ours) == len(theirs) and all(map(eq, map(Decimal, ours), map(Decimal, theirs)))
    except InvalidOperation:
        return False


def same_value(answer: bytes, expected: Any) -> bool:
    """Whether the JSON text is the expected value, as Python compares: 1, 1.0 and true are equal, tuples are lists."""
    try:
        text = json.dumps(expected)
        if len(answer) > LONGEST_SPELLING * len(text):
            return False  # before seconds go into the JSON of a huge answer
        return bool(json.loads(answer) == json.loads(text))
    except (ValueError, RecursionError):
        return False
