"""Tidy frames to figures. One colour and dash for each algorithm, everywhere; intervals are shaded or bars.

Call `style()` first. Every function takes `names`, what to call the algorithms, and `note`, the line on the
figure that says what it rests on (profile, seeds, n, smoothing), and returns a figure; `save` writes it as
SVG and PNG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from riskpo_study.analysis import heading
from riskpo_study.records import BASE

__all__ = [
    "COLOURS", "DASHES", "Panel", "dots", "learning_curves", "pass_at_k", "quantile_curves", "quantiles",
    "save", "style", "training", "trajectories",
]  # fmt: skip

WIDTH = 6.8  # inches: the text width of a page

# Okabe and Ito's hues, which colour-blind readers tell apart, in several lightnesses; dashes tell the rest.
COLOURS = {
    BASE: "#6f6f6f",
    "grpo": "#0072b2", "dr_grpo": "#56b4e9", "gspo": "#004c78", "gmpo": "#7f9fd6",
    "dapo": "#009e73", "gpg": "#6cc9a8", "quantile_baseline": "#00573f",
    "riskpo": "#d55e00", "riskpo_released": "#8a3c00", "risk_seeking": "#f0a66e",
    "rloo": "#b98700", "reinforce_pp": "#e6b93c",
    "pass_at_k": "#cc79a7", "max_rl": "#8f3a6c", "focal": "#6a3d9a", "entropic": "#b09fd8",
}  # fmt: skip
_DASHED, _DOTTED, _MIXED = (4.0, 1.5), (1.2, 1.2), (5.0, 1.5, 1.2, 1.5)
DASHES: dict[str, tuple[float, ...]] = dict.fromkeys(COLOURS, ()) | {
    BASE: _DOTTED,
    "dr_grpo": _DASHED, "gspo": _MIXED, "gmpo": _DOTTED,
    "dapo": _DASHED, "gpg": _DOTTED, "quantile_baseline": _MIXED,
    "riskpo_released": _MIXED, "risk_seeking": _DASHED,
    "rloo": _MIXED, "reinforce_pp": _DASHED,
    "pass_at_k": _DASHED, "focal": _DOTTED,
}  # fmt: skip

_SHARES = ("%", "percentage points")
"""Units of shares, which are labelled times 100."""

_BOLD = ("grpo", "riskpo", BASE)
"""Drawn in bold in crowded panels."""

_CROWDED = 6
"""With more algorithms than this in a panel, seeds and bands would hide each other and are left out."""


def style() -> None:
    """Set the defaults of the study's figures: seaborn's ticks, and sizes for a printed page."""
    import seaborn as sns  # here, since it loads IPython where there is one

    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]})
    sns.set_theme(context="paper", style="ticks", font="DejaVu Sans", rc={
        "figure.constrained_layout.use": True, "figure.dpi": 110, "savefig.dpi": 200,
        "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "legend.fontsize": 7.5,
        "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
        "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.axisbelow": True,
        "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
        "lines.linewidth": 1.5, "legend.frameon": False, "legend.handlelength": 2.6,
        "lines.dash_capstyle": "butt", "lines.scale_dashes": True,
        "svg.hashsalt": "riskpo_study",
    })  # fmt: skip


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.svg` and `name.png`, the same bytes for the same figure."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})


class Panel(NamedTuple):
    """A metric: its column, what to write above and beside it, and where to draw a line to compare with."""

    column: str
    title: str
    unit: str
    level: float | None = None


def training(
    metrics: pd.DataFrame,
    panels: Sequence[Panel],
    names: Mapping[str, str],
    note: str,
    held_out: pd.DataFrame | None = None,
) -> Figure:
    """Metrics of every training step: mean over seeds in bold, each seed thin.

    Args:
        metrics: a row a run and step, see `analysis.smooth`.
        held_out: tidy estimates by algorithm and step of one more panel, drawn with their intervals.
    """
    count = len(panels) + (held_out is not None)
    figure, axes = _grid(count, 3 if count == 3 else 2)
    for axis, panel in zip(axes, panels, strict=False):
        _level(axis, panel.level)
        _steps(axis, metrics, panel.column)
        axis.set(title=panel.title, xlabel="training step", ylabel=panel.unit)
    if held_out is not None:
        _bands(axes[-1], held_out, "step")
        axes[-1].set(title="Entropy on the held-out questions", xlabel="training step", ylabel="nats per token")
    return _finish(figure, _handles(metrics["algorithm"], names), note)


def learning_curves(tidy: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """Held-out measures against the step: a row a metric, a column a difficulty."""
    metrics, difficulties = tidy["metric"].unique(), tidy["difficulty"].unique()
    figure, axes = _grid(len(metrics) * len(difficulties), len(difficulties), height=1.8, sharex=True, sharey="row")
    cells = [(metric, difficulty) for metric in metrics for difficulty in difficulties]
    for axis, (metric, difficulty) in zip(axes, cells, strict=True):
        _bands(axis, tidy[(tidy["metric"] == metric) & (tidy["difficulty"] == difficulty)], "step")
        axis.set_title(f"{metric}, {heading(difficulty).lower()}")
        _percent(axis.yaxis)
        if difficulty == difficulties[0]:
            axis.set_ylabel(f"{metric} (%)")
        if metric == metrics[-1]:
            axis.set_xlabel("training step")
    return _finish(figure, _handles(tidy["algorithm"], names), note)


def trajectories(tidy: pd.DataFrame, x: Panel, y: Panel, names: Mapping[str, str], note: str) -> Figure:
    """One held-out measure against another along training, from the common start to ends with intervals.

    Args:
        tidy: estimates by algorithm, step and metric, as changes since the start.
        x, y: metrics (as `column`) and their axes.
    """
    width = WIDTH * 0.75
    figure, axis = plt.subplots(figsize=(width, 3.7))
    crowded = _is_crowded(tidy)
    for algorithm, group in tidy.groupby("algorithm", sort=False):
        table = group.pivot(index="step", columns="metric", values=["value", "low", "high"]).sort_index()
        path = [table["value"][panel.column].to_numpy() for panel in (x, y)]
        bars = [
            _errors(*(table[end][panel.column].to_numpy()[-1:] for end in ("value", "low", "high"))) for panel in (x, y)
        ]
        look = _look(str(algorithm), crowded)
        axis.plot(*path, marker=".", markersize=3, zorder=2, **look)
        axis.plot(path[0][:1], path[1][:1], "o", mfc="white", mec=COLOURS[BASE], markersize=5, zorder=4)
        axis.errorbar(
            path[0][-1:], path[1][-1:], xerr=None if crowded else bars[0], yerr=None if crowded else bars[1],
            fmt="o", color=look["color"], markersize=4.5, elinewidth=0.9, zorder=3,
        )  # fmt: skip
    for panel, which in ((x, axis.xaxis), (y, axis.yaxis)):
        if panel.unit in _SHARES:
            _percent(which)
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
    return _finish(figure, [*_handles(tidy["algorithm"], names), start], note)


def quantiles(
    metrics: pd.DataFrame,
    smoothed: pd.DataFrame,
    alpha: float,
    beta: float,
    names: Mapping[str, str],
    note: str,
) -> Figure:
    """Tracked quantiles of the bundle score beside each batch's own, and the share of bundles in each region.

    A column for each algorithm that tracks quantiles, showing the lowest of its seeds.

    Args:
        metrics: a row a run and step, as recorded: for the quantiles.
        smoothed: the same as moving averages: for the shares.
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
        for key, symbol, marker, level, colour in (
            ("beta", "β", "^", beta, "#d55e00"), ("alpha", "α", "v", alpha, "#0072b2"),
        ):  # fmt: skip
            upper.plot(
                run["step"], run[f"quantile/{key}_batch"], marker, markersize=2.4, color=colour, alpha=0.35,
                mew=0, label=f"level {symbol} = {level:g}, this batch",
            )  # fmt: skip
            upper.plot(
                run["step"],
                run[f"quantile/{key}"],
                color=colour,
                label=f"level {symbol} = {level:g}, tracked",
            )
        shares = smoothed[(smoothed["algorithm"] == algorithm) & (smoothed["seed"] == run["seed"].iloc[0])]
        lower.stackplot(
            shares["step"],
            *(shares[name] for name in regions),
            colors=shades,
            labels=list(regions.values()),
            lw=0,
        )
        upper.set_title(_folded(names.get(str(algorithm), str(algorithm)), len(tracked) + 1))
        lower.set(xlabel="training step", ylim=(0, 1), xlim=(run["step"].min(), run["step"].max()))
        _percent(lower.yaxis)
        lower.grid(False)
    axes[0, 0].set_ylabel("bundle score")
    axes[1, 0].set_ylabel("share of bundles (%)")
    for axis in axes[:, -1]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _finish(figure, [], f"{note} · of each algorithm the lowest seed")


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
    columns = min(len(trained), 3 if len(trained) % 3 == 0 else 4)
    figure, axes = _grid(len(trained), columns, height=2.2, sharex=True, sharey=True)
    for axis, algorithm in zip(axes, trained, strict=True):
        for tail in ((0.0, alpha), (beta, 1.0)):
            axis.axvspan(*tail, color="#f3f3f3", lw=0, zorder=0)
        _curve(axis, curves[curves["algorithm"] == BASE], COLOURS[BASE], DASHES[BASE])
        for step, strength in strengths.items():
            curve = curves[(curves["algorithm"] == algorithm) & (curves["step"] == step)]
            _curve(axis, curve, _mixed(COLOURS.get(algorithm, "black"), strength))
        axis.set_title(_folded(names.get(algorithm, algorithm), columns))
        axis.set_xlim(0, 1)
    _outer_labels(axes, "quantile level", unit)
    handles = [Line2D([], [], label=names[BASE], **_look(BASE))] if BASE in set(curves["algorithm"]) else []
    handles += [Line2D([], [], color=_mixed("#000000", of), label=f"step {step}") for step, of in strengths.items()]
    return _finish(figure, handles, f"{note} · shaded: the tails, levels to α = {alpha:g} and from β = {beta:g}")


def pass_at_k(tidy: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """Pass@k against k on a logarithmic axis, a panel a difficulty."""
    part = tidy[tidy["metric"].str.startswith("Pass@")].assign(k=lambda frame: frame["metric"].str[5:].astype(int))
    difficulties = part["difficulty"].unique()
    figure, axes = _grid(len(difficulties), len(difficulties), sharey=True, height=2.4)
    for axis, difficulty in zip(axes, difficulties, strict=True):
        _bands(axis, part[part["difficulty"] == difficulty], "k")
        ks = sorted(part["k"].unique())
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(ks))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.minorticks_off()
        _percent(axis.yaxis)
        axis.set(title=heading(difficulty), xlabel="attempts k")
    axes[0].set_ylabel("Pass@k (%)")
    return _finish(figure, _handles(part["algorithm"], names), note)


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
    figure, axes = _grid(len(groups), len(groups), sharey=True, height=height)
    for axis, group in zip(axes, groups, strict=True):
        part = tidy[tidy[by] == group].set_index("algorithm").reindex(order)
        _level(axis, level, vertical=True)
        for position, (algorithm, row) in enumerate(part.iterrows()):
            errors = _errors(*(np.array([row[end]], dtype=float) for end in ("value", "low", "high")))
            axis.errorbar(
                row["value"],
                position,
                xerr=errors,
                fmt="o",
                markersize=4.5,
                elinewidth=1.2,
                color=COLOURS.get(str(algorithm), "black"),
            )
        axis.set(
            title=str(group) if by == "metric" else heading(group),
            ylim=(len(order) - 0.5, -0.5),
        )
        axis.set_yticks(range(len(order)), [names.get(name, name).replace(" (", "\n(") for name in order])
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        if unit in _SHARES:
            _percent(axis.xaxis)
    figure.supxlabel(unit, fontsize=8)
    return _finish(figure, [], note)


# Parts of figures


def _grid(count: int, columns: int, height: float = 1.9, **options: Any) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.6), squeeze=False, **options)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def _handles(algorithms: pd.Series, names: Mapping[str, str]) -> list[Line2D]:
    return [Line2D([], [], label=names.get(name, name), **_look(name)) for name in algorithms.drop_duplicates()]


def _finish(figure: Figure, handles: Sequence[Line2D], note: str) -> Figure:
    """Legend below in as many columns as fit, note above."""
    width, height = figure.get_size_inches()
    if handles:
        lengths = [len(str(handle.get_label())) / 18 + 0.7 for handle in handles]  # inches
        fitting = [n for n in range(1, len(handles) + 1) if _table_width(lengths, n) < width]
        columns = max(fitting, default=1)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        figure.set_figheight(height + 0.16 * (-(-len(handles) // columns) - 1))
    figure.suptitle(textwrap.fill(note, int(width * 22)), x=0.01, ha="left", fontsize=6.5, color="#555555")
    return figure


def _table_width(lengths: Sequence[float], columns: int) -> float:
    """Width of entries that fill `columns` columns one after the other."""
    return float(sum(column.max() for column in np.array_split(lengths, columns)))


def _look(algorithm: str, crowded: bool = False) -> dict[str, Any]:
    dashes = DASHES.get(algorithm, ())
    thin = {"lw": 0.8, "alpha": 0.7} if crowded and algorithm not in _BOLD else {}
    return {"color": COLOURS.get(algorithm, "black"), "linestyle": (0, dashes) if dashes else "solid"} | thin


def _is_crowded(frame: pd.DataFrame) -> bool:
    return frame["algorithm"].nunique() > _CROWDED


def _steps(axis: Axes, metrics: pd.DataFrame, column: str) -> None:
    crowded = _is_crowded(metrics)
    for algorithm, group in metrics.groupby("algorithm", sort=False):
        look = _look(str(algorithm), crowded)
        runs = group.pivot(index="step", columns="seed", values=column)
        if runs.shape[1] > 1 and not crowded:
            axis.plot(runs.index, runs.to_numpy(), color=look["color"], lw=0.6, alpha=0.45)
        axis.plot(runs.index, runs.mean(axis=1), **look)


def _bands(axis: Axes, tidy: pd.DataFrame, x: str) -> None:
    crowded = _is_crowded(tidy)
    for algorithm, group in tidy.groupby("algorithm", sort=False):
        look = _look(str(algorithm), crowded)
        group = group.sort_values(x)
        if not crowded:
            axis.fill_between(group[x], group["low"], group["high"], color=look["color"], alpha=0.15, lw=0)
        dots: dict[str, Any] = {"marker": ".", "markersize": 4} if len(group) < 20 and not crowded else {}
        axis.plot(group[x], group["value"], **look, **dots)


def _level(axis: Axes, level: float | None, vertical: bool = False) -> None:
    if level is not None:
        (axis.axvline if vertical else axis.axhline)(level, color="#9a9a9a", lw=0.8, zorder=1)


def _errors(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths of error bars, (2, n)."""
    return np.stack([value - low, high - value]).clip(min=0)


def _mixed(colour: str, share: float) -> tuple[float, float, float]:
    """The colour with white mixed in: more the smaller its share."""
    strength = 0.35 + 0.65 * share
    red, green, blue = (strength * channel + 1 - strength for channel in mpl.colors.to_rgb(colour))
    return red, green, blue


def _curve(axis: Axes, curve: pd.DataFrame, colour: Any, dashes: tuple[float, ...] = ()) -> None:
    curve = curve.sort_values("level")
    axis.fill_between(curve["level"], curve["low"], curve["high"], color=colour, alpha=0.18, lw=0)
    style = (0, dashes) if dashes else "solid"
    axis.plot(curve["level"], curve["value"], color=colour, linestyle=style, marker=".", markersize=4)


def _percent(axis: Axis) -> None:
    """Label shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}".replace("-", "−")))


def _folded(name: str, panels: int) -> str:
    """A name with its options on lines of their own, as wide as one of `panels` beside each other."""
    short, opening, options = name.partition(" (")
    lines = textwrap.wrap(f"({options}", int(15 * WIDTH / panels) - 6) if opening else []
    return "\n".join([short, *lines])


def _outer_labels(axes: Sequence[Axes], x: str, y: str) -> None:
    for axis in axes:
        place = axis.get_subplotspec()
        assert place is not None
        if place.is_last_row():
            axis.set_xlabel(x)
        if place.is_first_col():
            axis.set_ylabel(y)
