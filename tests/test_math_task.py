"""The task of published questions, on local copies: what is asked, how it is judged, whole runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from riskpo_study import base_model, config, datasets, experiment, records, runs, seeds, stand_ins, tasks
from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.policy import Policy


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for datasets and model, which is taught in fewer steps than a rehearsal needs."""
    folder = tmp_path_factory.mktemp("stand_ins")
    stand_ins.write(folder, steps=40)
    return folder


@pytest.fixture(scope="session")
def study(settings: config.Config, place: Path) -> config.Config:
    return replace(
        settings,
        task=replace(settings.task, name="math", questions=5),
        math=replace(
            settings.math, training=("gsm8k_train", "math_train"), evaluation=("gsm8k_test", "aime_2024"),
            folder=str(place / "data"), development=10, workers=1,
        ),
        base_model=replace(settings.base_model, pretrained=str(place / "model")),
        train=replace(settings.train, steps=2, max_new_tokens=6, layout="packed"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def task(study: config.Config) -> tasks.Task:
    return tasks.build(study)


def test_training_questions_are_different_and_never_those_set_aside(task: tasks.Task, study: config.Config) -> None:
    training = sum(len(datasets.load(name, folder=Path(study.math.folder)).questions) for name in study.math.training)
    everything = task.sample(training - study.math.development, seeds.generator(0, "all"))
    ids = {question.id for question in everything}
    assert len(ids) == len(everything) and {question.difficulty for question in everything} == {*task.difficulties}
    with pytest.raises(
        ConfigError, match=f"have {len(ids)} to train on: ask for fewer, or lower math.development = 10"
    ):
        task.sample(len(ids) + 1, seeds.generator(0, "all"))
    aside = tasks.build(replace(study, task=replace(study.task, questions=100))).questions("development")
    assert len(aside) == 10 and not ids & {question.id for question in aside}
    first, again, other = (task.sample(9, seeds.generator(seed, "some")) for seed in (0, 0, 1))
    assert first == again != other


def test_every_benchmark_is_asked_up_to_the_bound_in_the_order_of_the_configuration(task: tasks.Task) -> None:
    assert [question.difficulty for question in task.questions("held_out")] == ["gsm8k_test"] * 5 + ["aime_2024"] * 5
    (message,) = task.prompt(task.questions("held_out")[0])
    assert message["role"] == "user" and message["content"].endswith("put your final answer within \\boxed{}.")


def test_answers_are_judged_by_what_they_mean(task: tasks.Task) -> None:
    question = replace(task.questions("held_out")[0], payload={"answer": "0.5"})
    texts = [r"so \boxed{\frac{1}{2}}", r"\boxed{1/2}.", r"\boxed{2}", "no idea", ""]
    verdicts = [task.verify(question, text) for text in texts]
    assert [verdict.reward for verdict in verdicts] == [1, 1, 0, 0, 0]
    assert verdicts[0].answer == verdicts[1].answer is not None and verdicts[3].answer is None


def test_long_training_questions_are_left_out(study: config.Config) -> None:
    loaded = datasets.load("gsm8k_train", folder=Path(study.math.folder)).questions
    shortest = min(len(question.question) for question in loaded)
    few = replace(study.math, training=("gsm8k_train",), longest_question=shortest, development=0)
    kept = sum(len(question.question) == shortest for question in loaded)
    assert len(tasks.build(replace(study, math=few)).sample(kept, seeds.generator(0, "few"))) == kept < len(loaded)


def test_questions_that_training_repeats_are_counted(study: config.Config, place: Path, tmp_path: Path) -> None:
    shutil.copytree(study.math.folder, tmp_path / "data")
    rows = (tmp_path / "data" / "gsm8k_test.jsonl").read_text().splitlines()
    with (tmp_path / "data" / "gsm8k_train.jsonl").open("a") as training:
        training.write(rows[0] + "\n")
    before, after = (
        tasks.build(replace(study, math=replace(study.math, folder=str(folder)))).overlap().set_index("source")["exact"]
        for folder in (place / "data", tmp_path / "data")
    )
    assert after["gsm8k_test"] == before["gsm8k_test"] + 1 and after["aime_2024"] == before["aime_2024"]


def test_a_run_trains_a_chat_model_and_names_its_data(study: config.Config, place: Path, tmp_path: Path) -> None:
    base_model.obtain(tasks.build(study), study.base_model, tmp_path / "base")
    assert Policy.load(tmp_path / "base").tokenizer.chat_template == stand_ins.CHAT
    run = experiment.train(study, "riskpo", 0, tmp_path / "base", tmp_path / "run")
    metrics = runs.read_records(run, "metrics")
    assert len(metrics) == 2 and metrics["accuracy/gsm8k_train"].notna().all()
    assert set(runs.read_records(run, "evaluations")["difficulty"]) == {"gsm8k_test", "aime_2024"}
    snapshot = AutoModelForCausalLM.from_pretrained(run / "snapshots" / "step-000002")
    assert snapshot.config.vocab_size == len(Policy.load(tmp_path / "base").tokenizer)
    data = runs.read_manifest(run)["identity"]["data"]
    assert set(data["grader"]) == {"math-verify", "latex2sympy2_extended", "sympy"}
    assert set(data["datasets"]) == {"gsm8k_train", "math_train", "gsm8k_test", "aime_2024"}

    changed = tmp_path / "data"
    shutil.copytree(study.math.folder, changed)
    file = changed / "gsm8k_test.jsonl"
    file.write_text(file.read_text().replace("?", "??", 1))
    other = replace(study, math=replace(study.math, folder=str(changed)))
    with pytest.raises(RunError, match=r"data.datasets.gsm8k_test.sha256 is .* here and .* there"):
        experiment.train(other, "riskpo", 0, tmp_path / "base", run)


def test_records_of_runs_with_different_data_are_not_joined(settings: config.Config, tmp_path: Path) -> None:
    two = replace(settings, runs=replace(settings.runs, algorithms=("grpo",), seeds=(0, 1)))
    for seed, digest in ((0, "a"), (1, "b")):
        folder = tmp_path / "runs" / f"grpo-{seed}"
        folder.mkdir(parents=True)
        data = {"datasets": {"gsm8k_test": {"sha256": digest}}}
        (folder / "manifest.json").write_text(json.dumps({"identity": {"data": data}}))
        pd.DataFrame({"step": [1]}).to_parquet(folder / "metrics.parquet")
    with pytest.raises(
        DataError, match="grpo-1 and grpo-0 have different data, datasets.gsm8k_test.sha256 is 'b' here"
    ):
        records.collect(tmp_path, two)


def test_a_published_model_that_cannot_be_had_is_named(
    study: config.Config, task: tasks.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as the environment variable does on import
    missing = replace(study.base_model, pretrained="nobody/no-such-model")
    with pytest.raises(DataError, match="'nobody/no-such-model', revision 'main', cannot be loaded .*hf download"):
        base_model.obtain(task, missing, tmp_path / "model")
    with pytest.raises(ConfigError, match="task.name = 'math' cannot teach a model from nothing"):
        base_model.obtain(task, replace(study.base_model, pretrained="none"), tmp_path / "model")
    with pytest.raises(ConfigError, match="needs a published model: name one in base_model.pretrained"):
        replace(study, base_model=replace(study.base_model, pretrained="none"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": "polite"}, "math.instruction = 'polite' is unknown; choose one of boxed, dapo"),
        ({"training": ("gsm9k",)}, "dataset 'gsm9k' is unknown"),
        ({"folder": "/nowhere"}, "math.folder = '/nowhere' is no folder"),
        ({"development": 10**6}, r"math.development = 1000000 sets aside all \d+ training questions: lower it"),
    ],
)
def test_unknown_names_are_refused(study: config.Config, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tasks.build(replace(study, math=replace(study.math, **changes))).sample(1, seeds.generator(0, "one"))


def test_the_stand_in_tokenizer_gives_every_text_back(place: Path) -> None:
    tokenizer = Policy.load(place / "model").tokenizer
    for text in ("1 + 1 = 2?", "naïve – π ≈ 3", "\\boxed{\\frac12}\n\n", "<|im_end|>"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
