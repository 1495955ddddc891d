"""Datasets: gold answers, one schema from hub and local copies, errors that name the row, contamination."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import hub
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from riskpo_study.datasets import (
    DATASETS,
    INSTRUCTIONS,
    Question,
    illustrated,
    load,
    messages,
    overlap,
    overlap_by_source,
)
from riskpo_study.datasets.gold_answers import after_hashes, canonical, last_boxed, listed
from riskpo_study.datasets.prompts import IMAGE
from riskpo_study.datasets.rows import rows
from riskpo_study.datasets.stand_ins import write
from riskpo_study.errors import ConfigError, DataError

REAL = Path(__file__).parents[2] / "shared" / "data"
COMMIT = "c" * 40


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand_ins")
    write(folder)
    return folder


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    if (file := folder / f"{name}.parquet").exists():
        return pq.read_table(file).to_pylist()
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def saved(folder: Path, name: str, rows: list[Any]) -> Path:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# Gold answers


@pytest.mark.parametrize(
    ("published", "gold"),
    [
        (27.0, "27"), (-1.0, "-1"), (0.5, "0.5"), (3, "3"), ("27.0", "27"), ("025", "25"), ("000", "0"), ("-0", "0"),
        ("$27$", "27"), (" 57,500 ", "57500"), ("10{,}000", "10000"), (r"1,\!234,\!567.25", "1234567.25"),
        ("4.5e33", r"4.5 \times 10^{33}"), ("2.26E-10", r"2.26 \times 10^{-10}"), (1e-5, r"1 \times 10^{-5}"),
        (1e20, "100000000000000000000"), ("np.arcsin(10/13)", r"\arcsin(10/13)"), (r"$\frac{1}{2}$", r"\frac{1}{2}"),
        ("$1$,$-2$", "1, -2"), ("-2,-1,1,2", "-2,-1,1,2"), (r"\$18.90", r"\$18.90"), ("12,34", "12,34"),
        ("1234,567", "1234,567"), (r"\text{Evelyn}", r"\text{Evelyn}"), ("", ""), (" $$ ", ""),
    ],
)  # fmt: skip
def test_canonical_spelling(published: Any, gold: str) -> None:
    assert canonical(published) == gold


@given(st.integers(-(10**12), 10**12))
def test_every_spelling_of_an_integer_is_one(value: int) -> None:
    spellings = [value, float(value), f"{value}.0", f"${value}$", f"{value:,}", f"{value:,}".replace(",", "{,}")]
    assert {canonical(spelling) for spelling in spellings} == {str(value)}


@given(st.one_of(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.text("0123456789,.eE+-$ ")))
def test_canonical_is_final(published: Any) -> None:
    assert canonical(canonical(published)) == canonical(published)


@pytest.mark.parametrize("published", [None, True, [1], {"a": 1}, float("nan"), float("inf")])
def test_what_is_no_answer_is_refused(published: Any) -> None:
    with pytest.raises(ValueError, match="is neither text nor a number|is no finite number"):
        canonical(published)


def test_numbers_mean_the_same_to_the_checker() -> None:
    """A LaTeX parser reads `4.5e33` as 4.5 · e · 33; the canonical spelling is the number."""
    math_verify = pytest.importorskip("math_verify")
    for published, value in (("4.5e33", 4.5e33), ("2.26e-10", 2.26e-10), ("57,500", 57500), ("025", 25), (27.0, 27)):
        parsed = math_verify.parse(f"${canonical(published)}$", parsing_timeout=None)
        assert float(parsed[0]) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so $\boxed{\frac{3}{8}}$.", r"\frac{3}{8}"),
        (r"first $\boxed{1}$, then $\boxed{2}$", "2"),
        (r"\fbox{7} or \boxed{x} then \fbox{8}", "8"),
        (r"it is $\boxed 5$. Done", "5"),
        (r"$\boxed {12}$", "12"),
        (r"\boxed{\left\{1, 2\right.}", r"\left\{1, 2\right."),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxedtext{3} \boxed{1,\!000}", "1000"),
        (r"there are $\boxed{}$", ""),
    ],
)
def test_last_boxed(solution: str, gold: str) -> None:
    assert last_boxed(solution) == gold


BALANCED = st.recursive(
    st.text("abcxyz+-^_ \\", max_size=5).map(lambda text: text.replace("\\", r"\pi ")),
    lambda inner: st.lists(inner.map(lambda text: f"{{{text}}}"), max_size=3).map("".join),
)


@given(BALANCED, BALANCED)
def test_last_boxed_undoes_boxing(before: str, answer: str) -> None:
    assert last_boxed(rf"{before} \boxed{{1}} and \boxed{{q{answer}}}. {before}") == f"q{answer}".strip()


@pytest.mark.parametrize(
    ("solution", "reason"),
    [("no box", "has no"), (3.0, "has no"), (None, "has no"), (r"\boxed{1} \boxed{\frac{1}{2}", "is not closed")],
)
def test_solutions_without_a_box_are_refused(solution: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        last_boxed(solution)


def test_an_unclosed_box_of_a_megabyte_takes_no_time() -> None:
    with pytest.raises(ValueError, match="is not closed"):
        last_boxed(r"\boxed" + "{" * 1_000_000)


@given(st.integers(-(10**9), 10**9), st.text())
def test_after_hashes(value: int, working: str) -> None:
    assert after_hashes(f"{working} #### 1\n#### {value:,}") == str(value)


def test_solution_without_hashes_is_refused() -> None:
    with pytest.raises(ValueError, match="has no '####'"):
        after_hashes("the answer is 5")


def test_lists_of_answers_are_joined() -> None:
    assert (listed(["2"]), listed(["$1$", 2.0]), listed("$3$"), listed([])) == ("2", "1, 2", "3", "")


# Prompts


def test_messages_are_what_a_chat_template_takes() -> None:
    boxed = messages("What is $1 + 1$?", "boxed")
    assert boxed == [
        {
            "role": "user",
            "content": "What is $1 + 1$?\nPlease reason step by step, and put your final answer within \\boxed{}.",
        }
    ]
    dapo = messages("What is $1 + 1$?", "dapo")[0]["content"]
    assert dapo.startswith("Solve the following math problem step by step. The last line of your response should be of")
    assert dapo.endswith('\n\nWhat is $1 + 1$?\n\nRemember to put your answer on its own line after "Answer:".')
    with pytest.raises(ConfigError, match="instruction = 'cot' is unknown; choose one of: boxed, dapo, think."):
        messages("", "cot")


@given(st.text(), st.sampled_from(sorted(INSTRUCTIONS)))
def test_the_bare_question_is_what_was_wrapped(question: str, instruction: str) -> None:
    asked = INSTRUCTIONS[instruction]
    assert asked.unwrap(asked.wrap(question.strip())) == question.strip()
    assert asked.unwrap(question) == question.strip()


# One schema


@pytest.mark.parametrize("name", DATASETS)
def test_local_copies_of_every_schema(stand_ins: Path, name: str) -> None:
    loaded = load(name, folder=stand_ins)
    assert len(loaded.questions) >= (60 if DATASETS[name].role == "training" else 6)
    assert len({question.question_id for question in loaded.questions}) == len(loaded.questions)
    for question in loaded.questions:
        assert question.source == name and question.question_id.startswith(f"{name}/")
        assert question.question == question.question.strip() != "" and question.answer
    counted = [q for q in loaded.questions if q.question.removeprefix(IMAGE).startswith("A box")]
    assert len(counted) >= 8
    for question in counted:  # the answer is that of the question, recomputed from its words
        first, *changes = re.findall(r"(\d+)\$?(?: (are taken out))?", question.question)
        assert int(question.answer) == int(first[0]) + sum(-int(n) if out else int(n) for n, out in changes)
    with_level = name.startswith("math_")
    assert {type(question.difficulty) for question in counted} == {int if with_level else type(None)}
    origin = {key: loaded.provenance[key] for key in ("name", "repository", "revision", "commit", "questions")}
    assert origin == {
        "name": name, "repository": DATASETS[name].repository, "revision": None, "commit": None,
        "questions": len(loaded.questions),
    }  # fmt: skip
    assert json.loads(json.dumps(loaded.provenance)) == loaded.provenance


def test_what_is_peculiar_to_each_schema(stand_ins: Path) -> None:
    def last(name: str, back: int = 1) -> tuple[str, str, int | None]:
        question = load(name, folder=stand_ins).questions[-back]
        return question.question, question.answer, question.difficulty

    assert last("math_test") == ("Which numbers are their own squares?", r"\left\{0, 1\right\}", None)
    assert last("math_test", 2) == ("What is $2 + 3$?", "5", 1)
    assert last("math_500") == (r"Halve $\frac{3}{4}$.", r"\frac{3}{8}", 2)
    assert last("gsm8k_test")[1] == "1400"
    assert last("minerva_math")[1] == r"4 \times 10^{9}"
    assert last("olympiad_bench") == ("Let $x$ be a digit.\n\nWhen is $x^2 = x$?", "0, 1", None)
    assert last("amc_2023")[1].isdigit()
    assert load("math_500", folder=stand_ins).questions[0].question_id == "math_500/test/prealgebra/0.json"
    assert load("gsm8k_test", folder=stand_ins).questions[0].question_id == "gsm8k_test/0"


def test_both_forms_of_minerva(stand_ins: Path, tmp_path: Path) -> None:
    published = rows_of(stand_ins, "minerva_math")
    other = [
        {"problem": row["question"], "solution": rf"It is \boxed{{{row['answer']}}} m.", "type": "", "idx": index}
        for index, row in enumerate(published)
    ]
    loaded = load("minerva_math", folder=saved(tmp_path, "minerva_math", other))
    assert loaded.questions == load("minerva_math", folder=stand_ins).questions


@pytest.mark.parametrize("name", ["dapo_math_17k", "olympiad_bench", "amc_2023"])
def test_jsonl_and_parquet_give_the_same(stand_ins: Path, tmp_path: Path, name: str) -> None:
    rows = rows_of(stand_ins, name)
    jsonl = load(name, folder=saved(tmp_path, name, rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=f"has both {name}.jsonl and {name}.parquet"):
        load(name, folder=tmp_path)
    (tmp_path / f"{name}.jsonl").unlink()
    parquet = load(name, folder=tmp_path)
    assert parquet.questions == jsonl.questions
    assert parquet.provenance == jsonl.provenance | {"file": f"{name}.parquet"}


def test_numbers_and_texts_may_be_mixed(tmp_path: Path) -> None:
    """The JSON builder of `datasets` makes the texts '27.0' and '"1/2"' of these answers."""
    rows = [{"id": 0, "question": "a", "answer": 27.0}, {"id": 1, "question": "b", "answer": "1/2"}]
    assert [q.answer for q in load("amc_2023", folder=saved(tmp_path, "amc_2023", rows)).questions] == ["27", "1/2"]


def test_the_hash_is_of_the_content_alone(stand_ins: Path, tmp_path: Path) -> None:
    rows = rows_of(stand_ins, "aime_2025")

    def sha256(changed: list[dict[str, Any]]) -> str:
        return load("aime_2025", folder=saved(tmp_path, "aime_2025", changed)).provenance["sha256"]

    first, *others = rows
    digest = sha256(rows)
    assert digest == sha256([{**row, "answer": float(row["answer"]), "note": 1} for row in rows])
    for changed in ({"answer": "0"}, {"problem": "Why?"}, {"id": "x"}):
        assert sha256([{**first, **changed}, *others]) != digest
    assert sha256([*others, first]) != digest


def test_nothing_is_left_beside_local_copies(stand_ins: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stand_ins, tmp_path / "copies")
    before = sorted(folder.iterdir())
    load("olympiad_bench", folder=folder)
    load("aime_2024", folder=folder)
    assert sorted(folder.iterdir()) == before


# Images


def test_a_question_with_images_is_a_message_of_parts(stand_ins: Path) -> None:
    question = load("geometry3k_test", folder=stand_ins).questions[0]
    (message,) = illustrated(messages(question.question, "think"), question.images)
    image, text = message["content"]
    assert message["role"] == "user" and image["type"] == "image" and image["image"].mode == "RGB"
    assert image["image"].height == 56 and len(image["image"].getcolors()) == 2
    words = question.question.removeprefix(IMAGE)
    assert text["type"] == "text" and text["text"].startswith(f"{words} You FIRST think about the reasoning process")
    assert text["text"].endswith("The final answer MUST BE put in \\boxed{}.")
    (between,) = illustrated([{"role": "user", "content": f"a{IMAGE}b{IMAGE}"}], question.images * 2)
    assert [part["type"] for part in between["content"]] == ["text", "image", "text", "image"]


def cut_off() -> bytes:
    """The first half of an image's file."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 100).save(file, "PNG")
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "row 3 (id geometry3k_test/2): field 'images' is missing, not a list of images."),
        ({"images": []}, "field 'images' is [], not a list of images."),
        ({"images": [{"bytes": None, "path": "a.png"}]}, "field 'images' is missing, not the bytes of an image."),
        ({"images": [{"bytes": b"GIF89a", "path": None}]}, "field 'images' holds no image that can be read (cannot"),
        ({"images": [{"bytes": cut_off(), "path": None}]}, "field 'images' holds no image that can be read (image"),
        ({"problem": "Find x."}, "field 'images' has 1 images, and the question 0 <image>."),
    ],
)
def test_a_row_without_its_images_is_named(
    stand_ins: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = rows_of(stand_ins, "geometry3k_test")
    rows[2] = {**rows[2], **change}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "geometry3k_test.parquet")
    with pytest.raises(DataError, match=re.escape(message)):
        load("geometry3k_test", folder=tmp_path)


def test_the_hash_is_of_the_images_too(stand_ins: Path, tmp_path: Path) -> None:
    rows = rows_of(stand_ins, "geometry3k_test")
    rows[0]["images"], rows[1]["images"] = rows[1]["images"], rows[0]["images"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "geometry3k_test.parquet")
    swapped, published = (load("geometry3k_test", folder=folder) for folder in (tmp_path, stand_ins))
    assert swapped.provenance["sha256"] != published.provenance["sha256"]
    assert overlap(published.questions, published.questions)["exact"].all()
    assert overlap(published.questions, swapped.questions)["exact"].tolist()[:2] == [False, False]


# Rows that do not fit


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("aime_2024", {"problem": None}, "row 3 (id aime_2024/62): field 'problem' is missing, not a question."),
        ("aime_2024", {"problem": "  "}, "field 'problem' is '  ', not a question."),
        ("aime_2024", {"problem": 7}, "field 'problem' is 7, not a question."),
        ("aime_2024", {"answer": None}, "row 3 (id aime_2024/62): field 'answer' is missing, not an answer."),
        ("aime_2024", {"answer": ""}, "field 'answer' holds an empty answer: ''."),
        ("amc_2023", {"answer": float("nan")}, "row 3 (id amc_2023/2): field 'answer' is no finite number: nan."),
        ("amc_2023", {"answer": [1]}, "field 'answer' is neither text nor a number: [1]."),
        ("gsm8k_test", {"answer": "5"}, "gsm8k_test: row 3 (id gsm8k_test/2): field 'answer' has no '####' before"),
        ("math_test", {"solution": "5"}, r"row 3 (id math_test/2): field 'solution' has no \boxed{} with the answer."),
        ("math_test", {"solution": r"$\boxed{}$"}, r"field 'solution' holds an empty answer: '$\\boxed{}$'."),
        ("math_test", {"level": "Level 6"}, "field 'level' is 'Level 6', not a level from 1 to 5."),
        ("math_500", {"level": "hard"}, "row 3 (id math_500/test/prealgebra/2.json): field 'level' is 'hard', not"),
        ("olympiad_bench", {"final_answer": []}, "row 3 (id olympiad_bench/1602): field 'final_answer' holds an empty"),
        ("olympiad_bench", {"final_answer": [["1"]]}, "field 'final_answer' is neither text nor a number: ['1']."),
        ("math_test", {"solution": r"$\boxed{\text{---}}$"}, "field 'solution' is of no use: The gold"),
        ("math_test", {"solution": r"$\boxed \frac{1$"}, r"The gold answer '\\frac{1' cannot be read"),
        ("aime_2024", {"answer": "1" * 1001}, "field 'answer' is of no use: The gold answer '111"),
        ("aime_2024", {"answer": "1\0"}, "The gold answer '1\\x00' cannot be read"),
        ("aime_2024", {"answer": "a\ud800b"}, "The gold answer 'a\\ud800b' cannot be read"),
        ("aime_2024", {"problem": "a\ud800b"}, "field 'problem' has half a surrogate pair: 'a\\ud800b'."),
        ("gsm8k_test", {"answer": "#### 7 2"}, "field 'answer' has more than a number after '####': '7 2'."),
        ("olympiad_bench", {"final_answer": ["1", ""]}, "has an empty answer among several: ['1', '']."),
        (
            "dapo_math_17k",
            {"prompt": [{"role": "user", "content": INSTRUCTIONS["dapo"].wrap("")}]},
            "row 3 (id dapo_math_17k/",
        ),
        ("dapo_math_17k", {"prompt": []}, "field 'prompt.-1.content' is missing, not a question."),
        ("dapo_math_17k", {"reward_model": None}, "field 'reward_model.ground_truth' is missing, not an answer."),
        ("dapo_math_17k", {"reward_model": {"ground_truth": ""}}, "'reward_model.ground_truth' holds an empty answer"),
        ("aime_2024", {"id": 61}, "row 3 (id aime_2024/61): field 'id' is that of row 2, too."),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(
    stand_ins: Path, tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    rows = rows_of(stand_ins, name)
    rows[2] = {**rows[2], **change}
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(name, folder=saved(tmp_path, name, rows))
    assert str(caught.value).startswith(f"{name}: row 3 (id {name}/") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("aime_2024", []), ("math_train", [{"problem": str(n), "solution": r"\boxed{}"} for n in range(2)])],
)
def test_a_file_without_a_question_is_refused(tmp_path: Path, name: str, rows: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match=f"{name}: {len(rows)} rows gave no question: the file is empty or cut off"):
        load(name, folder=saved(tmp_path, name, rows))


def test_blank_lines_a_byte_order_mark_and_a_name_of_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "aime_2025.jsonl").write_text('\ufeff{"problem": "a", "answer": "1", "id": 7}\n\n', encoding="utf-8")
    (question,) = load("aime_2025", folder=str(tmp_path)).questions
    assert (question.question_id, question.answer) == ("aime_2025/7", "1")


def test_the_question_comes_after_the_turn_of_the_system(stand_ins: Path, tmp_path: Path) -> None:
    rows = rows_of(stand_ins, "dapo_math_17k")
    system = {"role": "system", "content": "Be brief."}
    changed = [{**row, "prompt": [system, *row["prompt"]]} for row in rows]
    folder = saved(tmp_path, "dapo_math_17k", changed)
    assert load("dapo_math_17k", folder=folder).questions == load("dapo_math_17k", folder=stand_ins).questions


def test_as_many_rows_may_lack_an_answer_as_are_known(stand_ins: Path, tmp_path: Path) -> None:
    """Two of MATH's training solutions have an empty box; the stand-in has one, and a third is an error."""
    rows = rows_of(stand_ins, "math_train")
    for index in (5, 9):
        rows[index]["solution"] = r"It is $\boxed{}$."
        folder = saved(tmp_path, "math_train", rows)
        if index == 5:
            loaded = load("math_train", folder=folder)
            assert (loaded.provenance["rows"], loaded.provenance["questions"]) == (len(rows), len(rows) - 2)
            left_out = "rows with an empty answer, left out: math_train/5, math_train/67"
            assert loaded.provenance["remarks"] == [left_out]
            assert "math_train/5" not in {question.question_id for question in loaded.questions}
    with pytest.raises(DataError, match=r"row 68 \(id math_train/67\): field 'solution' holds an empty answer"):
        load("math_train", folder=folder)


def test_repeated_questions_are_one_and_contradictory_ones_none(stand_ins: Path) -> None:
    rows = rows_of(stand_ins, "dapo_math_17k")
    loaded = load("dapo_math_17k", folder=stand_ins)
    texts = [INSTRUCTIONS["dapo"].unwrap(row["prompt"][0]["content"]) for row in rows]
    once = dict.fromkeys(text for text in texts if "banana" not in text)
    assert [question.question for question in loaded.questions] == list(once)
    assert (loaded.provenance["rows"], loaded.provenance["questions"]) == (3 * (len(once) + 2), len(once))
    (remark,) = loaded.provenance["remarks"]
    assert remark == (
        "questions with different answers, left out: 1, the first being "
        "dapo_math_17k/00000000-0000-4000-8000-000000000064 with 3 and 2"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"problem": "a", "answer": "1"}\n{"problem": \n', r"cannot be read after 1 rows \(Expecting value"),
        (
            '{"problem": "a", "answer": "1"}\n[1, 2]\n',
            r"cannot be read after 1 rows \('\[1, 2\]\\n' is no JSON object\): get it again\.",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "aime_2025.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=f"aime_2025: {file} {message}"):
        load("aime_2025", folder=tmp_path)


def test_of_several_files_the_damaged_one_is_named(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "0.jsonl", tmp_path / "1.jsonl"
    whole.write_text('{"a": 1}\n{"a": "1"}\n')
    damaged.write_text('{"a": 2}\n{"a":')
    found = rows("some", [whole, damaged], 10)
    assert [next(found) for _ in range(3)] == [{"a": 1}, {"a": "1"}, {"a": 2}]
    with pytest.raises(DataError, match=f"some: {damaged} cannot be read after 1 rows"):
        next(found)


def test_damaged_parquet_is_named(stand_ins: Path, tmp_path: Path) -> None:
    file = tmp_path / "olympiad_bench.parquet"
    file.write_bytes((stand_ins / file.name).read_bytes()[:-50])
    with pytest.raises(DataError, match=f"olympiad_bench: {file} cannot be read after 0 rows "):
        load("olympiad_bench", folder=tmp_path)


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataset 'aime' is unknown; choose one of: dapo_math_17k, math_train,"):
        load("aime")
    with pytest.raises(ConfigError, match="aime_2024: revision = 'main' is of the hub; a local copy"):
        load("aime_2024", revision="main", folder=tmp_path)
    with pytest.raises(DataError, match="has neither aime_2024.jsonl nor aime_2024.parquet"):
        load("aime_2024", folder=tmp_path)


# The hub


def in_new_process(requests: list[dict[str, Any]], setup: str = "", **environment: str) -> tuple[list[Any], str]:
    """What `load` gives for each request: [provenance, questions], or the error; the other is stderr."""
    script = f"""
import json, sys
from dataclasses import astuple, replace
from riskpo_study.datasets import DATASETS, hub, load
{setup}
for request in json.loads(sys.argv[1]):
    try:
        loaded = load(**request)
        print(json.dumps([loaded.provenance, [astuple(question) for question in loaded.questions]], default=bytes.hex))
    except Exception as error:
        print(json.dumps(f"{{type(error).__name__}}: {{error}}"))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(requests)],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def plain(questions: tuple[Question, ...]) -> list[Any]:
    """As they come out of the other process."""
    found: list[Any] = json.loads(json.dumps([astuple(question) for question in questions], default=bytes.hex))
    return found


# What the library `datasets` writes beside the rows of Geometry3K.
FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "problem": {"dtype": "string", "_type": "Value"},
    "answer": {"dtype": "string", "_type": "Value"},
}


@pytest.fixture(scope="module")
def repositories(stand_ins: Path) -> dict[str, dict[str, bytes]]:
    """The stand-ins as the hub has them: file names and formats of the registry, and some files nobody wants."""
    found: dict[str, dict[str, bytes]] = {}
    for name, source in DATASETS.items():
        rows, file = rows_of(stand_ins, name), io.BytesIO()
        if source.files.endswith(".jsonl"):
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        else:
            table = pa.Table.from_pylist(rows)
            if source.images:
                table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
            pq.write_table(table, file)
        repository = found.setdefault(source.repository, {"README.md": b"---\n---\n", "images.zip": b"large"})
        repository[source.files.replace("*", "0000")] = file.getvalue()
    return found


def test_download_then_offline(repositories: dict[str, dict[str, bytes]], stand_ins: Path, tmp_path: Path) -> None:
    newest = [{"name": name, "revision": "main"} for name in DATASETS]
    short = DATASETS["aime_2025"].commit
    pinned = "DATASETS['aime_2024'] = replace(DATASETS['aime_2024'], commit='c' * 40, rows=8, questions=8)"
    requests = [*newest, {"name": "aime_2024"}, {"name": "aime_2025"}, {"name": "math_500", "revision": "v9"}]
    with hub(repositories, {"main": COMMIT, COMMIT: COMMIT, short: short}) as address:
        online, warned = in_new_process(requests, setup=pinned, HF_HOME=str(tmp_path), HF_ENDPOINT=address)
    for name, (provenance, questions) in zip(DATASETS, online, strict=False):
        local = load(name, folder=stand_ins)
        assert questions == plain(local.questions)
        assert provenance["sha256"] == local.provenance["sha256"]
        assert (provenance["revision"], provenance["commit"], provenance["file"]) == ("main", COMMIT, None)
        if name != "aime_2024":
            source = DATASETS[name]
            remark = f"{source.rows} and {source.questions} were expected"
            assert (
                remark in provenance["remarks"][-1] and f"UserWarning: {name}: {provenance['remarks'][-1]}." in warned
            )
    at_commit, incomplete, unknown = online[len(DATASETS) :]
    assert at_commit[0] | {"revision": "main"} == online[list(DATASETS).index("aime_2024")][0]
    assert (at_commit[0]["revision"], at_commit[0]["remarks"]) == (COMMIT, [])
    assert incomplete == (
        f"DataError: aime_2025: 8 rows gave 8 questions; 30 and 30 were expected of commit {short}: the download is "
        "not complete; delete it and load again."
    )
    assert unknown.startswith(
        "DataError: math_500: HuggingFaceH4/MATH-500 at revision v9 is not in the Hugging Face cache and cannot be "
        "downloaded (RevisionNotFoundError: "
    )
    cached = {file.name for file in tmp_path.rglob("*") if file.is_symlink()}
    assert len(cached) > 3 and not cached & {"README.md", "images.zip"}

    offline, _ = in_new_process(requests, setup=pinned, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert offline[: len(DATASETS) + 2] == online[: len(DATASETS) + 2]


def test_offline_and_not_there(tmp_path: Path) -> None:
    (answer,), _ = in_new_process([{"name": "gsm8k_test"}], HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    commit = DATASETS["gsm8k_test"].commit
    assert re.fullmatch(
        rf"DataError: gsm8k_test: openai/gsm8k at revision {commit} is not in the Hugging Face cache and cannot be "
        r"downloaded \(OfflineModeIsEnabled: .*HF_HUB_OFFLINE.*\). Where the hub can be reached: hf download "
        rf"--repo-type dataset openai/gsm8k --revision {commit} --include 'main/test-\*.parquet'; or name a folder "
        r"with a local copy.",
        answer,
    )


def test_a_cache_laid_out_by_hand(stand_ins: Path, tmp_path: Path) -> None:
    """As huggingface_hub lays it out: refs name the commit, snapshots link to blobs whose names say nothing."""
    repository = tmp_path / "hub" / "datasets--openai--gsm8k"
    snapshot = repository / "snapshots" / COMMIT / "main"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    pq.write_table(pa.Table.from_pylist(rows_of(stand_ins, "gsm8k_train")), repository / "blobs" / "0a1b")
    (snapshot / "train-00000-of-00001.parquet").symlink_to("../../../blobs/0a1b")
    requests = [{"name": "gsm8k_train", "revision": "main"}, {"name": "gsm8k_train", "revision": COMMIT},
                {"name": "gsm8k_test", "revision": "main"}]  # fmt: skip
    found, _ = in_new_process(requests, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    for (provenance, questions), revision in zip(found[:2], ("main", COMMIT), strict=True):
        assert (provenance["revision"], provenance["commit"]) == (revision, COMMIT)
        assert questions == plain(load("gsm8k_train", folder=stand_ins).questions)
    assert found[2].startswith("DataError: gsm8k_test: openai/gsm8k at revision main is not in the Hugging Face cache")


def test_no_network_does_not_hang(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        silent_port = silent.getsockname()[1]
        requests = [{"name": "aime_2025"}, {"name": "aime_2025", "revision": "main"}]
        address = f"http://127.0.0.1:{silent_port}"
        timed_out, _ = in_new_process(requests, "hub.PATIENCE = 0.3", HF_HOME=str(tmp_path), HF_ENDPOINT=address)
    refused, _ = in_new_process(requests, HF_HOME=str(tmp_path), HF_ENDPOINT=address)
    for answer in (*timed_out, *refused):
        assert answer.startswith("DataError: aime_2025: math-ai/aime25 at revision ")
        assert "hf download --repo-type dataset math-ai/aime25 --revision" in answer and "\n" not in answer


def test_every_source_is_pinned() -> None:
    for name, source in DATASETS.items():
        assert re.fullmatch("[0-9a-f]{40}", source.commit), name
        assert 0 < source.questions <= source.rows


# Contamination


def asked(text: str, question_id: str = "t/0", source: str = "t") -> Question:
    return Question(question_id, text, "1", source)


WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def test_overlap_exact_and_in_runs() -> None:
    training = [
        asked(f"First. {WORDS} and more"),
        asked(r"Find $x$ if $x+1=2$.", "t/1"),
        asked(f"Other words: {WORDS[:60]} something else here", "t/2"),
    ]
    evaluation = [
        asked(f"{WORDS} elephants", "e/0", "e"),
        asked(r"find  x if $x + 1 = 2$.", "e/1", "e"),
        asked(r"Find $x$ if $x-1=2$.", "e/2", "e"),
        asked(f"{WORDS.upper()}", "e/3", "e"),
        asked(" ".join(WORDS.split()[:12]), "f/0", "f"),
    ]
    found = overlap(training, evaluation)
    assert found["question_id"].tolist() == ["e/0", "e/1", "e/2", "e/3", "f/0"]
    assert found["exact"].tolist() == [False, True, False, False, False]
    assert found["runs"].tolist() == [4, 0, 0, 3, 0]
    assert found["share"].tolist() == [0.75, 0, 0, 1, 0]
    assert found["training_id"].fillna("none").tolist() == ["t/0", "t/1", "none", "t/0", "none"]
    assert overlap_by_source(found).to_dict("records") == [
        {"source": "e", "questions": 4, "exact": 1, "any_run": 2, "half": 2, "short": 2},
        {"source": "f", "questions": 1, "exact": 0, "any_run": 0, "half": 0, "short": 1},
    ]


def test_overlap_counts_chinese_by_character() -> None:
    text = "已知三角形的三边长分别为三四五求它的面积"
    found = overlap([asked(f"题目：{text}。")], [asked(f"{text}是多少", "e/0", "e")])
    assert found["runs"].item() == len(text) + 3 - 12 and 0.5 < found["share"].item() < 1


QUESTIONS = st.lists(st.lists(st.sampled_from("ab"), max_size=9), max_size=5)


@given(QUESTIONS, QUESTIONS)
def test_overlap_is_what_comparing_all_pairs_gives(training: list[list[str]], evaluation: list[list[str]]) -> None:
    """The slow way, with runs of three words."""

    def runs(words: list[str]) -> set[str]:
        return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}

    found = overlap(
        [asked(" ".join(words), f"t/{index}") for index, words in enumerate(training)],
        [asked(" ".join(words), f"e/{index}", "e") for index, words in enumerate(evaluation)],
        n=3,
    )
    for words, row in zip(evaluation, found.itertuples(), strict=True):
        common = [len(runs(words) & runs(other)) for other in training]
        anywhere = runs(words) & set().union(*map(runs, training))
        assert row.exact == (words in training)
        assert row.share == pytest.approx(len(anywhere) / len(runs(words)) if runs(words) else 0)
        if words in training:
            assert row.training_id == f"t/{training.index(words)}"
        elif any(common):
            assert row.training_id == f"t/{common.index(max(common))}"
        else:
            assert pd.isna(row.training_id)


def test_overlap_of_nothing_has_its_columns() -> None:
    found = overlap([], [])
    assert found.empty and list(found) == ["source", "question_id", "exact", "runs", "share", "training_id"]
    assert list(overlap_by_source(found)) == ["source", "questions", "exact", "any_run", "half", "short"]


def test_overlap_finds_the_few_among_many() -> None:
    words = random.Random(0).choices([f"w{index}" for index in range(3000)], k=40 * 3_000)
    texts = [" ".join(words[start : start + 40]) for start in range(0, len(words), 40)]
    training = [asked(text, f"t/{index}") for index, text in enumerate(texts[:2_000])]
    evaluation = [asked(text, f"e/{index}", "e") for index, text in enumerate([*texts[2_000:], *texts[:4]])]
    counted = overlap_by_source(overlap(training, evaluation)).iloc[0]
    assert (counted["questions"], counted["exact"], counted["any_run"]) == (1_004, 4, 4)


# Real questions


@pytest.fixture
def real(tmp_path: Path) -> Path:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    for theirs, ours in (("aime24", "aime_2024"), ("amc23", "amc_2023"), ("gsm8k_first100", "gsm8k_test")):
        shutil.copy(REAL / f"{theirs}.jsonl", tmp_path / f"{ours}.jsonl")
    return tmp_path


@pytest.mark.parametrize(("name", "count"), [("aime_2024", 30), ("amc_2023", 40), ("gsm8k_test", 100)])
def test_real_questions(real: Path, name: str, count: int) -> None:
    loaded = load(name, folder=real)
    assert len(loaded.questions) == count and not loaded.provenance["remarks"]
    for question in loaded.questions:
        assert re.fullmatch("-?(0|[1-9][0-9]*)", question.answer), question
        assert len(question.question) > 30 and "####" not in question.question


def test_real_answers(real: Path) -> None:
    def answers(name: str) -> list[str]:
        return [question.answer for question in load(name, folder=real).questions]

    assert answers("aime_2024")[:8] == ["204", "113", "371", "385", "110", "104", "721", "25"]
    assert answers("amc_2023")[:4] == ["27", "36", "45", "3159"] and "-1" in answers("amc_2023")
    assert answers("gsm8k_test")[:3] == ["18", "3", "70000"] and "57500" in answers("gsm8k_test")


def test_real_solutions_end_in_the_answer(real: Path) -> None:
    """AIME 2024 publishes both: the digits in the last box of a solution are its answer."""
    rows = [row for row in rows_of(real, "aime_2024") if r"\boxed" in row["solution"]]
    boxed = [re.sub(r"\D", "", last_boxed(row["solution"])) for row in rows]
    assert len(rows) == 29
    assert list(map(canonical, boxed)) == [canonical(row["answer"]) for row in rows]
