"""Figures of algorithms against each other: best levels, gaps by attempts, risk profiles, overlap of what they solve.

Conventions and looks are those of `plots`, whose `style()` comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from riskpo_study.analysis import OVERALL, heading
from riskpo_study.plot_parts import (
    WIDTH,
    Panel,
    bar_lengths,
    by_attempts,
    colour,
    draw_bands,
    draw_level,
    draw_steps,
    finish,
    folded,
    grid,
    legend_handles,
    logarithmic,
    look_of,
    outer_labels,
    percent,
    steps_key,
)

__all__ = ["gaps", "levels", "overlap", "risk_profiles", "spread"]

_INK = "#333333"
_LINE = 0.115  # inches from one small label to the next


# Levels


def levels(
    curves: pd.DataFrame, best: pd.DataFrame, shown: Sequence[str], names: Mapping[str, str], note: str
) -> Figure:
    """Learning curves of some algorithms, and the best level of every other as a line with its name.

    A panel a metric, below each other; the names beside them are ranked.

    Args:
        curves: estimates by algorithm, step and metric of one difficulty.
        best: from `analysis.best`, of the same.
        shown: algorithms drawn as curves.
    """
    metrics = curves["metric"].unique()
    others = best[~best["algorithm"].isin(shown)]
    height = max(1.9, _LINE * others["algorithm"].nunique() + 0.3)
    figure, axes = grid(len(metrics), 1, height=height, sharex=True)
    followed = curves[curves["algorithm"].isin(shown)]
    for axis, metric in zip(axes, metrics, strict=True):
        draw_bands(axis, followed[followed["metric"] == metric], "step")
        _named_levels(axis, others[others["metric"] == metric], names, height - 0.4)
        axis.set(title=f"{metric}, {heading(curves['difficulty'].iloc[0]).lower()}", ylabel=f"{metric} (%)")
        axis.margins(x=0.015)
        percent(axis.yaxis)
    axes[-1].set_xlabel("training step")
    return finish(figure, legend_handles(followed["algorithm"], names), note)


def _named_levels(axis: Axes, best: pd.DataFrame, names: Mapping[str, str], height: float) -> None:
    """A line for each row, led to its label in the right margin; `height` of the axis in inches."""
    ranked = best.sort_values("value", kind="stable")
    low, high = axis.get_ylim()
    if len(ranked):
        low, high = min(low, ranked["value"].min()), max(high, ranked["value"].max())
    axis.set_ylim(low, high)
    margin = axis.get_yaxis_transform()  # x in widths of the axis, y in data
    places = spread(ranked["value"].to_numpy(), _LINE * (high - low) / height, low, high)
    for (_, row), place in zip(ranked.iterrows(), places, strict=True):
        look = look_of(row["algorithm"])
        axis.plot([0, 1], [row["value"]] * 2, transform=margin, **look | {"lw": 0.7, "alpha": 0.6}, zorder=1)
        elbow = ([1, 1.01, 1.09, 1.1], [row["value"]] * 2 + [place] * 2)
        axis.plot(*elbow, transform=margin, color=look["color"], lw=0.7, clip_on=False)
        label = f"{100 * row['value']:.1f}  {names.get(row['algorithm'], row['algorithm'])}"
        axis.text(1.107, place, label, transform=margin, va="center", fontsize=6, color=_INK)


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places as near as possible (least squares) to the wanted ones, ascending, `gap` apart and within the ends.

    Where there is too little room between the ends, the places are as far apart as they can be.
    """
    if len(wanted) < 2:
        return wanted.clip(low, high)
    steps = min(gap, (high - low) / (len(wanted) - 1)) * np.arange(len(wanted))
    blocks: list[list[float]] = []  # without the gaps: runs of equal places, as sum and count
    for target in wanted - steps:
        blocks.append([target, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    fitted = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
    return np.asarray(fitted.clip(low, high - steps[-1]) + steps)


# Gaps


def gaps(differences: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """Differences of Pass@k to a reference against k: a panel an algorithm, all questions in bold with the interval.

    Args:
        differences: from `analysis.differences`; the difficulties are drawn thin.
    """
    part = by_attempts(differences)
    algorithms = part["algorithm"].unique()
    difficulties = [difficulty for difficulty in part["difficulty"].unique() if difficulty != OVERALL]
    shades = dict(zip(difficulties, np.linspace(0.75, 0.25, len(difficulties)).astype(str), strict=True))
    columns, height, size = (len(algorithms), 2.2, 8.5) if len(algorithms) < 5 else (5, 1.35, 6.5)
    figure, axes = grid(len(algorithms), columns, height=height, sharex=True, sharey=True)
    for axis, algorithm in zip(axes, algorithms, strict=True):
        mine = part[part["algorithm"] == algorithm]
        draw_level(axis, 0)
        for difficulty, shade in shades.items():
            curve = mine[mine["difficulty"] == difficulty]
            axis.plot(curve["k"], curve["value"], color=shade, lw=0.8, zorder=1.5)
        draw_bands(axis, mine[mine["difficulty"] == OVERALL].assign(algorithm=algorithm), "k")
        axis.set_title(folded(names.get(algorithm, algorithm), columns, size), fontsize=size)
        logarithmic(axis, part["k"].unique(), 4 if columns > 3 else 10)
        percent(axis.yaxis)
    outer_labels(axes, "attempts k", "percentage points", small=columns == 5)
    handles = [Line2D([], [], color=_INK, label=f"{heading(OVERALL).lower()}, with interval")]
    handles += [Line2D([], [], color=shade, lw=0.8, label=heading(name)) for name, shade in shades.items()]
    return finish(figure, handles, note)


# Risk profiles


def risk_profiles(
    metrics: pd.DataFrame,
    panels: Sequence[Panel],
    accuracy: pd.DataFrame,
    names: Mapping[str, str],
    note: str,
) -> Figure:
    """Metrics during training, and beside them an estimate by difficulty with intervals, an algorithm a colour.

    Args:
        metrics: a row a run and step, see `analysis.smooth`.
        panels: which of the metrics.
        accuracy: estimates of one metric, a share, by algorithm and difficulty.
    """
    figure, axes = grid(len(panels) + 1, len(panels) + 1, height=2.3)
    for axis, panel in zip(axes, panels, strict=False):
        draw_steps(axis, metrics, panel.column)
        axis.set(title=panel.title, xlabel="training step", ylabel=panel.unit)
    algorithms, difficulties = accuracy["algorithm"].unique(), list(accuracy["difficulty"].unique())
    offsets = (np.arange(len(algorithms)) - (len(algorithms) - 1) / 2) * min(0.2, 0.7 / len(algorithms))
    for algorithm, offset in zip(algorithms, offsets, strict=True):
        part = accuracy[accuracy["algorithm"] == algorithm]
        places = [difficulties.index(difficulty) + offset for difficulty in part["difficulty"]]
        errors = bar_lengths(*(part[end].to_numpy() for end in ("value", "low", "high")))
        axes[-1].errorbar(
            places, part["value"], yerr=errors, fmt="o", markersize=4, elinewidth=1.2, color=colour(algorithm),
        )  # fmt: skip
    axes[-1].set_xticks(range(len(difficulties)), difficulties)
    metric = accuracy["metric"].iloc[0]
    axes[-1].set(title=f"{metric} after training", xlabel="difficulty", ylabel=f"{metric} (%)")
    axes[-1].grid(axis="x", visible=False)
    axes[-1].set_ylim(bottom=0)
    percent(axes[-1].yaxis)
    key = f"during training, {steps_key(metrics, names)}; after it, bars: intervals of each algorithm alone"
    return finish(figure, legend_handles(accuracy["algorithm"], names), note, key)


# Overlap


def overlap(shares: pd.DataFrame, found: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """The matrix of `analysis.overlap` with its numbers, and what each algorithm solves at all and alone.

    Args:
        shares: from `analysis.overlap`; rows solve, columns solve too.
        found: estimates of the columns of `analysis.solved` over all questions.
    """
    order = shares["algorithm"].drop_duplicates().tolist()
    matrix = shares.pivot(index="algorithm", columns="other", values="value").loc[order, order].to_numpy()
    cell = max(0.165, min(0.42, 3.1 / len(order)))  # inches
    figure, (grid, reached, alone) = plt.subplots(
        1, 3, sharey=True, figsize=(WIDTH, cell * len(order) + 1.5), width_ratios=[cell * len(order), 0.6, 0.6]
    )
    _matrix(grid, matrix, cell)
    short = [names.get(name, name).partition(" (")[0] for name in order]
    grid.set_yticks(range(len(order)), [names.get(name, name) for name in order], fontsize=6.5 if cell < 0.2 else 7)
    grid.set_xticks(range(len(order)), short, rotation=90, fontsize=6.5 if cell < 0.2 else 7)
    grid.xaxis.tick_top()
    grid.tick_params(length=0)
    grid.set_xlabel("of the questions that the row solves,\nthe share that the column solves too (%)")
    questions = int(found["questions"].iloc[0])
    for axis, metric, scale, label in (
        (reached, "solved", 100, "solved (%)"), (alone, "alone", questions, "by no other\n(questions)"),
    ):  # fmt: skip
        values = found[found["metric"] == metric].set_index("algorithm").loc[order, ["value", "low", "high"]] * scale
        _bars(axis, values, order, label)
    return finish(figure, [], note)


def _matrix(axis: Axes, matrix: np.ndarray, cell: float) -> None:
    known = matrix[np.isfinite(matrix)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    axis.imshow(matrix, cmap="Blues", vmin=low, vmax=high + 0.9 * (high - low) + 1e-9, aspect="auto")  # dark ink shows
    size = 5.0 if cell < 0.2 else 7.0
    for (row, column), share in np.ndenumerate(matrix):
        text = f"{100 * share:.0f}" if np.isfinite(share) else "–"
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color=_INK)
    for place in range(len(matrix)):
        axis.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, ec=_INK, lw=0.6))
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _bars(axis: Axes, values: pd.DataFrame, algorithms: Sequence[str], label: str) -> None:
    errors = bar_lengths(*(values[end].to_numpy() for end in ("value", "low", "high")))
    places, colours = np.arange(len(values)), [colour(name) for name in algorithms]
    axis.barh(places, values["value"], height=0.7, color=colours, alpha=0.45)
    axis.errorbar(values["value"], places, xerr=errors, fmt="none", elinewidth=0.9, ecolor=_INK)
    axis.set_xlabel(label)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(2))
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
