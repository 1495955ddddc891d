"""The figures of `12_scale`, from the frames of `staleness`; conventions as in `plots`, call `plots.style()` first.

Every function takes `note`, the line on the figure that says what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from riskpo_study import staleness
from riskpo_study.algorithms import RiskSettings
from riskpo_study.plot_parts import COLOURS, bar_lengths, draw_level, finish, grid
from riskpo_study.scale_findings import TRACKING

__all__ = ["learning", "paths", "shards", "tolerance"]

# Okabe and Ito's, as in `theory_plots`.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#6f6f6f"
_TRACKERS = dict(zip(staleness.TRACKERS, ((_ORANGE, "o"), (_BLUE, "s"), (_GREY, "^")), strict=True))


def paths(found: pd.DataFrame, tracker: str, note: str) -> Figure:
    """What one tracker holds along a course, by the age of its scores, beside the exact quantiles; a panel a level.

    Args:
        found: from `staleness.follow`, with the column `age`.
    """
    found = found[found["tracker"] == tracker]
    levels = found["level"].unique()
    figure, axes = grid(len(levels), 1, height=1.8, sharex=True)
    colours = dict(zip(found["age"].unique(), (_GREEN, _BLUE, _ORANGE), strict=True))
    for axis, level in zip(axes, levels, strict=True):
        part = found[found["level"] == level]
        for age, line in part.groupby("age", sort=False):
            axis.plot(line["step"], line["value"], color=colours[age], lw=1.1)
        exact = part.drop_duplicates("step")
        axis.step(exact["step"], exact["exact"], where="mid", color="black", lw=1, linestyle=(0, (2, 1)))
        axis.set(title=f"Quantile at the level {level:g}", ylabel="bundle score")
    axes[-1].set_xlabel("training step")
    handles = [Line2D([], [], color="black", lw=1, linestyle=(0, (2, 1)), label="exact, of the policy that is updated")]
    handles += [
        Line2D([], [], color=colour, label=f"{tracker}, scores {age} steps old") for age, colour in colours.items()
    ]
    return finish(figure, handles, note)


def tolerance(stale: pd.DataFrame, schedules: pd.DataFrame, settings: RiskSettings, note: str) -> Figure:
    """The error that age adds, on one scale for all drifts; the length of the step; the error by how ages are mixed.

    Args:
        stale: `staleness.intervals` of `stale_errors`, of one schedule and several drifts.
        schedules: the same of several schedules, one drift and one tracker.
    """
    figure, (left, middle, right) = grid(3, 3, height=2.5)
    limit = 1.6
    for axis in (left, middle):
        draw_level(axis, staleness.QUARTER, vertical=True)
    draw_level(left, staleness.QUARTER)
    left.plot([0, limit], [0, limit], color="black", lw=0.9, linestyle=(0, (2, 1)))
    speeds = dict(zip(stale["drift"].unique(), ("solid", "dashed", "dotted"), strict=True))
    for (tracker, speed), part in stale.groupby(["tracker", "drift"], sort=False):
        colour, marker = _TRACKERS[str(tracker)]
        moved = part["age"] * part["drift"] * settings.bundle_size
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": speeds[speed]}
        for axis, column in ((left, "error"), (middle, "length")):
            _line(axis, moved, part, column, part[column].iloc[0], **look)
    across = "age × drift × B, in scores"
    left.set(title="Error that age adds", xlabel=across, ylabel="scores", xlim=(0, limit), ylim=(-0.1, limit))
    middle.set(title="In the length of the step", xlabel=across, ylabel="share of the length", xlim=(0, limit))
    styles = (("o", "solid"), ("s", "dashed"), ("^", "dotted"))
    for (schedule, part), (marker, dashes) in zip(schedules.groupby("schedule", sort=False), styles, strict=True):
        look = {"color": _BLUE, "marker": marker, "linestyle": dashes}
        _line(right, part["age"], part, "error", **look, label=str(schedule))
    right.set(title="By the mixture of ages", xlabel="largest age, in steps", ylabel="error, in scores")
    right.set_ylim(0, 1.35 * schedules["error"].max())
    right.legend(loc="upper left", fontsize=6)
    handles = [Line2D([], [], color=colour, marker=marker, markersize=3, lw=0.9, label=name)
               for name, (colour, marker) in _TRACKERS.items()]  # fmt: skip
    handles += [Line2D([], [], color=_GREY, lw=0.9, linestyle=dashes, label=f"{1000 * speed:g} ‰ a step")
                for speed, dashes in speeds.items()]  # fmt: skip
    handles.append(Line2D([], [], color="black", lw=0.9, linestyle=(0, (2, 1)), label="error = age × drift × B"))
    return finish(figure, handles, note)


def shards(split: pd.DataFrame, unlike: pd.DataFrame, note: str) -> Figure:
    """Errors of trackers by the number of parts of a batch; weights of the questions of two unlike shards.

    Args:
        split: `staleness.intervals` of `shard_errors`.
        unlike: from `staleness.unlike_shards`.
    """
    figure, (left, right) = grid(2, 2, height=2.5)
    for tracker, part in split.groupby("tracker", sort=False):
        colour, marker = _TRACKERS[str(tracker)]
        _line(left, part["shards"], part, "error", color=colour, marker=marker, label=str(tracker))
    left.set_xscale("log", base=2)
    left.set_xticks(split["shards"].unique(), [f"{count}" for count in split["shards"].unique()])
    left.minorticks_off()
    left.set(title="A tracker for each shard", xlabel="shards of a batch", ylabel="error, in scores")
    left.set_ylim(0, 1.45 * split["error"].max())
    left.legend(loc="upper left", fontsize=6.5)
    for (design, part), colour in zip(unlike.groupby("design", sort=False), (_BLUE, _GREEN, _ORANGE), strict=True):
        right.plot(part["spread"], part["hard"] / part["easy"], color=colour, label=str(design))
    draw_level(right, 1)
    right.set(
        title="Two unlike shards", xlabel="accuracies: mean ∓", ylabel="weight of hard over easy questions",
        yscale="log", ylim=(0.3, 9),
    )  # fmt: skip
    right.set_yticks([0.5, 1, 2, 4, 8], ["½", "1", "2", "4", "8"])
    right.minorticks_off()
    right.legend(loc="upper left", fontsize=6.5)
    return finish(figure, [], note)


def learning(lost: pd.DataFrame, speeds: Mapping[float, float], note: str) -> Figure:
    """Accuracy lost with the age of the responses, and what tracked quantiles add to it; a row a rate.

    Args:
        lost: from `staleness.lost`.
        speeds: rate -> accuracy that RiskPO gains a step with fresh responses.
    """
    figure, axes = grid(2 * len(speeds), 2, height=1.9, sharex=True)
    colours = (COLOURS["riskpo"], COLOURS["riskpo_released"], COLOURS["dr_grpo"])
    looks = dict(zip(staleness.ALGORITHMS, zip(colours, ("-", "--", ":"), "os^", strict=True), strict=True))
    for number, (rate, speed) in enumerate(speeds.items()):
        left, right = axes[2 * number : 2 * number + 2]
        of = dict(iter(lost[lost["rate"] == rate].groupby("algorithm")))
        for shift, (name, (colour, dashes, marker)) in zip((-0.4, 0, 0.4), looks.items(), strict=True):
            part = 100 * of[name].drop(columns="algorithm")
            look: dict[str, Any] = {"color": colour, "linestyle": dashes, "marker": marker}
            _line(left, of[name]["age"] + shift, part, "lost", **look, label=name)
        added = of[TRACKING]
        _line(right, added["age"], 100 * added.drop(columns="algorithm"), "lost", color="black", marker="o")
        draw_level(right, 0)
        left.set(title=f"Fresh, RiskPO gains {1000 * speed:.1f} ‰ a step", ylabel="points lost")
        right.set(title="What tracked quantiles add", ylabel="points lost")
    for axis in axes[-2:]:
        axis.set_xlabel("age of the responses, in steps")
    axes[0].legend(loc="upper left", fontsize=6.5)
    return finish(figure, [], note, "the panels differ in scale")


def _line(axis: Axes, x: pd.Series, part: pd.DataFrame, column: str, less: float = 0, **look: Any) -> None:
    """A column of `staleness.intervals`, with bars, less a constant."""
    value, low, high = (part[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
    bars = bar_lengths(value, low, high)
    axis.errorbar(x, value - less, yerr=bars, markersize=2.5, lw=0.9, elinewidth=0.7, **look)
