"""The errors a user of the study can meet; each message names the thing, the value and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable


class ConfigError(ValueError):
    """A setting is unknown, ill-typed or out of range."""


class DataError(ValueError):
    """Data handed in or read back from disk does not have the promised form."""


class RunError(RuntimeError):
    """A run cannot start or go on."""


def exit_code(work: Callable[[], object]) -> int:
    """Run a command; its errors go to standard error in one line: 1 then, else 0."""
    try:
        work()
    except (ConfigError, DataError, RunError) as error:
        print(" ".join(line.strip() for line in str(error).splitlines()), file=sys.stderr)
        return 1
    return 0
