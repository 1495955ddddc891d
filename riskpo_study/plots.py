"""Tidy frames to figures. One colour and dash for each algorithm, everywhere; intervals are shaded or bars.

Call `style()` first. Every function takes `names`, what to call the algorithms, and `note`, the line on the
figure that says what it rests on (profile, seeds, n, smoothing), and returns a figure; `save` writes it as
SVG and PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from riskpo_study.analysis import heading
from riskpo_study.plot_parts import (
    COLOURS,
    DASHES,
    LONG,
    SHARES,
    WIDTH,
    Panel,
    bands_key,
    bar_lengths,
    by_attempts,
    colour,
    draw_bands,
    draw_curve,
    draw_level,
    draw_steps,
    finish,
    folded,
    grid,
    is_crowded,
    legend_handles,
    logarithmic,
    look_of,
    outer_labels,
    percent,
    save,
    steps_key,
    style,
    whitened,
    with_intervals,
)
from riskpo_study.records import BASE

__all__ = [
    "COLOURS", "DASHES", "Panel", "colour", "dots", "learning_curves", "pass_at_k", "quantile_curves", "quantiles",
    "save", "style", "training", "trajectories",
]  # fmt: skip


def training(
    metrics: pd.DataFrame,
    panels: Sequence[Panel],
    names: Mapping[str, str],
    note: str,
    held_out: pd.DataFrame | None = None,
) -> Figure:
    """Metrics of every training step: means over seeds, and how far the seeds lie apart.

    Args:
        metrics: a row a run and step, see `analysis.smooth`.
        held_out: tidy estimates by algorithm and step of one more panel, drawn with their intervals.
    """
    count = len(panels) + (held_out is not None)
    figure, axes = grid(count, 3 if count == 3 else 2)
    for axis, panel in zip(axes, panels, strict=False):
        draw_level(axis, panel.level)
        draw_steps(axis, metrics, panel.column)
        axis.set(title=panel.title, xlabel="training step", ylabel=panel.unit)
    if held_out is not None:
        draw_bands(axes[-1], held_out, "step")
        axes[-1].set(title="Entropy on the held-out questions", xlabel="training step", ylabel="nats per token")
        key = f"left, {steps_key(metrics, names)}; right, {bands_key(held_out, names)}"
    else:
        key = steps_key(metrics, names)
    return finish(figure, legend_handles(metrics["algorithm"], names), note, key)


def learning_curves(tidy: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """Held-out measures against the step: a row a metric, a column a difficulty."""
    metrics, difficulties = tidy["metric"].unique(), tidy["difficulty"].unique()
    figure, axes = grid(len(metrics) * len(difficulties), len(difficulties), height=1.8, sharex=True, sharey="row")
    cells = [(metric, difficulty) for metric in metrics for difficulty in difficulties]
    for axis, (metric, difficulty) in zip(axes, cells, strict=True):
        draw_bands(axis, tidy[(tidy["metric"] == metric) & (tidy["difficulty"] == difficulty)], "step")
        axis.set_title(f"{metric}, {heading(difficulty).lower()}")
        percent(axis.yaxis)
        if difficulty == difficulties[0]:
            axis.set_ylabel(f"{metric} (%)")
        if metric == metrics[-1]:
            axis.set_xlabel("training step")
    return finish(figure, legend_handles(tidy["algorithm"], names), note, bands_key(tidy, names))


def trajectories(tidy: pd.DataFrame, x: Panel, y: Panel, names: Mapping[str, str], note: str) -> Figure:
    """One held-out measure against another along training, from the common start to ends with intervals.

    Args:
        tidy: estimates by algorithm, step and metric, as changes since the start.
        x, y: metrics (as `column`) and their axes.
    """
    crowded, barred = is_crowded(tidy), with_intervals(tidy)
    figure, axis = plt.subplots(figsize=(WIDTH if crowded else 0.75 * WIDTH, 3.7))
    for algorithm, group in tidy.groupby("algorithm", sort=False):
        table = group.pivot(index="step", columns="metric", values=["value", "low", "high"]).sort_index()
        path = [table["value"][panel.column].to_numpy() for panel in (x, y)]
        bars = [
            bar_lengths(*(table[end][panel.column].to_numpy()[-1:] for end in ("value", "low", "high")))
            for panel in (x, y)
        ]
        look = look_of(str(algorithm), crowded)
        axis.plot(*path, marker=".", markersize=3, **{"zorder": 2} | look)
        axis.plot(path[0][:1], path[1][:1], "o", mfc="white", mec=COLOURS[BASE], markersize=5, zorder=4)
        xerr, yerr = bars if algorithm in barred else (None, None)
        axis.errorbar(
            path[0][-1:], path[1][-1:], xerr=xerr, yerr=yerr,
            fmt="o", color=look["color"], markersize=4.5, elinewidth=0.9, zorder=3,
        )  # fmt: skip
    for panel, which in ((x, axis.xaxis), (y, axis.yaxis)):
        if panel.unit in SHARES:
            percent(which)
        which.set_label_text(f"{panel.title} ({panel.unit})")
    start = Line2D(
        [],
        [],
        marker="o",
        mfc="white",
        mec=COLOURS[BASE],
        linestyle="",
        markersize=5,
        label="start of training",
    )
    key = bands_key(tidy, names, "bars at the ends")
    return finish(figure, [*legend_handles(tidy["algorithm"], names), start], note, key)


def quantiles(
    metrics: pd.DataFrame,
    smoothed: pd.DataFrame,
    levels: Mapping[str, tuple[float, float]],
    names: Mapping[str, str],
    note: str,
) -> Figure:
    """Tracked quantiles of the bundle score beside each batch's own, and the share of bundles in each region.

    A column for each algorithm that tracks quantiles, showing the lowest of its seeds.

    Args:
        metrics: a row a run and step, as recorded: for the quantiles.
        smoothed: the same as moving averages: for the shares.
        levels: α and β of each algorithm.
    """
    tracked = [
        name for name, group in metrics.groupby("algorithm", sort=False) if group["quantile/alpha"].notna().any()
    ]
    figure, axes = plt.subplots(
        2,
        len(tracked),
        figsize=(WIDTH, 4.2),
        squeeze=False,
        sharex=True,
        sharey="row",
        height_ratios=[1.3, 1],
    )
    shades = [mpl.colormaps["Greys"](shade) for shade in (0.65, 0.35, 0.15)]
    regions = {"region/lower": "below $q_α$", "region/middle": "between", "region/upper": "above $q_β$"}
    for column, algorithm in enumerate(tracked):
        runs = metrics[metrics["algorithm"] == algorithm]
        run = runs[runs["seed"] == runs["seed"].min()].sort_values("step")
        upper, lower = axes[:, column]
        for key, symbol, marker, hue in (("beta", "$q_β$", "^", "#d55e00"), ("alpha", "$q_α$", "v", "#0072b2")):
            upper.plot(
                run["step"], run[f"quantile/{key}_batch"], marker, markersize=3, color=hue, alpha=0.5,
                mew=0, label=f"{symbol} of this batch",
            )  # fmt: skip
            upper.plot(run["step"], run[f"quantile/{key}"], color=hue, label=f"{symbol}, tracked")
        shares = smoothed[(smoothed["algorithm"] == algorithm) & (smoothed["seed"] == run["seed"].iloc[0])]
        lower.stackplot(
            shares["step"],
            *(shares[name] for name in regions),
            colors=shades,
            labels=list(regions.values()),
            lw=0,
        )
        name, (alpha, beta) = names.get(str(algorithm), str(algorithm)), levels[str(algorithm)]
        upper.set_title(f"{folded(name, len(tracked))}\nα = {alpha:g}, β = {beta:g}")
        lower.set(xlabel="training step", ylim=(0, 1), xlim=(run["step"].min(), run["step"].max()))
        percent(lower.yaxis)
        lower.grid(False)
    axes[0, 0].set_ylabel("bundle score")
    axes[1, 0].set_ylabel("share of bundles (%)")
    handles = [handle for axis in axes[:, 0] for handle in axis.get_legend_handles_labels()[0]]
    return finish(figure, handles, f"{note} · of each algorithm the lowest seed")


def quantile_curves(
    curves: pd.DataFrame, alpha: float, beta: float, names: Mapping[str, str], note: str, unit: str
) -> Figure:
    """Log-probability against the quantile level of the bundle score, a panel an algorithm, one line a step.

    Args:
        curves: from `analysis.quantile_curves`; the base model's, where there is one, starts every panel.
    """
    trained = [name for name in curves["algorithm"].unique() if name != BASE] or [BASE]
    steps = sorted(curves.loc[curves["algorithm"] != BASE, "step"].unique())
    strengths = {step: (position + 1) / len(steps) for position, step in enumerate(steps)}
    small = len(trained) > LONG
    columns = 5 if small else min(len(trained), 3 if len(trained) % 3 == 0 else 4)
    figure, axes = grid(len(trained), columns, height=1.55 if small else 2.2, sharex=True, sharey=True)
    for axis, algorithm in zip(axes, trained, strict=True):
        for tail in ((0.0, alpha), (beta, 1.0)):
            axis.axvspan(*tail, color="#f3f3f3", lw=0, zorder=0)
        draw_curve(axis, curves[curves["algorithm"] == BASE], COLOURS[BASE], DASHES[BASE])
        for step, strength in strengths.items():
            curve = curves[(curves["algorithm"] == algorithm) & (curves["step"] == step)]
            draw_curve(axis, curve, whitened(colour(algorithm), strength))
        size = 6.5 if small else 8.5
        axis.set_title(folded(names.get(algorithm, algorithm), columns, size), fontsize=size)
        axis.set_xlim(0, 1)
        axis.xaxis.set_major_locator(MaxNLocator(2 if small else 4))
    outer_labels(axes, "quantile level", unit, small)
    handles = [Line2D([], [], label=names[BASE], **look_of(BASE))] if BASE in set(curves["algorithm"]) else []
    handles += [Line2D([], [], color=whitened("#000000", of), label=f"step {step}") for step, of in strengths.items()]
    return finish(figure, handles, f"{note} · shaded: the tails, levels to α = {alpha:g} and from β = {beta:g}")


def pass_at_k(tidy: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """Pass@k against k on a logarithmic axis, a panel a difficulty."""
    part = by_attempts(tidy)
    difficulties = part["difficulty"].unique()
    figure, axes = grid(len(difficulties), len(difficulties), sharey=True, height=2.4)
    for axis, difficulty in zip(axes, difficulties, strict=True):
        draw_bands(axis, part[part["difficulty"] == difficulty], "k")
        logarithmic(axis, part["k"].unique())
        percent(axis.yaxis)
        axis.set(title=heading(difficulty), xlabel="attempts k")
    axes[0].set_ylabel("Pass@k (%)")
    return finish(figure, legend_handles(part["algorithm"], names), note, bands_key(part, names))


def dots(tidy: pd.DataFrame, names: Mapping[str, str], note: str, unit: str, level: float | None = None) -> Figure:
    """Estimates with their intervals, a row an algorithm, a panel a metric (or a difficulty, of one metric).

    Args:
        unit: of the horizontal axis; `%` and `percentage points` show shares times 100.
        level: where to draw a line to compare with.
    """
    by = "metric" if tidy["metric"].nunique() > 1 else "difficulty"
    groups = tidy[by].unique()
    order = tidy["algorithm"].drop_duplicates().tolist()
    height = 0.3 + 0.27 * len(order)
    figure, axes = grid(len(groups), len(groups), sharey=True, height=height)
    for axis, group in zip(axes, groups, strict=True):
        part = tidy[tidy[by] == group].set_index("algorithm").reindex(order)
        draw_level(axis, level, vertical=True)
        for position, (algorithm, row) in enumerate(part.iterrows()):
            errors = bar_lengths(*(np.array([row[end]], dtype=float) for end in ("value", "low", "high")))
            axis.errorbar(
                row["value"],
                position,
                xerr=errors,
                fmt="o",
                markersize=4.5,
                elinewidth=1.2,
                color=colour(str(algorithm)),
            )
        axis.set(
            title=str(group) if by == "metric" else heading(group),
            ylim=(len(order) - 0.5, -0.5),
        )
        axis.set_yticks(range(len(order)), [names.get(name, name).replace(" (", "\n(") for name in order])
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        if unit in SHARES:
            percent(axis.xaxis)
    figure.supxlabel(unit, fontsize=8)
    return finish(figure, [], note)
