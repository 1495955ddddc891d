"""The last steps before untrusted code runs, and its run: everything here happens in the candidate's own process."""

from __future__ import annotations

import atexit
import builtins
import functools
import json
import marshal
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

from . import kernel

STACK = 64 << 20  # bytes; deep recursion through C functions needs more than the usual 8 MiB


def run(options: dict[str, Any], request_fd: int, answer_fd: int, error_fd: int) -> NoReturn:
    """Read the request, give up every right, run the program, end the process.

    A program that reads standard input writes its output to ``answer_fd``; of a function each result is one line of
    JSON there. Exit status 0: it ran to its end; 1: it raised, ``error_fd`` has the reason; 2: the sandbox failed.
    """
    status = 2
    try:
        os.setsid()
        request = marshal.loads(os.read(request_fd, os.fstat(request_fd).st_size))
        entry = request["entry"]
        given, printed = (_input(request["inputs"][0]), answer_fd) if entry is None else (0, 1)
        for descriptor, number in ((given, 0), (printed, 1), (error_fd, 2)):
            if descriptor != number:
                os.dup2(descriptor, number)
        kept = 2 if entry is None else answer_fd
        os.closerange(3, kept)
        os.closerange(kept + 1, kernel.OPEN_FILES)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _confine(options, max(1, len(request["inputs"])))
        for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
            del sys.modules[name]
        builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # else made by the module `site`
        if entry is None:
            status = _run_program(request["source"])
        else:
            seconds = options["limits"]["cpu_seconds"]
            status = _call_function(request["source"], entry, request["inputs"], answer_fd, seconds)
    except BaseException as error:
        _complain(error)
    finally:
        os._exit(status)


def _input(text: str) -> int:
    """A file in memory that holds the standard input."""
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogatepass"))
        file.seek(0)
    return descriptor


def _confine(options: dict[str, Any], cases: int) -> None:
    limits, layers = options["limits"], options["isolation"]
    numbers = {
        "CORE": 0,
        "CPU": limits["cpu_seconds"] * cases,
        "AS": limits["memory_bytes"],
        "STACK": STACK,
        "FSIZE": limits["temporary_bytes"] if layers["namespaces"] != "none" else 0,
        "NOFILE": limits["open_files"],
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    if layers["landlock"]:
        kernel.landlock(kernel.readable())
    if options["user"] is not None:
        numbers["NPROC"] = limits["processes"]
        os.setgroups([])
        os.setresgid(*[options["user"]] * 3)
        os.setresuid(*[options["user"]] * 3)
    elif layers["namespaces"] != "none":
        numbers["NPROC"] = limits["processes"] + 1  # the worker is in the same user namespace
    for name, number in numbers.items():
        key = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(key)[1]
        number = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(key, (number, number))  # one value for both: the CPU limit cannot be ignored
    if layers["seccomp"]:
        kernel.filter_system_calls()


def _run_program(source: str) -> int:
    """As ``python program.py`` would: with its threads, its exit handlers and its unflushed output."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    status = _execute(source, module)
    finishing: list[Callable[[], object]] = [_join_threads, atexit._run_exitfuncs, module.__dict__.clear, _flush]
    for finish in finishing:
        with suppress(BaseException):
            finish()
    return status


def _execute(source: str, module: ModuleType) -> int:
    try:
        module.__dict__["__builtins__"] = builtins
        exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        return 0
    except BaseException as error:
        _complain(error)
        return 1
    return 0


def _join_threads() -> None:
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None:
            stream.flush()


def _call_function(source: str, entry: str, inputs: list[list[Any]], answer_fd: int, cpu_seconds: int) -> int:
    # Beyond the reach of careless patches.
    dumps, write, complain, allow = json.dumps, os.write, _complain, functools.partial(_allow, cpu_seconds)
    allow()
    module = ModuleType("program")
    sys.modules["program"] = module
    if status := _execute(source, module):
        return status
    try:
        solution: Any = getattr(module, "Solution", None)
        function = getattr(solution() if hasattr(solution, entry) else module, entry)
        for arguments in inputs:
            allow()
            line = dumps(function(*arguments)).encode() + b"\n"
            while line:
                line = line[write(answer_fd, line) :]
    except BaseException as error:
        complain(error)
        return 1
    return 0


def _allow(cpu_seconds: int) -> None:
    """So much more CPU time from now on. A program can ignore this limit, but not that of all cases together."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (min(hard, math.ceil(time.process_time()) + cpu_seconds), hard))


def _complain(error: BaseException) -> None:
    message = "its message cannot be made"
    with suppress(BaseException):
        message = str(error)
    with suppress(BaseException):
        os.write(2, f"{type(error).__name__}: {message}".encode(errors="replace")[:1000])
