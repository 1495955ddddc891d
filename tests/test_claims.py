"""Verdicts on records made so that a claim holds, does not, or cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml

from riskpo_study import claims, published, verdicts
from riskpo_study.algorithms import ALGORITHMS
from riskpo_study.config import Config, Runs
from riskpo_study.errors import DataError
from riskpo_study.evaluation import Interval, pass_at_k
from riskpo_study.evidence import Evidence, over_seeds, p_over_seeds
from riskpo_study.records import BASE
from riskpo_study.verdicts import FAILS, HOLDS, OPEN, UNMEASURED

N, QUESTIONS, SEEDS, END = 64, 16, (0, 1, 2), 20
RIGHT = np.linspace(12, 36, QUESTIONS).round().astype(int)
"""Right ones of 64 responses to each question."""
OURS = ["riskpo_stratified", "mvar_accuracy", "mvar_log_accuracy"]
VARIANTS = {
    "dr_grpo_matched": {"preset": "dr_grpo", "matched_to": "riskpo"},
    "low": {"preset": "riskpo", "alpha": 0.1},
    "wide": {"preset": "riskpo", "beta": 1.0},
    "single": {"preset": "riskpo", "bundle_size": 1},
    "big": {"preset": "riskpo", "bundle_size": 10},
    "neutral": {"preset": "riskpo", "omega": 0.0},
    "other_rate": {"preset": "riskpo", "omega": 1.0, "learning_rate": 1e-3},
    "same": {"preset": "riskpo", "omega": 0.5, "tracker": "robbins_monro"},
    "two": {"preset": "riskpo", "omega": 1.0, "alpha": 0.1},
}
RUN = ["grpo", "dapo", "dr_grpo", "max_rl", "focal", "risk_seeking", "riskpo", *OURS]

CERTAIN, NONE, UNSURE = (8, 8, 8), (0, 0, 0), (10, -8, 1)
"""What every seed has more than a rival, in right ones of 64 responses (or hundredths): a gain, none, or by chance."""


@pytest.fixture
def study(settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A project whose profile `test` has three seeds of many algorithms, and no records yet."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    chosen = replace(
        settings,
        runs=Runs(tuple(RUN), SEEDS, tuple(VARIANTS), SEEDS),
        tuning=replace(settings.tuning, candidates=({"learning_rate": 1e-5}, {"learning_rate": 1e-4})),
        task=replace(settings.task, numbers=(3,), questions=QUESTIONS),
        train=replace(settings.train, curve_samples=N),
        algorithms={**settings.algorithms, **VARIANTS},
        evaluation=replace(settings.evaluation, samples=N, ks=(1, 4, 16, 64), resamples=400),
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(chosen.as_dict()))
    return chosen


def write(study: Config, record: str, *frames: pd.DataFrame) -> None:
    path = study.results / "records" / f"{record}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_parquet(path, index=False)


def answers(
    algorithm: str, more: Sequence[float] = NONE, right: Any = RIGHT, entropy: float = 0.4, step: int = END
) -> list[pd.DataFrame]:
    """Final counts of an algorithm: `more` for each seed, as right ones of 64 and as hundredths of a nat of entropy."""
    return [
        synthetic.counts(np.clip(right + round(of), 0, N), N, algorithm, seed, step).assign(entropy=entropy + of / 100)
        for seed, of in zip(SEEDS, more, strict=True)
    ]


def base(entropy: float = 1.0) -> pd.DataFrame:
    return synthetic.counts(RIGHT, N, BASE, -1, 0).assign(entropy=entropy)


def row(study: Config, key: str) -> dict[str, Any]:
    """What is decided on one claim."""
    (found,) = claims.decide(study, [claim for claim in claims.CLAIMS if claim.key == key]).to_dict("records")
    return {str(name): value for name, value in found.items()}


def gains(key: str) -> Any:
    """Runs a test with a certain gain, none, and one that is up to chance."""
    return [pytest.param(key, more, verdict, id=f"{key}-{verdict}") for more, verdict in OUTCOMES]


OUTCOMES = [(CERTAIN, HOLDS), (NONE, FAILS), ((-8, -8, -8), FAILS), (UNSURE, OPEN)]


# Rules


@pytest.mark.parametrize(
    ("low", "high", "higher", "alike", "below"),
    [
        (1.0, 3.0, HOLDS, FAILS, FAILS),
        (0.1, 0.3, HOLDS, HOLDS, OPEN),
        (-0.3, 0.3, FAILS, HOLDS, OPEN),
        (-3.0, -1.5, FAILS, FAILS, HOLDS),
        (-1.0, 3.0, OPEN, OPEN, OPEN),
    ],
)
def test_rules_follow_the_ends_of_the_interval(low: float, high: float, higher: str, alike: str, below: str) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert verdicts.higher(interval, 0.5) == higher
    assert verdicts.alike(interval, 0.5) == alike
    assert verdicts.below(interval, 0.2) == below


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.7, 1.4, HOLDS), (1.0, 2.1, OPEN), (0.5, 1.2, OPEN), (2.0, 3.0, OPEN)]
)
def test_matched_is_what_the_whole_interval_says(low: float, high: float, verdict: str) -> None:
    assert verdicts.matching(Interval((low + high) / 2, low, high), 1.5) == verdict


def test_best_needs_significance_and_a_tail_a_sign() -> None:
    assert [verdicts.best(lead, p, 0.05) for lead, p in ((1, 0.01), (-1, 0.01), (1, 0.2))] == [HOLDS, FAILS, OPEN]
    changes = [Interval(-2, -3, -1), Interval(2, 1, 3), Interval(1, -1, 3), Interval(*[float("nan")] * 3)]
    assert [verdicts.assumed(change, "falls") for change in changes] == [HOLDS, FAILS, OPEN, OPEN]
    assert [verdicts.assumed(change, "rises") for change in changes] == [FAILS, HOLDS, OPEN, OPEN]


def test_one_failure_fails_a_claim_and_all_must_hold() -> None:
    assert verdicts.together([HOLDS, OPEN, FAILS]) == FAILS
    assert verdicts.together([HOLDS, OPEN]) == OPEN
    assert verdicts.together([HOLDS, HOLDS]) == HOLDS


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.7062), (3, 4.30265), (5, 2.77645), (20, 2.09302)])
def test_interval_over_seeds_is_students(seeds: int, t: float) -> None:
    values = np.arange(seeds, dtype=float)
    mean, low, high = over_seeds(values.tolist(), 0.95)
    half = t * values.std(ddof=1) / np.sqrt(seeds)
    assert (mean, low, high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), rel=1e-4)


def test_p_value_over_seeds_is_students() -> None:
    t = 2 * np.sqrt(3)
    assert p_over_seeds([1.0, 2.0, 3.0]) == pytest.approx(1 - t / np.sqrt(t**2 + 2), rel=1e-4)  # two degrees of freedom
    assert p_over_seeds([1.0, 1.0]) == pytest.approx(0, abs=1e-4)
    assert p_over_seeds([0.0, 0.0]) == p_over_seeds([-1.0, 1.0]) == p_over_seeds([5.0]) == 1.0
    assert over_seeds([5.0], 0.95) == (5.0, -np.inf, np.inf)


def test_margin_is_smaller_than_the_gain_that_the_paper_reports() -> None:
    found = [published.averages(suite) for suite in ("hard math", "easy math")]  # type: ignore[arg-type]
    assert min(means["RiskPO"] - means["GRPO"] for means in found) > 100 * claims.ALIKE


# Claims about what was learned


@pytest.mark.parametrize(
    ("key", "more", "verdict"),
    [
        *gains("entropy_at_equal_steps"),
        *gains("pass_at_1"),
        *gains("against_risk_neutral"),
        *gains("against_risk_seeking"),
    ],
)
def test_gains_over_a_rival(study: Config, key: str, more: Sequence[int], verdict: str) -> None:
    rivals = ("grpo", "dr_grpo", "risk_seeking")
    write(study, "counts", base(), *answers("riskpo", more), *(f for name in rivals for f in answers(name)))
    found = row(study, key)
    assert (found["verdict"], found["strict"]) == (verdict, verdict)
    assert found["low"] <= found["value"] <= found["high"]
    scale = 1 if key.startswith("entropy") else 100 / N
    expected = np.mean(more) / 100 if key.startswith("entropy") else scale * np.mean(more)
    assert found["value"] == pytest.approx(expected)
    assert (found["seeds"], found["questions"], found["n"]) == ("0 1 2", QUESTIONS, N)


def test_small_but_certain_gain_holds_and_shows_its_size(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo", (0.3, 0.3, 0.3)), *answers("grpo"))
    found = row(study, "entropy_at_equal_steps")
    assert (found["verdict"], found["value"]) == (HOLDS, pytest.approx(0.003))


def test_one_seed_decides_nothing(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo", CERTAIN)[:1], *answers("grpo"))
    found = row(study, "pass_at_1")
    assert (found["verdict"], found["seeds"], found["missing"]) == (OPEN, "0", "riskpo-1, riskpo-2")
    assert found["low"] > 0


def test_strict_verdict_asks_more_of_few_seeds(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo", (2, 8, 10)), *answers("grpo"))
    found = row(study, "pass_at_1")  # t = 2.77 of two degrees of freedom
    assert (found["verdict"], found["strict"]) == (HOLDS, OPEN)
    shown = claims.as_table(pd.DataFrame([found])).iloc[0]
    assert shown["Verdict"] == "holds; strictly: cannot tell at this scale"
    write(study, "counts", base(), *answers("riskpo", (8, 9, 10)), *answers("grpo"))
    assert row(study, "pass_at_1")["strict"] == HOLDS
    frames = [frame for name, more in (("grpo", (-2, -8, -10)), ("dapo", NONE)) for frame in answers(name, more)]
    write(study, "counts", base(), *answers("riskpo", (0.6, 9, 12)), *frames)
    found = row(study, "best_method")
    assert (found["verdict"], found["strict"]) == (HOLDS, OPEN)


@pytest.mark.parametrize(
    ("dapo", "max_rl", "verdict", "against"),
    [
        ((-8, -8, -8), (-6, -6, -6), HOLDS, "RiskPO − MaxRL"),
        (CERTAIN, (-8, -8, -8), FAILS, "RiskPO − DAPO"),
        (UNSURE, (-8, -8, -8), OPEN, "RiskPO − DAPO"),
    ],
)
def test_best_of_all_baselines(
    study: Config, dapo: Sequence[int], max_rl: Sequence[int], verdict: str, against: str
) -> None:
    more = {"grpo": (-9, -9, -9), "dapo": dapo, "max_rl": max_rl, "single": CERTAIN}  # a variant is no baseline
    write(study, "counts", base(), *answers("riskpo"), *(f for name, of in more.items() for f in answers(name, of)))
    found = row(study, "best_method")
    assert (found["verdict"], found["measured"].partition(" (corrected")[0]) == (verdict, against)
    assert found["also"].count("percentage points") == 2
    assert found["missing"].startswith("dr_grpo-0, dr_grpo-1, dr_grpo-2, focal-0")


def test_further_estimates_name_their_seeds_where_they_are_others(study: Config) -> None:
    frames = [*answers("grpo", (-8, -8, -8)), *answers("dapo", (-9, -9, -9))[:2]]
    write(study, "counts", base(), *answers("riskpo"), *frames)
    found = row(study, "best_method")
    assert (found["measured"].partition(" (corrected")[0], found["seeds"]) == ("RiskPO − GRPO", "0 1 2")
    assert found["also"].startswith("RiskPO − DAPO") and found["also"].endswith("(holds, seeds 0, 1)")
    assert claims._basis(found) == "seeds 0–2 · 16 questions × 64 responses" + f" · missing: {found['missing']}"


@pytest.mark.parametrize(("task", "key"), [("programs", "code"), ("geometry", "images")])
@pytest.mark.parametrize(
    ("rivals", "verdict", "measured"),
    [((-8, -8), HOLDS, "RiskPO − GRPO"), ((-8, 8), FAILS, "RiskPO − DAPO"), ((8, -8), FAILS, "RiskPO − GRPO")],
)
def test_other_domains_compare_with_both_rivals(
    study: Config, task: str, key: str, rivals: tuple[int, int], verdict: str, measured: str
) -> None:
    grpo, dapo = rivals
    write(study, "counts", base(), *answers("riskpo"), *answers("grpo", [grpo] * 3), *answers("dapo", [dapo] * 3))
    assert row(study, key)["verdict"] == UNMEASURED
    there = replace(study, task=replace(study.task, name=task))
    found = row(there, key)
    assert (found["verdict"], found["measured"]) == (verdict, measured)
    assert "RiskPO 26.8 %" in found["published"] or "RiskPO 54.5 %" in found["published"]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "measured"),
    [
        # Solved or not, a question of GRPO's is the same at every k; RiskPO's spread answers reach it with more tries.
        (np.full(QUESTIONS, 32), np.where(np.arange(QUESTIONS) < 8, N, 0), HOLDS, "Slope of RiskPO − GRPO"),
        (np.where(np.arange(QUESTIONS) < 8, N, 0), np.full(QUESTIONS, 32), FAILS, "Slope of RiskPO − GRPO"),
        (RIGHT, RIGHT, FAILS, "Slope of RiskPO − GRPO"),
    ],
)
def test_gap_that_widens_with_k(study: Config, ours: Any, theirs: Any, verdict: str, measured: str) -> None:
    write(study, "counts", base(), *answers("riskpo", right=ours), *answers("grpo", right=theirs))
    found = row(study, "widening_gap")
    assert (found["verdict"], found["measured"]) == (verdict, measured)
    assert found["unit"] == "percentage points per doubling of k"


def test_slope_is_the_least_squares_one(study: Config) -> None:
    few, fewer = np.full(QUESTIONS, 3), np.full(QUESTIONS, 1)
    write(study, "counts", base(), *answers("riskpo", right=few), *answers("grpo", right=fewer))
    gaps = [float(pass_at_k(N, 3, k) - pass_at_k(N, 1, k)) for k in study.evaluation.ks]
    expected, _ = np.polyfit(np.log2(study.evaluation.ks), gaps, 1)
    slope, gap = claims.widening_gap(Evidence(study))
    assert slope.estimate == pytest.approx([expected] * 3)
    assert gap.estimate.mean == pytest.approx(gaps[-1], abs=1e-12)


def test_gap_by_chance_is_open(study: Config) -> None:
    flat, steep = np.full(QUESTIONS, 32), np.where(np.arange(QUESTIONS) < 8, N, 0)
    uneven = [answers("riskpo", right=right)[seed] for seed, right in enumerate((flat, steep, steep))]
    write(study, "counts", base(), *uneven, *answers("grpo", right=steep))
    assert row(study, "widening_gap")["verdict"] == OPEN


@pytest.mark.parametrize(
    ("entropy", "more", "verdict", "measured"),
    [
        (0.2, NONE, HOLDS, "Risk-seeking, of the base model's"),
        (0.7, NONE, FAILS, "Risk-seeking, of the base model's"),
        (0.54, UNSURE, OPEN, "Risk-seeking, of the base model's"),
    ],
)
def test_collapse(study: Config, entropy: float, more: Sequence[int], verdict: str, measured: str) -> None:
    seeking = answers("risk_seeking", more, entropy=entropy)
    write(study, "counts", base(1.1), *answers("riskpo", entropy=0.9), *seeking)
    found = row(study, "collapse")
    assert (found["verdict"], found["measured"]) == (verdict, measured)
    assert found["value"] == pytest.approx(100 * (entropy + np.mean(more) / 100) / 1.1)


def test_an_entropy_as_low_as_riskpos_is_no_collapse_of_its_own(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo", entropy=0.3), *answers("risk_seeking", entropy=0.3))
    found = row(study, "collapse")
    assert (found["verdict"], found["measured"]) == (FAILS, "RiskPO − risk-seeking")
    assert found["also"] == "Risk-seeking, of the base model's: 30 [30, 30] % (holds)"


# Ablations


@pytest.mark.parametrize(
    ("single", "big", "verdict", "against"),
    [
        ((-8, -8, -8), (-6, -6, -6), HOLDS, "B = 5 minus B = 10"),
        ((-8, -8, -8), CERTAIN, FAILS, "B = 5 minus B = 10"),
        ((-8, -8, -8), UNSURE, OPEN, "B = 5 minus B = 10"),
        (NONE, (-8, -8, -8), OPEN, "B = 5 minus B = 1"),
    ],
)
def test_best_cell(study: Config, single: Sequence[int], big: Sequence[int], verdict: str, against: str) -> None:
    write(study, "counts", base(), *answers("riskpo"), *answers("single", single), *answers("big", big))
    found = row(study, "bundle_size")
    assert (found["verdict"], found["measured"].partition(" (corrected")[0]) == (verdict, against)
    assert found["published"] == "easy math, B = 1: 65.80 %; B = 5: 68.25 %; B = 10: 66.65 %"


def test_cells_are_compared_on_the_seeds_that_both_have(study: Config) -> None:
    ours, cell = answers("riskpo", (8, 8, -50)), answers("neutral")
    write(study, "counts", base(), *ours, *cell[:2])
    found = row(study, "omega")
    assert (found["verdict"], found["seeds"], found["missing"]) == (HOLDS, "0 1", "neutral-2")
    assert found["measured"].startswith("ω = 0.5 minus ω = 0 (corrected p")


def test_levels_are_one_family(study: Config) -> None:
    frames = [frame for name in ("low", "wide") for frame in answers(name, (-8, -8, -8))]
    write(study, "counts", base(), *answers("riskpo"), *frames)
    found = row(study, "quantile_levels")
    assert found["verdict"] == HOLDS
    text = f"{found['measured']} {found['also']}"
    assert "α = 0.2, β = 0.8 minus α = 0.1, β = 0.8" in text and "α = 0.2, β = 0.8 minus α = 0.2, β = 1" in text


def test_another_centre_is_not_the_papers(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo"), *answers("single"))
    other = replace(study, risk=replace(study.risk, omega=1.0))
    found = row(other, "bundle_size")
    assert (found["verdict"], found["missing"]) == (
        UNMEASURED, "riskpo with the paper's α = 0.2, β = 0.8, ω = 0.5, B = 5",
    )  # fmt: skip


# Claims about training


def training(
    algorithm: str, columns: Mapping[str, float], more: Sequence[float] = NONE, rate: float = 1e-4
) -> list[pd.DataFrame]:
    """Metrics of 40 steps that scatter alike in all algorithms, each raised by hundredths for each seed."""
    steps = np.arange(1, 41)
    frames = []
    for seed, by in zip(SEEDS, more, strict=True):
        values = {name: value + by / 100 + 0.01 * np.sin(steps + seed) for name, value in columns.items()}
        about = {"algorithm": algorithm, "seed": seed, "step": steps, "learning_rate": rate, "kl/step": 200.0}
        frames.append(pd.DataFrame(about | values))
    return frames


TAIL = {"risk/cvar": 0.5, "risk/rvar": 1.5, "risk/mvar": 1.2}


@pytest.mark.parametrize(
    ("reward", "tail", "verdict", "measured"),
    [
        (NONE, 0.2, HOLDS, "Mean reward, RiskPO − GRPO"),
        (CERTAIN, 0.2, FAILS, "Mean reward, RiskPO − GRPO"),
        (UNSURE, 0.2, OPEN, "Mean reward, RiskPO − GRPO"),
        (NONE, 0.0, FAILS, "CVaR, RiskPO − GRPO"),
    ],
)
def test_lower_tail_at_equal_reward(
    study: Config, reward: Sequence[int], tail: float, verdict: str, measured: str
) -> None:
    ours = training("riskpo", {"reward/mean": 0.3}, reward)
    raised = training("riskpo", {name: value + tail for name, value in TAIL.items()})
    joined = [one.assign(**{name: other[name] for name in TAIL}) for one, other in zip(ours, raised, strict=True)]
    write(study, "metrics", *joined, *training("grpo", {"reward/mean": 0.3, **TAIL}))
    found = row(study, "lower_tail")
    assert (found["verdict"], found["measured"]) == (verdict, measured)
    assert (found["steps"], pd.isna(found["questions"])) == ("21–40", True)
    assert f"MVaR, RiskPO − GRPO: {tail:.2f}" in found["also"]


@pytest.mark.parametrize("size", [5, 2])
def test_margin_of_the_lower_tail_is_that_of_the_bundles_it_is_measured_by(study: Config, size: int) -> None:
    """At most .05 of five questions' score is too little to matter, whatever bundles RiskPO itself learns from."""
    study = replace(study, algorithms={**study.algorithms, "riskpo": {"bundle_size": size}})
    parts = zip(training("riskpo", {"reward/mean": 0.3}), training("riskpo", TAIL, (5, -4, 0)), strict=True)
    ours = [one.assign(**{name: other[name] for name in TAIL}) for one, other in parts]
    write(study, "metrics", *ours, *training("grpo", {"reward/mean": 0.3, **TAIL}))
    assert row(study, "lower_tail")["verdict"] == FAILS


def test_without_a_lower_tail_there_is_no_cvar(study: Config) -> None:
    study = replace(study, risk=replace(study.risk, alpha=0.0))
    columns = {"reward/mean": 0.3, **TAIL, "risk/cvar": float("nan")}
    write(study, "metrics", *training("riskpo", columns), *training("grpo", columns))
    found = row(study, "lower_tail")
    assert found["verdict"] != UNMEASURED and "CVaR" not in found["also"] + found["measured"]


@pytest.mark.parametrize(
    ("lower", "upper", "more", "verdict"),
    [(0.2, 0.0, NONE, HOLDS), (-0.6, 0.1, NONE, FAILS), (0.0, 0.0, UNSURE, OPEN)],
)
def test_theorem_2(study: Config, lower: float, upper: float, more: Sequence[int], verdict: str) -> None:
    write(study, "metrics", *training("riskpo", {"covariance/lower": lower, "covariance/upper": upper}, more))
    found = row(study, "theorem_2")
    assert (found["verdict"], found["steps"]) == (verdict, "1–40")
    if more is NONE:
        assert found["value"] == pytest.approx(0.5 * lower + upper, abs=2e-3)


def curve(algorithm: str, seed: int, step: int, lower: float, upper: float, half: float) -> pd.DataFrame:
    """A quantile curve that changes by these amounts through its tails."""
    level = np.array([0.1, 0.2, 0.5, 0.8, 0.9])
    value = np.array([0.0, lower, 0.0, 0.0, upper]) - 5
    return pd.DataFrame({
        "algorithm": algorithm, "seed": seed, "step": step, "level": level, "reward": range(5), "log_prob": value,
        "log_prob_low": value - half, "log_prob_high": value + half, "questions": 15, "bundles": 80,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("lower", "upper", "half", "verdict", "measured"),
    [
        (-1.0, 1.0, 0.1, HOLDS, "Base model, lower tail (falls?)"),
        (-1.0, -1.0, 0.1, FAILS, "RiskPO, upper tail (rises?)"),
        (-1.0, 1.0, 2.0, OPEN, "Base model, lower tail (falls?)"),
    ],
)
def test_tails(study: Config, lower: float, upper: float, half: float, verdict: str, measured: str) -> None:
    early = [curve("riskpo", seed, 10, 1.0, -1.0, 0.1) for seed in SEEDS]  # not of the last step
    late = [curve("riskpo", seed, 20, lower, upper, half) for seed in SEEDS]
    write(study, "quantile_logprob", curve(BASE, -1, 0, -1.0, 1.0, half), *early, *late)
    found = row(study, "tails")
    assert (found["verdict"], found["measured"], found["questions"]) == (verdict, measured, 15)


def test_tail_of_one_level_is_not_measured(study: Config) -> None:
    frames = [curve(BASE, -1, 0, -1.0, 1.0, 0.1), *(curve("riskpo", seed, 20, -1.0, 1.0, 0.1) for seed in SEEDS)]
    write(study, "quantile_logprob", *(frame[frame["level"] > 0.1] for frame in frames))
    found = row(study, "tails")
    assert (found["verdict"], found["missing"]) == (
        UNMEASURED, "curves with two of evaluation.quantile_levels in the lower tail",
    )  # fmt: skip


# Ours


def path(algorithm: str, start: Any, ends: Sequence[Any], entropy: float) -> list[pd.DataFrame]:
    """Evaluations at steps 0, 10 and 20 on straight lines from `start` to each seed's end; entropy from 1 down."""
    frames = []
    for seed, end in zip(SEEDS, ends, strict=True):
        for step in (0, 10, 20):
            right = np.round(start + (end - start) * step / 20).astype(int)
            frame = synthetic.counts(right, N, algorithm, seed, step)
            frames.append(frame.assign(entropy=1 - (1 - entropy) * step / 20))
    return frames


@pytest.mark.parametrize(
    ("entropies", "verdict"), [((0.8,) * 3, HOLDS), ((0.4,) * 3, FAILS), ((0.2,) * 3, FAILS), ((0.8, 0.2, 0.4), OPEN)]
)
def test_entropy_at_equal_accuracy(study: Config, entropies: Sequence[float], verdict: str) -> None:
    ends = [RIGHT + 20] * 3
    ours = [frame for seed, of in enumerate(entropies) for frame in path("riskpo", RIGHT, ends, of)[3 * seed :][:3]]
    write(study, "evaluations", *ours, *path("grpo", RIGHT, ends, 0.4))
    found = row(study, "entropy_at_equal_accuracy")
    assert (found["verdict"], found["strict"]) == (verdict, verdict)
    assert found["value"] == pytest.approx(np.mean(entropies) - 0.4)


def test_faster_learner_is_compared_where_it_was_as_accurate(study: Config) -> None:
    fast, slow = path("grpo", RIGHT, [RIGHT + 20] * 3, 0.4), path("riskpo", RIGHT, [RIGHT + 10] * 3, 0.7)
    write(study, "evaluations", *slow, *fast)
    found = row(study, "entropy_at_equal_accuracy")
    assert (found["verdict"], found["value"]) == (FAILS, pytest.approx(0.0, abs=1e-9))


HALF = np.where(np.arange(QUESTIONS) < QUESTIONS // 2, 32, 0)  # accuracy 1/4, reaching half of the questions
SPREAD = np.full(QUESTIONS, 16)  # the same accuracy, reaching all
START = np.where(np.arange(QUESTIONS) < QUESTIONS // 2, 8, 0)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([SPREAD] * 3, HALF, HOLDS),
        ([HALF] * 3, HALF, FAILS),
        ([HALF] * 3, SPREAD, FAILS),
        ([SPREAD, HALF, HALF], HALF, OPEN),
    ],
)
def test_frontier(study: Config, ours: Sequence[Any], theirs: Any, verdict: str) -> None:
    rivals = [frame for name in ("max_rl", "focal") for frame in path(name, START, [theirs] * 3, 0.4)]
    write(study, "evaluations", *(frame for name in OURS for frame in path(name, START, ours, 0.4)), *rivals)
    chosen = [claim for claim in claims.CLAIMS if claim.key.startswith("frontier_")]
    found = claims.decide(study, chosen)
    assert found["claim"].tolist() == [f"frontier_{name}" for name in OURS]
    assert found["verdict"].tolist() == [verdict] * 3
    assert found["measured"].tolist() == [
        "Pass@64, RiskPO, stratified − MaxRL",
        "Pass@64, MVaR of accuracies − MaxRL",
        "Pass@64, MVaR of log accuracies − MaxRL",
    ]
    assert found["also"].str.contains("− Focal: ").all()


@pytest.mark.parametrize(("kl", "times"), [(50, "0.25 [0.25, 0.25]"), (4000, "20.0 [20.0, 20.0]"), (200, None)])
def test_stratified_bundles_beside_grpo_with_the_length_of_both_steps(study: Config, kl: float, times: str) -> None:
    write(
        study,
        "evaluations",
        *path("riskpo_stratified", START, [SPREAD] * 3, 0.4),
        *path("grpo", START, [HALF] * 3, 0.4),
    )
    assert row(study, "stratified_against_grpo")["confound"] == ""  # nothing was recorded of the steps
    steps = training("riskpo_stratified", {"kl/step": kl}, rate=3e-5), training("grpo", {"kl/step": 200})
    write(study, "metrics", *(frame for of in steps for frame in of))
    found = row(study, "stratified_against_grpo")
    assert (found["verdict"], found["measured"]) == (HOLDS, "Pass@64, RiskPO, stratified − GRPO")
    confound = f"A confound: the KL divergence within a step was {times} times the other's (learning rates 3e-05 and "
    assert found["confound"] == (f"{confound}0.0001)" if times else "")
    shown = claims.as_table(pd.DataFrame([found])).iloc[0]["Here"]
    assert shown.endswith(f"percentage points. {found['confound']}" if times else "percentage points")


@pytest.mark.parametrize(
    ("more", "verdict"), [(NONE, HOLDS), (CERTAIN, FAILS), (UNSURE, OPEN), ((0.4, 0.2, 0.3), HOLDS)]
)
def test_risk_neutral(study: Config, more: Sequence[float], verdict: str) -> None:
    write(study, "counts", base(), *answers("riskpo", more), *answers("dr_grpo_matched"))
    write(study, "metrics", *training("riskpo", {"kl/step": 200}), *training("dr_grpo_matched", {"kl/step": 220}))
    found = row(study, "risk_neutral")
    assert (found["verdict"], found["measured"]) == (verdict, "Pass@1, RiskPO − matched Dr. GRPO")
    assert "Pass@64, " in found["also"] and "Entropy, " in found["also"]


@pytest.mark.parametrize(("step", "alike", "different"), [(250, HOLDS, FAILS), (1000, OPEN, OPEN)])
def test_steps_that_were_not_matched_in_training_test_nothing(
    study: Config, step: float, alike: str, different: str
) -> None:
    write(study, "metrics", *training("riskpo", {"kl/step": 200}), *training("dr_grpo_matched", {"kl/step": step}))
    for more, verdict in ((NONE, alike), (CERTAIN, different)):
        write(study, "counts", base(), *answers("riskpo", more), *answers("dr_grpo_matched"))
        found = row(study, "risk_neutral")
        assert found["verdict"] == verdict
    write(study, "counts", base(), *answers("riskpo"), *answers("dr_grpo_matched"))
    found = row(study, "risk_neutral")
    shown = f"{found['measured']}: {found['value']:.0f}" if alike == OPEN else found["also"]
    assert f"KL within a step, matched Dr. GRPO's of RiskPO's: {step / 2:.0f}" in shown
    assert "Pass@1, RiskPO − matched Dr. GRPO" in f"{found['measured']} {found['also']}"


def test_steps_that_are_matched_on_average_only_test_nothing(study: Config) -> None:
    """The whole interval decides, here too: 100 to 300 against 200 in three seeds."""
    scattered = training("dr_grpo_matched", {"kl/step": 200}, (-10_000, 10_000, 0))
    write(study, "metrics", *training("riskpo", {"kl/step": 200}), *scattered)
    write(study, "counts", base(), *answers("riskpo", CERTAIN), *answers("dr_grpo_matched"))
    found = row(study, "risk_neutral")
    assert (found["verdict"], found["measured"]) == (OPEN, "KL within a step, matched Dr. GRPO's of RiskPO's")
    assert found["value"] == pytest.approx(100, abs=1) and "Pass@1" in found["also"]


def test_risk_neutral_needs_a_matched_step(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo"), *answers("dr_grpo"))
    assert row(study, "risk_neutral")["missing"] == "dr_grpo_matched-0, dr_grpo_matched-1, dr_grpo_matched-2"
    options = {name: {} if name == "dr_grpo_matched" else dict(of) for name, of in study.algorithms.items()}
    del options["dr_grpo_matched"]
    runs = Runs(("riskpo", "dr_grpo"), SEEDS)
    unmatched = replace(study, runs=runs, algorithms=options)
    assert row(unmatched, "risk_neutral")["missing"] == "dr_grpo with matched_to riskpo"


# The whole


@pytest.fixture(scope="module")
def made() -> dict[str, pd.DataFrame]:
    """The records of `whole`, once they are made."""
    return {}


@pytest.fixture
def whole(study: Config, made: dict[str, pd.DataFrame]) -> Config:
    """A profile like quick: all records of GRPO, DAPO and RiskPO, none of others."""
    fewer = replace(
        study,
        runs=Runs(("grpo", "dapo", "riskpo"), (0, 1)),
        algorithms={name: study.algorithms[name] for name in ("grpo", "dapo", "riskpo")},
        train=replace(study.train, steps=END),
    )
    made.update(made or synthetic.records(fewer))
    for record, frame in made.items():
        write(fewer, record, frame)
    Path("params.yaml").write_text(yaml.safe_dump(fewer.as_dict()))
    return fewer


def test_missing_runs_are_named_and_the_others_decided(whole: Config) -> None:
    frame = claims.decide(whole).set_index("claim")
    assert list(frame.index) == [claim.key for claim in claims.CLAIMS]
    unmeasured = frame[frame["verdict"] == UNMEASURED]
    assert unmeasured["missing"].to_dict() == {
        "code": "a profile of the task programs or code",
        "images": "a profile of the task geometry or geometry3k",
        "against_risk_neutral": "dr_grpo",
        "against_risk_seeking": "risk_seeking",
        "collapse": "risk_seeking",
        "quantile_levels": "riskpo with another α or β",
        "bundle_size": "riskpo with another B",
        "omega": "riskpo with another ω",
        "risk_neutral": "dr_grpo with matched_to riskpo",
        "stratified_against_grpo": "riskpo_stratified",
        "stratified_at_its_rate": "riskpo_stratified, grpo_slow, max_rl_slow",
        "frontier_riskpo_stratified": "riskpo_stratified, max_rl, focal",
        "frontier_mvar_accuracy": "mvar_accuracy, max_rl, focal",
        "frontier_mvar_log_accuracy": "mvar_log_accuracy, max_rl, focal",
    }
    assert unmeasured[["value", "low", "high"]].isna().all(axis=None)
    measured = frame[frame["verdict"] != UNMEASURED]
    assert (measured["missing"] == "").all() and measured["value"].between(measured["low"], measured["high"]).all()


def test_runs_of_the_configuration_without_records_are_named(whole: Config) -> None:
    runs = replace(whole.runs, algorithms=("grpo", "riskpo", "risk_seeking"), seeds=(0, 1, 5))
    more = replace(whole, runs=runs, algorithms={**whole.algorithms, "risk_seeking": {}})
    found = claims.decide(more).set_index("claim")
    assert found["missing"]["against_risk_seeking"] == "risk_seeking-0, risk_seeking-1, risk_seeking-5"
    assert found["missing"]["pass_at_1"] == "grpo-5, riskpo-5"


def test_no_seed_in_common_is_said(study: Config) -> None:
    write(study, "counts", base(), *answers("riskpo")[:1], *answers("grpo")[1:])
    found = row(study, "pass_at_1")
    assert (found["verdict"], found["missing"]) == (UNMEASURED, "a seed that riskpo and grpo share")


def test_same_records_give_the_same_bytes(whole: Config, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for _ in range(2):
        assert claims.main() == 0
        made.append([(whole.results / f"claims.{of}").read_bytes() for of in ("csv", "md")])
    assert made[0] == made[1]
    assert capsys.readouterr().out.splitlines()[0] == "The verdicts on 22 claims are in results/test/claims.md."


def test_what_was_written_reads_back(whole: Config) -> None:
    assert claims.read(whole) is None
    written = claims.write(whole)
    found = claims.read(whole)
    assert found is not None
    pd.testing.assert_frame_equal(found, written, check_dtype=False)
    pd.testing.assert_frame_equal(claims.as_table(found), claims.as_table(written))


def test_table_for_readers(whole: Config) -> None:
    claims.write(whole)
    table = claims.as_table(claims.decide(whole))
    assert list(table.columns) == [
        "Claim (source)", "What decides it", "Here", "Verdict", "The paper's number",
    ]  # fmt: skip
    assert "needs runs of dr_grpo" in set(table["Here"])
    first = table.iloc[0]
    assert first["Claim (source)"] == "RiskPO keeps more entropy than GRPO. (Theorem 2, Fig. 5)"
    assert first["Here"].startswith("RiskPO − GRPO: ") and first["Here"].endswith("] nats per token")
    text = (whole.results / "claims.md").read_text()
    assert text.startswith("# The claims: verdicts at the scale of profile test\n\nOf 22 claims ")
    assert "14 are not measured in this profile" in text
    assert "seeds 0, 1 · 16 questions × 64 responses" in text
    assert "nan" not in text and "<NA>" not in text


def test_claims_are_counted() -> None:
    frame = pd.DataFrame({"verdict": [HOLDS, FAILS, FAILS, OPEN], "strict": [HOLDS, OPEN, FAILS, OPEN]})
    said = "Of 4 claims 1 hold, 2 do not hold, 1 cannot be told at this scale."
    assert claims.counted(frame) == f"{said} Strictly, 1 more cannot be told."
    assert claims.counted(frame.assign(strict=frame["verdict"])) == said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f[(f["algorithm"] != "riskpo") | (f["step"] != END)], "riskpo ends at step 10 and grpo at step 20"),
        (lambda f: f[(f["algorithm"] != "riskpo") | (f["question_id"] != "3-1")], "answered different questions"),
        (lambda f: f.assign(n=np.where(f["algorithm"] == "riskpo", 2 * f["n"], f["n"])), "different|samples"),
    ],
)
def test_records_that_cannot_be_compared_are_refused(
    whole: Config,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = whole.results / "records" / "counts.parquet"
    frame = pd.read_parquet(path).assign(n=N)
    spoil(frame).to_parquet(path, index=False)
    with pytest.raises(DataError, match=message):
        claims.decide(whole)
    assert claims.main() == 1
    assert capsys.readouterr().err
    assert not (whole.results / "claims.csv").exists()


def test_unequal_training_is_refused(study: Config) -> None:
    columns = {"reward/mean": 0.3, **TAIL}
    write(study, "metrics", *(f.iloc[:-1] for f in training("riskpo", columns)), *training("grpo", columns))
    with pytest.raises(DataError, match="riskpo and grpo recorded different training steps"):
        row(study, "lower_tail")


def test_without_records_nothing_is_decided(study: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main() == 1
    assert "test has no records/counts.parquet: make the records first (dvc repro)." in capsys.readouterr().err


# The paper's numbers


def test_published_numbers() -> None:
    assert published.averages("hard math")["RiskPO"] == 46.65
    assert published.averages("easy math")["GRPO"] == 66.55
    assert published.ablation("bundle_size") == {"B = 1": 65.8, "B = 5": 68.25, "B = 10": 66.65}
    assert published.risk_profiles() == {"risk_averse": (52.0, 56.0), "risk_seeking": (52.0, 54.0)}
    assert published.notes("hard math") == {}
    with pytest.raises(FileNotFoundError):
        published.read("nothing")


def test_published_numbers_are_copies() -> None:
    sources = Path(__file__).parents[2] / "shared" / "published"
    if not sources.is_dir():
        pytest.skip("the folder that the numbers were copied from is not here")
    folder = Path(published.__file__).parent
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == {
        path.name: path.read_bytes() for path in sources.glob("*.csv")
    }


def test_claims_say_what_the_paper_says_of_them() -> None:
    said = {claim.key: claim.published() for claim in claims.CLAIMS}
    assert said["pass_at_1"] == ("hard math 46.65 % against GRPO's 40.41 %; easy math 68.25 % against GRPO's 66.55 %")
    assert "DAPO's 43.87 %" in said["best_method"] and "sources disagree" in said["best_method"]
    assert said["against_risk_seeking"] == "MATH, risk-averse 52 % → 56 %; risk-seeking 52 % → 54 %"
    assert said["quantile_levels"].startswith("easy math, α = 0.2, β = 0.8: 68.25 %; α = 0.1, β = 0.8: 66.90 %")


def test_every_algorithm_is_a_baseline_or_of_the_riskpo_family() -> None:
    family = {"riskpo", "riskpo_released", "risk_seeking", "riskpo_marginal", *OURS}
    assert {*claims.BASELINES} == ALGORITHMS.keys() - family
