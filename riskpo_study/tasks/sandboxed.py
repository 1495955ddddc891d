"""Tasks whose responses are programs, which the sandbox runs."""

from __future__ import annotations

from collections.abc import Sequence

from riskpo_study.tasks.protocol import Verdict
from riskpo_study.verify.sandbox import Program, Sandbox

__all__ = ["SANDBOX", "verdicts"]

SANDBOX: tuple[str, ...] = (
    "tasks/sandboxed", "verify/sandbox", "verify/sandbox_worker/candidate", "verify/sandbox_worker/kernel",
    "verify/sandbox_worker/loop",
)  # fmt: skip
"""The `modules` of what is here and of the sandbox."""


def verdicts(sandbox: Sandbox, programs: Sequence[tuple[str, Program, str] | None]) -> list[Verdict]:
    """Reward 1 for a program that passes all its cases, else 0.

    Args:
        programs: of each response the question's id, the program and the answer; None where it holds no program. Equal
            programs for a question run once.
    """
    distinct = {(given[0], given[1].source): given[1] for given in programs if given}
    outcomes = dict(zip(distinct, sandbox.judge([*distinct.values()]), strict=True))
    found = []
    for given in programs:
        if given is None:
            found.append(Verdict(0.0, None))
        else:
            question, program, answer = given
            found.append(Verdict(float(outcomes[question, program.source].status == "passed"), answer))
    return found
