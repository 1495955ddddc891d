"""The drawings of the quickstart say what the library computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

from riskpo_study import advantages, bundles, drawing, explain, plots, risk, seeds
from riskpo_study.config import Risk

PAPER = Risk()


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context():
        plots.style()
        yield
        plt.close("all")


def batch(settings: Risk, accuracy: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    draws = seeds.generator(0, "test_drawing")
    rewards = (torch.rand(8 * settings.bundle_size, 8, generator=draws) < accuracy).double()
    return rewards, bundles.permutations(*rewards.shape, settings.bundle_size, draws)


def written(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axis.texts] for axis in figure.axes]


def test_the_framework_shows_the_first_group_as_the_library_computes_it() -> None:
    rewards, pairing = batch(PAPER)
    one, two, *_, credit, _ = written(drawing.framework(rewards, pairing, PAPER))
    scores = bundles.scores(rewards, pairing)
    low, high = (risk.quantile(scores.flatten(), level).item() for level in (PAPER.alpha, PAPER.beta))
    shared = advantages.riskpo(rewards, pairing, low, high, PAPER.omega)
    assert one == [f"{reward:.0f}" for reward in rewards[:5].flatten()]
    assert two == [f"{reward:.0f}" for reward in bundles.gather(rewards, pairing)[0].flatten()] + [
        f"{score:g}" for score in scores[0]
    ]
    assert [float(text.replace("−", "-")) for text in credit] == pytest.approx(shared[:5].flatten().tolist(), abs=0.051)


@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [(PAPER, 0.3), (Risk(alpha=0, beta=1, omega=0), 0.0), (Risk(bundle_size=1), 0.95), (Risk(bundle_size=8), 0.5)],
)
def test_every_setting_can_be_drawn(settings: Risk, accuracy: float) -> None:
    assert len(drawing.framework(*batch(settings, accuracy), settings).axes) == 6
    assert len(drawing.landscape(settings, points=40).axes) == 3


def test_nothing_is_cut_off() -> None:
    for figure in (drawing.framework(*batch(PAPER), PAPER), drawing.landscape(PAPER, points=40)):
        figure.canvas.draw()
        texts = [*figure.texts, *(text for axis in figure.axes for text in (*axis.texts, axis.xaxis.label))]
        for box in (text.get_window_extent() for text in texts if text.get_text()):
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1


def test_same_drawing_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        plots.save(drawing.framework(*batch(PAPER), PAPER), tmp_path, name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


# The numbers of the landscape


def test_landscape_has_the_quantiles_and_regions_of_the_binomial() -> None:
    """docs/method.md: q_α = 0 up to p = .275, q_β = 0 up to p = .044, q_β = 5 from p = .725."""
    frame = explain.landscape(PAPER, torch.tensor([0.043, 0.27, 0.28, 0.72, 0.73]))
    quantiles = frame.drop_duplicates("accuracy")
    assert quantiles["q_alpha"].tolist() == [0, 0, 1, 3, 3]
    assert quantiles["q_beta"].tolist() == [0, 2, 2, 4, 5]
    inside = frame["score"].between(frame["q_alpha"], frame["q_beta"])
    assert (frame["region"] == "middle").equals(inside)
    assert (frame.loc[frame["region"] == "lower", "score"] < frame.loc[frame["region"] == "lower", "q_alpha"]).all()


def test_landscape_is_centred_and_its_slopes_are_those_of_the_regions() -> None:
    frame = explain.landscape(PAPER, torch.tensor([0.5]))
    for objective in ("MVaR", "mean"):
        assert (frame["probability"] * frame[objective]).sum() == pytest.approx(0, abs=1e-12)
    assert (frame["q_alpha"].iloc[0], frame["q_beta"].iloc[0]) == (2, 3)
    assert frame["MVaR"].diff().iloc[1:].tolist() == pytest.approx([1.5, 1.5, 1, 0, 0])
    assert frame["mean"].diff().iloc[1:].tolist() == pytest.approx([1] * 5)
