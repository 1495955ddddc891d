"""The task of published programming problems, on local copies: what is asked, how it is judged, a whole run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from riskpo_study import base_model, config, experiment, profiles, runs, seeds, stand_ins, tasks
from riskpo_study.datasets.stand_ins import solution
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.tasks.code import Code

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for datasets and model, which is taught in fewer steps than a rehearsal needs."""
    folder = tmp_path_factory.mktemp("stand_ins")
    stand_ins.write_code(folder, steps=40)
    return folder


@pytest.fixture(scope="module")
def study(settings: config.Config, place: Path) -> config.Config:
    """Asked as in the paper's profile, of local copies."""
    shipped = profiles.composed("paper_code", ROOT / "conf")[1]
    return replace(
        settings,
        task=replace(shipped.task, questions=6),
        code=replace(shipped.code, folder=str(place / "data"), development=10, workers=1),
        base_model=replace(shipped.base_model, pretrained=str(place / "model")),
        train=replace(settings.train, steps=2, max_new_tokens=24, layout="packed"),
    )


@pytest.fixture(scope="module")
def task(study: config.Config) -> tasks.Task:
    return tasks.build(study)


def test_problems_are_those_of_the_window_and_of_the_parts(task: tasks.Task, study: config.Config) -> None:
    held_out = tasks.build(replace(study, task=replace(study.task, questions=1000))).questions("held_out")
    days = [str(question.payload["problem"].published) for question in held_out]
    assert days == sorted(days) and days[0] >= "2024-08-01" and days[-1] <= "2025-01-31" and len(days) > 12
    assert [question.difficulty for question in task.questions("held_out")] == ["livecodebench"] * 6
    everything = task.sample(3 * 32 - 10, seeds.generator(0, "all"))
    assert {question.difficulty for question in everything} == {"taco", "primeintellect", "lcbv5"}
    aside = tasks.build(replace(study, task=replace(study.task, questions=1000))).questions("development")
    ids = {question.id for question in everything}
    assert len(ids) == 86 and len(aside) == 10 and not ids & {question.id for question in aside}
    with pytest.raises(ConfigError, match=r"87 questions are .*have 86 to train on.*lower code.development = 10"):
        task.sample(87, seeds.generator(0, "all"))


def test_programs_and_functions_are_asked_for_and_judged_by_all_tests(task: tasks.Task) -> None:
    asked = [*task.questions("held_out")[:2], *task.sample(40, seeds.generator(0, "some"))]
    right = [solution(question.payload["problem"].question) for question in asked]
    assert {question.payload["problem"].entry_point for question in asked} == {None, "f"}
    pairs = [*zip(asked, right, strict=True), *((asked[0], text) for text in (right[1], "no program", ""))]
    verdicts = task.verify_all(pairs)
    assert [verdict.reward for verdict in verdicts] == [1.0] * len(asked) + [0.0] * 3
    assert task.verify(*pairs[0]) == verdicts[0] and verdicts[-1].answer is None
    for question in asked:
        system, user = task.prompt(question)
        assert (system["role"], user["role"]) == ("system", "user")  # type: ignore[index]
        assert question.payload["problem"].question in user["content"]  # type: ignore[index]


def test_what_decides_the_questions_is_in_the_provenance(task: tasks.Task, study: config.Config) -> None:
    found = task.provenance
    assert set(found["datasets"]) == {"taco", "primeintellect", "lcbv5", "livecodebench"}
    assert found["datasets"]["livecodebench"]["release"] == found["release"] == "release_v5"
    fewer = tasks.build(replace(study, code=replace(study.code, most_cases=1))).provenance["datasets"]
    changed = {name for name, one in fewer.items() if one["sha256"] != found["datasets"][name]["sha256"]}
    assert changed == {"taco", "primeintellect", "lcbv5"}
    overlap = task.overlap()
    assert overlap["source"].tolist() == ["livecodebench"] and overlap["exact"].item() > 0  # both add small numbers


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"start": "2030-01-01", "end": "none"},
            ConfigError,
            "release_v5 has no problem from code.start = '2030-01-01'",
        ),
        ({"folder": "/nowhere"}, DataError, "/nowhere/livecodebench has no file test.jsonl"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    study: config.Config, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tasks.build(replace(study, code=replace(study.code, **changes))).questions("held_out")  # type: ignore[arg-type]


def test_a_run_trains_a_chat_model_on_programs(study: config.Config, task: tasks.Task, tmp_path: Path) -> None:
    base_model.obtain(task, study.base_model, tmp_path / "base")
    run = experiment.train(study, "riskpo", 0, tmp_path / "base", tmp_path / "run")
    assert len(runs.read_records(run, "metrics")) == 2
    evaluations = runs.read_records(run, "evaluations")
    assert set(evaluations["difficulty"]) == {"livecodebench"}
    assert (evaluations["unparsed"] < evaluations["n"]).any()  # it has learned to answer with a fenced block
    manifest = runs.read_manifest(run)
    assert manifest and isinstance(task, Code)
    assert manifest["identity"]["data"]["datasets"]["taco"]["problems"] == 32
    assert manifest["sandbox"]["isolation"]["namespaces"] == task.sandbox.isolation.namespaces
