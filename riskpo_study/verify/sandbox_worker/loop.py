"""A worker: waits for requests, forks a candidate for each, and leaves nothing of it behind."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from . import candidate, kernel

# What programs import most, loaded beforehand where the candidates' user could not read Python's library.
COMMON = (
    "array", "bisect", "calendar", "cmath", "collections.abc", "copy", "dataclasses", "datetime", "decimal", "enum",
    "fractions", "functools", "heapq", "io", "itertools", "math", "numbers", "operator", "queue", "random", "re",
    "statistics", "string", "struct", "textwrap", "threading", "time", "traceback", "typing",
)  # fmt: skip
ROUNDS = 1000  # of killing the processes left behind, where a fork bomb can outrun it


def main() -> None:
    """Serve the control socket, whose number and the options are the arguments; the worker ends when it closes."""
    control = socket.socket(fileno=os.dup(int(sys.argv[1])))  # a low number, see OPEN_FILES
    os.close(int(sys.argv[1]))
    options: dict[str, Any] = json.loads(sys.argv[2])
    closed = options["user"] is not None and options["isolation"]["namespaces"] == "none" and not _library_is_open()
    for name in [*options["preload"], *(COMMON if closed else ())]:
        importlib.import_module(name)
    try:
        _isolate(options, control)
    except OSError as error:
        control.send(json.dumps({"error": error.strerror or str(error)}).encode())
        return
    os.environ.clear()
    sys.argv[:] = ["program.py"]
    # Away from the candidate: the handler that would let it interrupt the first process of its namespace.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (kernel.OPEN_FILES, kernel.OPEN_FILES))
    if options["isolation"]["seccomp"]:
        kernel.system_call_filter()  # computed once
    gc.collect()
    gc.freeze()
    control.send(b"{}")
    with suppress(ConnectionError):
        _serve(options, control)


def _library_is_open() -> bool:
    """Whether any user can reach it."""
    return all(folder.stat().st_mode & 1 for folder in Path(os.__file__).resolve().parents)


def _isolate(options: dict[str, Any], control: socket.socket) -> None:
    namespaces, limits = options["isolation"]["namespaces"], options["limits"]
    if namespaces == "unshare":
        readable = kernel.readable()
        kernel.enter_namespaces()
        kernel.enter_private_root(readable, limits["temporary_bytes"])
        if first := os.fork():  # the first process of the PID namespace goes on; with it ends all that is in there
            control.close()
            os.waitpid(first, 0)
            os._exit(0)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if namespaces == "none":
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        os.chdir("/")
    else:
        os.chdir(kernel.TEMPORARY)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if os.geteuid() != 0:
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # nobody may trace this process or read its memory


def _serve(options: dict[str, Any], control: socket.socket) -> None:
    private = options["isolation"]["namespaces"] != "none"
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not message:
            return  # the other end has closed
        if not descriptors:
            continue  # the order to kill a candidate that had already ended
        child = os.fork()
        if child == 0:
            candidate.run(options, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        report = _supervise(child, control)
        clean = _sweep(private, options["user"]) and (not private or _empty(kernel.TEMPORARY))
        if report is None:
            return
        control.send(json.dumps({**report, "clean": clean}).encode())
        if not clean:
            return  # the other end starts a new worker


def _supervise(child: int, control: socket.socket) -> dict[str, float] | None:
    """Wait for the candidate's end, or kill it when told to; None when the other end has closed."""
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(control, select.POLLIN)
    closed = False
    if process not in [descriptor for descriptor, _ in poll.poll()]:
        closed = not control.recv(1)
        os.kill(child, signal.SIGKILL)
    os.close(process)
    _, status, usage = os.wait4(child, 0)
    cpu = usage.ru_utime + usage.ru_stime
    return None if closed else {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": cpu}


def _sweep(private: bool, user: int | None) -> bool:
    """Kill and reap whatever the candidate started, all of it this process's children by now; whether all is gone."""
    for _ in range(ROUNDS):
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return True
        if private:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        elif user is not None:
            _kill_all_of(user)
        else:
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)
    return False


def _kill_all_of(user: int) -> None:
    """At one stroke, which no fork bomb outruns: as that user, who may signal nobody else."""
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def _empty(folder: str) -> bool:
    """Whether all that lay in the folder could be removed; what is nested too deeply cannot."""
    try:
        for entry in list(os.scandir(folder)):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else Path(entry.path).unlink()
    except (OSError, RecursionError):
        return False
    return True


def run() -> NoReturn:
    main()
    os._exit(0)
