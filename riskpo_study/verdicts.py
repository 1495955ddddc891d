"""When an estimate with its interval decides a claim: the rules, pure functions from estimates to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from riskpo_study.evaluation import Interval

__all__ = [
    "FAILS", "HOLDS", "OPEN", "UNMEASURED", "Verdict", "above", "alike", "assumed", "below", "best", "higher",
    "matching", "together",
]  # fmt: skip

Verdict = Literal["holds", "does not hold", "cannot tell at this scale", "not measured in this profile"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "cannot tell at this scale"
UNMEASURED: Verdict = "not measured in this profile"


def higher(estimate: Interval, margin: float) -> Verdict:
    """Whether something is above 0; margin >= 0 in its unit.

    It is where the whole interval lies above 0. It is not where the whole interval lies below the margin: a gain that
    would matter is ruled out, be there a loss or nothing.
    """
    if estimate.low > 0:
        return HOLDS
    return FAILS if estimate.high < margin else OPEN


def alike(estimate: Interval, margin: float) -> Verdict:
    """Whether a difference is within ± the margin: it is where the whole interval is, it is not where none of it is."""
    if -margin < estimate.low and estimate.high < margin:
        return HOLDS
    return FAILS if estimate.low >= margin or estimate.high <= -margin else OPEN


def below(estimate: Interval, limit: float) -> Verdict:
    """Whether something is below a limit: it is where the whole interval is, it is not where none of it is."""
    if estimate.high < limit:
        return HOLDS
    return FAILS if estimate.low >= limit else OPEN


def above(estimate: Interval, limit: float) -> Verdict:
    """Whether something is above a limit: it is where the whole interval is, it is not where none of it is."""
    if estimate.low > limit:
        return HOLDS
    return FAILS if estimate.high < limit else OPEN


def matching(ratio: Interval, factor: float) -> Verdict:
    """Whether a ratio is between 1/factor and the factor: it is where the whole interval is.

    It never fails: where it is not shown to hold, what needs it to was not tested.
    """
    return HOLDS if 1 / factor <= ratio.low and ratio.high <= factor else OPEN


def best(lead: float, p_holm: float, level: float) -> Verdict:
    """Whether a lead over one of several rivals is shown: its p-value, corrected for all of them, is below the level.

    It fails where the rival's lead is shown in the same way. `together` then says whether something is best of all.
    """
    if p_holm >= level:
        return OPEN
    return HOLDS if lead > 0 else FAILS


def assumed(change: Interval, expected: str) -> Verdict:
    """Whether something `falls` or `rises` as expected: its change has that sign in the whole interval, or not."""
    if change.low <= 0 <= change.high or np.isnan(change.mean):
        return OPEN
    return HOLDS if (change.mean > 0) == (expected == "rises") else FAILS


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim with several statistics: fails where one fails, holds where all hold."""
    for verdict in (FAILS, OPEN):
        if verdict in verdicts:
            return verdict
    return HOLDS
