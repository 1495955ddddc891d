"""Geometry3K with a small Qwen2.5-VL: asked as in the paper's profile, on local copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from riskpo_study import base_model, config, experiment, model_evaluation, profiles, runs, seeds, stand_ins, tasks
from riskpo_study.policy import Policy

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for datasets and model, which is taught in fewer steps than a rehearsal needs."""
    folder = tmp_path_factory.mktemp("stand_ins")
    stand_ins.write_figures(folder, steps=40)
    return folder


@pytest.fixture(scope="module")
def study(settings: config.Config, place: Path) -> config.Config:
    shipped = profiles.composed("paper_geometry", ROOT / "conf")[1]
    return replace(
        settings,
        task=replace(shipped.task, questions=4),
        math=replace(shipped.math, folder=str(place / "data"), development=10, workers=1),
        base_model=replace(shipped.base_model, pretrained=str(place / "model")),
        train=replace(settings.train, steps=2, max_new_tokens=8, layout=shipped.train.layout),
    )


def test_a_question_is_one_message_with_its_figure_first(study: config.Config) -> None:
    task = tasks.build(study)
    for question in task.sample(5, seeds.generator(0, "some")):
        (message,) = task.prompt(question)
        figure, text = message["content"]  # type: ignore[index]
        assert figure["type"] == "image" and isinstance(figure["image"], Image.Image)
        assert "<image>" not in text["text"] and r"\boxed{}" in text["text"]


def test_a_run_trains_a_model_that_sees(study: config.Config, tmp_path: Path) -> None:
    task = tasks.build(study)
    base_model.obtain(task, study.base_model, tmp_path / "base")
    policy = Policy.load(tmp_path / "base")
    asked = policy.encode([task.prompt(question) for question in task.questions("held_out")])
    image_token = policy.model.config.image_token_id
    for prompt in asked:  # a token is 2 x 2 patches
        assert 4 * prompt.count(image_token) == prompt.features.grid.prod(1).sum() > 0  # type: ignore[attr-defined]
    run = experiment.train(study, "riskpo", 0, tmp_path / "base", tmp_path / "run")
    metrics = runs.read_records(run, "metrics")
    assert len(metrics) == 2 and metrics["accuracy/geometry3k_train"].notna().all()
    evaluations = runs.read_records(run, "evaluations")
    assert set(evaluations["difficulty"]) == {"geometry3k_test"}
    assert (evaluations["unparsed"] < evaluations["n"]).any()  # it has learned to put its answer into a box
    trained = run / "snapshots" / "step-000002"
    for seen in (task, model_evaluation.Unseen(task)):
        assert len(model_evaluation.respond(study, trained, seen, task.questions("held_out"), 2, 0)) == 8
