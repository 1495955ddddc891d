"""Bundles: every response in exactly one, back and forth without loss."""

from __future__ import annotations

import pytest
import torch
from golden import golden
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from riskpo_study import advantages, bundles, risk
from riskpo_study.errors import ConfigError

shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32))  # N, B, G, seed


def draw(n: int, b: int, g: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random values (Q, G) and a random permutation (N, B, G)."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n * b, g, dtype=torch.float64, generator=generator)
    return values, bundles.permutations(n * b, g, b, generator)


def test_values_of_another_shape_are_refused_not_mixed() -> None:
    """(6, 4) has as many values as the (4, 6) that the permutation is of."""
    _, permutation = draw(2, 2, 6, 0)
    with pytest.raises(
        ConfigError, match=r"shape \(6, 4\) do not fit a permutation of shape \(2, 2, 6\); give \(4, 6\)"
    ):
        bundles.scores(torch.ones(6, 4), permutation)


@given(shapes)
def test_scores_equal_a_loop(shape) -> None:
    n, b, g, _ = shape
    rewards, permutation = draw(*shape)
    scores = bundles.scores(rewards, permutation)
    assert scores.shape == (n, g)
    for group in range(n):
        for j in range(g):
            total = sum(rewards[group * b + q, permutation[group, q, j]].item() for q in range(b))
            assert scores[group, j].item() == pytest.approx(total)


@given(shapes)
def test_each_response_is_used_exactly_once(shape) -> None:
    n, b, g, _ = shape
    _, permutation = draw(*shape)
    assert permutation.shape == (n, b, g)
    assert torch.equal(permutation.sort(dim=-1).values, torch.arange(g).expand(n, b, g))
    response = torch.arange(n * b * g).view(n * b, g)
    assert sorted(bundles.gather(response, permutation).flatten().tolist()) == response.flatten().tolist()


@given(shapes)
def test_scatter_inverts_gather(shape) -> None:
    values, permutation = draw(*shape)
    assert torch.equal(bundles.scatter(bundles.gather(values, permutation), permutation), values)
    bundled = values.view(permutation.shape)
    assert torch.equal(bundles.gather(bundles.scatter(bundled, permutation), permutation), bundled)


@given(shapes)
def test_a_shared_value_reaches_every_response_of_its_bundle(shape) -> None:
    n, b, g, _ = shape
    _, permutation = draw(*shape)
    shared = torch.arange(n * g).view(n, 1, g)
    spread = bundles.scatter(shared, permutation)
    assert torch.equal(bundles.gather(spread, permutation), shared.expand(n, b, g))


def test_values_need_not_be_contiguous() -> None:
    values, permutation = draw(2, 3, 4, 0)
    transposed = values.t().contiguous().t()
    assert torch.equal(bundles.scores(transposed, permutation), bundles.scores(values, permutation))


def test_permutations_are_uniform_independent_and_reproducible() -> None:
    questions, responses = 6000, 3
    first = bundles.permutations(questions, responses, 2, torch.Generator().manual_seed(1))
    again = bundles.permutations(questions, responses, 2, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    code = first @ torch.tensor([9, 3, 1])  # one number a permutation, (N, B)
    shares = code.unique(return_counts=True)[1] / questions
    assert len(shares) == 6
    assert (shares - 1 / 6).abs().max() < 0.02  # 4 standard errors
    pairs = (27 * code[:, 0] + code[:, 1]).unique(return_counts=True)[1] / len(code)
    assert len(pairs) == 36
    assert (pairs - 1 / 36).abs().max() < 0.013


def test_in_order_pairs_equal_positions() -> None:
    rewards = torch.arange(12.0).view(4, 3)
    assert torch.equal(bundles.scores(rewards, bundles.in_order(4, 3, 2)), rewards.view(2, 2, 3).sum(1))


def test_golden_bundle_formation() -> None:
    entry = golden("bundle_formation_with_permutations")
    rewards = torch.tensor(entry["inputs"]["rewards_BxG"], dtype=torch.float64)
    key = "perm_BxG (perm[b][j]=response index of question b used in bundle j)"
    permutation = torch.tensor(entry["inputs"][key]).unsqueeze(0)
    expected = entry["outputs"]
    scores = bundles.scores(rewards, permutation)
    assert scores.tolist() == [expected["R_B"]]
    q_alpha, q_beta = (risk.quantile(scores.flatten(), level).item() for level in (0.2, 0.8))
    assert (q_alpha, q_beta) == (expected["Q_alpha"], expected["Q_beta"])
    assert risk.mvar_advantage(scores, q_alpha, q_beta, 0.5).tolist() == [expected["A_bundle"]]
    shared = advantages.riskpo(rewards, permutation, q_alpha, q_beta, 0.5, baseline="none")
    assert shared.tolist() == expected["A_per_response_BxG"]


def test_questions_that_do_not_fill_bundles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"512 questions do not fill bundles of 5; .* for example 515"):
        bundles.permutations(512, 10, 5, torch.Generator())
    with pytest.raises(ConfigError, match="3 questions do not fill bundles of 2"):
        bundles.in_order(3, 4, 2)
    with pytest.raises(ConfigError, match="bundle_size = 0 is not a number of questions; choose at least 1"):
        bundles.check_bundle_size(10, 0)
