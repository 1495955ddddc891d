"""Metrics of a run in a dashboard, besides its records: any tracker that accelerate knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from riskpo_study import distributed
from riskpo_study.errors import ConfigError

Track = Callable[[Mapping[str, float], int], None]
"""(metrics, step) -> None."""


def check_known(name: str) -> None:
    """Raise ConfigError for a tracker that accelerate, where it is installed, does not know."""
    if name == "none" or find_spec("accelerate") is None:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if name not in (known := [str(tracker) for tracker in LOGGER_TYPE_TO_CLASS]):
        raise ConfigError(f"hardware.tracker = {name!r} is unknown; choose one of none, {', '.join(sorted(known))}")


@contextmanager
def tracker(name: str, run: str, folder: Path) -> Iterator[Track]:
    """Send metrics to the tracker `name`; with `none`, and in all processes but the main one, they go nowhere.

    Args:
        run: what the dashboard calls the run.
        folder: where a tracker that keeps files keeps them, in a folder of its name.

    Raises:
        ConfigError: for a tracker that is unknown or not installed.
    """
    if name == "none" or not distributed.is_main():
        yield lambda metrics, step: None
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError as error:
        raise ConfigError(
            f"hardware.tracker = {name!r} needs accelerate, which is not installed: "
            "pip install -e '.[tracking]' -c constraints.txt"
        ) from error
    check_known(name)
    if name not in map(str, get_available_trackers()):
        raise ConfigError(f"hardware.tracker = {name!r} is not installed here: pip install {name}")
    dashboard = LOGGER_TYPE_TO_CLASS[name]
    places = {"logging_dir": str(folder)} if dashboard.requires_logging_directory else {}
    opened = dashboard(run, **places)
    opened.start()
    try:
        yield lambda metrics, step: opened.log({k: v for k, v in metrics.items() if math.isfinite(v)}, step=step)
    finally:
        opened.finish()
