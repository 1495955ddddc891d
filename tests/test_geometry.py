"""Geometry: what is drawn, asked and judged; the base model that sees; published figures with Geometry3K's schema."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study import base_model, config, experiment, model_evaluation, tasks, vision, white_images
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.policy import Policy, Responses
from riskpo_study.tasks import geometry
from riskpo_study.tasks.geometry import SIZE, Geometry, final_number, render

SHIPPED = config.load(config.root() / "params.yaml")
TASK = Geometry(replace(SHIPPED.task, questions=20), replace(SHIPPED.geometry, quantities=(2, 3, 4)))


def problems(n: int = 400, seed: int = 0) -> list[geometry._Problem]:
    rng = random.Random(seed)
    drawn = (geometry._draw(rng.choice(SHIPPED.geometry.figures), rng.choice((2, 3, 4)), rng) for _ in range(2 * n))
    return [problem for problem in drawn if problem][:n]


def drawn(problem: geometry._Problem) -> np.ndarray:
    """The figure, (row, column), True where it is not white."""
    return np.asarray(render(problem).convert("L")) < 255


def labelled(problem: geometry._Problem, number: int) -> bool:
    """Whether the number stands in the middle of a cell."""
    sign = np.asarray(geometry._written(str(number), 2)) == 0
    height, width = sign.shape
    tops, lefts = (range(8 - side // 2, SIZE, 16) for side in sign.shape)
    black = np.asarray(render(problem).convert("L")) == 0
    places = (black[top : top + height, left : left + width] for top in tops for left in lefts)
    return any(np.array_equal(place, sign) for place in places)


def test_what_is_asked_can_be_read_off_the_figure() -> None:
    """Labels by their glyphs, bars by their height, marks by their shape: nothing but the pixels."""
    seen = Counter[str]()
    for problem in problems():
        seen[problem.figure] += 1
        if problem.figure == "bars":
            heights = [int(drawn(problem)[:56, 16 * i + 8].sum()) // geometry.UNIT for i in range(4)]
            assert tuple(heights) == problem.numbers
        elif problem.figure == "counting":
            shapes = [np.asarray(geometry._mark(kind)) == 0 for kind in range(4)]
            cells = drawn(problem).reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 8, 8)
            counts = [sum(np.array_equal(cell, shape) for cell in cells) for shape in shapes]
            assert tuple(counts) == problem.numbers
        else:
            assert all(labelled(problem, number) for number in problem.numbers)
    assert min(seen[figure] for figure in SHIPPED.geometry.figures) > 50


def test_equal_problems_look_alike_and_other_ones_do_not() -> None:
    some = {problem.name: problem for problem in problems(200)}
    pictures = {name: render(problem).tobytes() for name, problem in some.items()}
    assert pictures == {name: render(problem).tobytes() for name, problem in some.items()}
    of_figures = {(*problem.numbers, problem.figure): pictures[name] for name, problem in some.items()}
    assert len({*of_figures.values()}) == len(of_figures)
    assert all(len({*picture}) == 2 for picture in pictures.values())  # none is blank


def test_angles_are_drawn_to_scale() -> None:
    for problem in problems(600):
        if problem.figure == "angles" and len(problem.numbers) == 2:
            corners = np.array(geometry._corners(problem), dtype=float)
            for i, angle in enumerate([*problem.numbers, problem.answer]):
                one, other = corners[(i + 1) % 3] - corners[i], corners[(i + 2) % 3] - corners[i]
                cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                assert np.degrees(np.arccos(cosine)) == pytest.approx(angle, abs=5)  # corners are whole pixels


def test_every_demonstration_is_right_and_of_the_training_split() -> None:
    held_out = {_key(TASK.prompt(question)) for question in TASK.questions("held_out")}
    demonstrations = TASK.demonstrations(600, torch.Generator().manual_seed(0))
    for prompt, solution in demonstrations:
        assert _key(prompt) not in held_out
        parts = solution.split(" = ")
        assert final_number(solution) == Fraction(parts[-1])
        for left, right in pairwise(parts):  # each step adds up
            assert sum(map(int, left.replace(" - ", " + -").split(" + "))) == int(right.split(" ")[0])
    for problem in problems(100, seed=3):
        question, rng = geometry._question(problem), random.Random(0)
        ways = {geometry._solution(problem, rng) for _ in range(60)}
        assert len(ways) > 1 and {TASK.verify(question, way).reward for way in ways} == {1}


def _key(prompt: Any) -> tuple[bytes, str]:
    (message,) = prompt
    image, text = message["content"]
    assert image["image"].size == (SIZE, SIZE) and text["text"].endswith(".")
    return image["image"].tobytes(), text["text"]


def test_splits_are_disjoint_and_fixed() -> None:
    ids = {split: [question.id for question in TASK.questions(split)] for split in ("development", "held_out")}
    training = {question.id for question in TASK.sample(1000, torch.Generator().manual_seed(0))}
    assert len(training) == 1000
    for found in ids.values():
        assert len(set(found)) == 60 and not training & set(found)
    assert not set(ids["development"]) & set(ids["held_out"])
    fewer = Geometry(replace(SHIPPED.task, questions=5), TASK.config)
    kept = [question.id for level in range(3) for question in TASK.questions("held_out")[20 * level :][:5]]
    assert [question.id for question in fewer.questions("held_out")] == kept
    assert TASK.difficulties == ["2 quantities", "3 quantities", "4 quantities"]
    levels = [level for level in TASK.difficulties for _ in range(5)]
    assert [question.difficulty for question in fewer.questions("held_out")] == levels


def test_guessing_without_the_figure_hardly_helps() -> None:
    """The best guess for each text of a question, and a guess drawn as the answers are distributed."""
    asked: dict[str, Counter[int]] = {}
    for problem in problems(5000):
        asked.setdefault(problem.text, Counter())[problem.answer] += 1
    total = sum(counts.total() for counts in asked.values())
    assert sum(max(counts.values()) for counts in asked.values()) / total < 0.15
    assert sum(n * n / counts.total() for counts in asked.values() for n in counts.values()) / total < 0.1


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("12 + 7 = 19", 19), ("19", 19), ("19.", 19), (" 19 ", 19), ("= 19", 19), ("x = 19°", 19), ("$19$", 19),
        ("19.0", 19), ("38/2", 19), ("2 = 3 = 19", 19), ("-5", -5), ("0.5", Fraction(1, 2)), (".5", Fraction(1, 2)),
        ("12 + 7", None), ("", None), ("=", None), ("19 =", None), ("1/0", None), ("A", None), ("1.2.3", None),
        ("1 3", None), ("١٩", None), ("9" * 257, None), ("9" * 256, int("9" * 256)),
    ],
)  # fmt: skip
def test_the_final_number_counts_in_any_notation(response: str, number: Fraction | None) -> None:
    assert final_number(response) == number


@given(st.text() | st.text("0123456789+-*/=. eE_°$\n"))
def test_verifying_never_raises(response: str) -> None:
    question = geometry._question(problems(1)[0])
    verdict = TASK.verify(question, response)
    assert verdict.reward in (0, 1) and (verdict.answer is not None or verdict.reward == 0)


def test_answers_that_mean_the_same_are_one() -> None:
    question = geometry._question(problems(1)[0])
    right = question.payload["answer"]
    texts = [f"{right}", f"1 + 2 = {right}.", f"{2 * right}/2", f"{right}.0"]
    verdicts = [TASK.verify(question, text) for text in texts]
    assert {(verdict.reward, verdict.answer) for verdict in verdicts} == {(1, str(right))}
    assert TASK.verify(question, f"{right} = {right + 1}").reward == 0


def test_the_tokenizer_spells_every_prompt_and_solution() -> None:
    tokenizer = TASK.build_tokenizer()
    for prompt, solution in TASK.demonstrations(300, torch.Generator().manual_seed(0)):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.convert_ids_to_tokens(ids)[:3] == ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
        assert tokenizer.decode(tokenizer(solution)["input_ids"]) == solution


def test_too_few_problems_are_an_error_that_says_so() -> None:
    figures = replace(SHIPPED.geometry, figures=("angles",), quantities=(2,))
    task = Geometry(replace(SHIPPED.task, questions=900), figures)
    with pytest.raises(ConfigError, match=r"about \d+ held_out problems of angles with 2 quantities, of 900 wanted"):
        task.questions("held_out")


# The base model

MODEL = replace(
    SHIPPED.base_model, layers=1, width=32, heads=2, kv_heads=1, mlp_width=32, vision_layers=1, vision_width=16,
    vision_mlp_width=16, difficulties=(2,), steps=2, batch_size=16,
)  # fmt: skip
STUDY = replace(
    SHIPPED,
    profile="test",
    task=replace(SHIPPED.task, name="geometry", questions=3),
    geometry=replace(SHIPPED.geometry, quantities=(2, 3)),
    base_model=MODEL,
    train=replace(
        SHIPPED.train, steps=2, questions=10, responses=4, micro_batch=5, max_new_tokens=6, checkpoint_every=1,
        evaluate_every=2, snapshot_every=2, curve_questions=2, curve_samples=4,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    return base_model.pretrain(TASK, MODEL, folder, progress=False), folder


def test_the_base_model_sees_and_repeats_to_the_byte(trained, tmp_path):
    loss, folder = trained
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert base_model.pretrain(TASK, MODEL, tmp_path / "again", progress=False).equals(loss)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    policy = Policy.load(folder)
    assert type(policy.model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
    before = dict(base_model.build_model(MODEL, policy.tokenizer).named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_the_base_model_is_taught_the_likelihood_that_the_policy_gives(trained):
    policy = Policy.load(trained[1])
    sequences = base_model.tokenize(policy, TASK.demonstrations(20, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        taught = sum(base_model.response_loss(policy.model, *chunk) for chunk in base_model.chunks(sequences))
        longest = max(len(response) for _, response in sequences)
        tokens = torch.tensor([[response + [0] * (longest - len(response))] for _, response in sequences])
        lengths = torch.tensor([[len(response)] for _, response in sequences])
        scored = policy.score(Responses(tuple(prompt for prompt, _ in sequences), tokens, lengths))
    assert taught.item() == pytest.approx(-scored.log_probs.sum().item(), rel=1e-5)


def test_figures_keep_their_size_for_the_model(trained):
    policy = Policy.load(trained[1])
    (prompt,) = policy.encode([TASK.prompt(TASK.questions("development")[0])])
    assert isinstance(prompt, vision.EncodedPrompt) and len(prompt.features.columns) == (SIZE // 8 // 2) ** 2
    assert prompt.features.pixel_values.unique().tolist() == [-1, 0]  # black and white


def test_white_images_leave_the_words_alone(trained, tmp_path):
    questions = TASK.questions("development")[:4]
    unseen = model_evaluation.Unseen(TASK)
    for question in questions:
        (shown,), (white,) = TASK.prompt(question), unseen.prompt(question)
        assert white["content"][1] == shown["content"][1] and white["role"] == shown["role"]
        image = white["content"][0]["image"]
        assert image.size == (SIZE, SIZE) and image.getcolors() == [(SIZE**2, (255, 255, 255))]
    assert unseen.verify(questions[0], str(questions[0].payload["answer"])).reward == 1
    text = tasks.build(SHIPPED)
    worded = text.questions("development")[0]
    assert model_evaluation.Unseen(text).prompt(worded) == worded.prompt
    seen, blind = (model_evaluation.respond(STUDY, trained[1], task, questions, 8, 0) for task in (TASK, unseen))
    assert list(seen["question_id"]) == list(blind["question_id"])
    assert not np.allclose(seen["log_prob"], blind["log_prob"])


def test_a_run_from_the_base_model_is_trained_and_evaluated(trained, tmp_path):
    run = experiment.train(STUDY, "riskpo", 0, trained[1], tmp_path / "run")
    saved = run / "snapshots" / "step-000002"
    counted = model_evaluation.evaluate(
        replace(STUDY, evaluation=replace(STUDY.evaluation, samples=4, ks=(1, 4), resamples=20)),
        {2: saved},
        tmp_path,
        0,
    )
    assert list(counted["difficulty"]) == ["2 quantities"] * 3 + ["3 quantities"] * 3
    before, after = (dict(Policy.load(folder).model.named_parameters()) for folder in (trained[1], saved))
    assert set(before) == set(after)


def test_the_ablation_sets_white_images_beside_the_others(trained, tmp_path, monkeypatch):
    study = replace(STUDY, evaluation=replace(STUDY.evaluation, samples=8, ks=(1, 8)))
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(study.as_dict()))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained[1], STUDY.results / "base_model")
    with pytest.raises(DataError, match="evaluate_base"):
        white_images.ask(study)
    model_evaluation.evaluate(study, {0: study.results / "base_model"}, study.results / "base", 0)
    found = white_images.ask(study)
    assert list(found["images"].unique()) == ["as they are", "white"]
    assert white_images.main([]) == 0
    written = pd.read_csv(study.results / "tables" / "01_base_model" / "white_images.csv")
    pd.testing.assert_frame_equal(written, found, rtol=1e-5, check_dtype=False)


def test_a_task_without_images_has_nothing_to_ask_with_white_ones():
    with pytest.raises(ConfigError, match="task.name = 'countdown': no question has an image .* to \\[\\]"):
        white_images.ask(SHIPPED)
