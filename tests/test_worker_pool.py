"""Every way in which a job can go wrong costs that job alone."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from riskpo_study.errors import ConfigError, RunError
from riskpo_study.verify.worker_pool import Outcome, WorkerPool

TESTS = Path(__file__).parent
CHORES = "worker_jobs:chores"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(CHORES, workers=2, seconds=20) as pool:
        yield pool


@pytest.fixture(scope="module")
def hasty() -> Iterator[WorkerPool]:
    with WorkerPool(CHORES, workers=2, seconds=1.5) as pool:
        yield pool


def values(outcomes: list[Outcome]) -> list[object]:
    return [outcome.value if outcome.status == "done" else outcome.status for outcome in outcomes]


def running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while running(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not running(pid)


def test_results_come_in_the_order_of_the_jobs(pool: WorkerPool) -> None:
    jobs = [{"return": i, "sleep": 0.02 * (i % 3 == 0)} for i in range(60)]
    assert values(pool.map(jobs)) == list(range(60))
    assert pool.map([]) == []


def test_text_of_any_kind_and_size_survives_the_way_there_and_back(pool: WorkerPool) -> None:
    texts = ["\x00", "\n", "\udc80 lone", "√2 – 😀", "x" * 3_000_000]
    assert values(pool.map([{"return": text} for text in texts])) == texts


def test_both_workers_work_at_a_time(pool: WorkerPool, tmp_path: Path) -> None:
    meeting = {"note": str(tmp_path / "pids"), "meet": 2, "pid": True}  # each waits for the other to begin
    pids = {value["pid"] for value in values(pool.map([meeting] * 2))}  # type: ignore[index]
    assert len(pids) == 2


@pytest.mark.parametrize("stuck", [{"sleep": 60}, {"disaster": "power"}])
def test_a_stuck_job_costs_its_limit_and_no_other_job(hasty: WorkerPool, stuck: dict[str, object]) -> None:
    start = time.monotonic()
    outcomes = hasty.map([{"return": 0}, stuck, *({"return": i} for i in range(2, 40))])
    assert values(outcomes) == [0, "limit", *range(2, 40)]
    assert outcomes[1].detail == "took longer than 1.5 s"
    assert 1.5 <= time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("disaster", "status", "detail"),
    [
        ("segfault", "died", f"exit status {-signal.SIGSEGV}"),
        ("exit", "died", "exit status 3"),
        ("memory", "memory", ""),
        ("recursion", "error", "RecursionError"),
        ("error", "error", "ValueError: no such answer"),
        ("unserializable", "error", "TypeError"),
    ],
)
def test_a_disaster_is_told_and_costs_no_other_job(pool: WorkerPool, disaster: str, status: str, detail: str) -> None:
    outcomes = pool.map([{"return": 0}, {"disaster": disaster}, {"return": 2}, {"return": 3}])
    assert values(outcomes) == [0, status, 2, 3]
    assert outcomes[1].detail.startswith(detail)


def test_a_job_whose_worker_was_killed_from_outside_is_done_by_another(pool: WorkerPool, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def kill() -> None:
        while not note.exists() or not note.read_text().endswith("\n"):
            time.sleep(0.01)
        os.kill(int(note.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert values(pool.map([{"note": str(note), "sleep": 0.3, "return": "done"}])) == ["done"]
    killer.join()
    assert len(set(note.read_text().split())) == 2


def test_workers_killed_between_calls_are_replaced(pool: WorkerPool) -> None:
    pids = {value["pid"] for value in values(pool.map([{"sleep": 0.1, "pid": True}] * 2))}  # type: ignore[index]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert values(pool.map([{"return": i} for i in range(5)])) == list(range(5))


def test_what_a_job_prints_is_no_result(pool: WorkerPool, capfd: pytest.CaptureFixture[str]) -> None:
    noise = '{"status": "done", "value": "forged"}\n' * 5000  # more than a pipe holds
    assert values(pool.map([{"print": noise, "return": 1}, {"return": 2}])) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_worker_is_replaced_after_its_share_of_jobs() -> None:
    with WorkerPool(CHORES, workers=1, seconds=20, jobs_per_worker=2) as pool:
        pids = [value["pid"] for value in values(pool.map([{"pid": True}] * 5))]  # type: ignore[index]
    assert [pids.index(pid) for pid in pids] == [0, 0, 2, 2, 4]


def test_several_threads_may_use_one_pool(pool: WorkerPool) -> None:
    found: dict[int, list[object]] = {}

    def use(number: int) -> None:
        found[number] = values(pool.map([{"return": [number, i]} for i in range(30)]))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[number, i] for i in range(30)] for number in range(4)}


def test_workers_do_not_import_what_the_parent_has(pool: WorkerPool) -> None:
    import torch  # noqa: F401

    assert values(pool.map([{"modules": ["torch", "numpy", "pytest"]}])) == [[]]


def test_a_forked_child_has_workers_of_its_own(pool: WorkerPool) -> None:
    [mine] = values(pool.map([{"pid": True}]))
    child = os.fork()
    if child == 0:  # no assertion may leave this branch
        try:
            [its] = values(pool.map([{"pid": True}]))
            pool.close()
            os._exit(0 if its != mine else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert values(pool.map([{"pid": True}])) == [mine]


def script(body: str, *arguments: object) -> subprocess.Popen[str]:
    code = textwrap.dedent(body)
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(note: Path, lines: int) -> list[int]:
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        if note.exists() and len(pids := note.read_text().split()) == lines:
            return [int(pid) for pid in pids]
        time.sleep(0.02)
    raise TimeoutError(f"{note} has not got {lines} lines")


def test_an_interrupt_leaves_no_worker_and_a_pool_that_works(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    process = script(
        """
        import sys
        from riskpo_study.verify.worker_pool import WorkerPool
        pool = WorkerPool("worker_jobs:chores", workers=2, seconds=60)
        try:
            pool.map([{"note": sys.argv[1], "sleep": 50, "return": "stale"}] * 2)
        except KeyboardInterrupt:
            print([outcome.value for outcome in pool.map([{"return": i} for i in range(4)])])
        """,
        note,
    )
    pids = wait_for(note, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "[0, 1, 2, 3]\n", "")
    assert all(ends(pid, 20) for pid in pids)


@pytest.mark.parametrize("job", [{"sleep": 600}, {"disaster": "power"}, {}])
def test_workers_end_after_a_parent_that_was_killed(tmp_path: Path, job: dict[str, object]) -> None:
    note = tmp_path / "pids"
    process = script(
        """
        import json, sys, time
        from riskpo_study.verify.worker_pool import WorkerPool
        WorkerPool("worker_jobs:chores", workers=1, seconds=1).map([{"note": sys.argv[1]} | json.loads(sys.argv[2])])
        time.sleep(60)
        """,
        note,
        json.dumps(job),
    )
    [pid] = wait_for(note, 1)
    process.kill()
    process.communicate()
    assert ends(pid, 20)


def test_workers_end_with_the_interpreter_and_with_the_pool(tmp_path: Path) -> None:
    process = script(
        """
        from riskpo_study.verify.worker_pool import WorkerPool
        pool = WorkerPool("worker_jobs:chores", workers=1, seconds=60)
        print(pool.map([{"pid": True}])[0].value["pid"])
        """
    )
    output, errors = process.communicate(timeout=30)
    assert errors == "" and not running(int(output))
    pool = WorkerPool(CHORES, workers=1, seconds=60)
    pid = pool.map([{"pid": True}])[0].value["pid"]
    assert running(pid)
    del pool
    gc.collect()
    assert not running(pid)


def test_a_closed_pool_says_so() -> None:
    pool = WorkerPool(CHORES, workers=1, seconds=60)
    pid = pool.map([{"pid": True}])[0].value["pid"]
    pool.close()
    assert not running(pid)
    with pytest.raises(RunError, match="The worker pool is closed: make a new one"):
        pool.map([{}])


def test_a_worker_that_cannot_start_is_an_error_with_its_complaint() -> None:
    with pytest.raises(RunError, match=r"(?s)did not start: .*ImportError: a package of the worker is missing"):
        WorkerPool("worker_jobs:broken", workers=2, seconds=1).map([{}])


@pytest.mark.parametrize("setting", ["workers", "seconds", "memory", "jobs_per_worker"])
def test_settings_out_of_range_are_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = 0 of a worker pool must be positive"):
        WorkerPool(CHORES, **{"workers": 1, "seconds": 1.0, setting: 0})  # type: ignore[arg-type]
