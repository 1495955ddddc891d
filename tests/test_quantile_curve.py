import numpy as np
import pandas as pd
import pytest
import torch

from riskpo_study import bundles, risk, seeds
from riskpo_study.errors import DataError
from riskpo_study.quantile_curve import WINDOW, quantile_curve

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.8, 1.0)
COLUMNS = [
    "level", "reward", "log_prob", "log_prob_low", "log_prob_high", "token_log_prob", "token_log_prob_low",
    "token_log_prob_high", "questions", "bundles",
]  # fmt: skip


def samples(questions=12, n=16, seed=0, log_prob=None):
    """Responses whose accuracy and log-probability differ from question to question."""
    draws = np.random.default_rng(seed)
    accuracy = draws.uniform(size=(questions, 1))
    reward = (draws.uniform(size=(questions, n)) < accuracy).astype(float)
    value = draws.normal(size=(questions, n)) - 5 * accuracy if log_prob is None else log_prob(reward)
    return pd.DataFrame({
        "question_id": [f"q{index:03d}" for index in range(questions) for _ in range(n)],
        "sample": np.tile(np.arange(n), questions),
        "reward": reward.ravel(),
        "log_prob": value.ravel(),
        "length": draws.integers(3, 9, size=questions * n),
    })  # fmt: skip


def curve(frame, size=5, levels=LEVELS, resamples=200, confidence=0.95, seed=0):
    return quantile_curve(frame, size, levels, resamples, confidence, seed)


def test_single_responses_of_two_kinds():
    """Half of the responses are right; right ones have log-probability −1, wrong ones −3."""
    frame = samples(questions=4, n=10, log_prob=lambda reward: 2 * reward - 3)
    frame["reward"] = np.tile([0.0, 1.0], 20)
    frame["log_prob"] = 2 * frame["reward"] - 3
    found = curve(frame, size=1, levels=(0.2, 0.44, 0.5, 0.56, 0.9))
    assert found["reward"].tolist() == [0, 0, 0, 1, 1]
    assert found["log_prob"].tolist() == pytest.approx([-3, -3, -2, -1, -1])
    assert found["log_prob_low"].tolist() == pytest.approx(found["log_prob"].tolist())  # all questions alike


def test_a_log_probability_linear_in_the_reward_gives_the_quantile_function():
    """Then the curve is the mean quantile over the window, RVaR, on the same line."""
    frame = samples(questions=20, n=16, log_prob=lambda reward: 0.5 * reward - 2)
    found = curve(frame)
    scores = _bundles(frame, "reward", 20, 5, seed=0)
    for level, value, reward in zip(LEVELS, found["log_prob"], found["reward"], strict=True):
        mean_score = risk.rvar(scores.flatten(), max(level - WINDOW, 0), min(level + WINDOW, 1)).item()
        assert value == pytest.approx(0.5 * mean_score / 5 - 2)
        assert reward == risk.quantile(scores.flatten(), level).item()


def _bundles(frame, column, filled, size, seed):
    """Values summed over the bundles, (groups, samples), by loops."""
    table = frame.pivot(index="question_id", columns="sample", values=column)
    draws = seeds.generator(seed, "quantile_curve", "bundles")
    order = torch.randperm(len(table), generator=draws)[:filled].tolist()
    permutation = bundles.permutations(filled, table.shape[1], size, draws)
    totals = torch.zeros(filled // size, table.shape[1], dtype=torch.float64)
    for group in range(filled // size):
        for place in range(size):
            for bundle in range(table.shape[1]):
                response = permutation[group, place, bundle].item()
                totals[group, bundle] += table.iloc[order[group * size + place], response]
    return totals


def test_agrees_with_breaking_ties_at_random():
    """The slow definition: order the bundles by score, ties at random, and average those in the window."""
    frame, levels = samples(questions=20, n=16), (0.15, 0.5, 0.85)
    found = curve(frame, levels=levels)
    score, log_prob, length = (
        _bundles(frame, name, 20, 5, 0).flatten().numpy() for name in ("reward", "log_prob", "length")
    )
    draws, n = np.random.default_rng(1), len(score)
    for name, values in (("log_prob", log_prob / 5), ("token_log_prob", log_prob / length)):
        means = np.zeros(len(levels))
        for _ in range(3000):
            ordered = values[np.lexsort((draws.uniform(size=n), score))]
            for index, level in enumerate(levels):
                edges = np.arange(n + 1) / n
                share = np.clip(np.minimum(edges[1:], level + WINDOW) - np.maximum(edges[:-1], level - WINDOW), 0, None)
                means[index] += share @ ordered / share.sum() / 3000
        assert found[name].to_numpy() == pytest.approx(means, abs=0.01)


def test_questions_that_do_not_fill_a_bundle_are_left_out():
    found = curve(samples(questions=13, n=8))
    assert list(found) == COLUMNS
    assert (found["questions"] == 10).all() and (found["bundles"] == 2 * 8).all()


def test_the_interval_is_that_of_resampled_groups_of_questions():
    frame = samples(questions=60, n=8)
    found = curve(frame, resamples=4000)
    assert (found["log_prob_low"] < found["log_prob"]).all() and (found["log_prob"] < found["log_prob_high"]).all()
    narrow = curve(frame, resamples=4000, confidence=0.5)
    assert ((narrow["log_prob_high"] - narrow["log_prob_low"]) < (found["log_prob_high"] - found["log_prob_low"])).all()
    more = curve(samples(questions=600, n=8), resamples=1000)
    shrunk = (more["log_prob_high"] - more["log_prob_low"]) / (found["log_prob_high"] - found["log_prob_low"])
    assert 0.15 < shrunk.median() < 0.6  # about 1/√10


def test_the_interval_covers_the_truth():
    """Of a hundred data sets, about ninety 90 % intervals hold the value that much data gives."""
    truth = curve(samples(questions=4000, n=8, seed=99), levels=(0.5,), resamples=2)["log_prob"].item()
    covered = 0
    for seed in range(100):
        found = curve(samples(questions=100, n=8, seed=seed), levels=(0.5,), resamples=300, confidence=0.9, seed=seed)
        covered += found["log_prob_low"].item() <= truth <= found["log_prob_high"].item()
    assert 78 <= covered <= 98


def test_the_seed_decides_and_the_order_of_the_rows_does_not():
    frame = samples()
    pd.testing.assert_frame_equal(curve(frame), curve(frame.sample(frac=1, random_state=0)))
    assert not curve(frame)["log_prob"].equals(curve(frame, seed=1)["log_prob"])


def test_what_makes_no_curve_is_refused():
    with pytest.raises(DataError, match="4 questions do not fill one bundle of 5"):
        curve(samples(questions=4))
    with pytest.raises(DataError, match="fewer samples than others"):
        curve(samples().iloc[:-1])
