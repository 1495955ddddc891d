"""The families of the ablations: which cells they have, and on which seeds these are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from riskpo_study import ablations, config
from riskpo_study.analysis import Resampler
from riskpo_study.errors import ConfigError, DataError

VARIANTS = {
    "low": {"preset": "riskpo", "alpha": 0.1},
    "wide": {"preset": "riskpo", "beta": 1.0},
    "single": {"preset": "riskpo", "bundle_size": 1},
    "neutral": {"preset": "riskpo", "omega": 0.0},
    "both": {"preset": "riskpo", "omega": 0.0, "alpha": 0.1},
    "plain": {"preset": "riskpo", "baseline": "none"},
    "batch": {"preset": "riskpo", "baseline": "none", "tracker": "histogram"},
    "same": {"preset": "riskpo", "baseline": "group"},
    "uniform": {"preset": "riskpo_released", "credit": "uniform"},
    "matched": {"preset": "dr_grpo", "matched_to": "riskpo"},
}


@pytest.fixture
def study(settings: config.Config) -> config.Config:
    """Every variant with a run, but for one, and a learning rate that tuning chose."""
    tuned = {"riskpo": {"learning_rate": 1e-4}, "riskpo_released": {"learning_rate": 1e-4}}
    variants = {name: {**tuned.get(own["preset"], {}), **own} for name, own in VARIANTS.items()}
    runs = config.Runs(("riskpo", "riskpo_released", "dr_grpo"), (0,), tuple(VARIANTS), (1,))
    tuning = replace(settings.tuning, candidates=({"learning_rate": 1e-5}, {"learning_rate": 1e-4}))
    return replace(settings, algorithms={**settings.algorithms, **tuned, **variants}, runs=runs, tuning=tuning)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("levels", {"riskpo": "α = 0.2, β = 0.8", "low": "α = 0.1, β = 0.8", "wide": "α = 0.2, β = 1"}),
        ("bundle_size", {"riskpo": "B = 5", "single": "B = 1"}),
        ("omega", {"riskpo": "ω = 0.5", "neutral": "ω = 0"}),
        (
            "estimator",
            {
                "riskpo": "baseline = group, tracker = robbins_monro",
                "plain": "baseline = none, tracker = robbins_monro",
                "batch": "baseline = none, tracker = histogram",
            },
        ),
        (
            "credit",
            {
                "riskpo": "RiskPO",
                "riskpo_released": "released, credit = sum-mean",
                "uniform": "released, credit = uniform",
            },
        ),
    ],
)
def test_cells_differ_from_the_centre_in_the_options_of_the_family(
    study: config.Config, family: str, expected: dict[str, str]
) -> None:
    assert ablations.cells(study, ablations.FAMILIES[family]) == expected


def test_only_cells_with_a_run_are_compared(study: config.Config) -> None:
    fewer = replace(study, runs=replace(study.runs, further_algorithms=("wide",)))
    assert list(ablations.cells(fewer, ablations.FAMILIES["levels"])) == ["riskpo", "wide"]


def counts(algorithm: str, seed: int, score: float) -> pd.DataFrame:
    questions = [f"q{i}" for i in range(6)]
    varied = score + 0.01 * np.arange(6)
    return pd.DataFrame({
        "algorithm": algorithm, "seed": seed, "question_id": questions, "difficulty": 3, "n": 8, "Pass@1": varied,
    })  # fmt: skip


def test_cells_are_compared_on_the_seeds_that_all_have() -> None:
    frames = [counts("riskpo", 0, 0.9), counts("riskpo", 1, 0.5), counts("neutral", 1, 0.4), counts("low", 1, 0.6)]
    estimates, gaps = ablations.compared(pd.concat(frames), ["Pass@1"], "riskpo", Resampler(200, 0.95))
    assert estimates.set_index("algorithm")["value"].round(3).to_dict() == {
        "riskpo": 0.525, "neutral": 0.425, "low": 0.625
    }  # fmt: skip
    assert gaps.set_index("algorithm")["value"].round(3).to_dict() == {"neutral": -0.1, "low": 0.1}
    assert set(gaps["seeds"]) == {"1"}


def test_a_centre_alone_is_shown_unless_the_profile_asks_for_variants(study: config.Config) -> None:
    alone, both = counts("riskpo", 0, 0.5), pd.concat([counts("riskpo", 0, 0.5), counts("neutral", 0, 0.4)])
    estimates, gaps = ablations.compared(alone, ["Pass@1"], "riskpo", Resampler(50, 0.95))
    assert (len(estimates), len(gaps)) == (1, 0)
    assert ablations.without_variants(study, "omega", both) == ""
    said = "No variant of riskpo in the ablation omega has runs in profile test: list some in runs.further_algorithms"
    assert ablations.without_variants(study, "omega", alone).startswith(said)
    asked = replace(study, runs=replace(study.runs, ablations=("omega",)))
    with pytest.raises(DataError, match=said):
        ablations.without_variants(asked, "omega", alone)


def test_what_cannot_be_compared_is_named() -> None:
    frames = pd.concat([counts("riskpo", 0, 0.5), counts("neutral", 1, 0.4)])
    with pytest.raises(DataError, match="share no seed"):
        ablations.compared(frames, ["Pass@1"], "riskpo", Resampler(50, 0.95))
    with pytest.raises(ConfigError, match="The ablation 'gamma' is unknown; known are levels, bundle_size"):
        ablations.family("gamma")
