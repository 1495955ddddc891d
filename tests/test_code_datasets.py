"""LiveCodeBench and DeepCoder: their schemas, prompts, extraction and judging, on small files of our own making."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study.datasets import deepcoder, livecodebench
from riskpo_study.datasets.code_problems import PRELOAD, CodeProblem, extract_program, find_files, messages
from riskpo_study.datasets.livecodebench import decode_tests
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.tasks.protocol import Verdict
from riskpo_study.tasks.sandboxed import verdicts
from riskpo_study.verify.sandbox import Case, Limits, Sandbox


def packed(tests: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def row(number: int, day: str, **changes: Any) -> dict[str, Any]:
    """A problem that reads two numbers and prints their sum, as LiveCodeBench publishes it."""
    tests = [{"input": f"{number}\n{i}\n", "output": f"{number + i}\n", "testtype": "stdin"} for i in range(4)]
    published = {
        "question_title": "A. Sum", "question_content": "Add two numbers.", "platform": "atcoder",
        "question_id": f"abc{number}_a", "contest_id": f"abc{number}", "contest_date": f"{day}T00:00:00",
        "starter_code": "", "difficulty": "easy", "public_test_cases": json.dumps(tests[:1]),
        "private_test_cases": packed(tests[1:]), "metadata": "{}",
    }  # fmt: skip
    return published | changes


def functional(number: int, day: str) -> dict[str, Any]:
    tests = [
        {"input": f"[{i}, 2]\n{number}", "output": json.dumps([i * number, 2 * number]), "testtype": "functional"}
        for i in range(3)
    ]
    return row(
        number, day, platform="leetcode", question_id=str(number),
        starter_code="class Solution:\n    def scale(self, values: List[int], by: int) -> List[int]:\n        ",
        public_test_cases=json.dumps(tests[:1]), private_test_cases=json.dumps(tests[1:]),
        metadata=json.dumps({"func_name": "scale"}),
    )  # fmt: skip


ROWS = {
    "test.jsonl": [row(1, "2023-05-07"), functional(2, "2024-02-29")],
    "test2.jsonl": [row(3, "2024-03-01"), functional(4, "2024-05-31")],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(cpu_seconds=2, wall_seconds=10), 1, preload=PRELOAD) as sandbox:
        yield sandbox


def identifiers(loaded: Any) -> list[str]:
    return [problem.problem_id.removeprefix("livecodebench/") for problem in loaded.problems]


# --- LiveCodeBench ---


def test_a_release_holds_those_before_it(folder: Path) -> None:
    assert identifiers(livecodebench.load("release_v1", folder=folder)) == ["abc1_a", "2"]
    second = livecodebench.load("release_v2", folder=folder)
    assert identifiers(second) == ["abc1_a", "2", "abc3_a", "4"]
    assert second.provenance["problems"] == 4 and second.provenance["remarks"] == ["4 rows; release_v2 has 511"]
    with pytest.raises(DataError, match=r"has no file test3.jsonl: hf download .* --include test3.jsonl --local-dir /"):
        livecodebench.load("release_v3", folder=folder)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (date(2024, 2, 29), None, ["2", "abc3_a", "4"]),
        (None, date(2024, 2, 29), ["abc1_a", "2"]),
        (date(2024, 3, 1), date(2024, 5, 30), ["abc3_a"]),
        (date(2025, 1, 1), None, []),
    ],
)
def test_the_window_of_dates_includes_both_ends(
    folder: Path, start: date | None, end: date | None, expected: list[str]
) -> None:
    assert identifiers(livecodebench.load("release_v2", start, end, folder=folder)) == expected


def test_public_and_private_tests_count(folder: Path) -> None:
    first, second = livecodebench.load("release_v1", folder=folder).problems
    assert first == CodeProblem(
        "livecodebench/abc1_a", "Add two numbers.", "", None,
        tuple(Case(f"1\n{i}\n", f"{1 + i}\n") for i in range(4)), "easy", date(2023, 5, 7),
    )  # fmt: skip
    assert second.entry_point == "scale"
    assert second.cases[1] == Case([[1, 2], 2], [2, 4])


def test_the_hash_tells_other_problems_apart(folder: Path) -> None:
    def digest() -> str:
        return livecodebench.load("release_v1", folder=folder).provenance["sha256"]

    before = digest()
    assert digest() == before
    file = folder / "test.jsonl"
    file.write_text(file.read_text().replace("Add two", "Add both"))
    assert digest() != before


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path.cwd() / "harmed"),)


@given(st.lists(st.fixed_dictionaries({"input": st.text(), "output": st.text()}), max_size=5), st.integers(0, 5))
def test_packed_tests_are_read_as_they_were(tests: list[dict[str, str]], protocol: int) -> None:
    text = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests, ensure_ascii=False), protocol))).decode()
    assert decode_tests(text) == decode_tests(json.dumps(tests)) == tests


@pytest.mark.parametrize(
    "content",
    [Harmful(), [1], ["[]"], b"[]", {"a": "[]"}, 5, "not JSON", "{}", "[1]"],
    ids=lambda content: type(content).__name__,
)
def test_a_pickle_of_anything_but_a_text_of_tests_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    text = base64.b64encode(zlib.compress(pickle.dumps(content))).decode()
    with pytest.raises(ValueError, match="pickle holds|Expecting value|no list of objects"):
        decode_tests(text)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=40))
def test_no_field_makes_the_decoder_fail_otherwise(data: bytes) -> None:
    for text in (data.decode("latin1"), base64.b64encode(zlib.compress(data)).decode()):
        with suppress(ValueError):
            assert isinstance(decode_tests(text), list)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "LARGEST", 1 << 16)
    bomb = base64.b64encode(zlib.compress(bytes(1 << 22))).decode()
    with pytest.raises(ValueError, match="more than 65536 bytes"):
        decode_tests(bomb)


def one_test(**changes: Any) -> dict[str, Any]:
    """A field with a test that reads 1 and prints 2, but for the changes."""
    return {"public_test_cases": json.dumps([{"input": "1", "output": "2", "testtype": "stdin"} | changes])}


def function_tests(given: str, expected: str) -> dict[str, Any]:
    called = {**one_test(input=given, output=expected, testtype="functional"), "private_test_cases": "[]"}
    return {**called, "metadata": '{"func_name": "f"}'}


EMPTY = base64.b64encode(zlib.compress(b"")).decode()
DEEP = "[" * 100_000
NESTED = "[" * 300 + "]" * 300
REMEDY = ": correct it, or get the file again."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contest_date": "soon"}, "'contest_date' is 'soon', not a date in ISO format"),
        ({"contest_date": None}, "'contest_date' is missing, not a date in ISO format"),
        ({"contest_date": 20230507}, "'contest_date' is 20230507, not a date in ISO format"),
        ({"question_content": None}, "'question_content' is missing, not a text"),
        ({"question_content": 3}, "'question_content' is 3, not a text"),
        ({"question_content": " "}, "'question_content' is ' ', not a text"),
        ({"starter_code": 7}, "'starter_code' is 7, not a text"),
        ({"starter_code": {"a": 1}}, "'starter_code' is {'a': 1}, not a text"),
        ({"difficulty": None}, "'difficulty' is missing, not a text"),
        ({"private_test_cases": "!" * 200}, "'private_test_cases' holds no tests that can be read (the tests are neit"),
        ({"private_test_cases": ""}, "'private_test_cases' is '', not a text"),
        ({"private_test_cases": None}, "'private_test_cases' is missing, not a text"),
        (
            {"private_test_cases": EMPTY},
            "'private_test_cases' holds no tests that can be read (pickle exh",
        ),
        ({"public_test_cases": DEEP}, "'public_test_cases' holds no tests that can be read (JSON nested more than 200"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "'private_test_cases' has no tests, nor has 'public"),
        ({"metadata": '{"func_name": "f"}'}, "'public_test_cases.0.testtype' is 'stdin', not 'functional'"),
        ({"metadata": '{"func_name": 3}'}, "'metadata' is of no use (3 cannot name a function): '{\"func_name\": 3}'"),
        ({"metadata": '{"func_name": "os.system"}'}, "'metadata' is of no use ('os.system' cannot name a function)"),
        ({"metadata": '{"func_name": "def"}'}, "'metadata' is of no use ('def' cannot name a function)"),
        ({"metadata": '{"func_name": ""}'}, "'metadata' is of no use ('' cannot name a function)"),
        ({"metadata": "[]"}, "'metadata' is of no use (no JSON object): '[]'"),
        ({"metadata": None}, "'metadata' is missing, not a text"),
        ({"metadata": DEEP}, "'metadata' is of no use (JSON nested more than 200 deep)"),
        ({"public_test_cases": '[{"input": "1"}]'}, "'public_test_cases.0.testtype' is missing, not 'stdin'"),
        (one_test(output=None), "'public_test_cases.0.output' is missing, not a text"),
        (one_test(output=1), "'public_test_cases.0.output' is 1, not a text"),
        (one_test(input=1), "'public_test_cases.0.input' is 1, not a text"),
        (function_tests("1", "NaN"), "'public_test_cases.0' is of no use (no answer equals nan)"),
        (function_tests("1,", "1"), "'public_test_cases.0' is of no use (Extra data"),
        (function_tests(DEEP, "1"), "'public_test_cases.0' is of no use (JSON nested more than 200 deep)"),
        (function_tests("1", NESTED), "'public_test_cases.0' is of no use (JSON nested more than 200 deep)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = [json.dumps(row(1, "2023-05-07")), json.dumps(row(2, "2023-05-07", **changes))]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        livecodebench.load("release_v1", folder=tmp_path)
    said = str(caught.value)
    assert said.startswith(f"livecodebench: row 2 (id livecodebench/abc2_a): field {message}") and said.endswith(REMEDY)
    assert len(said) < 300


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("abc1_a", "(id livecodebench/abc1_a): field 'question_id' is that of row 1, too"),
        (None, "(id livecodebench/None): field 'question_id' is missing, not a text"),
        (5, "(id livecodebench/5): field 'question_id' is 5, not a text"),
        ("", "(id livecodebench/): field 'question_id' is '', not a text"),
        (["x" * 1000], "field 'question_id' is ['xxxxxxxxxxxx...xxxxxxxxxxxxx'], not a text"),
    ],
    ids=["repeated", "null", "number", "empty", "long"],
)
def test_every_problem_has_an_id_of_its_own(tmp_path: Path, identifier: Any, message: str) -> None:
    lines = [json.dumps(row(1, "2023-05-07")), json.dumps(row(2, "2023-05-08", question_id=identifier))]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        livecodebench.load("release_v1", folder=tmp_path)
    said = str(caught.value)
    assert said.startswith("livecodebench: row 2 (id ") and message + REMEDY in said and len(said) < 300


def test_values_may_be_nested_as_deep_as_the_hash_can_follow(tmp_path: Path) -> None:
    nested = "[" * 200 + "]" * 200
    (tmp_path / "test.jsonl").write_text(json.dumps(row(1, "2023-05-07", **function_tests(nested, nested))))
    (problem,) = livecodebench.load("release_v1", folder=tmp_path).problems
    assert problem.cases[0].given == [problem.cases[0].expected]


def test_a_line_nested_too_deeply_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(f"{json.dumps(row(1, '2023-05-07'))}\n{DEEP}\n")
    with pytest.raises(DataError, match=r"test.jsonl cannot be read after 1 rows \(JSON nested more than 200 deep\)"):
        livecodebench.load("release_v1", folder=tmp_path)


def test_blank_lines_and_a_byte_order_mark_do_no_harm(folder: Path) -> None:
    before = livecodebench.load("release_v1", folder=folder)
    file = folder / "test.jsonl"
    file.write_text("\ufeff" + file.read_text(encoding="utf-8").replace("\n", "\n\n"), encoding="utf-8")
    assert livecodebench.load("release_v1", folder=folder) == before


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of a hub that has the second of two shards and a cache that has the first."""
    asked = []
    (tmp_path / "taco").mkdir()
    (tmp_path / "taco" / "train-00000-of-00002.parquet").touch()

    def snapshot_download(*_: Any, local_files_only: bool, **__: Any) -> str:
        asked.append("the cache" if local_files_only else "the hub")
        if not local_files_only:
            (tmp_path / "taco" / "train-00001-of-00002.parquet").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    return asked


def test_a_commit_in_the_cache_is_taken_without_asking_the_hub(downloads: list[str], folder: Path) -> None:
    names = ["test2.jsonl", "test.jsonl"]
    found = find_files("livecodebench", "some/where", "a" * 40, names, None)
    assert found == [folder / name for name in names]
    assert downloads == ["the cache"]


def test_what_an_interrupted_download_left_is_completed(downloads: list[str]) -> None:
    found = find_files("deepcoder", "some/where", "a" * 40, ["taco/train-*.parquet"], None)
    assert [file.name for file in found] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert downloads == ["the cache", "the hub"]


def test_what_cannot_be_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="release = 'v9' is unknown; choose one of release_v1, .*release_v6"):
        livecodebench.load("v9", folder=tmp_path)
    with pytest.raises(ConfigError, match="start = 2024-01-02 is after end = 2024-01-01"):
        livecodebench.load("release_v1", date(2024, 1, 2), date(2024, 1, 1), folder=tmp_path)
    (tmp_path / "test.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"test.jsonl cannot be read after 0 rows \(.* is no JSON object"):
        livecodebench.load("release_v1", folder=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    command = r"hf download --repo-type dataset livecodebench/\S+ --revision \w+ --include test.jsonl;"
    with pytest.raises(DataError, match=f"cannot be downloaded .*{command}"):
        livecodebench.load("release_v1")


# --- prompts, extraction, judging ---


def test_the_prompt_is_the_published_one(folder: Path) -> None:
    whole, method = (messages(problem) for problem in livecodebench.load("release_v1", folder=folder).problems)
    assert [message["role"] for message in whole] == ["system", "user"]
    assert whole[0]["content"].endswith("a correct Python program that matches the specification and passes all tests.")
    assert whole[1]["content"] == (
        "### Question:\nAdd two numbers.\n\n"
        "### Format: Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test "
        "on the sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program "
        "runs, it reads the inputs, runs the algorithm and writes output to STDOUT.\n"
        "```python\n# YOUR CODE HERE\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    assert "```python\nclass Solution:\n    def scale(self" in method[1]["content"]


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("First\n```\nprint(1)\n```\nbetter:\n```python\nprint(2)\nprint(3)\n```\nDone.", "print(2)\nprint(3)"),
        ("<think>```python\nno\n```</think>\n```py\nyes\n```", "yes"),
        ("```python\n```", ""),
        ("```python\nprint(1)", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_fenced_block(response: str, program: str | None) -> None:
    assert extract_program(response) == program


SUM = "Like this:\n```python\na = int(input())\nprint(a + int(input()))\n```\n"
SCALE = (
    "```python\nclass Solution:\n  def scale(self, values: List[int], by):\n    return [x * by for x in values]\n```"
)


def judged(sandbox: Sandbox, pairs: list[tuple[CodeProblem, str]]) -> list[Verdict]:
    return verdicts(sandbox, [problem.program(response) for problem, response in pairs])


def test_responses_are_judged(folder: Path, sandbox: Sandbox) -> None:
    whole, method = livecodebench.load("release_v1", folder=folder).problems
    pairs = [
        (whole, SUM), (whole, SUM.replace("+", "-")), (whole, "no program"), (whole, SCALE),
        (method, SCALE), (method, SCALE.replace("* by", "* 2")), (method, SUM), (whole, SUM),
    ]  # fmt: skip
    found = judged(sandbox, pairs)
    assert [verdict.reward for verdict in found] == [1, 0, 0, 0, 1, 1, 0, 1]
    assert found[0].answer == "a = int(input())\nprint(a + int(input()))"
    assert found[2].answer is None


@pytest.mark.parametrize(
    "source",
    [
        "print(sum(accumulate([1, 1])) // ceil(0.5), sqrt(4) == 2, Counter('a')['a'], deque([1])[0])",
        "print(3, True, max(heapify(x := [2, 1]) or x) - 1, bisect_right([1], 1))",
        "def f(n): return n and f(n - 1)\nprint(3 + f(40000), isinstance([], List) or True, 1, gcd(1, 1))",
    ],
)
def test_programs_find_the_published_imports(sandbox: Sandbox, source: str) -> None:
    problem = CodeProblem("x", "", "", None, (Case("", "3 True 1 1"),))
    (verdict,) = judged(sandbox, [(problem, f"```\n{source}\n```")])
    assert verdict.reward == 1


# --- DeepCoder ---


def parquet(folder: Path, part: str, rows: list[dict[str, Any]]) -> None:
    (folder / part).mkdir()
    pd.DataFrame(rows).to_parquet(folder / part / "train-00000-of-00001.parquet")


TACO = {
    "stdin": {"inputs": ["1\n2\n", ["10", "20"]], "outputs": ["3\n", ["30"]]},
    "method": {"fn_name": "scale", "inputs": [[[1, 2], 3], [[100], 2]], "outputs": [[[3, 6]], [200]]},
}
PRIME = {
    "stdin": [{"type": "stdin_stdout", "input": "1\n2\n", "output": "3\n"}],
    "method": [{"type": "function_call", "fn_name": "scale", "input": [[1, 2], 3], "output": [[3, 6]]}],
}
LCB = {
    "stdin": [{"testtype": "stdin", "input": "1\n2\n", "output": "3", "metadata": {"func_name": None}}],
    "method": [
        {"testtype": "functional", "input": "[1, 2]\n3", "output": "[3, 6]", "metadata": {"func_name": "scale"}}
    ],
}


@pytest.mark.parametrize(("part", "tests"), [("taco", TACO), ("primeintellect", PRIME), ("lcbv5", LCB)])
def test_each_part_is_read_in_its_own_schema(tmp_path: Path, sandbox: Sandbox, part: str, tests: Any) -> None:
    parquet(tmp_path, part, [{"problem": f" {name} ", "tests": json.dumps(tests[name])} for name in tests])
    loaded = deepcoder.load(part, 10, folder=tmp_path)
    stdin, method = loaded.problems
    assert (stdin.problem_id, stdin.question, stdin.entry_point) == (f"deepcoder/{part}/0", "stdin", None)
    assert method.entry_point == "scale"
    pairs = [(stdin, SUM), (stdin, SCALE), (method, SCALE), (method, SCALE.replace("by for", "by + 1 for"))]
    assert [verdict.reward for verdict in judged(sandbox, pairs)] == [1, 0, 1, 0]


def test_the_longest_tests_are_kept(tmp_path: Path) -> None:
    tests = {"inputs": ["1", "333", "22", "4444"], "outputs": ["1", "3", "2", "4"]}
    parquet(tmp_path, "taco", [{"problem": "x", "tests": json.dumps(tests)}])
    (problem,) = deepcoder.load("taco", 2, folder=tmp_path).problems
    assert problem.cases == (Case("4444", "4"), Case("333", "3"))


def test_copies_of_a_test_do_not_crowd_out_others(tmp_path: Path) -> None:
    tests = {"inputs": ["4444", "1", "4444", "4444", "333"], "outputs": ["4", "1", "4", "4\n", "3"]}
    called = {"fn_name": "f", "inputs": [[[1, 2]], [[1, 2]], [[3]]], "outputs": [[5], 5, 6]}
    parquet(tmp_path, "taco", [{"problem": "x", "tests": json.dumps(some)} for some in (tests, called)])
    stdin, method = deepcoder.load("taco", 2, folder=tmp_path).problems
    assert stdin.cases == (Case("4444", "4"), Case("333", "3"))
    assert method.cases == (Case([[1, 2]], [5], (5,)), Case([[3]], 6))


def called(name: Any = "f", given: Any = (1,), expected: Any = 1) -> dict[str, Any]:
    return {"fn_name": name, "inputs": [given], "outputs": [expected]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tests": called(name=3)}, "3 cannot name a function"),
        ({"tests": called(name="os.system")}, "'os.system' cannot name a function"),
        ({"tests": called(name="")}, "'' cannot name a function"),
        ({"tests": [PRIME["method"][0] | {"fn_name": None}]}, "None cannot name a function"),
        ({"tests": [LCB["method"][0] | {"metadata": {"func_name": 3}}]}, "3 cannot name a function"),
        ({"tests": called(expected=float("nan"))}, "no answer equals nan"),
        ({"tests": {"inputs": "12", "outputs": "34"}}, "field 'tests.inputs' is '12', not a list"),
        ({"tests": {"inputs": ["1"], "outputs": "3"}}, "field 'tests.outputs' is '3', not a list"),
        (
            {"tests": {"inputs": ["1", "2", "1"], "outputs": ["3", "4", "5"]}},
            "for the input '1' tests expect '3' and '5'",
        ),
        (
            {"tests": {"fn_name": "f", "inputs": [[1], [1]], "outputs": [[2], 3]}},
            "for the input [1] tests expect [2] and 3",
        ),
        ({"tests": DEEP}, "JSON nested more than 200 deep"),
        ({"tests": f'{{"inputs": [{NESTED}], "outputs": ["1"]}}'}, "JSON nested more than 200 deep"),
        ({"problem": "  "}, "field 'problem' is '  ', not a text"),
        ({"problem": None}, "field 'problem' is missing, not a text"),
        ({"starter_code": 7}, "field 'starter_code' is 7, not a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_cannot_be_used_says_why(changes: dict[str, Any], reason: str) -> None:
    row = {"problem": "x", "tests": TACO["stdin"]} | changes
    tests = row["tests"] if isinstance(row["tests"], str) else json.dumps(row["tests"])
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        deepcoder.problem(row | {"tests": tests}, "taco", 0, 10)
    assert len(str(caught.value)) < 200


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    good = json.dumps(TACO["stdin"])
    bad = ["[]", "{}", json.dumps({"inputs": ["1"], "outputs": []}), json.dumps({"inputs": [1], "outputs": ["1"]}), "?"]
    bad += [DEEP, json.dumps(called(name="os.system")), json.dumps({"inputs": "12", "outputs": "34"})]
    parquet(tmp_path, "taco", [{"problem": "x", "tests": tests} for tests in [*bad, good]])
    loaded = deepcoder.load("taco", 10, folder=tmp_path)
    assert [problem.problem_id for problem in loaded.problems] == ["deepcoder/taco/8"]
    assert loaded.provenance["remarks"][0].startswith("8 rows left out, the first being row 0: ")
    parquet(tmp_path, "lcbv5", [{"problem": "x", "tests": "[]"}])
    with pytest.raises(DataError, match=r"lcbv5/train-00000-of-00001.parquet can be used \(row 0: .*\): get it again"):
        deepcoder.load("lcbv5", 10, folder=tmp_path)
    with pytest.raises(ConfigError, match="part = 'apps' is unknown; choose one of taco, "):
        deepcoder.load("apps", 10, folder=tmp_path)
    with pytest.raises(ConfigError, match="most_cases = 0"):
        deepcoder.load("taco", 0, folder=tmp_path)
