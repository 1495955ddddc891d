"""The figures of `10_theory`, from the frames of `theory`; conventions as in `plots`, call `plots.style()` first.

Lines are mathematics, points are sampled; bars are two standard errors to each side. Every function takes `note`, the
line on the figure that says what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from riskpo_study import question_weights, theory
from riskpo_study.plot_parts import COLOURS, draw_level, finish, grid, look_of

__all__ = ["entropy", "every_weight", "gradient", "noise", "ordering", "riskpo_weights", "tracking"]

# Of things that are not algorithms: Okabe and Ito's.
_BLUE, _ORANGE, _GREEN, _PINK, _GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6f6f6f"
_POINTS: dict[str, Any] = {"elinewidth": 0.8, "markersize": 3, "linestyle": "none"}
_JOINED: dict[str, Any] = {"elinewidth": 0.8, "markersize": 3, "lw": 1}


def gradient(check: pd.DataFrame, sampled: pd.DataFrame, note: str) -> Figure:
    """The gradient of MVaR by its advantage and by differences; the distance of sampled gradients from it.

    Args:
        check: from `theory.gradients`.
        sampled: from `theory.sampled_gradients`.
    """
    figure, (left, right) = grid(2, 2, height=2.3)
    exact = check[check["objective"] == "MVaR"]
    draw_level(left, 0)
    left.bar(exact["answer"], exact["formula"], width=0.6, color=COLOURS["riskpo"], label="π · (A − E A)")
    left.plot(exact["answer"], exact["numeric"], "k_", markersize=14, mew=1.2, label="finite differences")
    left.set(title="Gradient of MVaR, exact", xlabel="answer, by its reward", ylabel="slope in the answer's logit")
    left.grid(axis="x", visible=False)
    left.legend()
    for (origin, part), colour in zip(sampled.groupby("quantiles", sort=False), (_BLUE, _ORANGE), strict=True):
        right.plot(part["n"], part["rms"], marker="o", markersize=3, color=colour, label=f"quantiles {origin}")
        right.plot(part["n"], part["bias"], marker="s", markersize=3, color=colour, linestyle="dotted")
        right.plot(part["n"], part["error"], color="#9a9a9a", lw=0.8, linestyle="dashed")
    right.set(
        title="The same from n samples", xlabel="samples n", ylabel="distance from the exact one",
        xscale="log", yscale="log",
    )  # fmt: skip
    handles, _ = right.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=_GREY, marker="o", markersize=3, label="root mean square"),
        Line2D([], [], color=_GREY, marker="s", markersize=3, linestyle="dotted", label="of the mean (bias)"),
        Line2D([], [], color="#9a9a9a", lw=0.8, linestyle="dashed", label="bias by chance alone"),
    ]
    right.set_ylim(top=6 * sampled["rms"].max())  # room for the legend above the curves, which fall
    right.legend(handles=handles, loc="upper right", fontsize=6)
    return finish(figure, [], note)


def noise(rows: pd.DataFrame, note: str) -> Figure:
    """The noise of RiskPO's estimators over RLOO's, all scaled to the same expected update: from `theory.noise`."""
    figure, axes = grid(2, 2, height=2.1, sharey=True)
    reference = rows.iloc[0]
    colours = {"RLOO": COLOURS["rloo"], "shared": COLOURS["riskpo"], "marginal": _BLUE}
    labels = ["RLOO", *(f"{row.credit}, {row.baseline}" for row in rows.iloc[1:].itertuples())]
    titles = {"along": "Along the reward", "across": "In all other directions"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        scale = reference[column]
        draw_level(axis, 1, vertical=True)
        for position, (credit, value, error) in enumerate(
            zip(rows["credit"], rows[column], rows[f"{column}_error"], strict=True)
        ):
            axis.errorbar(value / scale, position, xerr=2 * error / scale, fmt="o", color=colours[credit], **_POINTS)
            axis.annotate(
                f"{value / scale:.1f}", (value / scale, position), xytext=(0, 5), textcoords="offset points",
                ha="center", fontsize=6,
            )  # fmt: skip
        axis.set(title=title, xlabel="variance over RLOO's", xscale="log", xlim=(0.7, 40))
        axis.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), labels)
    axes[0].set(ylim=(len(rows) - 0.5, -0.9), ylabel="credit, baseline")
    return finish(figure, [], note)


def tracking(paths: pd.DataFrame, note: str) -> Figure:
    """Tracked quantiles beside the exact ones along `theory.course`, a panel a level: from `theory.track`."""
    levels = paths["level"].unique()
    figure, axes = grid(len(levels), 1, height=1.9, sharex=True)
    colours = dict(zip(paths["tracker"].unique(), (_PINK, _ORANGE, _BLUE, "#b8b8b8"), strict=True))
    for axis, level in zip(axes, levels, strict=True):
        part = paths[paths["level"] == level]
        for name in reversed(list(colours)):  # the batch's own, which jump about, below
            values = part[part["tracker"] == name]
            axis.plot(values["step"], values["value"], color=colours[name], lw=0.7 if name == "batch" else 1.2)
        axis.step(values["step"], values["exact"], where="mid", color="black", lw=1, linestyle=(0, (2, 1)))
        axis.set(title=f"Quantile at the level {level:g}", ylabel="bundle score")
    axes[-1].set_xlabel("training step")
    handles = [Line2D([], [], color="black", lw=1, linestyle=(0, (2, 1)), label="exact")]
    handles += [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    return finish(figure, handles, note)


def entropy(residuals: pd.DataFrame, policies: pd.DataFrame, note: str) -> Figure:
    """What Proposition 1 leaves, against the step size; the terms of Theorem 2 for three policies.

    Args:
        residuals: from `theory.entropy_residuals`.
        policies: from `theory.theorem_2`.
    """
    figure, (left, right) = grid(2, 2, height=2.5)
    for name, colour in {"mean": COLOURS["grpo"], "MVaR": COLOURS["riskpo"]}.items():
        part = residuals[residuals["objective"] == name]
        power = theory.slope(part["rate"].to_list(), part["residual"].to_list())
        left.plot(part["rate"], part["change"].abs(), color=colour, linestyle="dashed", lw=1)
        left.plot(
            part["rate"], part["residual"].abs(), "o-", color=colour, markersize=3,
            label=f"{name}: residual, slope {power:.2f}",
        )  # fmt: skip
    left.plot([], [], color=_GREY, linestyle="dashed", lw=1, label="the change itself")
    left.set(
        title="Proposition 1", xlabel="step size η", ylabel="|change of the entropy| (nats)", xscale="log", yscale="log"
    )
    left.legend(loc="upper left", fontsize=6.5)
    place = np.arange(len(policies))
    terms = {"lower": ("ωL", _BLUE), "upper": ("U", _GREEN), "sum": ("ωL + U", "#3a3a3a")}
    for offset, (column, (label, colour)) in zip((-0.27, 0, 0.27), terms.items(), strict=True):
        right.bar(place + offset, policies[column], width=0.25, color=colour, label=label)
    right.plot(
        place + 0.27, policies["kept"], "D", color="white", mec="black", markersize=4.5,
        label="entropy kept, over η",
    )  # fmt: skip
    right.axhline(0, color="#9a9a9a", lw=0.8)
    right.set_xticks(place, [name.replace(" means", "\nmeans").replace(" is", "\nis") for name in policies["policy"]])
    right.set(title="Theorem 2 holds where ωL + U ≥ 0", ylabel="nats × reward")
    right.grid(axis="x", visible=False)
    right.legend(loc="lower left", fontsize=6.5)
    return finish(figure, [], note)


def riskpo_weights(lengths: pd.DataFrame, weights: pd.DataFrame, note: str) -> Figure:
    """φ′(p̄)/B by the mean accuracy, and w(p) of the estimators of the RiskPO family.

    Args:
        lengths: columns `mean` and `weight`.
        weights: from `question_weights.riskpo_weights`.
    """
    panels = weights["panel"].unique()
    figure, (first, *axes) = grid(1 + len(panels), 2, height=2.3)
    draw_level(first, 1)
    first.plot(lengths["mean"], lengths["weight"], color=COLOURS["riskpo"])
    first.set(title="Weight of every question, random bundles", xlabel="mean accuracy p̄", ylabel="φ′(p̄)/B")
    first.set(xlim=(0, 1), ylim=(0, 1.6))
    for axis, panel in zip(axes, panels, strict=True):
        part = weights[weights["panel"] == panel]
        draw_level(axis, 1)
        looks = ((_ORANGE, "solid"), (_BLUE, "dashed"), (_GREEN, "dashdot"))
        for (name, curve), (colour, dashes) in zip(part.groupby("estimator", sort=False), looks, strict=False):
            axis.plot(curve["accuracy"], curve["weight"], color=colour, linestyle=dashes, label=name)
        axis.set(title=panel, xlabel="accuracy p of the question", ylabel="weight w(p)", xlim=(0, 1))
        axis.set_ylim(0, max(1.6, 1.25 * part["weight"].max()))
        axis.legend(loc="best", fontsize=6.5)
    return finish(figure, [], note)


def every_weight(expected: pd.DataFrame, measured: pd.DataFrame, names: Mapping[str, str], note: str) -> Figure:
    """The weight that every algorithm gives to a question of accuracy p, a panel for each of `FAMILIES`.

    Lines: expected with the batch's responses; thin dotted lines: the same with infinitely many; points: measured.

    Args:
        expected: from `question_weights.expected_curves`.
        measured: from `question_weights.measured_curves`.
    """
    families = dict(question_weights.FAMILIES)
    known = {name for members in families.values() for name in members}
    if others := tuple(name for name in expected["algorithm"].unique() if name not in known):
        families["Others"] = others
    figure, axes = grid(len(families), 3, height=2.25, sharex=True, sharey=True)
    for position, (axis, (family, members)) in enumerate(zip(axes, families.items(), strict=True)):
        draw_level(axis, 1)
        for name, marker in zip(members, cycle("osD^v"), strict=False):
            _one_weight(axis, name, marker, expected, measured, names)
        axis.set(title=family, xlim=(0, 1), ylim=(0, 3.4))
        axis.legend(loc="upper right", fontsize=6, handlelength=2.2)
        if position >= len(families) - 3:
            axis.set_xlabel("accuracy p of the question")
        if position % 3 == 0:
            axis.set_ylabel("weight w(p), over its mean")
    return finish(figure, [], note)


def _one_weight(
    axis: Axes, name: str, marker: str, expected: pd.DataFrame, measured: pd.DataFrame, names: Mapping[str, str]
) -> None:
    line = expected[expected["algorithm"] == name]
    points = measured[measured["algorithm"] == name]
    look = look_of(name)
    axis.plot(line["accuracy"], line["limit"], color=look["color"], linestyle="dotted", lw=0.8)
    axis.plot(line["accuracy"], line["weight"], **look | {"lw": 1.1})
    axis.errorbar(
        points["accuracy"], points["weight"], yerr=2 * points["error"], marker=marker, color=look["color"], **_POINTS
    )
    label = names[name].partition(" (")[0]
    axis.plot([], [], marker=marker, markersize=3, label=label, **look | {"lw": 1.1})


def ordering(weights: pd.DataFrame, gaps: pd.DataFrame, note: str) -> Figure:
    """Weights of stratified bundles by what lines the questions up, and differences: from `ordering_bias`."""
    figure, (left, right) = grid(2, 2, height=2.3)
    looks = zip(weights.groupby("order", sort=False), ((_ORANGE, "o"), (_BLUE, "s"), (_GREY, "^")), strict=True)
    for (order, part), (colour, marker) in looks:
        inside = part[part["part"] != "all"]
        left.errorbar(
            inside["accuracy"], inside["weight"], yerr=2 * inside["error"], marker=marker, color=colour,
            **_JOINED, label=f"sorted by {order}",
        )  # fmt: skip
    left.set(title="Stratified bundles", xlabel="accuracy p of the question", ylabel="weight w(p)", xlim=(0, 1))
    left.set_ylim(bottom=0)
    left.legend(fontsize=6.5)
    inside = gaps[gaps["part"] != "all"]
    draw_level(right, 0)
    for column, label, colour, marker in (
        ("bias", "bias: this − another batch", _ORANGE, "o"), ("blur", "blur: another batch − true", _GREY, "^"),
    ):  # fmt: skip
        right.errorbar(
            inside["accuracy"], inside[column], yerr=2 * inside[f"{column}_error"], marker=marker, color=colour,
            **_JOINED, label=label,
        )  # fmt: skip
    right.set(title="Differences", xlabel="accuracy p of the question", ylabel="difference of weights", xlim=(0, 1))
    low, high = right.get_ylim()
    right.set_ylim(low, high + 0.3 * (high - low))
    right.legend(loc="upper right", fontsize=6.5)
    return finish(figure, [], note)
