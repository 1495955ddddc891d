"""The claims of the quickstart."""

import itertools
import math

import pytest
import torch

from riskpo_study import explain, plots, risk, seeds
from riskpo_study.config import Risk

SCORES = torch.arange(6, dtype=torch.float64)
PAPER = Risk()


def quantiles(law, settings=PAPER):
    return tuple(explain.quantile(SCORES, law, level) for level in (settings.alpha, settings.beta))


def exact_mvar(law, settings=PAPER):
    """MVaR of a distribution over 0..5, by integrating its quantile function."""
    upper = law.cumsum(0)
    lower = upper - law

    def integral(start, end):
        return (SCORES * (upper.clamp(max=end) - lower.clamp(min=start)).clamp(min=0)).sum().item()

    return (1 + settings.omega) * integral(0, settings.alpha) + integral(settings.alpha, settings.beta)


def test_binomial_counts_the_outcomes():
    p = 0.3
    expected = [0.0] * 5
    for outcome in itertools.product((0, 1), repeat=4):
        expected[sum(outcome)] += math.prod(p if right else 1 - p for right in outcome)
    assert explain.binomial(4, p).tolist() == pytest.approx(expected)
    assert explain.binomial(4, torch.tensor([0.0, 1.0])).tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize("mean", [0.1, 0.3, 0.5, 0.9])
def test_accuracies_ascend_and_have_the_mean(mean):
    accuracy = explain.accuracies(mean, 2000)
    assert (accuracy.diff() >= 0).all() and accuracy[0] > 0 and accuracy[-1] < 1
    assert accuracy.mean().item() == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_quantile_is_that_of_equally_likely_samples(level):
    samples = torch.tensor([3.0, 1.0, 1.0, 5.0, 2.0], dtype=torch.float64)
    found = explain.quantile(samples, torch.full((5,), 0.2, dtype=torch.float64), level)
    assert found == risk.quantile(samples, level).item()


@pytest.mark.parametrize("policy", explain.POLICIES)
def test_entropy_changes_as_the_first_order_predicts(policy):
    answers, changes = explain.one_update(explain.REWARDS, explain.POLICIES[policy], PAPER, 1e-4)
    assert changes["entropy"].to_numpy() == pytest.approx(changes["first order"].to_numpy(), rel=1e-2)
    assert answers[["before", "mean", "MVaR"]].sum().to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("policy", explain.POLICIES)
def test_the_covariances_differ_by_the_tail_terms(policy):
    _, changes = explain.one_update(explain.REWARDS, explain.POLICIES[policy], PAPER, 0.1)
    r, p = (torch.tensor(x, dtype=torch.float64) for x in (explain.REWARDS, explain.POLICIES[policy]))
    q_alpha, q_beta = quantiles_of = [explain.quantile(r, p, level) for level in (0.2, 0.8)]
    assert quantiles_of == ([1, 4] if policy == "likeliest answer is the worst" else [2, 5])
    lower = explain.covariance(p, p.log(), (q_alpha - r).clamp(min=0))
    upper = explain.covariance(p, p.log(), (r - q_beta).clamp(min=0))
    assert changes.loc["MVaR", "ωL + U"] == pytest.approx(PAPER.omega * lower + upper)
    assert changes.loc["mean", "ωL + U"] == 0


def test_which_objective_keeps_more_entropy_depends_on_the_policy():
    worst, best = (
        explain.one_update(explain.REWARDS, explain.POLICIES[policy], PAPER, 0.02)[1] for policy in explain.POLICIES
    )
    assert worst.loc["MVaR", "entropy"] > worst.loc["mean", "entropy"] and worst.loc["MVaR", "ωL + U"] > 0
    assert best.loc["MVaR", "entropy"] < best.loc["mean", "entropy"] and best.loc["MVaR", "ωL + U"] < 0


def test_weight_is_what_a_right_answer_adds_to_the_expected_advantage():
    others = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    law, expected = torch.zeros(5, dtype=torch.float64), 0.0
    for outcome in itertools.product((0, 1), repeat=4):
        chance = math.prod(p if right else 1 - p for p, right in zip(others.tolist(), outcome, strict=True))
        law[sum(outcome)] += chance
        wrong, right = risk.mvar_advantage(torch.tensor([sum(outcome), sum(outcome) + 1.0]), 1.0, 3.0, 0.5).tolist()
        expected += chance * (right - wrong)
    assert explain.marginal_weights(law, 1.0, 3.0, 0.5).item() == pytest.approx(expected)
    assert explain.marginal_weights(law, 0.0, 5.0, 0.5).item() == pytest.approx(1)  # nothing is in a tail


@pytest.mark.parametrize("mean", [0.25, 0.4, 0.6])
def test_bundled_at_random_the_weight_is_the_slope_of_the_objective_in_the_mean_accuracy(mean):
    """The finding: MVaR = φ(mean accuracy); whatever its own accuracy, a question has the weight φ′/B."""
    step = 1e-6
    law = explain.binomial(5, mean)
    slope = (exact_mvar(explain.binomial(5, mean + step)) - exact_mvar(explain.binomial(5, mean - step))) / (2 * step)
    weight = explain.marginal_weights(explain.binomial(4, mean), *quantiles(law), PAPER.omega).item()
    assert weight == pytest.approx(slope / 5, rel=1e-6)


@pytest.mark.parametrize("alike", [False, True])
def test_the_library_gives_questions_the_weights_that_theory_predicts(alike):
    accuracy = explain.accuracies(0.3, 500)
    law = explain.binomial(5, accuracy).mean(0) if alike else explain.binomial(5, 0.3)
    others = explain.binomial(4, accuracy) if alike else explain.binomial(4, 0.3)
    expected = explain.marginal_weights(others, *quantiles(law), PAPER.omega).expand(500)
    draws = seeds.generator(0, "test_explain")
    measured = explain.sampled_weights(accuracy, quantiles(law), PAPER, draws, alike)
    variance, part = accuracy * (1 - accuracy), explain.parts(accuracy)
    for index in range(explain.PARTS):
        within = part == index
        theory = (expected * variance)[within].sum() / variance[within].sum()
        assert measured[index].item() == pytest.approx(theory.item(), abs=0.06)
    assert (measured[0] - measured[-1] > 0.5) == alike  # only alike bundles tell easy questions from hard ones


def test_the_figure_is_the_same_to_the_byte(tmp_path):
    for name in ("one", "other"):
        plots.style()
        plots.save(explain.figure(PAPER, 0.3), tmp_path, name)
    for suffix in ("svg", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"other.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [(Risk(alpha=0, beta=1, omega=0), 0.05), (Risk(bundle_size=1), 0.95), (Risk(alpha=0.75), 0.5)],
)
def test_the_figure_takes_what_the_sliders_offer(settings, accuracy):
    figure = explain.figure(settings, accuracy)
    assert len(figure.axes) == 4
    figure.clear()
