"""Pass@k, Avg@k, Maj@k by enumeration, and the bootstrap against exact distributions."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from golden import golden
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study import evaluation
from riskpo_study.errors import ConfigError

# --- pass@k and avg@k -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_the_enumeration_of_subsets(n: int) -> None:
    for c in range(n + 1):
        right = [i < c for i in range(n)]
        for k in range(1, n + 1):
            hits = [any(right[i] for i in chosen) for chosen in combinations(range(n), k)]
            assert evaluation.pass_at_k(n, c, k) == pytest.approx(np.mean(hits), abs=1e-12)


@given(st.integers(1, 3000), st.data())
def test_pass_at_k_equals_exact_binomials(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    expected = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert float(evaluation.pass_at_k(n, c, k)) == pytest.approx(expected, abs=1e-10)


def test_pass_at_k_broadcasts_over_questions() -> None:
    c = np.array([[0, 1], [2, 4]])
    values = evaluation.pass_at_k(4, c, 2)
    assert values.shape == (2, 2)
    assert values.tolist() == [[float(evaluation.pass_at_k(4, x, 2)) for x in row] for row in c]
    assert evaluation.pass_at_k([4, 8], [2, 2], 1).tolist() == [0.5, 0.25]
    assert evaluation.pass_at_k(4, 1, 4) == 1.0  # resampling with replacement would say 0.68


def test_avg_at_k_is_the_share_of_right_samples() -> None:
    assert evaluation.avg_at_k([4, 10], [1, 5]).tolist() == [0.25, 0.5]
    n, c = np.full(11, 10), np.arange(11)
    np.testing.assert_allclose(evaluation.avg_at_k(n, c), evaluation.pass_at_k(n, c, 1))


def test_golden_pass_at_k() -> None:
    entry = golden("evaluation_metrics")
    cases = entry["inputs"]["pass_at_k_unbiased"]["n_c_k"]
    expected = entry["outputs"]["pass_at_k_unbiased"]["pass_at_k"]
    got = [float(evaluation.pass_at_k(*case)) for case in cases]
    assert got == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pass@5 needs at least 5 samples a question, k >= 1; there are 4"):
        evaluation.pass_at_k([8, 4], [1, 1], 5)
    with pytest.raises(ConfigError, match=r"pass@0 needs at least 0 samples a question, k >= 1"):
        evaluation.pass_at_k(4, 1, 0)
    for c in (-1, 5):
        with pytest.raises(ConfigError, match="right samples must lie between 0 and the number of samples"):
            evaluation.pass_at_k(4, c, 2)
    with pytest.raises(ConfigError, match=r"maj@4 needs 4 to 1000 samples a question, k >= 1; there are 3"):
        evaluation.maj_at_k(["a", "b", "c"], [True, False, False], 4)
    with pytest.raises(ConfigError, match=r"maj@0 needs"):
        evaluation.maj_at_k(["a"], [True], 0)


# --- maj@k ----------------------------------------------------------------------------------------


def maj_by_enumeration(answers: list[str | None], right: set[str], k: int) -> float:
    total = 0.0
    for chosen in combinations(answers, k):
        votes = Counter(answer for answer in chosen if answer is not None)
        if votes:
            tied = [answer for answer, count in votes.items() if count == max(votes.values())]
            total += sum(answer in right for answer in tied) / len(tied)
    return total / math.comb(len(answers), k)


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=9),
    st.sets(st.sampled_from(["a", "b", "c", "d"])),  # several answers may be right
)
def test_maj_at_k_equals_the_enumeration_of_subsets(answers, right) -> None:
    correct = [answer in right for answer in answers]
    for k in range(1, len(answers) + 1):
        got = evaluation.maj_at_k(answers, correct, k)
        assert got == pytest.approx(maj_by_enumeration(answers, right, k), abs=1e-12)


def test_maj_at_k_of_many_samples() -> None:
    """Maj@1 is Avg@1; Maj@n is the plurality; where one answer holds all votes Maj@k is 1."""
    answers = ["a"] * 30 + ["b"] * 25 + [str(i) for i in range(60)] + [None] * 13
    correct = [answer == "a" for answer in answers]
    assert evaluation.maj_at_k(answers, correct, 1) == pytest.approx(30 / 128)
    assert evaluation.maj_at_k(answers, correct, 128) == pytest.approx(1)
    assert evaluation.maj_at_k(["a"] * 64, [True] * 64, 32) == pytest.approx(1)
    assert evaluation.maj_at_k([None] * 3, [False] * 3, 2) == 0.0


def test_maj_at_k_equals_a_simulation() -> None:
    answers = ["a"] * 12 + ["b"] * 14 + ["c"] * 3 + [str(i) for i in range(20)] + [None] * 15
    generator = np.random.default_rng(0)
    for k in (4, 16):
        wins = []
        for _ in range(6000):
            votes = Counter(a for a in generator.choice(np.array(answers, dtype=object), k, replace=False) if a)
            tied = [a for a, count in votes.items() if count == max(votes.values())]
            wins.append(("a" in tied) / max(len(tied), 1))
        exact = evaluation.maj_at_k(answers, [a == "a" for a in answers], k)
        assert exact == pytest.approx(np.mean(wins), abs=0.02)


def test_golden_maj_and_avg() -> None:
    entry = golden("evaluation_metrics")
    inputs = entry["inputs"]["maj_and_avg_at_k"]
    expected = entry["outputs"]["maj_and_avg_at_k"]
    correct = [answer == inputs["correct"] for answer in inputs["answers"]]
    for k, key in enumerate(
        (
            "maj@1_without_replacement",
            "maj@2_without_replacement",
            "maj@3_without_replacement",
            "maj@4_without_replacement",
            "maj@5_without_replacement",
        ),
        start=1,
    ):
        assert evaluation.maj_at_k(inputs["answers"], correct, k) == pytest.approx(expected[key])
    assert evaluation.avg_at_k(5, sum(correct)) == expected["avg_at_5"]


# --- intervals ------------------------------------------------------------------------------------


def shares(means: np.ndarray) -> dict[float, float]:
    values, counts = np.unique(means.round(9), return_counts=True)
    return dict(zip(values.tolist(), (counts / len(means)).tolist(), strict=True))


def test_bootstrap_has_the_exact_distribution() -> None:
    generator = np.random.default_rng(0)
    one_seed = shares(evaluation.bootstrap_means([0.0, 1.0], 40_000, generator))
    assert one_seed == pytest.approx({0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.01)
    seeds = shares(evaluation.bootstrap_means([[0.0], [1.0], [1.0]], 40_000, generator))
    thirds = {0.0: 1 / 27, round(1 / 3, 9): 6 / 27, round(2 / 3, 9): 12 / 27, 1.0: 8 / 27}
    assert seeds == pytest.approx(thirds, abs=0.01)
    # Two seeds × two questions, resampled independently: only the corner holds a one.
    corner = shares(evaluation.bootstrap_means([[0.0, 0.0], [0.0, 1.0]], 40_000, generator))
    exact = {0.0: 7 / 16, 0.25: 4 / 16, 0.5: 4 / 16, 1.0: 1 / 16}
    assert corner == pytest.approx(exact, abs=0.01)


def test_interval_has_the_width_of_theory_and_covers() -> None:
    """Of 300 experiments with 60 questions, about 95 % of the intervals hold the true mean."""
    generator = np.random.default_rng(1)
    hits, widths = 0, []
    for _ in range(300):
        values = generator.binomial(1, 0.4, size=60)
        result = evaluation.interval(values, 400, generator)
        assert result.low <= result.mean <= result.high
        assert result.mean == values.mean()
        hits += result.low <= 0.4 <= result.high
        widths.append(result.high - result.low)
    assert 0.90 <= hits / 300 <= 0.985
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(0.24 / 60), rel=0.05)


def test_paired_differences_remove_what_the_questions_share() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.random((1, 80))
    one, other = difficulty + 0.02, difficulty
    paired = evaluation.interval(one - other, 1000, generator)
    assert paired == pytest.approx((0.02, 0.02, 0.02))
    alone = evaluation.interval(one, 1000, generator)
    assert alone.high - alone.low > 0.1


def test_seeds_are_the_outer_level() -> None:
    """Seeds that disagree widen the interval, however many questions agree within each."""
    generator = np.random.default_rng(3)
    values = np.repeat([[0.2], [0.4], [0.6], [0.8]], 500, axis=1)
    wide = evaluation.interval(values, 4000, generator)
    assert wide.mean == pytest.approx(0.5)
    assert wide.high - wide.low > 0.3
    narrow = evaluation.interval(values, 4000, generator, confidence=0.5)
    assert narrow.high - narrow.low < wide.high - wide.low


def test_intervals_come_from_the_generator_alone() -> None:
    values = np.random.default_rng(0).random((2, 50))
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    one = evaluation.interval(values, 500, np.random.default_rng(7))
    np.random.seed(1)  # noqa: NPY002
    assert evaluation.interval(values, 500, np.random.default_rng(7)) == one
    assert evaluation.interval(values, 500, np.random.default_rng(8)) != one
