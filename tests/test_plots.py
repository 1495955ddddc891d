"""Figures: one look for each algorithm, labelled axes, nothing cut off, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import records

from riskpo_study import analysis, contrasts, plot_parts, plots, report, tables
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.config import Config
from riskpo_study.plots import Panel
from riskpo_study.records import BASE


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context():
        plots.style()
        yield
        plt.close("all")


# Looks

# Machado, Oliveira and Fernandes (2009): linear RGB as people without red or green cones see it.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, blindness: str) -> np.ndarray:
    """CIELAB coordinates of a colour as somebody sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(BLINDNESS[blindness] @ linear, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_algorithm_has_a_colour_and_a_name(settings: Config) -> None:
    assert set(plots.COLOURS) == set(plots.DASHES) == {*ALGORITHMS, BASE}
    assert set(tables.names(settings)) == {*ALGORITHMS, BASE}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_algorithms_are_told_apart_by_colour_or_dashes(blindness: str) -> None:
    for one, other in combinations(plots.COLOURS, 2):
        if plots.DASHES[one] == plots.DASHES[other]:
            distance = np.linalg.norm(lab(plots.COLOURS[one], blindness) - lab(plots.COLOURS[other], blindness))
            assert distance > 10, (one, other)  # 2.3 is just noticeable


@pytest.mark.parametrize(
    ("variant", "preset"),
    [("riskpo_omega_0", "riskpo"), ("riskpo_released_std", "riskpo_released"), ("dr_grpo_matched", "dr_grpo")],
)
def test_a_variant_has_the_colour_of_its_preset(variant: str, preset: str) -> None:
    assert plots.colour(variant) == plots.colour(preset) == plots.COLOURS[preset]


def test_what_has_no_colour_gets_one_and_dashes_that_its_name_decides() -> None:
    assert plots.colour("grpo2") == plots.colour("mine") not in plots.COLOURS.values()
    names = [f"riskpo_omega_{i}" for i in range(12)]
    looks = [plot_parts.look_of(name)["linestyle"] for name in names]
    assert looks == [plot_parts.look_of(name)["linestyle"] for name in names]
    assert len(set(looks)) > 1


# Figures


def figures(settings: Config) -> dict[str, Figure]:
    """One of each kind, as the notebooks draw them."""
    names = tables.names(settings)
    found = records(settings)
    resampler = analysis.Resampler(100, 0.95)
    alpha, beta = settings.risk.alpha, settings.risk.beta
    metrics = analysis.tail_terms(found["metrics"], dict.fromkeys(names, settings.risk.omega))
    smoothed = analysis.smooth(metrics, 3)
    scored, measured = analysis.measures(analysis.final(found["counts"]), settings.evaluation.ks)
    passk = analysis.summary(scored, measured, resampler)
    gaps = analysis.differences(scored, ["Pass@1", "Pass@4"], BASE, resampler)
    followed, columns = analysis.measures(found["evaluations"].drop(columns="majority"), [4])
    curves = analysis.summary(followed, columns, resampler, by=["algorithm", "step"])
    changes = analysis.summary(analysis.since_start(followed, columns), columns, resampler, by=["algorithm", "step"])
    overall = changes[changes["difficulty"] == analysis.OVERALL]
    average = Panel(columns[1], "change of the average", "percentage points")
    reach = Panel(columns[0], "change of Pass@4", "percentage points")
    note = tables.basis(curves, settings)
    panels = [Panel("covariance/lower", "L", "nats × score", 0), Panel("entropy/right", "Right", "nats per token")]
    held_out = analysis.summary(found["evaluations"], ["entropy"], resampler, by=["algorithm", "step"])
    held_out = held_out[held_out["difficulty"] == analysis.OVERALL]
    quantile_curves = analysis.quantile_curves(found["quantile_logprob"])
    all_questions = curves[curves["difficulty"] == analysis.OVERALL]
    best = analysis.best(all_questions)
    solving = analysis.solved(analysis.final(found["counts"]))
    solved = analysis.summary(solving, ["solved", "alone"], resampler)
    solved = solved[solved["difficulty"] == analysis.OVERALL]
    accuracy = passk[passk["metric"] == "Pass@1"]
    return {
        "training": plots.training(smoothed, panels, names, note),
        "entropy": plots.training(smoothed, panels[1:], names, note, held_out=held_out),
        "learning_curves": plots.learning_curves(curves, names, note),
        "trajectories": plots.trajectories(overall, average, reach, names, note),
        "quantiles": plots.quantiles(metrics, smoothed, dict.fromkeys(names, (alpha, beta)), names, note),
        "quantile_curves": plots.quantile_curves(quantile_curves, alpha, beta, names, note, "log-probability\n(nats)"),
        "pass_at_k": plots.pass_at_k(passk, names, note),
        "differences": plots.dots(gaps[gaps["difficulty"] == "all"], names, note, "percentage points", level=0),
        "dots": plots.dots(passk[passk["metric"] == "Pass@4"], names, note, "%"),
        "levels": contrasts.levels(all_questions, best, ["grpo", "riskpo"], names, note),
        "gaps": contrasts.gaps(gaps, names, note),
        "risk_profiles": contrasts.risk_profiles(smoothed, panels, accuracy, names, note),
        "overlap": contrasts.overlap(analysis.overlap(solving, resampler), solved, names, note),
    }


def small(settings: Config, algorithms: tuple[str, ...], seeds: tuple[int, ...]) -> Config:
    return replace(
        settings,
        runs=replace(settings.runs, algorithms=algorithms, seeds=seeds),
        evaluation=replace(settings.evaluation, samples=8, ks=(1, 2, 4)),
    )


def titles(axis: Axes) -> list[Text]:
    said = axis.get_title("left")
    return [text for text in axis.get_children() if isinstance(text, Text) and text.get_text() == said != ""]


def words(figure: Figure) -> list[Text]:
    """Every text that is drawn, ticks beyond the ends of an axis left out."""
    found = [text for text in figure.texts if text.get_text()]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    for axis in figure.axes:
        found += [*titles(axis), *axis.texts, axis.xaxis.label, axis.yaxis.label]
        for which, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            ticks = [tick for tick in which.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits)]
            found += [tick.label1 for tick in ticks]
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize(
    ("algorithms", "seeds"),
    [(("grpo", "dapo", "riskpo"), (0, 1)), (("riskpo",), (0,)), (tuple(ALGORITHMS), (0,))],
    ids=["three", "one", "all"],
)
def test_everything_is_labelled_and_nothing_cut_off(
    settings: Config, algorithms: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    for kind, figure in figures(small(settings, algorithms, seeds)).items():
        figure.canvas.draw()
        for text in words(figure):
            box = text.get_window_extent()
            assert box.x0 > -1, (kind, text.get_text())
            assert box.y0 > -1, (kind, text.get_text())
            assert box.x1 < figure.bbox.x1 + 1, (kind, text.get_text())
            assert box.y1 < figure.bbox.y1 + 1, (kind, text.get_text())
        for one, other in combinations([text.get_window_extent() for axis in figure.axes for text in titles(axis)], 2):
            assert not one.overlaps(other), kind
        for axis in figure.axes:
            place = axis.get_subplotspec()
            assert place is not None
            assert axis.get_xlabel() or figure.get_supxlabel() or not place.is_last_row(), kind
            rows = kind in {"differences", "dots", "overlap"}
            assert axis.get_ylabel() or figure.get_supylabel() or not place.is_first_col() or rows, kind
        assert figure.get_suptitle().startswith("Profile test · seed")


@pytest.mark.parametrize(
    ("count", "seeds", "lines", "bands", "key"),
    [
        (2, (0, 1), 2 * (2 + 1), 0, "bold: mean over seeds, thin: each seed"),
        (2, (0,), 2, 0, "lines: one seed each"),
        (16, (0, 1), 16, 2, "lines: means over seeds, bands: range of the seeds of grpo and riskpo only"),
    ],
)
def test_seeds_are_drawn_thin_or_where_algorithms_are_too_many_as_the_range_of_some(
    count: int, seeds: tuple[int, ...], lines: int, bands: int, key: str
) -> None:
    runs = pd.MultiIndex.from_product([list(ALGORITHMS)[:count], seeds, [1, 2]], names=["algorithm", "seed", "step"])
    frame = runs.to_frame(index=False)
    figure = plots.training(frame.assign(x=frame["seed"] + 1.0), [Panel("x", "x", "units")], {}, "note")
    axis = figure.axes[0]
    assert (len(axis.lines), len(axis.collections), figure.get_label()) == (lines, bands, key)
    assert figure.get_suptitle().replace("\n", " ") == f"note · {key}"
    for band in axis.collections:
        assert band.get_datalim(axis.transData).intervaly.tolist() == [1.0, 2.0]


def estimated(algorithms: list[str]) -> pd.DataFrame:
    metrics = pd.MultiIndex.from_product([algorithms, ["x", "y"], [0, 10]], names=["algorithm", "metric", "step"])
    frame = metrics.to_frame(index=False).assign(difficulty="all", value=0.5)
    return frame.assign(low=0.4, high=0.7)


@pytest.mark.parametrize("crowded", [False, True])
def test_captions_say_whose_intervals_are_drawn(crowded: bool) -> None:
    """In bands along a curve and in bars at the ends of a path: those of all, or of the followed among many."""
    shown = list(ALGORITHMS) if crowded else ["grpo", "dapo"]
    tidy, names = estimated(shown), {"grpo": "GRPO", "riskpo": "RiskPO (baseline group)"}
    curves = plots.learning_curves(tidy[tidy["metric"] == "x"], names, "note")
    paths = plots.trajectories(tidy, Panel("x", "x", "units"), Panel("y", "y", "units"), names, "note")
    drawn = [name for name in shown if not crowded or name in analysis.FOLLOWED]
    assert len(curves.axes[0].collections) == len(drawn)
    assert sum(len(bars.lines[2]) for bars in paths.axes[0].containers) == 2 * len(drawn)
    whose = "of GRPO, RiskPO and riskpo_stratified only" if crowded else "of each algorithm alone"
    assert curves.get_label() == f"bands: intervals {whose}"
    assert paths.get_label() == f"bars at the ends: intervals {whose}"


def test_many_unfollowed_algorithms_have_no_intervals_and_the_caption_says_so() -> None:
    tidy = estimated([f"mine_{i}" for i in range(9)])
    figure = plots.learning_curves(tidy[tidy["metric"] == "x"], {}, "note")
    assert not figure.axes[0].collections
    assert figure.get_label() == "bands: intervals of none of so many algorithms"


def test_a_figure_keeps_how_to_read_it(tmp_path: Path) -> None:
    figure = plot_parts.finish(draw(), [], "note", "bands: a < b")
    plots.save(figure, tmp_path, "figure")
    assert report._description((tmp_path / "figure.svg").read_text()) == "bands: a < b"
    plots.save(draw(), tmp_path, "other")
    assert report._description((tmp_path / "other.svg").read_text()) == ""


def test_the_bold_line_is_the_mean_over_seeds() -> None:
    frame = pd.DataFrame({"algorithm": "grpo", "seed": [0, 0, 1, 1], "step": [1, 2, 1, 2], "x": [0.0, 1.0, 2.0, 5.0]})
    figure = plots.training(frame, [Panel("x", "x", "units")], {"grpo": "GRPO"}, "note")
    *_, mean = figure.axes[0].lines
    assert mean.get_ydata().tolist() == [1.0, 3.0]
    assert mean.get_color() == plots.COLOURS["grpo"]


def test_bars_are_the_intervals() -> None:
    row = {"algorithm": "grpo", "difficulty": "all", "metric": "Pass@1", "value": 0.5, "low": 0.4, "high": 0.7}
    figure = plots.dots(pd.DataFrame([row]), {}, "note", "%")
    ((segment,),) = [bars.get_segments() for bars in figure.axes[0].collections]
    assert segment[:, 0].tolist() == pytest.approx([0.4, 0.7])
    assert "40" in {label.get_text() for label in figure.axes[0].get_xticklabels()}


# Files


def draw() -> Figure:
    figure, axis = plt.subplots()
    axis.fill_between([0, 1, 2], [0, 1, 0], [1, 2, 1], label="band")
    axis.plot([0, 1, 2], label="$q_α$")
    axis.legend()
    return figure


def test_same_figure_same_bytes_and_no_date(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        plots.save(draw(), tmp_path / folder, "figure")
    for suffix in (".svg", ".png"):
        first, second = ((tmp_path / folder / f"figure{suffix}").read_bytes() for folder in ("one", "other"))
        assert first == second
        assert b"<dc:date>" not in first
        assert b"Software" not in first
