"""What the figures of algorithms against each other show; that they are labelled and whole is in `test_plots`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from numpy.testing import assert_allclose
from synthetic import counts

from riskpo_study import analysis, contrasts, plots
from riskpo_study.plots import Panel


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context():
        plots.style()
        yield
        plt.close("all")


def estimates(algorithm: str, metric: str, values: list[float], difficulty: str = "all") -> pd.DataFrame:
    value = np.array(values)
    return pd.DataFrame({
        "algorithm": algorithm, "difficulty": difficulty, "metric": metric, "step": 10 * np.arange(len(values)),
        "value": value, "low": value - 0.01, "high": value + 0.01, "questions": 10,
    })  # fmt: skip


def written(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


# Spreading


@given(st.lists(st.floats(0, 1), max_size=20).map(sorted), st.floats(0.0, 0.04))
def test_spread_places_are_ordered_apart_and_within_the_ends(wanted: list[float], gap: float) -> None:
    found = contrasts.spread(np.array(wanted), gap, 0.0, 1.0)
    assert (np.diff(found) >= gap - 1e-9).all()
    assert ((found >= -1e-9) & (found <= 1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([0.2, 0.5, 0.9], [0.2, 0.5, 0.9]),  # far apart already
        ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6]),  # around where they want to be
        ([0.0, 0.0], [0.0, 0.1]),  # not below the end
        ([0.95, 1.0, 1.0], [0.8, 0.9, 1.0]),  # nor above it
        ([], []),
        ([0.3], [0.3]),
    ],
)
def test_spread_moves_as_little_as_needed(wanted: list[float], found: list[float]) -> None:
    assert_allclose(contrasts.spread(np.array(wanted), 0.1, 0.0, 1.0), found)


def test_without_room_places_are_even() -> None:
    assert_allclose(contrasts.spread(np.full(5, 0.3), 1.0, 0.0, 1.0), [0, 0.25, 0.5, 0.75, 1])


# Figures


def test_levels_are_lines_with_their_values_and_no_labels_overlap() -> None:
    others = [f"rival_{i}" for i in range(18)]
    parts = [estimates(name, "Pass@4", [0.9, 0.5 + 0.001 * i, 0.4]) for i, name in enumerate(others)]
    curves = pd.concat([estimates("grpo", "Pass@4", [0.3, 0.5, 0.7]), *parts], ignore_index=True)
    figure = contrasts.levels(curves, analysis.best(curves), ["grpo", "riskpo"], {}, "note")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert written(axis) == [f"{50 + 0.1 * i:.1f}  rival_{i}" for i in range(18)]  # not the 90 % of the start
    heights = [text.get_window_extent() for text in axis.texts]
    for below, above in pairwise(heights):
        assert not below.overlaps(above)
    levels = [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]
    assert_allclose(levels, 0.5 + 0.001 * np.arange(18))


def test_gaps_have_a_panel_an_algorithm_with_its_interval() -> None:
    rows = [
        estimates(name, f"Pass@{k}", [0.1 * k], difficulty)
        for name in ("dapo", "riskpo") for difficulty in ("all", "3", "4") for k in (1, 2, 4)
    ]  # fmt: skip
    figure = contrasts.gaps(pd.concat([*rows, estimates("dapo", "Maj@4", [0.5])]), {"dapo": "DAPO"}, "note")
    assert [axis.get_title("left") for axis in figure.axes] == ["DAPO", "riskpo"]
    for axis in figure.axes:
        assert len(axis.lines) == 4  # zero, two difficulties, all questions
        assert_allclose(axis.lines[-1].get_xdata(), [1, 2, 4])
        (band,) = axis.collections
        assert_allclose(band.get_datalim(axis.transData).intervaly, [0.09, 0.41])


def test_overlap_writes_shares_and_counts_questions() -> None:
    frame = pd.concat([counts([1, 1, 1, 0], 4, "grpo"), counts([1, 0, 0, 1], 4, "riskpo")], ignore_index=True)
    solving, resampler = analysis.solved(frame), analysis.Resampler(50, 0.95)
    found = analysis.summary(solving, ["solved", "alone"], resampler)
    figure = contrasts.overlap(analysis.overlap(solving, resampler), found, {}, "note")
    grid, reached, alone = figure.axes
    assert written(grid) == ["–", "33", "50", "–"]
    assert_allclose([bar.get_width() for bar in reached.patches], [75, 50])
    assert_allclose([bar.get_width() for bar in alone.patches], [2, 1])


def test_risk_profiles_show_every_difficulty_of_every_algorithm() -> None:
    runs = pd.MultiIndex.from_product([["riskpo", "risk_seeking"], [0], [1, 2]], names=["algorithm", "seed", "step"])
    rows = [estimates(name, "Pass@1", [0.2], of) for name in ("riskpo", "risk_seeking") for of in ("all", "3", "4")]
    metrics = runs.to_frame(index=False).assign(x=1.0)
    figure = contrasts.risk_profiles(metrics, [Panel("x", "x", "units")], pd.concat(rows), {}, "note")
    _, accuracy = figure.axes
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["all", "3", "4"]
    places = np.sort([x for bars in accuracy.containers for x in bars.lines[0].get_xdata()])
    assert_allclose(places, [-0.1, 0.1, 0.9, 1.1, 1.9, 2.1])
