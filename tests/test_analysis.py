"""Records to tables, on frames small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from synthetic import counts
from threadpoolctl import threadpool_limits

from riskpo_study import analysis, evaluation
from riskpo_study.analysis import Resampler
from riskpo_study.errors import DataError
from riskpo_study.evaluation import Interval
from riskpo_study.records import BASE


@pytest.fixture(scope="module")
def resampler() -> Resampler:
    return Resampler(2000, 0.95)


def together(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def one(frame: pd.DataFrame, **where: object) -> pd.Series:
    """The only row with these values."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


# Resampling


def test_interval_of_coin_flips_is_the_normal_one() -> None:
    flips = np.tile([0.0, 1.0], 200)[None, None]
    ((mean, low, high),) = Resampler(20000, 0.95).interval(flips)
    assert mean == 0.5
    assert_allclose([low, high], [0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], atol=2e-3)


def test_agrees_with_evaluation_interval() -> None:
    values = np.random.default_rng(1).random((3, 40))
    (ours,) = Resampler(20000, 0.9).interval(values[None])
    theirs = evaluation.interval(values, 20000, np.random.default_rng(2), 0.9)
    assert_allclose(ours, theirs, atol=4e-3)


def test_single_seed_adds_no_spread_and_different_seeds_do(resampler: Resampler) -> None:
    same = np.full((1, 2, 30), 0.5)
    apart = same + np.array([-0.25, 0.25])[:, None]
    assert_allclose(resampler.interval(same), [(0.5, 0.5, 0.5)])
    assert_allclose(resampler.interval(apart), [(0.5, 0.25, 0.75)])
    assert_allclose(resampler.interval(apart[:, :1]), [(0.25, 0.25, 0.25)])


def test_resamples_depend_on_the_seed_alone() -> None:
    values = np.random.default_rng(0).random((2, 2, 9))
    assert_allclose(Resampler(50, 0.95, 3).means(values), Resampler(50, 0.95, 3).means(values), rtol=0)
    assert not np.array_equal(Resampler(50, 0.95, 3).means(values), Resampler(50, 0.95, 4).means(values))


# Pass@k tables


def test_pass_at_k_in_closed_form(resampler: Resampler) -> None:
    frame = together(counts([1, 0], 4), counts([4, 2], 4, difficulty=4))
    scored, metrics = analysis.measures(frame, [1, 2, 4])
    assert metrics == ["Pass@1", "Pass@2", "Pass@4", "Avg@4", "Maj@4"]
    table = analysis.summary(scored, metrics, resampler)
    expected = {  # of c right ones of 4: c/4, then 1 − C(4−c, 2)/6, then c > 0
        "3": {"Pass@1": 1 / 8, "Pass@2": 1 / 4, "Pass@4": 1 / 2, "Avg@4": 1 / 8, "Maj@4": 0.0},
        "4": {"Pass@1": 3 / 4, "Pass@2": 11 / 12, "Pass@4": 1.0, "Avg@4": 3 / 4, "Maj@4": 1 / 2},
    }
    for difficulty, values in expected.items():
        for metric, value in values.items():
            row = one(table, difficulty=difficulty, metric=metric)
            assert row["value"] == pytest.approx(value)
            assert row["low"] <= row["value"] <= row["high"]
            assert (row["n"], row["questions"], row["seeds"]) == (4, 2, "0")
    overall = one(table, difficulty="all", metric="Pass@2")
    assert overall["value"] == pytest.approx((1 / 4 + 11 / 12) / 2)
    assert overall["questions"] == 4
    assert table["difficulty"].unique().tolist() == ["all", "3", "4"]


def test_one_difficulty_is_not_told_twice(resampler: Resampler) -> None:
    assert analysis.summary(counts([1, 0], 4), ["entropy"], resampler)["difficulty"].tolist() == ["all"]


def test_base_model_has_no_seeds(resampler: Resampler) -> None:
    table = analysis.summary(counts([1, 3], 4, BASE, -1), ["entropy"], resampler)
    assert table["seeds"].tolist() == ["none"]


def test_unequal_samples_and_questions_are_refused(resampler: Resampler) -> None:
    with pytest.raises(DataError, match="Questions have 4, 8 samples"):
        analysis.measures(together(counts([1], 4), counts([1], 8, seed=1)), [1])
    uneven = together(counts([1, 2], 4), counts([1], 4, seed=1))
    with pytest.raises(DataError, match="The seeds of grpo answered different questions"):
        analysis.summary(uneven, ["entropy"], resampler)
    other = together(counts([1, 2], 4), counts([1, 2, 3], 4, "dapo"))
    with pytest.raises(DataError, match="dapo and grpo answered different questions"):
        analysis.differences(other, ["entropy"], "grpo", resampler)


def test_final_takes_the_last_step_of_each() -> None:
    frame = together(counts([1], 2, step=10), counts([2], 4, step=20), counts([3], 4, BASE, -1, step=0))
    assert analysis.final(frame)["step"].tolist() == [20, 0]
    with pytest.raises(DataError, match="The runs of grpo end at steps 10, 20"):
        analysis.final(together(counts([1], 2, step=10), counts([2], 4, seed=1, step=20)))


# Differences


def test_same_answers_do_not_differ(resampler: Resampler) -> None:
    right = np.random.default_rng(0).integers(0, 9, 30)
    scored, metrics = analysis.measures(together(counts(right, 8), counts(right, 8, "dapo")), [1, 8])
    gaps = analysis.differences(scored, metrics, "grpo", resampler)
    assert gaps["algorithm"].unique().tolist() == ["dapo"]
    assert (gaps[["value", "low", "high"]] == 0.0).all(axis=None)
    assert (gaps[["p", "p_holm"]] == 1.0).all(axis=None)


def test_constant_gain_is_certain_because_questions_are_paired(resampler: Resampler) -> None:
    right = np.random.default_rng(0).integers(0, 5, 40)
    scored, _ = analysis.measures(together(counts(right, 8), counts(right + 2, 8, "dapo")), [1])
    row = one(analysis.differences(scored, ["Pass@1"], "grpo", resampler))
    assert_allclose(row[["value", "low", "high"]].astype(float), 0.25)
    assert row["p"] == pytest.approx(2 / 2001)


def test_only_shared_seeds_are_compared_and_the_base_model_with_all(resampler: Resampler) -> None:
    frame = together(
        counts([2, 2], 4, BASE, -1),
        *(counts([2, 2], 4, seed=seed) for seed in (0, 1)),
        *(counts([4 * (seed == 1), 4 * (seed == 1)], 4, "dapo", seed) for seed in (1, 2)),
        counts([0, 0], 4, "gspo", 5),
    )
    gaps = analysis.differences(frame, ["entropy"], "grpo", resampler)
    assert gaps[["algorithm", "seeds", "value"]].to_numpy().tolist() == [[BASE, "0 1", 0.0], ["dapo", "1", -0.5]]
    assert analysis.differences(frame, ["entropy"], BASE, resampler)["algorithm"].tolist() == ["grpo", "dapo", "gspo"]
    nothing = analysis.differences(frame, ["entropy"], "rloo", resampler)
    assert nothing.empty
    assert list(nothing.columns) == list(gaps.columns)


def test_averages_weigh_every_difficulty_alike(resampler: Resampler) -> None:
    """And know no spread where the questions of each difficulty have none, however many there are."""
    frame = together(counts([8] * 2, 8), counts([2] * 30, 8, difficulty=4))
    row = one(analysis.macro_averages(analysis.measures(frame, [1])[0], ["Pass@1"], resampler))
    assert row[["algorithm", "difficulty", "n", "questions", "seeds"]].tolist() == ["grpo", "average", 8, 32, "0"]
    assert_allclose(row[["value", "low", "high"]].astype(float), (1 + 1 / 4) / 2)


def test_average_of_one_difficulty_is_its_mean() -> None:
    frame = counts(np.random.default_rng(0).integers(0, 9, 60), 8)
    resampler = Resampler(20000, 0.95)
    average = one(analysis.macro_averages(frame, ["entropy"], resampler))
    plain = one(analysis.summary(frame, ["entropy"], resampler))
    assert_allclose(*(row[["value", "low", "high"]].astype(float) for row in (average, plain)), atol=4e-3)


@pytest.mark.parametrize("opposite", [False, True])
def test_questions_of_each_difficulty_are_resampled_apart(opposite: bool) -> None:
    """Resampled together, answers that go with or against each other would spread by √2 or not at all."""
    right = np.tile([0, 8], 50)
    frame = together(counts(right, 8), counts(8 - right if opposite else right, 8, difficulty=4))
    row = one(analysis.macro_averages(frame, ["entropy"], Resampler(20000, 0.95)))
    assert_allclose([row["low"], row["high"]], 0.5 + np.array([-1.96, 1.96]) * 0.5 / np.sqrt(200), atol=4e-3)


def test_seeds_are_resampled_for_all_difficulties_together(resampler: Resampler) -> None:
    """Two models of the same average, each good at one difficulty."""
    frame = together(*(
        counts([8 * (seed == difficulty - 3)] * 5, 8, seed=seed, difficulty=difficulty)
        for seed in (0, 1) for difficulty in (3, 4)
    ))  # fmt: skip
    row = one(analysis.macro_averages(frame, ["entropy"], resampler))
    assert_allclose(row[["value", "low", "high"]].astype(float), 0.5)


def test_averages_minus_a_reference_are_paired(resampler: Resampler) -> None:
    right = np.random.default_rng(0).integers(0, 5, 12)
    frame = together(
        *(counts(right, 8, BASE, -1, difficulty=difficulty) for difficulty in (3, 4)),
        *(counts(right + 1, 8, seed=seed, difficulty=difficulty) for seed in (0, 1) for difficulty in (3, 4)),
        *(counts(right + 3, 8, "dapo", seed, difficulty=difficulty) for seed in (1, 2) for difficulty in (3, 4)),
        *(counts(right, 8, "gspo", 5, difficulty=difficulty) for difficulty in (3, 4)),
    )
    scored, _ = analysis.measures(frame, [1])
    gaps = analysis.macro_averages(scored, ["Pass@1"], resampler, "grpo")
    assert gaps[["algorithm", "seeds"]].to_numpy().tolist() == [[BASE, "0 1"], ["grpo", "0 1"], ["dapo", "1"]]
    for end in ("value", "low", "high"):
        assert_allclose(gaps[end], [-1 / 8, 0, 2 / 8], atol=1e-12)


def test_averages_of_different_questions_are_refused(resampler: Resampler) -> None:
    part = together(counts([1], 4), counts([1], 4, difficulty=4), counts([1], 4, "dapo"))
    with pytest.raises(DataError, match="dapo has no answers to questions of difficulty 4"):
        analysis.macro_averages(part, ["entropy"], resampler)
    with pytest.raises(DataError, match="dapo and grpo answered different questions"):
        analysis.macro_averages(part, ["entropy"], resampler, "grpo")


def test_pairs_are_differences_corrected_for_the_pairs(resampler: Resampler) -> None:
    right = np.random.default_rng(0).integers(0, 5, 40)
    frames = (counts(right + more, 8, name) for name, more in (("grpo", 0), ("dapo", 1), ("riskpo", 3)))
    scored, _ = analysis.measures(together(*frames), [1])
    pairs = [["dapo", "grpo"], ["riskpo", "dapo"], ["nobody", "grpo"]]
    found = analysis.of_pairs(scored, ["Pass@1"], pairs, resampler)
    assert found[["algorithm", "reference", "value"]].to_numpy().tolist() == [
        ["dapo", "grpo", 1 / 8], ["riskpo", "dapo", 2 / 8]
    ]  # fmt: skip
    assert_allclose(found["p_holm"], 2 * found["p"])
    assert list(found.columns) == list(analysis.differences(scored, ["Pass@1"], "grpo", resampler).columns)
    assert analysis.of_pairs(scored, ["Pass@1"], [["nobody", "grpo"]], resampler).empty


def test_holm_steps_down() -> None:
    assert_allclose(analysis.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert_allclose(analysis.holm([0.5, 0.9]), [1.0, 1.0])
    assert analysis.holm([0.2]).tolist() == [0.2]


# During training


def steps(algorithm: str, values: dict[str, list[float]], seed: int = 0) -> pd.DataFrame:
    length = len(next(iter(values.values())))
    return pd.DataFrame({"algorithm": algorithm, "seed": seed, "step": range(1, length + 1)} | values)


def test_rounding_does_not_depend_on_the_number_of_threads() -> None:
    values = np.random.default_rng(0).random((3, 5, 300))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append(
                [
                    Resampler(2000, 0.95).means(values).tobytes(),
                    evaluation.bootstrap_means(values[0], 2000, np.random.default_rng(0)).tobytes(),
                ]
            )
    assert found[0] == found[1]


def test_smoothing_averages_around_each_step_within_a_run() -> None:
    runs = together(steps("riskpo", {"x": [0.0, 3.0, 6.0, 9.0]}), steps("grpo", {"x": [1.0, float("nan"), 1.0, 1.0]}))
    smoothed = analysis.smooth(runs.iloc[::-1], 3)
    assert smoothed["algorithm"].unique().tolist() == ["grpo", "riskpo"]
    assert one(smoothed, algorithm="riskpo", step=2)["x"] == 3.0
    assert one(smoothed, algorithm="riskpo", step=1)["x"] == 1.5
    assert (smoothed.loc[smoothed["algorithm"] == "grpo", "x"] == 1.0).all()


def test_an_average_over_no_steps_is_refused() -> None:
    runs = steps("grpo", {"x": [1.0, 2.0]})
    with pytest.raises(DataError, match="over 0 steps"):
        analysis.smooth(runs, 0)


def test_tail_terms_weigh_the_lower_tail_with_omega() -> None:
    nan = float("nan")
    terms = {"covariance/lower": [1.0, -4.0, nan], "covariance/upper": [1.0, 1.0, 1.0]}
    frame = together(steps("grpo", terms), steps("riskpo", terms))
    found = analysis.tail_terms(frame, {"grpo": 0.5, "riskpo": 0.25})
    assert_allclose(found["tail/sum"], [1.5, -1.0, nan, 1.25, 0.0, nan])
    assert_allclose(found["tail/holds"], [1.0, 0.0, nan, 1.0, 1.0, nan])


def test_block_means_of_parts(resampler: Resampler) -> None:
    runs = together(
        steps("grpo", {"x": [1.0] * 20 + [3.0] * 20, "never": [float("nan")] * 40}),
        steps("grpo", {"x": [1.0] * 20 + [5.0] * 20, "never": [float("nan")] * 40}, seed=1),
    )
    found = analysis.block_means(runs, ["x", "never"], resampler)
    assert found[["steps", "metric", "value", "low", "high", "blocks", "seeds"]].to_numpy().tolist() == [
        ["1–20", "x", 1.0, 1.0, 1.0, 2, "0 1"],
        ["21–40", "x", 4.0, 3.0, 5.0, 2, "0 1"],
    ]


def test_changes_since_the_start_are_of_the_same_question() -> None:
    frame = together(counts([1, 2], 4, step=0), counts([3, 2], 4, step=10))
    changed = analysis.since_start(frame.iloc[[3, 1, 2, 0]], ["correct"])
    assert changed.set_index(["step", "question_id"])["correct"].sort_index().tolist() == [0, 0, 2, 0]


def path(algorithm: str, shares: list[float], slope: float = 1.0) -> list[pd.DataFrame]:
    """Evaluations of rising accuracy, with an entropy of 1 − slope · accuracy."""
    frames = [counts([round(1000 * share)] * 3, 1000, algorithm, step=step) for step, share in enumerate(shares)]
    return [frame.assign(entropy=1 - slope * frame["correct"] / 1000) for frame in frames]


def test_two_speeds_on_one_path_have_equal_entropy_at_equal_accuracy(resampler: Resampler) -> None:
    frame = together(*path("grpo", [0.1, 0.3, 0.5]), *path("riskpo", [0.1, 0.2, 0.28]))
    found = analysis.at_equal_accuracy(frame, "grpo", resampler)
    values = found.set_index("metric")["value"]
    assert values["accuracy"] == pytest.approx(0.28) and values["entropy"] == pytest.approx(0.72)
    gap = one(found, algorithm="riskpo", metric="difference")
    assert_allclose(gap[["value", "low", "high"]].astype(float), 0, atol=1e-12)


def test_another_path_shows_at_equal_accuracy(resampler: Resampler) -> None:
    frame = together(*path("grpo", [0.1, 0.5]), *path("riskpo", [0.1, 0.3, 0.4], slope=0.5))
    found = analysis.at_equal_accuracy(frame, "grpo", resampler)
    assert one(found, algorithm="riskpo", metric="difference")["value"] == pytest.approx(0.8 - 0.6)
    assert one(found, algorithm="riskpo", metric="theirs")["value"] == pytest.approx(0.6)
    assert analysis.at_equal_accuracy(frame, "dapo", resampler).empty  # a reference without records


def test_any_column_is_read_off_at_equal_accuracy(resampler: Resampler) -> None:
    frame = together(*path("grpo", [0.1, 0.5]), *path("riskpo", [0.1, 0.3, 0.4]))
    doubled = frame.assign(twice=2 * frame["correct"] / 1000)
    found = analysis.at_equal_accuracy(doubled, "grpo", resampler, "twice")
    assert one(found, algorithm="riskpo", metric="twice")["value"] == pytest.approx(0.8)
    gap = one(found, algorithm="riskpo", metric="difference")
    assert_allclose(gap[["value", "low", "high"]].astype(float), 0, atol=1e-12)


def test_equal_accuracy_is_that_of_each_pair_on_the_seeds_they_share(resampler: Resampler) -> None:
    """A third algorithm that hardly learns moves nobody else's accuracy, nor does a seed that one of the two lacks."""
    pair = together(*path("grpo", [0.1, 0.5]), *path("riskpo", [0.1, 0.4], slope=0.5))
    further = [frame.assign(seed=1) for frame in path("grpo", [0.1, 0.9], slope=0.1)]
    crowd = together(pair, *path("dapo", [0.1, 0.12]), *further)
    alone = analysis.at_equal_accuracy(pair, "grpo", resampler)
    within = analysis.at_equal_accuracy(crowd, "grpo", resampler)
    pd.testing.assert_frame_equal(within[within["algorithm"] == "riskpo"].reset_index(drop=True), alone)
    assert one(within, algorithm="dapo", metric="accuracy")["value"] == pytest.approx(0.12)


def test_a_gain_that_could_be_chance_is_no_accuracy_to_compare_at(resampler: Resampler) -> None:
    """Resamples without a gain would cross at the common start, where nothing differs, and feign certainty."""
    start, barely = [40, 50, 60, 50], [52, 40, 62, 50]
    rows = [counts(of, 100, name, step=step) for name in ("grpo", "riskpo") for step, of in ((0, start), (10, barely))]
    frame = together(*rows).assign(entropy=1.0)
    assert analysis.at_equal_accuracy(frame, "grpo", resampler)["value"].isna().all()


def test_ratio_is_of_the_steps_and_seeds_that_both_have(resampler: Resampler) -> None:
    ours = [steps("grpo", {"x": [2.0] * 20 + [4.0] * 20}, seed) for seed in (0, 1)]
    theirs = [steps("riskpo", {"x": [1.0] * 20 + [2.0] * 20}, seed) for seed in (1, 2)]
    found = analysis.ratio(together(*ours, *theirs), "x", "grpo", "riskpo", resampler)
    assert (found["value"], found["ours"], found["theirs"]) == (2.0, 3.0, 1.5)
    assert (found["seeds"], found["steps"], found["by_seed"]) == ("1", "1–40", [2.0])
    assert found["low"] == pytest.approx(2.0) and found["high"] == pytest.approx(2.0)  # blocks are resampled in pairs
    with pytest.raises(DataError, match="grpo and riskpo recorded different training steps"):
        analysis.ratio(together(ours[1].iloc[:-1], *theirs), "x", "grpo", "riskpo", resampler)


def test_pairs_at_equal_accuracy_are_those_of_both(resampler: Resampler) -> None:
    frame = together(*path("grpo", [0.1, 0.5]), *path("riskpo", [0.1, 0.3, 0.4]), *path("dapo", [0.1, 0.6]))
    pairs = [["riskpo", "grpo"], ["riskpo", "dapo"], ["riskpo", "nobody"], ["nobody", "grpo"]]
    found = analysis.of_pairs_at_equal_accuracy(frame, "entropy", pairs, resampler)
    assert found[["algorithm", "reference", "metric"]].to_numpy().tolist() == [
        ["riskpo", "grpo", "entropy"], ["riskpo", "dapo", "entropy"]
    ]  # fmt: skip
    alone = analysis.at_equal_accuracy(frame[frame["algorithm"] != "dapo"], "grpo", resampler)
    assert found["value"].iloc[0] == one(alone, algorithm="riskpo", metric="difference")["value"]
    assert analysis.of_pairs_at_equal_accuracy(frame, "entropy", [], resampler).empty


def test_what_ends_no_better_than_it_started_is_not_compared(resampler: Resampler) -> None:
    frame = together(*path("grpo", [0.1, 0.5]), *path("riskpo", [0.1, 0.05]))
    found = analysis.at_equal_accuracy(frame, "grpo", resampler)
    assert found[["value", "low", "high"]].isna().all(axis=None) and len(found) == 4


# The best of a curve, and the ends of the difficulties


def test_best_is_the_highest_after_the_start_and_of_equals_the_first() -> None:
    values = {"grpo": [0.9, 0.3, 0.5, 0.5], "riskpo": [0.9, 0.4, 0.2, 0.1]}
    rows = [
        {"algorithm": name, "difficulty": "all", "metric": "Pass@1", "step": 10 * i, "value": value}
        for name, of in values.items() for i, value in enumerate(of)
    ]  # fmt: skip
    found = analysis.best(pd.DataFrame(rows))
    assert found[["algorithm", "step", "value"]].values.tolist() == [["grpo", 20, 0.5], ["riskpo", 10, 0.4]]


def test_extremes_are_the_first_and_the_last_difficulty() -> None:
    frame = pd.DataFrame({"difficulty": ["all", "3", "9", "10"]})
    assert analysis.extremes(frame)["difficulty"].tolist() == ["3", "10"]
    assert analysis.extremes(frame[:1])["difficulty"].tolist() == ["all"]


# Which questions are solved


def test_alone_is_the_chance_that_no_run_of_another_solves_it() -> None:
    frame = together(
        counts([1, 2, 0], 4, "grpo"), counts([1, 0, 4], 4, "riskpo"), counts([0, 0, 4], 4, "riskpo", seed=1)
    )
    found = analysis.solved(frame)
    assert found["solved"].tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 1]
    assert found["alone"].tolist() == [0.5, 1, 0, 0, 0, 1, 0, 0, 1]


def test_overlap_is_the_share_of_the_first_that_the_second_solves(resampler: Resampler) -> None:
    frame = together(
        counts([1, 2, 3, 0], 4, "grpo"), counts([1, 0, 0, 4], 4, "riskpo"), counts([1, 1, 0, 0], 4, "riskpo", seed=1)
    )
    shares = analysis.overlap(analysis.solved(frame), resampler)
    pairs = {
        (of, other): value
        for of, other, value in zip(shares["algorithm"], shares["other"], shares["value"], strict=True)
    }
    assert pairs["grpo", "riskpo"] == pytest.approx((1 + 2) / 2 / 3)
    assert pairs["riskpo", "grpo"] == pytest.approx((1 + 2) / (2 + 2))
    assert pairs["riskpo", "riskpo"] == pytest.approx(1 / 2)  # one of two, either way round
    assert np.isnan(pairs["grpo", "grpo"])  # a single seed
    row = one(shares, algorithm="riskpo", other="grpo")
    assert (row["n"], row["questions"], row["seeds"]) == (4, 4, "0 1")
    assert row["low"] < row["value"] < row["high"]


def test_what_solves_nothing_has_no_overlap(resampler: Resampler) -> None:
    frame = together(counts([0, 0], 4, "grpo"), counts([1, 2], 4, "riskpo"))
    shares = analysis.overlap(analysis.solved(frame), resampler)
    assert one(shares, algorithm="grpo", other="riskpo")[["value", "low", "high"]].isna().all()
    assert one(shares, algorithm="riskpo", other="grpo")["value"] == 0


def test_overlap_refuses_other_questions(resampler: Resampler) -> None:
    frame = together(counts([1, 2], 4, "grpo"), counts([1, 2], 4, "riskpo", difficulty=4))
    with pytest.raises(DataError, match="grpo answered other questions"):
        analysis.overlap(analysis.solved(frame), resampler)


# Quantile curves


def curve(values: list[float], half: float, seed: int = 0, algorithm: str = "grpo") -> pd.DataFrame:
    levels = [0.05, 0.1, 0.2, 0.5, 0.8, 0.9]
    value = np.array(values)
    return pd.DataFrame({
        "algorithm": algorithm, "seed": seed, "step": 20, "level": levels, "reward": range(6),
        "log_prob": value, "log_prob_low": value - half, "log_prob_high": value + half, "questions": 10, "bundles": 8,
    })  # fmt: skip


def test_curves_are_averaged_over_seeds() -> None:
    found = analysis.quantile_curves(together(curve([0.0] * 6, 1.0), curve([2.0] * 6, 3.0, seed=1)))
    assert_allclose(found[["value", "low", "high"]], [[1.0, -1.0, 3.0]] * 6)
    assert found["seeds"].unique().tolist() == ["0 1"]


def test_tails_fall_rise_or_stay_undecided() -> None:
    steep = analysis.quantile_curves(curve([-1.0, -1.5, -2.0, -2.0, -1.0, 0.0], 0.1))
    found = analysis.monotonicity(steep, alpha=0.2, beta=0.8)
    lower, upper = one(found, tail="lower"), one(found, tail="upper")
    assert (lower["finding"], lower["assumed"], lower["from"], lower["to"]) == ("falls", "falls", 0.05, 0.2)
    assert (upper["finding"], upper["assumed"], upper["from"], upper["to"]) == ("rises", "rises", 0.8, 0.9)
    assert lower["value"] == pytest.approx(-1.0)
    blurred = analysis.quantile_curves(curve([-1.0, -1.5, -2.0, -2.0, -1.0, 0.0], 1.0))
    assert analysis.monotonicity(blurred, 0.2, 0.8)["finding"].tolist() == ["undecided", "undecided"]
    assert analysis.monotonicity(steep, alpha=0.07, beta=0.8)["tail"].tolist() == ["upper"]  # one level is no tail


def test_mover_adds_the_squares_of_the_distances() -> None:
    gap = analysis.mover(Interval(1.0, 0.7, 1.4), Interval(0.2, -0.1, 0.6))
    assert_allclose(gap, [0.8, 0.8 - np.hypot(0.3, 0.4), 0.8 + np.hypot(0.4, 0.3)])
