"""Tuning: equal candidates, the most accurate chosen, its options in every run; matched steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from riskpo_study import config, tuning, tuning_runs, update
from riskpo_study.errors import DataError, RunError


@pytest.fixture
def study(settings: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    """Two candidates for grpo and riskpo; results in a folder of the test."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    candidates = ({"learning_rate": 1e-3}, {"learning_rate": 2e-3})
    own = {"riskpo": ({"learning_rate": 1e-3}, {"learning_rate": 1e-3, "baseline": "batch"})}
    algorithms = {
        **settings.algorithms,
        "riskpo_omega_0": {"preset": "riskpo", "omega": 0.0},
        "grpo_matched": {"preset": "grpo", "matched_to": "riskpo"},
    }
    return replace(
        settings,
        algorithms=algorithms,
        train=replace(settings.train, steps=2),
        tuning=config.Tuning(candidates, own, seed=100, questions=3, samples=4),
        runs=config.Runs(("grpo", "riskpo"), (0,), ("riskpo_omega_0", "grpo_matched"), (1,)),
    )


def test_every_candidate_is_tried_and_the_choice_is_applied(study: config.Config, base_model: Path) -> None:
    table = tuning_runs.tune(study, "riskpo", base_model)
    assert list(table["learning_rate"]) == [1e-3, 1e-3] and list(table["options"]) == ["", '{"baseline": "batch"}']
    assert table["chosen"].sum() == 1 and table.loc[table["chosen"], "accuracy"].item() == table["accuracy"].max()
    assert table["accuracy"].between(table["low"], table["high"]).all()
    assert table["kl_step"].notna().all() and table["entropy"].gt(0).all()
    assert not (study.results / "tuning_runs" / "riskpo").exists()
    again = tuning_runs.tune(study, "riskpo", base_model)
    pd.testing.assert_frame_equal(table, again)

    chosen = table[table["chosen"]].iloc[0]
    applied = tuning.applied(study, "riskpo", "riskpo_omega_0")
    assert applied.algorithms["riskpo"]["learning_rate"] == chosen["learning_rate"]
    assert applied.algorithms["riskpo"].get("baseline", "group") == ("batch" if chosen["options"] else "group")
    assert applied.algorithms["riskpo_omega_0"] == {
        **applied.algorithms["riskpo"], "preset": "riskpo", "omega": 0.0
    }  # fmt: skip
    assert applied.algorithms["grpo"] == {}


@pytest.fixture
def single(study: config.Config) -> config.Config:
    """With one candidate, and no variant that needs two."""
    return replace(
        study,
        algorithms={name: of for name, of in study.algorithms.items() if name != "grpo_matched"},
        runs=config.Runs(("grpo", "riskpo"), (0,), ("riskpo_omega_0",), (1,)),
        tuning=config.Tuning(({"learning_rate": 5e-4},), {}, 100, 3, 4),
    )


def test_one_candidate_needs_no_training(single: config.Config, tmp_path: Path) -> None:
    table = tuning_runs.tune(single, "grpo", tmp_path / "no_model")
    assert table.to_dict("records") == [
        {"algorithm": "grpo", "learning_rate": 5e-4, "options": "", "chosen": True}
    ]  # fmt: skip
    assert tuning.applied(single, "grpo").algorithms["grpo"] == {"learning_rate": 5e-4}


def break_updates(monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    """Training with one of these rates meets a loss that is not a number."""
    working = update.Updater.update

    def update_or_fail(self: update.Updater, *arguments):
        if self.train.learning_rate in rates:
            raise update.NonFiniteError(float("nan"), 1.0, self.train.learning_rate)
        return working(self, *arguments)

    monkeypatch.setattr(update.Updater, "update", update_or_fail)


def test_a_candidate_that_fails_counts_as_nothing(
    study: config.Config, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_updates(monkeypatch, 2e-3)
    table = tuning_runs.tune(study, "grpo", base_model)
    assert list(table["chosen"]) == [True, False] and table["accuracy"].iloc[1] == 0
    assert table["failure"].iloc[1].startswith("step 1: the loss is nan")


def test_where_every_candidate_fails_none_is_chosen(
    study: config.Config, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_updates(monkeypatch, 1e-3, 2e-3)
    with pytest.raises(RunError, match="No candidate of grpo could be trained; the last one: step 1: the loss is nan"):
        tuning_runs.tune(study, "grpo", base_model)
    assert not tuning.path(study, "grpo").exists()


def test_a_matched_algorithm_takes_the_rate_of_the_same_step(study: config.Config) -> None:
    """KL grows with the square of the rate here, so a quarter of the KL is half the rate."""
    for name, rows in {
        "grpo": [(1e-4, 1e-3, False), (2e-4, 4e-3, True), (4e-4, 16e-3, False)],
        "riskpo": [(1e-4, 1e-4, False), (2e-4, 2e-3, True)],
    }.items():
        path = tuning.path(study, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows, columns=["learning_rate", "kl_step", "chosen"]).assign(algorithm=name, options="")
        frame.to_csv(path, index=False)
    rate = tuning.applied(study, "grpo_matched").algorithms["grpo_matched"]["learning_rate"]
    assert rate == pytest.approx(1e-4 * 2**0.5, rel=1e-2)


def test_what_is_not_tuned_yet_stays_as_it_is(single: config.Config, tmp_path: Path) -> None:
    tuning_runs.tune(single, "riskpo", tmp_path / "no_model")
    found = tuning.so_far(single).algorithms
    assert found["riskpo"] == {"learning_rate": 5e-4} and found["grpo"] == {}
    assert found["riskpo_omega_0"] == {"learning_rate": 5e-4, "preset": "riskpo", "omega": 0.0}


def test_a_candidate_that_fails_is_not_chosen_over_one_that_gets_nothing_right(
    study: config.Config, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_updates(monkeypatch, 1e-3)
    table = tuning_runs.tune(study, "grpo", base_model)
    assert table["accuracy"].tolist() == [0.0, 0.0] and table["chosen"].tolist() == [False, True]


def test_damaged_outcomes_are_named_with_a_remedy(study: config.Config) -> None:
    path = tuning.path(study, "grpo")
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(DataError, match=r"grpo.csv cannot be read .* \(dvc repro tune@test-grpo\)"):
        tuning.outcomes(study, "grpo")


def test_an_untuned_algorithm_is_named(study: config.Config) -> None:
    with pytest.raises(DataError, match=r"grpo of test has not been tuned yet: .*dvc repro tune@test-grpo"):
        tuning.applied(study, "grpo")
