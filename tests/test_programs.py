"""The programs task: its problems, its splits, its tokenizer, its verdicts through the sandbox."""

from __future__ import annotations

import ast
import random
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from riskpo_study import base_model, config, experiment, runs, tasks
from riskpo_study.errors import ConfigError
from riskpo_study.tasks.programs import BLOCKS, PROBES, SHOWN, Programs, draw, outputs, source_of
from riskpo_study.tasks.protocol import Question, Verdict, verdicts


def programs(operations=(2, 3), questions=8) -> Programs:
    task = config.Task("programs", numbers=(3,), largest_number=1, largest_target=1, questions=questions)
    return Programs(task, config.Programs(operations, workers=1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task() -> Programs:
    return programs()


def behaviour(question: Question) -> list:
    return [case.expected for case in question.payload["cases"]]


# --- drawn programs ---


def operations_in(body: str) -> int:
    """Calls, indices, comprehensions, conditionals, arithmetic and comparisons; a test of parity is one of them."""
    counted = (ast.Call, ast.Subscript, ast.ListComp, ast.IfExp, ast.BinOp, ast.Compare)
    nodes = list(ast.walk(ast.parse(f"def f(x):\n {body}")))
    parity = [n for n in nodes if isinstance(n, ast.Compare) and ast.unparse(n.comparators[0]) == "0"]
    return sum(isinstance(n, counted) for n in nodes) - len(parity)


@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_drawn_program_has_as_many_operations_as_asked_for(operations, rng):
    body = draw(operations, rng)
    assert operations_in(body) == operations


@given(st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_drawn_program_needs_no_more_parentheses(operations, rng):
    body = draw(operations, rng)
    tree = ast.dump(ast.parse(f"def f(x):\n {body}"))
    words = body.split()
    places = [i for i, word in enumerate(words) if word == "("]
    for start in places:
        if start and words[start - 1] in ("sum", "max", "min", "len", "abs", "sorted"):
            continue
        depth, end = 0, start
        while True:
            depth += {"(": 1, ")": -1}.get(words[end], 0)
            if depth == 0:
                break
            end += 1
        without = " ".join(words[:start] + words[start + 1 : end] + words[end + 1 :])
        try:
            assert ast.dump(ast.parse(f"def f(x):\n {without}")) != tree
        except SyntaxError:
            continue


def test_drawn_programs_use_the_whole_grammar():
    rng = random.Random(0)
    seen = {word for _ in range(2000) for word in draw(rng.randint(1, 5), rng).split()}
    assert seen >= {"if", "else", "for", "in", "abs", "sorted", "sum", "max", "min", "len", "//", "%", "==", "<", ">"}
    assert seen >= {"[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "x", "v", "return", "+", "-", "*"}


# --- questions ---


def test_prompts_show_what_the_program_behind_them_returns(task):
    for prompt, body in task.demonstrations(30, seeded()):
        shown = outputs(body, SHOWN)
        examples, _, rest = prompt.partition(" -> ")
        kind, _, *blocks, _ = rest.split()
        assert kind == ("list" if isinstance(shown[0], list) else "int")
        assert sorted(blocks) == sorted(word for word in body.split() if word in BLOCKS)
        for pair, given_, value in zip(examples.split(";"), SHOWN, shown, strict=True):
            left, right = pair.split("=")
            assert [int(word) for word in left.split()] == given_
            assert [int(word) for word in right.split()] == (value if isinstance(value, list) else [value])


def test_demonstrations_are_right(task):
    cases = task.questions("held_out")[0].payload["cases"]
    pairs = []
    for prompt, body in task.demonstrations(60, seeded(1)):
        solved = [replace(case, expected=value) for case, value in zip(cases, outputs(body, PROBES), strict=True)]
        pairs.append((Question(prompt + body, prompt, 0, {"cases": tuple(solved)}), body))
    assert {verdict.reward for verdict in task.verify_all(pairs)} == {1.0}


def test_splits_share_no_behaviour(task):
    held_out, development = (task.questions(split) for split in ("held_out", "development"))
    asked = [*held_out, *development, *task.sample(60, seeded())]
    assert all(len({q.id for q in split}) == len(split) == 16 for split in (held_out, development))
    assert len({str(behaviour(q)) for q in asked}) == len(asked) == 92
    shown = {str(list(outputs(body, PROBES))) for _, body in task.demonstrations(400, seeded())}
    assert not shown & {str(behaviour(q)) for q in asked}


def test_the_split_does_not_depend_on_the_settings(task):
    other = programs(operations=(2, 3, 4), questions=12)
    training = {q.id for q in other.sample(100, seeded(5))}
    evaluation = {q.id for split in ("held_out", "development") for q in task.questions(split)}
    assert not training & evaluation


def test_questions_are_ordered_by_difficulty_and_the_same_every_time(task):
    found = task.questions("held_out")
    assert [q.difficulty for q in found] == ["2 operations"] * 8 + ["3 operations"] * 8
    assert found == programs().questions("held_out")
    assert [q.prompt for q in found] == [task.prompt(q) for q in found]


def test_samples_are_different_mixed_and_reproducible(task):
    sample = task.sample(21, seeded())
    assert len({q.id for q in sample}) == 21
    assert sorted(abs(sum(q.difficulty == k for q in sample) - 10.5) for k in task.difficulties) == [0.5, 0.5]
    assert sample == task.sample(21, seeded()) != task.sample(21, seeded(1))
    assert [q.difficulty for q in sample] != sorted(q.difficulty for q in sample)


def test_demonstrations_can_have_other_difficulties(task):
    bodies = [body for _, body in task.demonstrations(20, seeded(), difficulties=(4,))]
    assert {operations_in(body) for body in bodies} == {4}


def test_problems_are_worth_asking(task):
    for question in task.questions("held_out"):
        expected = behaviour(question)
        assert len(set(map(str, expected))) >= 5 and expected != PROBES
        numbers = [n for value in expected for n in (value if isinstance(value, list) else [value])]
        assert all(type(number) is int and abs(number) <= 99 for number in numbers)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ((), "at least one"),
        ((2, 2), "lists 2 twice"),
        ((0,), "between 1 and 6"),
        ((7,), "between 1 and 6"),
    ],
)
def test_operations_out_of_range_are_refused(operations, message):
    with pytest.raises(ConfigError, match=message):
        programs(operations)


def test_too_many_questions_are_refused():
    with pytest.raises(ConfigError, match="There are only about [0-9]+ held_out problems with 1 operations, of 500"):
        programs(operations=(1,), questions=500).questions("held_out")


# --- verdicts ---


@pytest.fixture(scope="module")
def largest(task) -> Question:
    """The question whose answer is the largest number, doubled."""
    body = "return max ( x ) * 2"
    cases = task.questions("held_out")[0].payload["cases"]
    doubled = [replace(case, expected=2 * max(case.given[0])) for case in cases]
    return Question(body, "", 2, {"cases": tuple(doubled)})


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("return max ( x ) * 2", 1),
        ("return max(x) + max(x)", 1),
        ("return 2 * sorted ( x ) [-1]", 1),
        ("y = x[0]\nfor v in x:\n    if v > y: y = v\nreturn y + y", 1),
        ("import functools\nreturn functools.reduce(lambda a, b: a if a > b else b, x) << 1", 1),
        ("return max ( x )", 0),
        ("max ( x ) * 2", 0),
        ("return max ( x * 2", None),
        ("return", 0),
        ("", None),
        ("return [ max ( x ) * 2 ]", 0),
        ("return str ( max ( x ) * 2 )", 0),
        ("while True : pass", 0),
        ("import os ; os . _exit ( 0 )", 0),
        ("return f ( x )", 0),
        ("return " + "(" * 120 + "x" + ")" * 120, 0),
        ("return " + "-" * 240 + "1", 0),
        ("return max ( x ) * 2 #" + " " * 300, None),
        ("return \0", None),
        ("return '\ud800'", None),
        ("return max ( x ) * 2\nimport os", 1),
        ("class A ( int ) : __eq__ = lambda * a : True\nreturn A ( 1 )", 0),
    ],
)
def test_the_hidden_tests_decide(task, largest, response, reward):
    verdict = task.verify(largest, response)
    assert verdict.reward == (reward or 0)
    assert (verdict.answer is None) == (reward is None)


def test_spelling_does_not_matter_to_the_answer(task, largest):
    one, other = task.verify_all([(largest, "return max ( x )*2"), (largest, "return  (max(x)) * 2  # twice")])
    assert one == other == Verdict(1.0, "def f(x):\n    return max(x) * 2")
    assert task.verify(largest, "return 2 * max ( x )").answer != one.answer


@given(
    st.text(max_size=300) | st.lists(st.sampled_from(["return", "x", "(", ")", "[", "\n", "  ", "if"])).map(" ".join)
)
def test_any_text_is_a_source_or_none(text):
    source = source_of(text)
    assert source is None or ast.unparse(ast.parse(source)) == source


def test_no_text_makes_the_verifier_raise(task, largest):
    rng = random.Random(0)
    texts = [
        "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) for _ in range(20)) for _ in range(200)
    ]
    assert {verdict.reward for verdict in task.verify_all([(largest, text) for text in texts])} == {0.0}


def test_a_batch_is_judged_as_one_by_one(task):
    questions = task.questions("held_out")[:4]
    responses = ["return max ( x )", "return x [::-1]", "return ("]
    pairs = [(q, r) for q in questions for r in responses] * 2
    assert task.verify_all(pairs) == [task.verify(*pair) for pair in pairs[:12]] * 2
    pairs = [(questions[0], response) for response in responses * 2]
    assert verdicts(task, questions[:1], [responses * 2]) == [task.verify_all(pairs)]
    assert task.verify_all([]) == []


def test_equal_programs_run_once(task, largest, monkeypatch):
    judge, judged = task.sandbox.judge, []
    monkeypatch.setattr(task.sandbox, "judge", lambda batch: judged.extend(batch) or judge(batch))
    pairs = [(largest, "return max ( x ) * 2"), (largest, "return max(x)*2"), (largest, "return (")]
    assert [verdict.reward for verdict in task.verify_all(pairs * 3)] == [1, 1, 0] * 3
    assert len(judged) == 1


# --- the tokenizer ---


def test_every_prompt_and_solution_is_made_of_known_tokens_and_fits(task, tmp_path):
    task.build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for prompt, body in programs(operations=(2, 4, 6)).demonstrations(60, seeded()):
        ids, solution = tokenizer(prompt)["input_ids"], tokenizer(body)["input_ids"]
        assert tokenizer.unk_token_id not in ids + solution
        assert len(ids) + len(solution) + 1 <= 64
        assert tokenizer.decode(ids) == prompt and tokenizer.decode(solution) == body


def test_compact_spelling_gives_the_same_tokens(task):
    tokenizer = task.build_tokenizer()
    for compact, spaced in (("sorted(x)[::-1]", "sorted ( x ) [::-1]"), ("x[0]//3==v", "x [0] // 3 == v")):
        assert tokenizer(compact)["input_ids"] == tokenizer(spaced)["input_ids"]
    assert tokenizer("-7")["input_ids"] != tokenizer("- 7")["input_ids"]


# --- the trainer ---


def test_a_run_trains_on_programs_and_says_what_held_them(settings, tmp_path):
    study = replace(
        settings,
        task=replace(settings.task, name="programs", questions=3),
        programs=config.Programs(operations=(2, 3), workers=1),
        base_model=replace(
            settings.base_model, layers=1, width=64, heads=2, kv_heads=1, mlp_width=128, difficulties=(2, 3), steps=80,
            batch_size=64, learning_rate=1e-2, warmup_steps=5,
        ),
        train=replace(settings.train, steps=2, max_new_tokens=22),
    )  # fmt: skip
    task = tasks.build(study)
    assert len(base_model.obtain(task, study.base_model, tmp_path / "base")) == 80
    run = experiment.train(study, "riskpo", 0, tmp_path / "base", tmp_path / "run")
    metrics = runs.read_records(run, "metrics")
    assert len(metrics) == 2 and metrics["accuracy/2 operations"].notna().all()
    evaluations = runs.read_records(run, "evaluations")
    assert set(evaluations["difficulty"]) == {"2 operations", "3 operations"}
    assert (evaluations["unparsed"] < evaluations["n"]).any()
    held = runs.read_manifest(run)["sandbox"]
    assert held["isolation"] == asdict(task.sandbox.isolation) and held["workers"] == 1
