"""Numbers to reproduce, and where they come from.

golden.json is a list of `{name, inputs, params, outputs}`, computed in float64 independently of this package:
closed forms, enumeration and finite differences, and for the entries `official_*` by calling the advantage
function that RiskPO's authors released (`compute_grpo_bundle_rvar_outcome_advantage_quantile_tracking`,
github.com/RTkenny/RiskPO). Matrices `BxG` hold the questions of one bundle group in rows, their responses in
columns. test_golden.py sees to it that every number is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("golden.json")
ENTRIES: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))


def golden(name: str) -> dict[str, Any]:
    """The entry `name`: its `inputs`, `params` and `outputs`."""
    return next(entry for entry in ENTRIES if entry["name"] == name)
