"""Two drawings of the quickstart: RiskPO's way from rewards to an update, and its advantage by region.

As in `explain`, everything in them is computed by the functions that training uses.
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

from riskpo_study import advantages, bundles, explain, risk
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.config import Risk
from riskpo_study.plot_parts import COLOURS, WIDTH, whitened

__all__ = ["framework", "landscape"]

_INK, _GREY, _PALE = "#333333", "#8a8a8a", "#f1f1f1"
_WORST, _BEST = COLOURS["grpo"], COLOURS["riskpo"]
_PAPER = {"fc": "white", "ec": "none", "pad": 0.8}
_SIGN = "PuOr_r"  # colours of negative and positive advantages


# The framework


class _Batch(NamedTuple):
    """A batch on its way through RiskPO."""

    rewards: np.ndarray  # (B, G), of the first group of questions
    bundle: np.ndarray  # (B, G), to which bundle of the group each of these responses belongs
    scores: np.ndarray  # (N, G), of the bundles of all groups
    quantiles: tuple[float, float]
    raw: np.ndarray  # (G,), advantages of the first group's bundles as in the paper
    advantages: np.ndarray  # (G,), the same less the mean of the others
    settings: Risk

    @property
    def marked(self) -> dict[int, str]:
        """The bundle of the lowest score and that of the highest, with their colours."""
        return {int(self.scores[0].argmin()): _WORST, int(self.scores[0].argmax()): _BEST}


def _batch(rewards: Tensor, permutation: Tensor, settings: Risk) -> _Batch:
    size, responses = permutation.shape[1:]
    scores = bundles.scores(rewards, permutation)
    low, high = (risk.quantile(scores.flatten(), level).item() for level in (settings.alpha, settings.beta))
    shared = advantages.riskpo(rewards, permutation, low, high, settings.omega)
    number = bundles.scatter(torch.arange(responses).expand(len(permutation), 1, -1), permutation)
    return _Batch(
        rewards[:size].numpy(), number[:size].numpy(), scores.numpy(), (low, high),
        risk.mvar_advantage(scores[0], low, high, settings.omega).numpy(),
        bundles.gather(shared, permutation)[0, 0].numpy(), settings,
    )  # fmt: skip


def framework(rewards: Tensor, permutation: Tensor, settings: Risk) -> Figure:
    """Rewards → bundles → quantiles → advantage → credit → update, on one batch; its first group is shown.

    Args:
        rewards: (Q, G), each 0 or 1.
        permutation: (N, B, G), see `bundles.permutations`.
    """
    batch = _batch(rewards, permutation, settings)
    figure = plt.figure(figsize=(WIDTH, 5.3))
    figure.set_layout_engine("none")
    left, bottom = (0.06, 0.385, 0.745), (0.62, 0.085)
    width, height = 0.225, 0.28
    parts = (
        ("1  Rewards", f"of {batch.rewards.shape[1]} responses to {len(batch.rewards)} questions", _rewards),
        ("2  Bundles", "one response of each question, drawn at random", _bundles),
        ("3  Quantiles", f"of all {batch.scores.size} scores, tracked across steps", _quantiles),
        ("4  Advantage", "A(R), and less the mean of the others", _advantage),
        ("5  Credit", "a response has the advantage of its bundle", _credit),
        ("6  Update", "clipped ratio of the whole response", _update),
    )
    places = [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1)]  # clockwise
    for (title, said, draw), (column, row) in zip(parts, places, strict=True):
        axis = figure.add_axes((left[column], bottom[row], width, height))
        top = bottom[row] + height
        figure.text(left[column] - 0.03, top + 0.062, title, weight="bold", fontsize=8.5, color=_INK)
        figure.text(left[column] - 0.03, top + 0.024, said, fontsize=6.5, color="#555555")
        draw(axis, batch)
    for (start, end), row in (((0.297, 0.338), 0), ((0.622, 0.663), 0), ((0.338, 0.297), 1), ((0.663, 0.622), 1)):
        middle = bottom[row] + height / 2
        _arrow(figure, (start, middle), (end, middle))
    between = (bottom[0] - 0.09, bottom[1] + height + 0.085)
    down, up = (left[column] + width / 2 for column in (2, 0))
    _arrow(figure, (down, between[0]), (down, between[1]))
    _arrow(figure, (up, between[1]), (up, between[0]))
    said = "the new policy answers\nthe next questions"
    figure.text(up + 0.015, sum(between) / 2, said, fontsize=6.5, color="#555555", va="center")
    return figure


def _arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float]) -> None:
    figure.add_artist(FancyArrowPatch(
        start, end, transform=figure.transFigure, arrowstyle="-|>", mutation_scale=9, color=_INK, lw=1.1,
        shrinkA=0, shrinkB=0,
    ))  # fmt: skip


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(f"{value:.{digits}f}") else text[1:]


def _cells(axis: Axes, texts: np.ndarray, faces: np.ndarray, columns: str, size: float = 7) -> None:
    """A table of texts (rows, columns) on faces (rows, columns) of colours."""
    rows, count = texts.shape
    for (row, column), text in np.ndenumerate(texts):
        axis.add_patch(Rectangle((column, row), 1, 1, fc=faces[row, column], ec="white", lw=1.2))
        axis.text(column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=size, color=_INK)
    axis.set(xlim=(0, count), ylim=(rows, 0), xlabel=columns)
    axis.set_xticks(np.arange(count) + 0.5, [str(number + 1) for number in range(count)])
    axis.set_yticks(np.arange(rows) + 0.5, [str(number + 1) for number in range(rows)])
    axis.set_ylabel("question", labelpad=1)
    axis.tick_params(length=0, pad=2)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _faces(batch: _Batch, bundle: np.ndarray) -> np.ndarray:
    """A colour for each response, by the bundle (rows, columns) that it is in."""
    tints = {number: mpl.colors.to_hex(whitened(colour, 0.0)) for number, colour in batch.marked.items()}
    return np.array([[tints.get(int(number), _PALE) for number in row] for row in bundle])


def _rewards(axis: Axes, batch: _Batch) -> None:
    _cells(axis, batch.rewards.astype(int).astype(str), _faces(batch, batch.bundle), "response")


def _bundles(axis: Axes, batch: _Batch) -> None:
    size, count = batch.rewards.shape
    order = batch.bundle.argsort(axis=1)
    numbers = np.broadcast_to(np.arange(count), (size, count))
    drawn = np.take_along_axis(batch.rewards, order, axis=1).astype(int).astype(str)
    _cells(axis, drawn, _faces(batch, numbers), "bundle")
    axis.set_ylim(size + 1.25, 0)
    for bundle, score in enumerate(batch.scores[0]):
        colour = batch.marked.get(bundle, _INK)
        axis.text(
            bundle + 0.5, size + 0.7, f"{score:g}", ha="center", va="center", weight="bold", color=colour, fontsize=7.5
        )
    axis.plot([0.1, count - 0.1], [size + 0.15] * 2, color=_GREY, lw=0.8)
    axis.set_yticks([*np.arange(size) + 0.5, size + 0.7], [*map(str, range(1, size + 1)), "$R$"])


def _quantiles(axis: Axes, batch: _Batch) -> None:
    size = batch.settings.bundle_size
    low, high = batch.quantiles
    scores = np.arange(size + 1)
    counts = np.bincount(batch.scores.astype(int).ravel(), minlength=size + 1)
    looks = (
        (scores < low, f"×{1 + batch.settings.omega:g}", _BEST, 0.9),
        ((scores >= low) & (scores <= high), "×1", _BEST, 0.35),
        (scores > high, "×0", _GREY, 0.25),
    )  # fmt: skip
    top = 1.4 * counts.max()
    for chosen, weight, colour, strength in looks:
        axis.bar(scores[chosen], counts[chosen], width=0.8, color=colour, alpha=strength, lw=0)
        if chosen.any():
            axis.text(scores[chosen].mean(), 0.8 * top, weight, ha="center", va="center", fontsize=6.5, color=_INK)
    for value, symbol, side in ((low, "$q_α$", -1), (high, "$q_β$", 1)):
        edge = value + 0.5 * side
        axis.axvline(edge, color=_INK, lw=0.8, linestyle="dashed")
        axis.text(edge + 0.1, 0.97 * top, f"{symbol} = {value:g}", va="top", fontsize=7, color=_INK)
    axis.set(xlim=(-0.9, size + 0.9), ylim=(0, top), xlabel="bundle score R", ylabel="bundles")
    axis.set_xticks(scores)
    axis.grid(False)


def _advantage(axis: Axes, batch: _Batch) -> None:
    size = batch.settings.bundle_size
    fine = torch.linspace(0, size, 101, dtype=torch.float64)
    curve = risk.mvar_advantage(fine, *batch.quantiles, batch.settings.omega)
    axis.plot(fine, curve, color=_GREY, lw=1.3)
    axis.plot(batch.scores[0], batch.raw, "o", color=_GREY, markersize=3)
    depth = max(float(-curve.min()), 1e-9)
    for bundle, colour in batch.marked.items():
        score, raw, final = batch.scores[0][bundle], batch.raw[bundle], batch.advantages[bundle]
        axis.plot(score, raw, "o", color=colour, markersize=5, zorder=3)
        axis.annotate(
            f"{_signed(raw, 1)} → {_signed(final, 2)}", (score, raw), textcoords="offset points",
            xytext=(8, 0) if score < size / 2 else (0, -12), ha="left" if score < size / 2 else "center",
            va="center", fontsize=7, color=colour, weight="bold", bbox=_PAPER,
        )  # fmt: skip
    for value, symbol in zip(batch.quantiles, ("$q_α$", "$q_β$"), strict=True):
        axis.axvline(value, color=_INK, lw=0.8, linestyle="dashed")
        axis.annotate(symbol, (value, 1), xycoords=("data", "axes fraction"), xytext=(2, -7),
                      textcoords="offset points", fontsize=7, color=_INK)  # fmt: skip
    axis.set(xlim=(-0.3, size + 0.3), ylim=(-1.15 * depth, 0.28 * depth), xlabel="bundle score R", ylabel="A(R)")
    axis.set_xticks(np.arange(size + 1))


def _credit(axis: Axes, batch: _Batch) -> None:
    values = batch.advantages[batch.bundle]
    texts = np.array([[_signed(value, 1) for value in row] for row in values])
    reach = max(float(np.abs(values).max()), 1e-9)
    shades = mpl.colormaps[_SIGN]
    faces = np.array([[mpl.colors.to_hex(shades(0.5 + 0.22 * value / reach)) for value in row] for row in values])
    _cells(axis, texts, faces, "response", size=5)
    for row, column in zip(*np.nonzero(np.isin(batch.bundle, list(batch.marked))), strict=True):
        colour = batch.marked[int(batch.bundle[row, column])]
        axis.add_patch(Rectangle((column + 0.06, row + 0.06), 0.88, 0.88, fill=False, ec=colour, lw=1.0))


def _update(axis: Axes, batch: _Batch) -> None:
    clip = ALGORITHMS["riskpo"].clip
    ratio = np.linspace(0.55, 1.45, 181)
    clipped = ratio.clip(1 - clip["low"], 1 + clip["high"])
    for bundle, colour in batch.marked.items():
        advantage = batch.advantages[bundle]
        axis.plot(ratio, np.minimum(ratio * advantage, clipped * advantage), color=colour)
        axis.plot(1, advantage, "o", color=colour, markersize=4)
    for edge in (1 - clip["low"], 1 + clip["high"]):
        axis.axvline(edge, color=_INK, lw=0.8, linestyle="dashed")
    axis.margins(y=0.3)
    axis.text(
        0.5, 0.5, r"$\min(s\,A,\ \mathrm{clip}(s, 1\pm\varepsilon)\,A)$", transform=axis.transAxes, ha="center",
        va="center", fontsize=7.5, color=_INK, bbox=_PAPER,
    )  # fmt: skip
    axis.set_xlabel(r"ratio $s = \exp\,\mathrm{mean}_t(\log\pi - \log\pi_{old})$", fontsize=7)
    axis.set_ylabel("objective", labelpad=1)


# The landscape

_PALER = 1.5  # colours reach so much further than the advantages: numbers show on them


def landscape(settings: Risk, points: int = 200) -> Figure:
    """Advantage of every bundle score at every mean accuracy: the mean objective's, and MVaR's with its regions.

    Args:
        points: accuracies between 0 and 1 that are computed.
    """
    accuracy = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    frame = explain.landscape(settings, accuracy)
    size = settings.bundle_size
    reach = _PALER * float(frame[["MVaR", "mean"]].abs().to_numpy().max())
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9), sharey=True)
    titles = {"mean": "Mean objective, R − E[R]", "MVaR": "MVaR, A(R) − E[A(R)]"}
    for axis, (objective, title) in zip(axes, titles.items(), strict=True):
        table = frame.pivot(index="score", columns="accuracy", values=objective)
        image = axis.imshow(
            table, origin="lower", extent=(0, 1, -0.5, size + 0.5), aspect="auto", cmap=_SIGN,
            norm=TwoSlopeNorm(0, -reach, reach), interpolation="nearest",
        )  # fmt: skip
        axis.plot([0, 1], [0, size], color=_GREY, lw=0.8, linestyle="dotted")
        for at in (0.1, 0.22, 0.42, 0.58, 0.78, 0.9):
            column = table.iloc[:, int(at * points)]
            for score, value in column.items():
                axis.text(at, score, _signed(value, 1), ha="center", va="center", fontsize=6, color=_INK)
        axis.set(title=title, xlabel="mean accuracy of the questions")
        axis.grid(False)
    axes[0].set_ylabel("bundle score R")
    axes[0].set_yticks(range(size + 1))
    _regions(axes[1], frame, size)
    bar = figure.colorbar(image, ax=axes, label="advantage", shrink=0.9, aspect=25)
    bar.ax.set_ylim(-reach / _PALER, reach / _PALER)
    figure.suptitle(
        f"α = {settings.alpha:g}, β = {settings.beta:g}, ω = {settings.omega:g}; bundles of B = {size} questions drawn "
        "at random, their scores Binomial(B, p) · dotted: the mean score",
        x=0.01, ha="left", fontsize=6.5, color="#555555",
    )  # fmt: skip
    return figure


def _regions(axis: Axes, frame: pd.DataFrame, size: int) -> None:
    """Lines where the regions meet, and their names."""
    quantiles = frame.drop_duplicates("accuracy").set_index("accuracy")[["q_alpha", "q_beta"]]
    for edge, shift in (("q_alpha", -0.5), ("q_beta", 0.5)):
        axis.step(quantiles.index, quantiles[edge] + shift, where="mid", color=_INK, lw=1.3)
    for region, at, text in (("lower", 0.8, "below $q_α$: slope 1 + ω"), ("upper", 0.2, "above $q_β$: flat")):
        distance = (frame["accuracy"] - at).abs()
        scores = frame.loc[(distance == distance.min()) & (frame["region"] == region), "score"]
        if len(scores) > 1:  # between two rows of numbers, at the side
            place = (0.985, scores.min() + 0.5, "right") if region == "lower" else (0.015, scores.max() - 0.5, "left")
            axis.text(place[0], place[1], text, ha=place[2], va="center", fontsize=7, color=_INK, style="italic")
