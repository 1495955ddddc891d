"""The sandbox: what it judges, and what hostile programs cannot do, with every kind of isolation that works here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.verify.sandbox import Case, Isolation, Limits, Outcome, Program, Sandbox, same_output, same_value
from riskpo_study.verify.sandbox_worker import kernel

ROOT = Path(__file__).parents[1]
LIMITS = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=256 << 20, output_bytes=1 << 16, temporary_bytes=1 << 20)
BARE = Isolation("none", seccomp=False, landlock=False, own_user=os.geteuid() == 0)
ISOLATIONS = {
    "bubblewrap": Isolation.strongest("bubblewrap"),
    "unshare": Isolation.strongest("unshare"),
    "unshare, no filter": replace(Isolation.strongest("unshare"), seccomp=False),
    "none": Isolation.strongest("none"),
    "limits alone": BARE,
}


def stdin(source: str, *pairs: tuple[str, str]) -> Program:
    return Program(textwrap.dedent(source), [Case(*pair) for pair in pairs or [("", "done")]])


def function(source: str, *pairs: tuple[list[Any], Any], name: str = "f") -> Program:
    return Program(textwrap.dedent(source), [Case(*pair) for pair in pairs], name)


HONEST = stdin("print(int(input()) * 2)", ("21", "42"), ("-1", "-2"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(LIMITS, 2) as sandbox:
        yield sandbox


def judge(sandbox: Sandbox, program: Program) -> Outcome:
    (outcome,) = sandbox.judge([program])
    return outcome


# --- hostile programs ---

Fenced = Callable[[Isolation], bool]


def private(isolation: Isolation) -> bool:
    return isolation.namespaces != "none"


def fenced(isolation: Isolation) -> bool:
    """Host files are out of reach."""
    return private(isolation) or isolation.landlock


def filtered(isolation: Isolation) -> bool:
    return isolation.seccomp


def always(isolation: Isolation) -> bool:
    return True


# Each tells by its output or its end whether it got through: source, statuses of a failed attack, where it must fail.
# SECRET, TARGET, PORT are a readable file, a writable one and a listening socket of the host; PARENT is this process.
HOSTILE: dict[str, tuple[str, set[str], Fenced]] = {
    "signal without a name": ("import os\nos.kill(os.getpid(), 40)", {"error"}, always),
    "sleep": ("import time\ntime.sleep(60)", {"limit"}, always),
    "stop": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {"limit"}, always),
    "signals ignored": (
        """
        import signal
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True: pass
        """,
        {"limit"},
        always,
    ),
    "fork bomb": (
        """
        import os, time
        children = 0
        for _ in range(500):
            try:
                if os.fork() == 0: time.sleep(60)
                children += 1
            except OSError: pass
        print("done" if children < 16 else children)
        """,
        {"passed"},
        always,
    ),
    "fork bomb without end": (
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
        {"limit"},
        always,
    ),
    "daemon": (
        """
        import os, time
        try:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for _ in range(600): print("still here", flush=True); time.sleep(0.1)
                os._exit(0)
        except OSError: pass
        print("done")
        """,
        {"passed", "wrong"},  # what it prints before its parent ends is its own output
        always,
    ),
    "threads without end": (
        """
        import threading
        def forever():
            while True: pass
        for _ in range(3): threading.Thread(target=forever).start()
        """,
        {"limit"},
        always,
    ),
    "daemon threads": (
        """
        import threading, time
        for _ in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        print("done")
        """,
        {"passed"},
        always,
    ),
    "too many threads": (
        """
        import threading, time
        threading.stack_size(1 << 15)
        for _ in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        {"error"},
        lambda isolation: isolation.own_user or private(isolation),
    ),
    "memory bit by bit": ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"error", "limit"}, always),
    "fake report to every file": (
        """
        import os
        for number in range(100):
            try: os.write(number, b'{"status": 0, "cpu_seconds": 0}')
            except OSError: pass
        """,
        {"wrong"},
        always,
    ),
    "only its own files are open": (
        """
        import os
        found = []
        for number in range(1000):
            try: os.fstat(number); found.append(number)
            except OSError: pass
        print("done" if found == [0, 1, 2] else found)
        """,
        {"passed"},
        always,
    ),
    "every file closed": ("import os\nos.closerange(0, 100)", {"wrong"}, always),
    "kill others": (
        """
        import os, signal
        for target in (os.getppid(), PARENT, 1, -1, -PARENT, -os.getppid()):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                try: os.kill(target, number)
                except OSError: pass
        print("done")
        """,
        {"passed"},
        always,
    ),
    "kill its group": ("import os, signal\nos.kill(0, signal.SIGKILL)", {"error"}, always),
    "limits of others": (
        """
        import os, resource
        try: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0)); print("changed")
        except OSError: print("done")
        """,
        {"passed"},
        lambda isolation: filtered(isolation) or isolation.own_user,
    ),
    "raise its limits": (
        """
        import resource
        for name in ("CPU", "AS", "NPROC", "NOFILE", "FSIZE"):
            key = getattr(resource, "RLIMIT_" + name)
            try: resource.setrlimit(key, (resource.RLIM_INFINITY,) * 2); print("raised", name)
            except (ValueError, OSError): pass
        print("done")
        """,
        {"passed"},
        lambda isolation: isolation.own_user or private(isolation),
    ),
    "memory of the parents": (
        """
        import ctypes, os
        libc = ctypes.CDLL(None)
        for pid in (os.getppid(), PARENT, 1):
            for name in ("mem", "environ", "maps"):
                try: print(open(f"/proc/{pid}/{name}", "rb").read(1))
                except OSError: pass
            if libc.ptrace(16, pid, None, None) == 0: print("traced", pid)
        print("done")
        """,
        {"passed"},
        always,
    ),
    "environment": ("import os\nprint(dict(os.environ) or 'done')", {"passed"}, always),
    "environment in memory": (
        """
        import ctypes
        at = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "program_invocation_name").value
        arguments = []  # those that the worker was started with, and behind them its environment
        while text := ctypes.string_at(at):
            arguments.append(text)
            at += len(text) + 1
        leaked = [text for text in arguments if b"SANDBOX_TEST_SECRET" in text]
        print("done" if arguments[0][:1] == b"/" and not leaked else arguments)
        """,
        {"passed"},
        always,
    ),
    "socket": (
        """
        import socket
        try: socket.socket().connect(("127.0.0.1", PORT)); print("connected")
        except OSError: print("done")
        """,
        {"passed"},
        lambda isolation: private(isolation) or filtered(isolation),
    ),
    "read a file": (
        "try: print(open(SECRET).read())\nexcept OSError: print('done')",
        {"passed"},
        fenced,
    ),
    "write a file": ("try: open(TARGET, 'w').write('x')\nexcept OSError: print('done')", {"passed", "error"}, fenced),
    "shell": ("""__import__("os").system("echo > " + TARGET)\nprint("done")""", {"passed"}, fenced),
    "another program": (
        """
        import os
        try: os.execv("/bin/true", ["true"])
        except OSError: print("done")
        """,
        {"passed"},
        lambda isolation: private(isolation) or filtered(isolation),
    ),
    "write to the library": (
        "import os\ntry: open(os.__file__, 'a'); print('open')\nexcept OSError: print('done')",
        {"passed"},
        always,
    ),
    "new namespaces": (
        "import ctypes\nprint('done' if ctypes.CDLL(None).unshare(0x10020000) else 'made')",
        {"passed"},
        filtered,
    ),
    "root again": (
        """
        import os
        try: os.setuid(0); print("root")
        except OSError: print("done")
        """,
        {"passed"},
        lambda isolation: os.geteuid() == 0,
    ),
    "memory without a process": (
        """
        import os
        for _ in range(100):
            try: os.write(os.memfd_create("x"), bytes(1 << 20))
            except OSError: pass
        try: os.ftruncate(os.memfd_create("x"), 1 << 40); print("made")
        except OSError: print("done")
        """,
        {"passed"},
        always,
    ),
}

# The same for attacks that no isolation but the limits and the comparison can stop.
FOOLISH: dict[str, tuple[str, set[str]]] = {
    "endless loop": ("while True: pass", {"limit"}),
    "memory at once": ("x = bytearray(1 << 40)", {"error"}),
    "output flood": ("while True: print('x' * 1000)", {"limit"}),
    "error flood": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {"limit"}),
    "deep recursion": ("def f(): f()\nf()", {"error"}),
    "deep recursion in C": (
        """
        import functools, sys
        sys.setrecursionlimit(10**9)
        @functools.cache
        def f(n): return f(n + 1)
        f(0)
        """,
        {"error", "limit"},
    ),
    "nested source": ("(" * 100_000, {"error"}),
    "null byte": ("print('done')\0", {"error"}),
    "huge integer": ("print(len(str(7 ** 10**7)))", {"error", "limit"}),
    "huge shift": ("print(1 << (1 << 40))", {"error"}),
    "exit": ("import sys\nprint('done')\nsys.exit(3)", {"passed"}),
    "hard exit": ("import os\nprint('lost in the buffer')\nos._exit(0)", {"wrong"}),
    "exit in atexit": ("import atexit, os\natexit.register(os._exit, 0)\nprint('no')", {"wrong"}),
    "loop in atexit": ("import atexit\n@atexit.register\ndef f():\n while True: pass", {"limit"}),
    "crash": ("import ctypes\nctypes.string_at(0)", {"error"}),
    "fake verdict": ("""print('{"status": 0, "cpu_seconds": 0}')\nprint('passed')""", {"wrong"}),
    "patched builtins": (
        """
        import builtins, json, sys
        builtins.print = builtins.len = builtins.isinstance = lambda *a, **k: True
        json.dumps = json.loads = lambda *a, **k: "done"
        sys.stdout.write("no")
        """,
        {"wrong"},
    ),
}


@pytest.fixture(scope="module", params=ISOLATIONS)
def attacked(request: pytest.FixtureRequest) -> Iterator[tuple[Isolation, dict[str, Outcome], dict[str, Any]]]:
    """All hostile programs at once, honest ones between them."""
    isolation = ISOLATIONS[request.param]
    if isolation == BARE and not BARE.own_user:
        pytest.skip("without root nothing would keep the programs from signalling this process")
    folder = Path(mkdtemp())
    folder.chmod(0o777)
    (folder / "secret").write_text("secret")
    (folder / "target").write_text("untouched")
    (folder / "target").chmod(0o666)
    os.environ["SANDBOX_TEST_SECRET"] = "secret"
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        try:
            sandbox = Sandbox(LIMITS, 4, isolation)
        except RunError as error:
            pytest.skip(f"not on this machine: {error}")
        known = {"SECRET": str(folder / "secret"), "TARGET": str(folder / "target"), "PARENT": os.getpid()}
        known["PORT"] = listener.getsockname()[1]
        header = "".join(f"{name} = {value!r}\n" for name, value in known.items())
        programs = []
        for source, _, _ in HOSTILE.values():
            programs += [stdin(header + textwrap.dedent(source)), HONEST]
        with sandbox:
            outcomes = sandbox.judge(programs)
            users = {worker.user for worker in sandbox._workers}
            left = [pid for user in users if user is not None for pid in processes_of(user)]
        facts = {"honest": outcomes[1::2], "left": left, "target": (folder / "target").read_text()}
        yield isolation, dict(zip(HOSTILE, outcomes[::2], strict=True)), facts
    finally:
        listener.close()
        del os.environ["SANDBOX_TEST_SECRET"]
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", FOOLISH)
def test_a_foolish_program_fails_alone(sandbox: Sandbox, name: str) -> None:
    source, expected = FOOLISH[name]
    foolish, honest = sandbox.judge([stdin(source), HONEST])
    assert foolish.status in expected, foolish
    assert honest.status == "passed"


def processes_of(user: int) -> list[int]:
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if p.exists() and p.stat().st_uid == user]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_get_through(attacked: Any, name: str) -> None:
    isolation, outcomes, _ = attacked
    _, expected, where = HOSTILE[name]
    if not where(isolation):
        pytest.skip("not promised with this isolation")
    assert outcomes[name].status in expected, outcomes[name]


def test_hostile_programs_leave_the_others_the_host_and_no_process_behind(attacked: Any) -> None:
    isolation, _, facts = attacked
    assert {outcome.status for outcome in facts["honest"]} == {"passed"}
    assert facts["left"] == []
    assert facts["target"] == "untouched" or not fenced(isolation)


CHEATS = {
    "equal to everything": ("class A(int):\n __eq__ = lambda *a: True\ndef f(x): return A(5)", "wrong"),
    "no JSON value": ("def f(x): return {1}", "error"),
    "patched json": (
        "import json\njson.dumps = lambda *a: '7'\njson.encoder.JSONEncoder.encode = json.dumps\ndef f(x): return 1",
        "wrong",
    ),
    "patched write": ("import os\nos.write = lambda *a: 1 << 30\ndef f(x): return 1", "wrong"),
    "fake line": (
        (
            "import os\ndef f(x):\n for n in range(3, 99):\n"
            "  try: os.write(n, b'true\\n')\n  except OSError: pass\n return 1"
        ),
        "wrong",
    ),
    "deep value": ("def f(x):\n y = []\n for _ in range(10**5): y = [y]\n return y", "error"),
    "deep text": (
        (
            "import os\ndef f(x):\n for n in range(3, 99):\n"
            "  try: os.write(n, b'[' * 50_000 + b'\\n')\n  except OSError: pass"
        ),
        "wrong",
    ),
    "huge value": ("def f(x): return 'x' * 10**8", "limit"),
    "huge integer": ("def f(x): return 10 ** 5000", "error"),
    "not a number": ("def f(x): return float('nan')", "wrong"),
    "prints only": ("def f(x): print(2)", "wrong"),
    "exits": ("import sys\ndef f(x): sys.exit()", "error"),
    "exits hard": ("import os\ndef f(x): os._exit(0)", "error"),
    "no such function": ("def g(x): return 2", "error"),
    "raises while loading": ("1 / 0", "error"),
    "ends while loading": ("import sys\nsys.exit()", "error"),
    "message without end": (
        "class E(Exception):\n def __str__(self): return 'x' * 10**7\ndef f(x): raise E",
        "error",
    ),
    "message that loops": ("class E(Exception):\n def __str__(self):\n  while True: pass\ndef f(x): raise E", "limit"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_function_cannot_cheat(sandbox: Sandbox, name: str) -> None:
    source, status = CHEATS[name]
    outcome = judge(sandbox, function(source, ([1], 2), ([2], 3)))
    assert (outcome.status, outcome.passed) == (status, (False, False)), outcome
    assert len(outcome.message) <= 200 and outcome.message.isprintable()


def test_the_temporary_folder_is_limited_and_empty_for_the_next(sandbox: Sandbox) -> None:
    fill = """
        import os
        open("small", "w").write("x")
        os.makedirs("a/b")
        try:
            while True:
                open(f"a/{len(os.listdir('a'))}", "wb").write(bytes(1 << 16))
        except OSError as error: print(error.strerror)
    """
    deep = "import os\nfor _ in range(900): os.mkdir('d', 0o300); os.chdir('d')\nprint('made')"
    look = "import os, tempfile\nprint(os.listdir(), os.getcwd() == tempfile.gettempdir())"
    programs = [
        stdin(fill, ("", "No space left on device")),
        stdin(look, ("", "[] True")),
        stdin(deep, ("", "made")),
        stdin(look, ("", "[] True")),
    ]
    assert {outcome.status for outcome in sandbox.judge(programs * 4)} == {"passed"}


def spy(text: str) -> str:
    """A program that prints how many strings of its memory hold the text, which its own source does not."""
    return f"""
        import gc
        holders = [o for o in gc.get_objects() if isinstance(o, (list, tuple, dict))]
        seen = [x for o in holders for x in (o.values() if isinstance(o, dict) else o)]
        print(sum(isinstance(x, str) and {text[::-1]!r}[::-1] in x for x in seen))
    """


def test_neither_expected_answers_nor_other_programs_are_in_memory() -> None:
    with Sandbox(LIMITS, 1) as sandbox:
        spied = stdin("print(input())  # canary", ("canary", "canary"))
        assert sandbox.judge([spied, stdin(spy("canary"), ("", "0"), ("", "canary"))]) == [
            Outcome("passed", (True,), ""),
            Outcome("wrong", (True, False), "case 1: 0"),
        ]
        assert judge(sandbox, stdin(spy("canary"), ("canary", "0"))).message != "case 0: 0"  # the spy sees its input


# --- without root ---


def test_without_root_nothing_is_worse(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same attacks as another user, with a Python that this user can read."""
    python = shutil.which("python3", path="/usr/bin")
    if os.geteuid() != 0 or python is None:
        pytest.skip("needs root and a Python in /usr/bin")
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True)
    if version.stdout.strip() != b"True":
        pytest.skip("needs Python 3.11 in /usr/bin")
    folder = Path(mkdtemp())
    try:
        shutil.copytree(ROOT / "riskpo_study" / "verify", folder / "riskpo_study" / "verify")
        for name in ("__init__.py", "errors.py"):
            shutil.copy(ROOT / "riskpo_study" / name, folder / "riskpo_study")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        attacks = {name: HOSTILE[name][:1] for name in WITHOUT_ROOT}
        (folder / "attacks.json").write_text(json.dumps(attacks))
        (folder / "attacks.json").chmod(0o644)
        script = """
            import json, os, sys, textwrap
            from riskpo_study.verify.sandbox import Case, Isolation, Limits, Program, Sandbox
            for namespaces in ("bubblewrap", "unshare", "none"):
                try: sandbox = Sandbox(Limits(cpu_seconds=1, wall_seconds=3), 2, Isolation.strongest(namespaces))
                except Exception as error: print(json.dumps([namespaces, str(error)])); continue
                with sandbox:
                    header = f"PARENT = {os.getpid()}; SECRET = '/etc/passwd'; PORT = 9\\n"
                    attacks = {k: header + textwrap.dedent(v) for k, (v,) in json.load(open("attacks.json")).items()}
                    outcomes = sandbox.judge([Program(v, [Case("", "done")]) for v in attacks.values()])
                    print(json.dumps([namespaces, {k: o.status for k, o in zip(attacks, outcomes)}]))
        """
        result = subprocess.run(
            [python, "-B", "-c", textwrap.dedent(script)],
            cwd=folder, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        found = dict(json.loads(line) for line in result.stdout.splitlines())
        for namespaces, statuses in found.items():
            if isinstance(statuses, str):
                assert namespaces != "none", statuses
                continue
            for name, status in statuses.items():
                assert status in HOSTILE[name][1], (namespaces, name, status)
    finally:
        shutil.rmtree(folder)


WITHOUT_ROOT = (
    "fork bomb", "daemon", "kill others", "limits of others", "memory of the parents", "environment", "socket",
    "read a file", "another program", "write to the library", "new namespaces", "fake report to every file",
)  # fmt: skip


# --- the system call filter ---


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_the_numbers_of_the_system_calls_are_the_kernels(header: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip("needs the kernel's headers (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    known = {name: int(number) for name, number in found}
    known.setdefault("newfstatat", known.get("fstatat", -1))
    for name, row in {**kernel.PERMITTED, **kernel.RESTRICTED}.items():
        assert row[column] == known.get(name), name


# --- judging ---


def test_the_two_styles(sandbox: Sandbox) -> None:
    assert judge(sandbox, HONEST) == Outcome("passed", (True, True), "")
    assert judge(sandbox, stdin("print(input())", ("a", "a"), ("b", "c"), ("d", "d"))) == Outcome(
        "wrong", (True, False, False), "case 1: b"
    )
    add = function("def f(x, y): return x + y", ([1, 2], 3), (["a", "b"], "ab"), ([[1], [2]], [1, 2]))
    assert judge(sandbox, add) == Outcome("passed", (True, True, True), "")
    half = judge(sandbox, function("def f(x): return 1 // x", ([1], 1), ([0], 0), ([1], 1)))
    assert (half.status, half.passed) == ("error", (True, False, False)) and "ZeroDivisionError" in half.message
    either = Program("def f(x): return [x]", [Case([1], 2, [[1]]), Case([1], [2], [3, "x"])], "f")
    assert judge(sandbox, either).passed == (True, False)
    method = function("class Solution:\n def g(self, x): return x, [x]", ([1], [1, [1]]), name="g")
    assert judge(sandbox, method).status == "passed"
    assert sandbox.judge([]) == [] and judge(sandbox, stdin("1/0").__class__("", [])).passed == ()


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.stdout.write(sys.stdin.read())",
        "import sys\nfor line in sys.stdin: print(line, end='')",
        "import os\nos.write(1, os.read(0, 1000))",
        "import sys, io\nsys.stdout = io.TextIOWrapper(open(1, 'wb', 0), write_through=False)\nprint(open(0).read())",
        "f = open(1, 'w')\nf.write(open(0).read())",
        "if __name__ == '__main__': print(input(), input(), sep='\\n')",
        "import atexit\natexit.register(lambda: print(text))\ntext = input() + '\\n' + input()",
        (
            "import threading\nthreading.stack_size(1 << 26)\n"
            "threading.Thread(target=lambda: print(input(), input(), sep='\\n')).start()"
        ),
        "import sys\nprint(*map(str.strip, sys.stdin.buffer.read().decode().split()), sep='\\n')\nexit()",
        "import asyncio\nasync def f(): await asyncio.sleep(0); print(input(), input(), sep='\\n')\nasyncio.run(f())",
        (
            "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n"
            " f.write(input() + '\\n' + input())\n f.seek(0)\n print(f.read())"
        ),
    ],
)
def test_programs_may_do_what_programs_do(sandbox: Sandbox, source: str) -> None:
    assert judge(sandbox, Program(source, [Case("première\nsecond", "première\nsecond")])).status == "passed"


def test_a_large_input_and_output(sandbox: Sandbox) -> None:
    text = "7" * 60_000
    assert judge(sandbox, stdin("print(input())", (text, text))).status == "passed"
    assert (
        judge(sandbox, function("def f(x): return x[::-1]", ([list(range(9000))], list(range(9000))[::-1]))).status
        == "passed"
    )
    late = f"print({text!r})\nimport sys\nsys.stderr.write({text!r})"
    assert judge(sandbox, stdin(late, ("", text))).status == "limit"


def test_every_run_iterates_over_sets_in_the_same_order(sandbox: Sandbox) -> None:
    source = "print(set('the quick brown fox'.split()), hash('x'))"
    (message,) = {judge(sandbox, stdin(source)).message for _ in range(3)}
    with Sandbox(LIMITS, 1) as other:
        assert judge(other, stdin(source)).message == message


def test_wall_time_is_per_case(sandbox: Sandbox) -> None:
    cases = [([0.8], None)] * 3
    assert judge(sandbox, function("import time\nf = time.sleep", *cases)).passed == (True,) * 3
    outcome = judge(sandbox, function("import time\nf = time.sleep", ([0], None), ([9], None)))
    assert outcome == Outcome("limit", (True, False), "more than 2.0 s")


def test_a_slow_comparison_makes_no_other_program_late(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(output: str, expected: str) -> bool:
        time.sleep(3.0 if output == "slow\n" else 0.0)
        return same_output(output, expected)

    with Sandbox(LIMITS, 3) as sandbox:
        monkeypatch.setattr("riskpo_study.verify.sandbox.same_output", slow)
        finished = stdin("import time\ntime.sleep(0.5)\nprint('done')")
        between_cases = function("import time\nf = time.sleep", ([1.5], None), ([1.9], None))
        outcomes = sandbox.judge([stdin("print('slow')"), finished, between_cases])
    assert [outcome.status for outcome in outcomes] == ["wrong", "passed", "passed"]


def test_a_function_that_has_answered_all_need_not_return() -> None:
    answers = """
        import os, time
        for number in range(3, 99):
            try: os.write(number, b"2\\n3\\n")
            except OSError: pass
        time.sleep(60)
    """
    with Sandbox(replace(LIMITS, wall_seconds=60.0), 1) as sandbox:
        start = time.monotonic()
        outcomes = sandbox.judge([function(answers, ([1], 2), ([2], 3)), HONEST])
        assert time.monotonic() - start < 10
    assert outcomes == [Outcome("passed", (True, True), "")] * 2


def test_what_failed_has_not_passed() -> None:
    with Sandbox(replace(LIMITS, output_bytes=1000), 1) as sandbox:
        noisy = stdin("import sys\nsys.stderr.write('x\\n' * 1000)\nprint('done')")
        assert sandbox.judge([noisy] * 5) == [Outcome("limit", (False,), "more than 1000 bytes of output")] * 5


def test_an_exception_without_a_message_is_named(sandbox: Sandbox) -> None:
    source = "class Odd(Exception):\n def __str__(self): raise ValueError\nraise Odd"
    assert judge(sandbox, stdin(source)) == Outcome("error", (False,), "Odd: its message cannot be made")


def test_cpu_time_is_per_case() -> None:
    spend = """
        import time
        def f(seconds):
            end = time.process_time() + seconds
            while time.process_time() < end: pass
    """
    with Sandbox(replace(LIMITS, wall_seconds=30.0), 1) as sandbox:
        assert judge(sandbox, function(spend, *[([0.4], None)] * 4)).passed == (True,) * 4
        assert judge(sandbox, function(spend, *[([0.1], None), ([60], None)] * 9)) == Outcome(
            "limit", (True, *[False] * 17), "more than 1 s of CPU time"
        )


def test_order_is_kept_and_threads_may_share(sandbox: Sandbox) -> None:
    def outcomes(offset: int) -> list[str]:
        programs = [stdin(f"print({offset + i})") for i in range(12)]
        return [outcome.message for outcome in sandbox.judge(programs)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(outcomes, (0, 100, 200)))
    assert found == [[f"case 0: {offset + i}" for i in range(12)] for offset in (0, 100, 200)]


def test_preloaded_modules_are_there(sandbox: Sandbox) -> None:
    source = "import sys\nprint('fractions' in sys.modules)"
    assert judge(sandbox, stdin(source, ("", "False"))).status == "passed"
    with Sandbox(LIMITS, 1, preload=["fractions"]) as other:
        assert judge(other, stdin(source, ("", "True"))).status == "passed"


# --- the pool ---


def workers_with(mark: str) -> list[str]:
    """Command lines of the running processes, candidates too, that name this mark."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if mark in line and "loop.run" in line]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


@pytest.mark.parametrize(("how", "mark"), [(signal.SIGINT, "777.125"), (signal.SIGKILL, "777.25")])
@pytest.mark.parametrize("isolation", ["'auto'", "Isolation.strongest('none')"])
def test_a_killed_or_interrupted_study_leaves_no_process(how: signal.Signals, mark: str, isolation: str) -> None:
    script = f"""
        from riskpo_study.verify.sandbox import *
        with Sandbox(Limits(cpu_seconds=600, wall_seconds={mark}), 2, {isolation}) as sandbox:
            sandbox.judge([Program("import time; time.sleep(600)", [Case("", "")])] * 2)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert until(lambda: len(workers_with(mark)) >= 4)
    process.send_signal(how)
    assert process.wait(10) != 0
    assert until(lambda: not workers_with(mark))


def test_an_interrupt_leaves_the_pool_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(LIMITS, 2) as sandbox:
        with monkeypatch.context() as patch:
            patch.setattr(
                "riskpo_study.verify.sandbox.same_output", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                sandbox.judge([HONEST, stdin("while True: pass"), HONEST])
        assert [outcome.status for outcome in sandbox.judge([HONEST] * 4)] == ["passed"] * 4


def test_a_worker_that_dies_is_replaced() -> None:
    with Sandbox(LIMITS, 2) as sandbox, ThreadPoolExecutor(1) as pool:
        slow = function("import time\nf = time.sleep", ([1], None))
        judged = pool.submit(sandbox.judge, [slow, slow])
        time.sleep(0.4)
        sandbox._workers[0].process.kill()
        assert [outcome.status for outcome in judged.result()] == ["passed", "passed"]


def test_a_closed_sandbox_says_so() -> None:
    sandbox = Sandbox(LIMITS, 1)
    assert judge(sandbox, HONEST).status == "passed"
    sandbox.close()
    sandbox.close()
    with pytest.raises(RunError, match="The sandbox is closed"):
        sandbox.judge([HONEST])


def test_what_is_in_force_can_be_written_down(sandbox: Sandbox) -> None:
    description = json.loads(json.dumps(sandbox.describe()))
    assert description["isolation"]["namespaces"] in ("bubblewrap", "unshare", "none")
    assert description["limits"]["cpu_seconds"] == 1 and description["workers"] == 2


def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="wall_seconds = 0 must be positive"):
        Limits(wall_seconds=0)
    with pytest.raises(ConfigError, match="open_files = 1000 must be at most 64"):
        Limits(open_files=1000)
    with pytest.raises(ConfigError, match="workers = 0"):
        Sandbox(LIMITS, 0)
    with pytest.raises(DataError, match="Case 0: standard input must be a str, not list"):
        Program("", [Case([1], 1)])
    with pytest.raises(DataError, match="Case 1: arguments of f must be a list, not str"):
        Program("", [Case([1], 1), Case("1", 1)], "f")
    for case in (Case("", None), Case("", "1", [2])):
        with pytest.raises(DataError, match="Case 0: an expected answer must be a str, not (None|2): correct it or"):
            Program("", [case])
    for value in ({1}, Decimal(1), float("nan"), {(1, 2): 3}, 10**5000):
        for case in (Case([1], value), Case([1], 1, [value])):
            with pytest.raises(
                DataError, match="Case 1: an expected answer must be what f can return, of JSON's types and"
            ):
                Program("", [Case([1], ["NaN", None, True, 1.5, float("inf"), {"a": (1,)}]), case], "f")
    monkeypatch.setattr("riskpo_study.verify.sandbox.shutil.which", lambda name: None)
    with pytest.raises(RunError, match=r"none: .*bwrap is not on the PATH|bubblewrap: bwrap is not on the PATH"):
        Sandbox(LIMITS, 1, ISOLATIONS["bubblewrap"])


# --- comparisons ---

numbers = st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.integers().map(Decimal)


@given(st.lists(st.lists(numbers, max_size=3), max_size=3))
def test_equal_numbers_are_equal_outputs(rows: list[list[Decimal]]) -> None:
    one = "\n".join(" ".join(map(str, row)) for row in rows)
    other = "\n".join("  ".join(f"{x:f}" + ("0" if "." in f"{x:f}" else ".0") for x in row) + " " for row in rows)
    assert same_output(one, other)


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("yes\n", "yes", True),
        (" yes \n\n", "\nyes", True),
        ("Yes", "yes", False),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("1.50", "1.5", True),
        ("0.1", "0.10000000001", False),
        ("1e3 2", "1000 2.0", True),
        ("NaN", "NaN", True),
        ("nan x", "nan y", False),
        ("sNaN", "1", False),
        ("1e999999999", "1", False),
        ("", "", True),
        ("1 2 x", "1 2", False),
        ("1 2", "1 2 3", False),
        ("2 sNaN", "1 2", False),
    ],
)
def test_outputs_are_compared_as_published(output: str, expected: str, same: bool) -> None:
    assert same_output(output, expected) is same


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(json_values, json_values)
def test_values_are_compared_as_python_does(one: Any, other: Any) -> None:
    assert same_value(json.dumps(one).encode(), one)
    assert same_value(json.dumps(one).encode(), other) == (one == other)


def test_a_huge_answer_to_a_small_question_costs_little() -> None:
    large = 4 << 20
    answers = ["1 " * large, "1\n" * large, "1 " * large + "x"]
    value = b"[" + b"[]," * large + b"[]]"
    tracemalloc.start()
    try:
        assert not any(same_output(answer, "1 2") for answer in answers)
        assert not same_value(value, [[]])
        assert tracemalloc.get_traced_memory()[1] < 8 * large
    finally:
        tracemalloc.stop()


def test_equal_numbers_may_be_spelled_at_different_length() -> None:
    assert same_value(b"1.0", True) and same_value(b"1" + b"0" * 22, 1e22)
    assert same_value(str(int(1e308)).encode(), 1e308) and same_value(b"1e+308", int(1e308))


@given(st.binary(max_size=60))
def test_no_answer_makes_the_comparison_raise(answer: bytes) -> None:
    assert not same_value(answer, "an answer that no bytes are")
