"""The figures of `12_scale`, from the frames of `staleness`; conventions as in `plots`, call `plots.style()` first.

Every function takes `note`, the line on the figure that says what it rests on.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from riskpo_study import staleness
from riskpo_study.algorithms import RiskSettings
from riskpo_study.plot_parts import COLOURS, draw_level, finish, grid

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
        stale: from `staleness.stale_errors`, of one schedule and several drifts.
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
        look = {"color": colour, "marker": marker, "markersize": 2.5, "lw": 0.9, "linestyle": speeds[speed]}
        left.plot(moved, part["error"] - part["error"].iloc[0], **look)
        middle.plot(moved, part["length"] - part["length"].iloc[0], **look)
    across = "age × drift × B, in scores"
    left.set(title="Error that age adds", xlabel=across, ylabel="scores", xlim=(0, limit), ylim=(-0.1, limit))
    middle.set(title="In the length of the step", xlabel=across, ylabel="share of the length", xlim=(0, limit))
    for (schedule, part), style in zip(schedules.groupby("schedule", sort=False), ("o-", "s--", "^:"), strict=True):
        right.plot(part["age"], part["error"], style, color=_BLUE, markersize=2.5, lw=0.9, label=schedule)
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
        split: from `staleness.shard_errors`.
        unlike: from `staleness.unlike_shards`.
    """
    figure, (left, right) = grid(2, 2, height=2.5)
    for tracker, part in split.groupby("tracker", sort=False):
        colour, marker = _TRACKERS[str(tracker)]
        left.plot(part["shards"], part["error"], color=colour, marker=marker, markersize=3, lw=1, label=str(tracker))
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


def learning(found: pd.DataFrame, note: str) -> Figure:
    """Mean accuracy over a run, by the age of what it learns from; a panel a rate: from `staleness.learning`."""
    rates = found["rate"].unique()
    figure, axes = grid(len(rates), 2, height=2.4, sharey=True)
    colours = (COLOURS["riskpo"], COLOURS["riskpo_released"], COLOURS["dr_grpo"])
    looks = dict(zip(staleness.ALGORITHMS, zip(colours, "os^", strict=True), strict=True))
    for axis, rate in zip(axes, rates, strict=True):
        part = found[found["rate"] == rate]
        for name, (colour, marker) in looks.items():
            line = part[part["algorithm"] == name]
            axis.plot(line["age"], line["accuracy"], color=colour, marker=marker, markersize=3, label=name)
        speed = 1000 * part["drift"].iloc[0]
        title = f"RiskPO's accuracy rises by {speed:.1f} ‰ a step if fresh"
        axis.set(title=title, xlabel="age of the responses, in steps", ylim=(0, 1))
    axes[0].set_ylabel("mean accuracy over the run")
    axes[0].legend(loc="lower left", fontsize=6.5)
    return finish(figure, [], note)
