"""What the figures share: page width, one colour and dash for each algorithm, grids, legends, axes, bands.

`style()` comes first. In a crowded panel only `analysis.FOLLOWED` have intervals; `bands_key` and its like say in words
what was drawn, and `save` keeps these words in the SVG, from where the report's captions take them.
"""

from __future__ import annotations

import io
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from riskpo_study.analysis import FOLLOWED, joined
from riskpo_study.records import BASE

WIDTH = 6.8  # inches: the text width of a page

# Okabe and Ito's hues, which colour-blind readers tell apart, in several lightnesses; dashes tell the rest.
COLOURS = {
    BASE: "#6f6f6f",
    "grpo": "#0072b2", "dr_grpo": "#56b4e9", "gspo": "#004c78", "gmpo": "#7f9fd6",
    "dapo": "#009e73", "gpg": "#6cc9a8", "quantile_baseline": "#00573f",
    "riskpo": "#d55e00", "riskpo_released": "#8a3c00", "risk_seeking": "#f0a66e",
    "riskpo_marginal": "#ff8c42", "riskpo_stratified": "#c1121f",
    "mvar_accuracy": "#7b1e3a", "mvar_log_accuracy": "#f07f7f",
    "rloo": "#b98700", "reinforce_pp": "#e6b93c",
    "pass_at_k": "#cc79a7", "max_rl": "#8f3a6c", "focal": "#6a3d9a", "entropic": "#b09fd8",
}  # fmt: skip
_DASHED, _DOTTED, _MIXED = (4.0, 1.5), (1.2, 1.2), (5.0, 1.5, 1.2, 1.5)
DASHES: dict[str, tuple[float, ...]] = dict.fromkeys(COLOURS, ()) | {
    BASE: _DOTTED,
    "dr_grpo": _DASHED, "gspo": _MIXED, "gmpo": _DOTTED,
    "dapo": _DASHED, "gpg": _DOTTED, "quantile_baseline": _MIXED,
    "riskpo_released": _MIXED, "risk_seeking": _DASHED, "riskpo_marginal": _MIXED,
    "mvar_accuracy": _DASHED, "mvar_log_accuracy": _DOTTED,
    "rloo": _MIXED, "reinforce_pp": _DASHED,
    "pass_at_k": _DASHED, "focal": _DOTTED,
}  # fmt: skip

SHARES = ("%", "percentage points")
"""Units of shares, which are labelled times 100."""

_CROWDED = 6
"""With more algorithms than this in a panel, seeds and bands of all would hide each other."""

_FOLLOWED = (*FOLLOWED, BASE)
"""Drawn in bold, before the others and with intervals in crowded panels."""

LONG = 12
"""Legends of more entries than this, and grids of more panels, are in small print."""


def colour(algorithm: str) -> str:
    """The algorithm's colour; a variant (`riskpo_omega_0`) has its preset's, what is unknown a dark grey."""
    return COLOURS.get(_known(algorithm), "#3d3d3d")


def _dashes(algorithm: str) -> tuple[float, ...]:
    """Of the algorithm; the name of a variant decides which it gets."""
    if algorithm in DASHES:
        return DASHES[algorithm]
    choice = ((), _DASHED, _DOTTED, _MIXED)
    return choice[zlib.crc32(algorithm.encode()) % len(choice)]


def _known(algorithm: str) -> str:
    """The longest name with a colour that the algorithm's is, or begins with."""
    return max((name for name in COLOURS if f"{algorithm}_".startswith(f"{name}_")), key=len, default="")


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
    """Write `name.svg` and `name.png`, the same bytes for the same figure; the SVG says how to read it."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Description": figure.get_label() or None})
    (folder / f"{name}.svg").write_text(_rounded(drawn.getvalue()), encoding="utf-8")
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})


def _rounded(svg: str) -> str:
    """With paths in hundredths of a point, which nobody sees, instead of millionths: a third of the size less."""

    def path(match: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", match[0])

    return re.sub(r'(?<= d=")[^"]+', path, svg)


class Panel(NamedTuple):
    """A metric: its column, what to write above and beside it, and where to draw a line to compare with."""

    column: str
    title: str
    unit: str
    level: float | None = None


def grid(count: int, columns: int, height: float = 1.9, **options: Any) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.6), squeeze=False, **options)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def legend_handles(algorithms: pd.Series, names: Mapping[str, str]) -> list[Line2D]:
    return [Line2D([], [], label=names.get(name, name), **look_of(name)) for name in algorithms.drop_duplicates()]


def finish(figure: Figure, handles: Sequence[Artist], note: str, key: str = "") -> Figure:
    """Legend below in as many columns as fit, note above; the figure's label is `key`, how to read what is drawn."""
    figure.set_label(key)
    width, height = figure.get_size_inches()
    if handles:
        size = 6.5 if len(handles) > LONG else 7.5  # points
        lengths = [size * len(str(handle.get_label())) / 135 + 0.7 for handle in handles]  # inches
        fitting = [n for n in range(1, len(handles) + 1) if _table_width(lengths, n) < width]
        columns = max(fitting, default=1)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=size)
        figure.set_figheight(height + 0.16 * (size / 7.5) * (-(-len(handles) // columns) - 1))
    text = f"{note} · {key}" if key else note
    figure.suptitle(textwrap.fill(text, int(width * 21)), x=0.01, ha="left", fontsize=6.5, color="#555555")
    return figure


def _table_width(lengths: Sequence[float], columns: int) -> float:
    """Width of entries that fill `columns` columns one after the other."""
    return float(sum(column.max() for column in np.array_split(lengths, columns)))


def look_of(algorithm: str, crowded: bool = False) -> dict[str, Any]:
    dashes = _dashes(algorithm)
    look = {"color": colour(algorithm), "linestyle": (0, dashes) if dashes else "solid"}
    if not crowded:
        return look
    return look | ({"zorder": 3} if algorithm in _FOLLOWED else {"lw": 0.7, "alpha": 0.6})


def is_crowded(frame: pd.DataFrame) -> bool:
    return frame["algorithm"].nunique() > _CROWDED


def with_intervals(frame: pd.DataFrame) -> list[str]:
    """The algorithms of a panel that are drawn with their intervals: all, or of too many the followed ones."""
    found = [str(name) for name in frame["algorithm"].unique()]
    return [name for name in found if name in _FOLLOWED] if is_crowded(frame) else found


def draw_steps(axis: Axes, metrics: pd.DataFrame, column: str) -> None:
    """Means over seeds; each seed thin, or in a crowded panel the range of the seeds of the followed."""
    crowded = is_crowded(metrics)
    for algorithm, group in metrics.groupby("algorithm", sort=False):
        look = look_of(str(algorithm), crowded)
        runs = group.pivot(index="step", columns="seed", values=column)
        if runs.shape[1] > 1 and not crowded:
            axis.plot(runs.index, runs.to_numpy(), color=look["color"], lw=0.6, alpha=0.45)
        elif runs.shape[1] > 1 and algorithm in _FOLLOWED:
            axis.fill_between(runs.index, runs.min(axis=1), runs.max(axis=1), color=look["color"], alpha=0.15, lw=0)
        axis.plot(runs.index, runs.mean(axis=1), **look)


def steps_key(metrics: pd.DataFrame, names: Mapping[str, str]) -> str:
    """What `draw_steps` draws, in words."""
    seeds = metrics.groupby("algorithm")["seed"].nunique()
    if seeds.max() == 1:
        return "lines: one seed each"
    if not is_crowded(metrics):
        return "bold: mean over seeds, thin: each seed"
    several = [name for name in with_intervals(metrics) if seeds[name] > 1]
    return f"lines: means over seeds, bands: range of the seeds{_of(several, names)}"


def draw_bands(axis: Axes, tidy: pd.DataFrame, x: str) -> None:
    """Estimates along x; bands are the intervals, in a crowded panel of the followed."""
    crowded, banded = is_crowded(tidy), with_intervals(tidy)
    for algorithm, group in tidy.groupby("algorithm", sort=False):
        look = look_of(str(algorithm), crowded)
        group = group.sort_values(x)
        if algorithm in banded:
            axis.fill_between(group[x], group["low"], group["high"], color=look["color"], alpha=0.15, lw=0)
        dots: dict[str, Any] = {"marker": ".", "markersize": 4} if len(group) < 20 and not crowded else {}
        axis.plot(group[x], group["value"], **look, **dots)


def bands_key(tidy: pd.DataFrame, names: Mapping[str, str], marks: str = "bands") -> str:
    """What `draw_bands`, or bars as it, draws, in words."""
    whose = _of(with_intervals(tidy), names) if is_crowded(tidy) else " of each algorithm alone"
    return f"{marks}: intervals{whose}"


def _of(algorithms: Sequence[str], names: Mapping[str, str]) -> str:
    called = {BASE: "the base model"}
    short = [called.get(name, names.get(name, name).partition(" (")[0]) for name in algorithms]
    return f" of {joined(short)} only" if short else " of none of so many algorithms"


def by_attempts(tidy: pd.DataFrame) -> pd.DataFrame:
    """The estimates of Pass@k, with a column k."""
    part = tidy[tidy["metric"].str.startswith("Pass@")]
    return part.assign(k=part["metric"].str[5:].astype(int))


def logarithmic(axis: Axes, ks: Iterable[int], labels: int = 10) -> None:
    """Horizontal axis in powers of 2: a tick at each of `ks`, about so many `labels`, the ends among them."""
    ticks = sorted(ks)
    every = -(-len(ticks) // labels)
    said = set(ticks[::-every])
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value in said else ""))
    axis.minorticks_off()


def draw_level(axis: Axes, level: float | None, vertical: bool = False) -> None:
    if level is not None:
        (axis.axvline if vertical else axis.axhline)(level, color="#9a9a9a", lw=0.8, zorder=1)


def bar_lengths(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths of error bars, (2, n)."""
    return np.stack([value - low, high - value]).clip(min=0)


def whitened(colour: str, share: float) -> tuple[float, float, float]:
    """The colour with white mixed in: more the smaller its share."""
    strength = 0.35 + 0.65 * share
    red, green, blue = (strength * channel + 1 - strength for channel in mpl.colors.to_rgb(colour))
    return red, green, blue


def draw_curve(axis: Axes, curve: pd.DataFrame, colour: Any, dashes: tuple[float, ...] = ()) -> None:
    curve = curve.sort_values("level")
    axis.fill_between(curve["level"], curve["low"], curve["high"], color=colour, alpha=0.18, lw=0)
    style = (0, dashes) if dashes else "solid"
    axis.plot(curve["level"], curve["value"], color=colour, linestyle=style, marker=".", markersize=4)


def percent(axis: Axis) -> None:
    """Label shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}".replace("-", "−")))


def folded(name: str, panels: int, size: float = 8.5) -> str:
    """A name with its options on lines of their own, as wide as one of `panels` beside each other."""
    short, opening, options = name.partition(" (")
    width = int((WIDTH / panels - 0.25) / (0.0078 * size))  # characters
    return "\n".join(textwrap.wrap(short, width) + (textwrap.wrap(f"({options}", width) if opening else []))


def outer_labels(axes: Sequence[Axes], x: str, y: str, small: bool = False) -> None:
    """Labels below the lowest panels and left of the first column; small panels share the latter."""
    lowest = {}
    for axis in axes:
        place = axis.get_subplotspec()
        assert place is not None
        lowest[place.colspan.start] = axis
        if place.is_first_col() and not small:
            axis.set_ylabel(y)
    if small:
        axes[0].figure.supylabel(y.replace("\n", " "), fontsize=8)
    for axis in lowest.values():  # in the last row, or above places without a panel
        axis.set_xlabel(x)
        axis.tick_params(labelbottom=True)
