from dataclasses import replace

import pandas as pd
import pytest

from riskpo_study.errors import ConfigError, RunError
from riskpo_study.model_evaluation import evaluate, pass_table, respond, saved_models
from riskpo_study.policy import Policy
from riskpo_study.quantile_curve import quantile_curve
from riskpo_study.rollouts import TransformersEngine
from riskpo_study.sampling import SAMPLE_COLUMNS, counts, sample_batches
from riskpo_study.seeds import derive

RECORDS = ["samples", "counts", "quantile_logprob"]


@pytest.fixture
def small(settings):
    """Twelve questions, at most 20 samples."""
    return replace(settings, evaluation=replace(settings.evaluation, samples=20, ks=(1, 20), resamples=100))


def test_records_of_every_model(small, base_model, task, tmp_path):
    returned = evaluate(small, {4: base_model, 2: base_model}, tmp_path, seed=0)
    samples, counted, curve = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in RECORDS)
    pd.testing.assert_frame_equal(counted, returned)

    assert list(samples) == ["step", *SAMPLE_COLUMNS]
    held_out = [question.id for question in task.questions("held_out")]
    for step, n in ((2, 16), (4, 20)):  # fewer samples of the models before the last
        of_step = samples[samples["step"] == step].drop(columns="step")
        assert of_step.groupby("question_id", sort=False).size().to_dict() == dict.fromkeys(held_out, n)
        again = counted[counted["step"] == step].drop(columns="step").reset_index(drop=True)
        pd.testing.assert_frame_equal(counts(of_step), again)
        expected = quantile_curve(of_step, 5, small.evaluation.quantile_levels, 100, 0.95, derive(0, "held_out", step))
        shown = curve[curve["step"] == step].drop(columns="step").reset_index(drop=True)
        pd.testing.assert_frame_equal(expected, shown)
    two, four = (samples[(samples["step"] == step) & (samples["sample"] < 16)] for step in (2, 4))
    assert two["response"].tolist() != four["response"].tolist()  # every step draws its own


def test_the_same_seed_gives_the_same_bytes(small, base_model, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        evaluate(small, {0: base_model}, tmp_path / name, seed)
    one, same, other = (
        [(tmp_path / name / f"{r}.parquet").read_bytes() for r in RECORDS] for name in ("one", "same", "other")
    )
    assert one == same
    assert all(ours != theirs for ours, theirs in zip(one, other, strict=True))


def test_responses_show_their_progress(small, base_model, task, capsys):
    frame = respond(small, base_model, task, task.questions("development")[:3], 4, seed=0, label="answers")
    assert len(frame) == 12
    assert "answers: 100%" in capsys.readouterr().err


def test_the_model_has_the_dtype_of_the_configuration(small, base_model, task):
    questions = task.questions("development")[:3]
    coarse = replace(small, hardware=replace(small.hardware, dtype="bfloat16"))
    policy = Policy.load(base_model, coarse.train.layout, coarse.hardware)
    given = (coarse.train.temperature, coarse.train.max_new_tokens, 0)
    expected = pd.concat(sample_batches(policy, TransformersEngine(policy), task, questions, 4, *given))
    pd.testing.assert_frame_equal(respond(coarse, base_model, task, questions, 4, 0), expected)
    assert (respond(small, base_model, task, questions, 4, 0)["log_prob"] != expected["log_prob"]).any()


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "test"


def test_saved_models_of_a_run_and_of_the_base_model(settings, project):
    run = project / "runs" / "grpo-3"
    folders = {step: run / "snapshots" / f"step-{step:06d}" for step in (2, 4)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    assert saved_models(settings, "grpo", 3) == (run, folders)
    assert saved_models(settings, "base", 3) == (project / "base", {0: project / "base_model"})


def test_a_run_without_its_last_model_is_refused(settings, project):
    with pytest.raises(RunError, match=r"grpo-0 is no finished run of 4 steps: it has no snapshots\. Train it"):
        saved_models(settings, "grpo", 0)
    (project / "runs" / "grpo-0" / "snapshots" / "step-000002").mkdir(parents=True)
    with pytest.raises(RunError, match=r"its snapshots are of steps \[2\]"):
        saved_models(settings, "grpo", 0)


def test_an_unknown_algorithm_is_refused_by_name(settings, project):
    with pytest.raises(ConfigError, match=r"algorithm 'grpoo' is unknown; known are base, grpo, dr_grpo"):
        saved_models(settings, "grpoo", 0)


def test_pass_table():
    frame = pd.DataFrame({"step": [0, 0, 5, 5], "difficulty": [3, 3, 3, 4], "n": [2, 2, 4, 4], "correct": [0, 1, 1, 4]})
    table = pass_table(frame, (1, 2, 4))
    assert table.index.tolist() == [(0, 3), (5, 3), (5, 4)]
    assert table["questions"].tolist() == [2, 1, 1] and table["samples"].tolist() == [2, 4, 4]
    assert table["Pass@1"].tolist() == [0.25, 0.25, 1]
    assert table["Pass@2"].tolist() == [0.5, 0.5, 1]
    assert table["Pass@4"].tolist() == pytest.approx([float("nan"), 1, 1], nan_ok=True)
    assert pass_table(frame.drop(columns="step"), (1,)).index.tolist() == [3, 4]
