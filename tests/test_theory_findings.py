"""Sentences about the theory say what its tables hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from riskpo_study import config, tables, theory, theory_findings
from riskpo_study.findings import Study

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return Study(config.load())


def save(study: Study, name: str, frame: pd.DataFrame) -> None:
    tables.save(study.config.results / "tables" / "10_theory", name, frame)


def test_weights_fall_rise_or_neither_is_shown(study: Study) -> None:
    weights = {"max_rl": (2.0, 0.5), "riskpo": (1.01, 0.99), "riskpo_released": (0.8, 1.2)}
    rows = [
        {"algorithm": name, "accuracy": place, "weight": weight, "error": 0.02, "expected": weight - 0.03}
        for name, ends in weights.items() for place, weight in zip((0.1, 0.9), ends, strict=True)
    ]  # fmt: skip
    save(study, "every_weight", pd.DataFrame(rows))
    assert theory_findings.every_weight(study) == (
        "Measured weight of the hardest part of the questions minus that of the easiest, in means of all, judged by "
        "two standard errors. It falls with the accuracy (averse to risk over questions): MaxRL 1.50; it rises: RiskPO "
        "as released −0.40; neither is shown: RiskPO 0.02. The points lie at most 1.5 standard errors off their lines "
        "(MaxRL)."
    )


def test_weights_of_a_single_accuracy_are_not_compared(study: Study) -> None:
    row = {"algorithm": "grpo", "accuracy": 0.875, "weight": 1.0, "error": 0.0, "expected": 1.0}
    save(study, "every_weight", pd.DataFrame([row]))
    assert "too few to compare" in theory_findings.every_weight(study)


def test_exact_weights_are_told_from_end_to_end(study: Study) -> None:
    rows = [("Random", "global", 0.9, 0.8), ("Random", "global", 0.1, 0.8), ("Alike", "own", 0.1, 1.0)]
    frame = pd.DataFrame([*rows, ("Alike", "own", 0.9, 0.3)], columns=["panel", "estimator", "accuracy", "weight"])
    save(study, "riskpo_weights", frame)
    assert theory_findings.riskpo_weights(study) == (
        "Weight of a question of accuracy 0.1 to that of one of 0.9. Random: global 0.80 to 0.80. "
        "Alike: own 1.00 to 0.30."
    )


def test_bias_and_blur_are_of_all_questions(study: Study) -> None:
    columns = ["part", "accuracy", "bias", "bias_error", "blur", "blur_error"]
    save(
        study,
        "ordering",
        pd.DataFrame([["1", 0.1, 9, 9, 9, 9], ["all", None, -0.16, 0.01, 0.07, 0.02]], columns=columns),
    )
    text = theory_findings.ordering(study)
    assert "−0.160 ± 0.020 with this batch" in text and "0.070 ± 0.040 with another batch" in text


def test_noise_is_told_in_multiples_of_rloos(study: Study) -> None:
    rows = [("RLOO", "", 2.0, 4.0), ("shared", "group", 4.0, 24.0), ("marginal", "none", 3.0, 40.0)]
    save(study, "noise", pd.DataFrame(rows, columns=["credit", "baseline", "along", "across"]))
    assert theory_findings.noise(study).endswith(
        "shared credit, baseline group: 2.0 and 6.0; marginal credit, baseline none: 1.5 and 10.0."
    )


def test_the_kink_is_told_apart(study: Study) -> None:
    save(study, "gradient", pd.DataFrame({"case": ["all differ", "F reaches α"], "MVaR": [3e-11, 0.04]}))
    rows = [(40, "known", 0.01, 0.02), (10, "known", 0.1, 0.1), (10, "sample", 0.5, 0.1), (40, "sample", 0.06, 0.02)]
    save(study, "sampled_gradients", pd.DataFrame(rows, columns=["n", "quantiles", "bias", "error"]))
    assert theory_findings.gradient(study) == (
        "Formula and finite differences of MVaR's gradient differ by at most 3e-11, but for a kink (F reaches α: "
        "4e-02). Bias from 10, 40 samples, over what chance leaves of it: with quantiles known 1.0, 0.5; with "
        "quantiles sample 5.0, 3.0."
    )


def test_tracking_errors_are_told_by_phase(study: Study) -> None:
    save(
        study,
        "tracking",
        pd.DataFrame({"tracker": ["batch", "histogram"], "level": [0.11, 0], "slow rise": [0.2, 0.1]}),
    )
    text = theory_findings.tracking(study)
    assert text.endswith("in scores (level, slow rise): batch: 0.11, 0.20; histogram: 0.00, 0.10.")


def test_entropy_says_the_slope_and_for_whom_the_inequality_holds(study: Study) -> None:
    residuals = theory.entropy_residuals(*theory.CASES["all rewards differ"], study.config.risk, [0.1, 0.01, 0.001])
    save(study, "entropy_residuals", residuals)
    policies = pd.DataFrame(
        {"policy": ["both", "sure", "rare"], "sum": [0.1, -0.2, -0.4], "holds": [True, False, False]}
    )
    save(study, "theorem_2", policies)
    text = theory_findings.entropy(study)
    assert text.endswith("more entropy than the mean, for: both (0.10); not for: sure (−0.20) and rare (−0.40).")
    slopes = [theory.slope(part["rate"], part["residual"]) for _, part in residuals.groupby("objective", sort=False)]
    assert f"falls with slope {slopes[0]:.2f} (mean) and {slopes[1]:.2f} (MVaR)" in text
