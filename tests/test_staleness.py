"""Simulations of stale rollouts: against small cases by hand, exact laws, and the claims that the notebook makes."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study import (
    advantages,
    bundles,
    config,
    explain,
    findings,
    plots,
    question_weights,
    scale_findings,
    scale_plots,
    seeds,
    staleness,
    tables,
)
from riskpo_study.config import Risk
from riskpo_study.errors import ConfigError
from riskpo_study.findings import Study

MEASURE = Risk(alpha=0.2, beta=0.8, omega=0.5, bundle_size=5)
FRESH = "all that old"


def test_the_steepest_slope_of_a_run_is_found() -> None:
    reward = [0.1] * 40 + [0.1 + 0.002 * step for step in range(1, 101)] + [0.3] * 40
    runs = [
        pd.DataFrame({"algorithm": "grpo", "seed": seed, "step": range(1, 181), "reward/mean": reward[:: 1 - 2 * seed]})
        for seed in (0, 1)
    ]
    short = pd.DataFrame({"algorithm": "riskpo", "seed": 0, "step": [1, 2, 3, 4], "reward/mean": [0.1, 0.1, 0.3, 0.3]})
    found = staleness.measured(pd.concat([*runs, short]), 20, MEASURE).set_index("algorithm")
    assert found.loc["grpo", "drift"] == pytest.approx(0.002)
    assert found.loc["riskpo", "drift"] == pytest.approx(0.1)  # windows of two steps
    assert found.loc["grpo", "rule"] == pytest.approx(25)  # 0.25 / (5 · 0.002)


def test_the_course_rises_and_falls_at_its_drift() -> None:
    accuracy = staleness.course(0.01)
    assert (accuracy[0], accuracy[60], len(accuracy)) == (0.15, 0.75, 120)
    assert accuracy.diff().abs().tolist() == pytest.approx([0.01] * 119)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("all that old", {3}), ("all ages up to it", {0, 1, 2, 3}), ("renewed at that age", {2})],
)
def test_ages_of_a_batch(schedule: str, expected: set[int]) -> None:
    ages = staleness.SCHEDULES[schedule](3, 6, 200, torch.Generator().manual_seed(0))
    assert ages.shape == (200,) and set(ages.tolist()) == expected


def test_weights_are_renewed_at_the_largest_age() -> None:
    ages = [staleness.SCHEDULES["renewed at that age"](3, step, 1, torch.Generator())[0].item() for step in range(9)]
    assert ages == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5))
def test_exact_quantiles_are_those_of_the_law(accuracies: list[float]) -> None:
    found = staleness.exact_quantiles(torch.tensor(accuracies, dtype=torch.float64), MEASURE)
    scores = torch.arange(6, dtype=torch.float64)
    for p, pair in zip(accuracies, found.tolist(), strict=True):
        assert pair == [explain.quantile(scores, explain.binomial(5, p), level) for level in (0.2, 0.8)]


def test_step_lengths_are_those_of_the_theory() -> None:
    means = torch.linspace(0.05, 0.95, 37)
    lengths = staleness.step_lengths(means.double(), staleness.exact_quantiles(means.double(), MEASURE), MEASURE)
    expected = question_weights.step_lengths(MEASURE, means)["weight"]
    assert lengths.tolist() == pytest.approx(expected.tolist())


def test_old_scores_are_fresh_scores_of_an_earlier_policy() -> None:
    """A batch of age 4 at step t is that of age 0 at step t − 4; so is what the trackers make of it."""
    accuracy = staleness.course(0.02)
    old = staleness.follow(accuracy, MEASURE, 50, 4, FRESH, torch.Generator().manual_seed(1))
    earlier = torch.cat([accuracy[:1].expand(4), accuracy[:-4]])
    fresh = staleness.follow(earlier, MEASURE, 50, 0, FRESH, torch.Generator().manual_seed(1))
    assert old["value"].tolist() == fresh["value"].tolist()
    assert old["exact"].tolist() != fresh["exact"].tolist()


def test_errors_by_hand() -> None:
    """Quantiles that are always one score too low."""
    accuracy = torch.full((30,), 0.5, dtype=torch.float64)
    exact = staleness.exact_quantiles(accuracy[:1], MEASURE)[0].tolist()
    rows = [(step, "t", level, q - 1, q) for step in range(30) for level, q in zip((0.2, 0.8), exact, strict=True)]
    found = staleness.errors(
        pd.DataFrame(rows, columns=["step", "tracker", "level", "value", "exact"]), accuracy, MEASURE
    )
    low = staleness.step_lengths(accuracy[:1], torch.tensor([exact]).double() - 1, MEASURE)
    right = staleness.step_lengths(accuracy[:1], torch.tensor([exact]).double(), MEASURE)
    assert found.loc[0, "error"] == 1
    assert found.loc[0, "length"] == pytest.approx(abs(low.item() / right.item() - 1))


def test_students_quantile() -> None:
    assert [staleness.student(n) for n in (3, 7, 31)] == pytest.approx([3.1824, 2.3646, 2.0395], rel=0.01)


def test_what_is_tolerated_is_interpolated() -> None:
    one = {"tracker": "t", "drift": 0.01, "age": [0, 4, 8], "error": [0.1, 0.2, 0.5], "length": [0.1, 0.2, 0.4]}
    other = one | {"error": [0.1, 0.35, 0.5]}
    found = pd.concat([pd.DataFrame(of | {"repeat": number}) for number, of in enumerate((one, other))])
    row = staleness.tolerated(found, MEASURE).iloc[0]
    assert row["steps"] == pytest.approx(5)  # 6 and 4: 0.1 + 0.25 lies half-way between the errors of 4 and 8, or at 4
    margin = staleness.student(1)  # standard errors, of 1
    assert (row["steps_low"], row["steps_high"]) == pytest.approx((5 - margin, 5 + margin))
    assert (row["fresh"], row["fresh_length"], row["length"]) == pytest.approx((0.1, 0.1, 0.25))
    assert row["rule"] == pytest.approx(5)
    assert staleness.tolerated(found[found["age"] < 8], MEASURE).loc[0, "steps"] == math.inf


def test_the_rule_is_right_to_a_factor_of_two() -> None:
    """Error = age × drift × B, for trackers with a memory, at two drifts of which one is five times the other."""
    stale = staleness.stale_errors([0.004, 0.02], [0, 2, 4, 8, 16, 32], MEASURE, 64, FRESH, seed=0, repeats=2)
    table = staleness.tolerated(stale[stale["tracker"] != "batch"], MEASURE)
    assert (table["steps"] / table["rule"]).between(0.6, 2).all()
    for _, part in stale.groupby(["tracker", "drift", "repeat"]):
        assert part["error"].iloc[-1] > part["error"].iloc[0] + 0.2


def test_mixed_ages_cost_less_than_the_largest() -> None:
    errors = {
        schedule: staleness.stale_errors([0.01], [16], MEASURE, 64, schedule, seed=0, repeats=2)["error"].mean()
        for schedule in staleness.SCHEDULES
    }
    assert errors["all ages up to it"] < errors["all that old"] > errors["renewed at that age"]


def test_trackers_remember_what_a_shard_lacks() -> None:
    split = staleness.shard_errors(staleness.course(0.005), MEASURE, 64, [1, 16], seed=0, repeats=2)
    split = staleness.intervals(split, ["tracker", "shards"], ["error"]).set_index(["tracker", "shards"])
    assert split.loc[("batch", 16), "error"] > 2 * split.loc[("batch", 1), "error"]
    for tracker in staleness.TRACKERS[:2]:
        assert split.loc[(tracker, 16), "error"] == pytest.approx(split.loc[(tracker, 1), "error"], abs=0.15)


def test_unlike_shards_get_equal_weights_from_bundles_across_them() -> None:
    found = staleness.unlike_shards(0.5, torch.linspace(0, 0.4, 41), MEASURE).set_index("design")
    ratio = found["hard"] / found["easy"]
    assert (ratio["bundles across shards"] == 1).all()
    assert (ratio["bundles of one shard, global quantiles"] >= 1 - 1e-9).all()
    own = ratio["bundles and quantiles of one shard"]
    assert own.min() < 0.6 and own.max() > 1.05


@pytest.mark.parametrize("algorithm", staleness.ALGORITHMS)
def test_small_policies_learn_and_suffer_from_old_responses(algorithm: str) -> None:
    accuracy = explain.accuracies(0.3, 100)
    runs = [
        staleness.learn(accuracy, MEASURE, algorithm, age, 60, 3.0, 3, seeds.generator(0, "test")) for age in (0, 1, 30)
    ]
    start, end = (torch.stack(runs)[:, :, at].mean(1) for at in (0, -1))
    assert start.tolist() == pytest.approx([accuracy.clamp(0.02, 0.98).mean().item()] * 3)
    assert end[0] > start[0] + 0.2
    assert end[1].item() == pytest.approx(end[0].item(), abs=0.05) and end[2] < end[0] - 0.1
    assert len(set(runs[0][:, -1].tolist())) == 3  # each repeat has its own draws


def test_many_repeats_have_the_advantages_of_one_at_a_time() -> None:
    """With quantiles of their own, between scores as tracked ones are."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(3 * 10, 8, generator=generator) < 0.4).double()
    pairing = bundles.permutations(30, 8, 5, generator)
    quantiles = torch.tensor([[0.7, 3.2], [1, 2], [2.5, 4.1]], dtype=torch.float64)
    found = staleness.riskpo(rewards, pairing, quantiles, MEASURE)
    for number, (low, high) in enumerate(quantiles.tolist()):
        rows, groups = slice(10 * number, 10 * number + 10), slice(2 * number, 2 * number + 2)
        expected = advantages.riskpo(rewards[rows], pairing[groups], low, high, MEASURE.omega)
        torch.testing.assert_close(found[rows], expected)


def test_learning_compares_ages_on_the_same_draws() -> None:
    found = staleness.learning(explain.accuracies(0.3, 50), MEASURE, [0, 8], [1, 3], 10, 2, seed=0)
    assert len(found) == 3 * 2 * 2 * 2
    assert found.groupby(["algorithm", "rate", "repeat"])["drift"].nunique().eq(1).all()
    first = staleness.learning(explain.accuracies(0.3, 50), MEASURE, [0, 8], [1], 1, 2, seed=0)
    assert first.groupby("repeat")["accuracy"].nunique().eq(1).all()  # before the first step all are alike
    assert staleness.speeds(found).keys() == {1.0, 3.0}


def test_bundles_do_not_span_repeats() -> None:
    with pytest.raises(ConfigError, match="40 questions do not fill bundles of 3"):
        staleness.learn(
            explain.accuracies(0.3, 50), replace(MEASURE, bundle_size=3), "RiskPO", 0, 1, 1.0, 3, torch.Generator()
        )


def learned(*accuracies: tuple[float, float, float]) -> pd.DataFrame:
    """Of three repeats: fresh ones are 0.5, the others as given of RiskPO, of known quantiles, of Dr. GRPO."""
    rows = [
        (name, 1, age, repeat, 0.5 if age == 0 else of[repeat], 0.001)
        for name, of in zip(staleness.ALGORITHMS, accuracies, strict=True) for age in (0, 8) for repeat in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["algorithm", "rate", "age", "repeat", "accuracy", "drift"])


def test_what_is_lost_is_paired_by_repeat() -> None:
    """Known quantiles vary as tracked ones do: the difference is sure where neither loss is."""
    table = staleness.lost(learned((0.2, 0.3, 0.4), (0.21, 0.31, 0.41), (0.4, 0.4, 0.4)))
    rows = table.set_index("algorithm")
    assert rows["lost"].to_dict() == pytest.approx(
        {"RiskPO": 0.2, "RiskPO with known quantiles": 0.19, "Dr. GRPO": 0.1, scale_findings.TRACKING: 0.01}
    )
    assert rows.loc["RiskPO", "lost_high"] == pytest.approx(0.2 + staleness.student(2) * 0.1 / 3**0.5)
    assert rows.loc[scale_findings.TRACKING, "lost_low"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("known", "counts"),
    [
        ((0.21, 0.31, 0.41), "in 1 of 1 comparisons and less in 0; in the others"),
        ((0.19, 0.29, 0.39), "in 0 of 1 comparisons and less in 1; in the others"),
        ((0.3, 0.3, 0.3), "in 0 of 1 comparisons and less in 0; in the others"),
    ],
    ids=["more", "less", "undecided"],
)
def test_what_tracking_adds_is_said_as_the_intervals_allow(known: tuple[float, float, float], counts: str) -> None:
    text = scale_findings.lost(staleness.lost(learned((0.2, 0.3, 0.4), known, (0.4, 0.4, 0.4))))
    assert (
        f"Tracked quantiles lose more with age than known ones {counts} the interval of the difference holds 0" in text
    )
    assert text.endswith("at the rate 1 and age 8, where Dr. GRPO, which has no quantiles, loses 10.0 [10.0, 10.0].")


def test_the_figures_show_what_they_are_given() -> None:
    with mpl.rc_context():
        plots.style()
        accuracy = staleness.course(0.02)
        followed = [
            staleness.follow(accuracy, MEASURE, 20, age, FRESH, torch.Generator().manual_seed(0)).assign(age=age)
            for age in (0, 1, 2)
        ]
        figure = scale_plots.paths(pd.concat(followed), staleness.TRACKERS[0], "note")
        assert [len(axis.lines) for axis in figure.axes] == [4, 4]
        stale = staleness.stale_errors([0.02, 0.025, 0.03], [0, 2], MEASURE, 20, FRESH, seed=0, repeats=2)
        mixed = pd.concat(
            [
                staleness.stale_errors([0.025], [0, 2], MEASURE, 20, name, seed=0, repeats=2)
                for name in staleness.SCHEDULES
            ]
        )
        mixed = mixed[mixed["tracker"] == "batch"]
        by = ["tracker", "drift", "age", "schedule"]
        stale, mixed = (staleness.intervals(frame, by, ["error", "length"]) for frame in (stale, mixed))
        left, middle, right = scale_plots.tolerance(stale, mixed, MEASURE, "note").axes
        assert (len(left.lines), len(middle.lines), len(right.lines)) == (3 + 9, 1 + 9, 3)
        assert [len(axis.containers) for axis in (left, middle, right)] == [9, 9, 3]  # with their intervals
        assert left.lines[3].get_xdata() == pytest.approx([0, 2 * 0.02 * 5])
        split = staleness.shard_errors(accuracy, MEASURE, 20, [1, 2], seed=0, repeats=2)
        split = staleness.intervals(split, ["tracker", "shards"], ["error"])
        unlike = staleness.unlike_shards(0.5, torch.linspace(0, 0.4, 5), MEASURE)
        assert [len(axis.lines) for axis in scale_plots.shards(split, unlike, "note").axes] == [3, 4]
        runs = staleness.learning(explain.accuracies(0.3, 50), MEASURE, [0, 8, 9], [1, 3], 5, 2, seed=0)
        axes = scale_plots.learning(staleness.lost(runs), staleness.speeds(runs), "note").axes
        assert [len(axis.containers) for axis in axes] == [3, 1, 3, 1]
        mpl.pyplot.close("all")


def test_the_report_says_what_the_tables_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(config.root() / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    study = Study(config.load())
    saved = study.config.results / "tables" / "12_scale"
    drift = pd.DataFrame({"algorithm": ["grpo", "riskpo"], "drift": [0.002, 0.001], "rule": [25.0, 50.0]})
    tables.save(saved, "drift", drift)
    of = {"tracker": ["a", "b"], "drift": 0.005, "steps": [12.0, 8.0], "steps_high": [13.0, 9.0], "rule": 10.0}
    tables.save(saved, "tolerated", pd.DataFrame(of | {"fresh": [0.1, 0.3], "fresh_length": 0.1, "length": [0.2, 0.3]}))
    assert findings.tolerance(study) == (
        "The fastest change of accuracy in this profile, GRPO's, is 2.00 ‰ a step, of which RiskPO's quantiles "
        "tolerate 25 steps by the rule. Simulated, 0.8 to 1.2 times as many steps are tolerated as by the rule (fewer, "
        "beyond the noise: b at 5 ‰ a step). Where scores are fresh, a quantile is wrong by 0.10 to 0.30 of a score "
        "already and the step's length by 10 %; at the tolerated age the length is wrong by 20 to 30 %."
    )
    tables.save(saved, "lost", staleness.lost(learned((0.2, 0.3, 0.4), (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))))
    assert findings.learning_from_old(study).startswith(
        "Points of accuracy lost with responses 8 steps old, of the mean over a run: at the rate 1 RiskPO 20.0 "
    )


def test_what_no_age_exceeds_is_said() -> None:
    of = {"tracker": ["a"], "drift": 0.005, "steps": [math.inf], "steps_high": [math.nan], "rule": 10.0}
    text = scale_findings.tolerated(pd.DataFrame(of | {"fresh": [0.1], "fresh_length": 0.1, "length": math.nan}))
    assert text.startswith("Simulated, arbitrarily many times as many steps") and text.endswith("length by 10 %.")
