"""The Countdown task: its verifier, its splits, its tokenizer."""

from __future__ import annotations

import re
import time
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from riskpo_study.config import Task
from riskpo_study.errors import ConfigError
from riskpo_study.tasks.countdown import Countdown, canonical, evaluate, parse
from riskpo_study.tasks.protocol import Question, Verdict


def countdown(**changes) -> Countdown:
    settings = {"numbers": (2, 3, 4, 5), "largest_number": 20, "largest_target": 100, "questions": 20}
    return Countdown(Task(name="countdown", **settings | changes))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def question(target: int, *numbers: int) -> Question:
    return Question("", "", len(numbers), {"numbers": tuple(sorted(numbers)), "target": target})


# --- the parser ---

OPERATIONS = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}


def reference(text: str) -> Fraction | None:
    """The value by recursive descent, None for a division by zero; SyntaxError for what is no expression."""
    tokens = re.findall(r"[0-9]+|\S", text)

    def chain(operand, operators):
        value = operand()
        while tokens and tokens[0] in operators:
            symbol, right = tokens.pop(0), operand()
            undefined = value is None or right is None or (symbol == "/" and right == 0)
            value = None if undefined else OPERATIONS[symbol](value, right)
        return value

    def product():
        return chain(atom, "*/")

    def atom():
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            value = chain(product, "+-")
            token = tokens.pop(0) if tokens else ""
            if token != ")":
                raise SyntaxError
            return value
        if not token.isdigit():
            raise SyntaxError
        return Fraction(int(token))

    value = chain(product, "+-")
    if tokens:
        raise SyntaxError
    return value


expressions = st.recursive(
    st.integers(0, 12).map(str),
    lambda inner: (
        st.builds("{}{}{}".format, inner, st.sampled_from([*"+-*/", " - ", "/ "]), inner)
        | inner.map("({})".format)
        | inner.map(" ( {} )".format)
    ),
    max_leaves=12,
)
nearly = st.lists(st.sampled_from(["0", "3", "12", *"+-*/()()", " "]), max_size=9).map("".join)


@given(expressions | nearly)
def test_parser_agrees_with_recursive_descent(text):
    postfix = parse(text)
    if postfix is None:
        with pytest.raises(SyntaxError):
            reference(text)
    else:
        assert evaluate(postfix) == reference(text)


@given(expressions)
def test_canonical_spelling_keeps_the_value_and_is_its_own_canonical_spelling(text):
    spelling = canonical(parse(text))
    assert canonical(parse(spelling)) == spelling
    value = reference(text)
    assert value is None or reference(spelling) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3+7*12", "12 × 7 + 3"),
        ("((3))−((7))", "3 - 7"),
        ("7 - (3 - 2)", "2 + 7 - 3"),
        ("8 / (4 / 2)", "2 * 8 ÷ 4"),
        ("(1 + 2) * 3 / (4 - 5)", "3 / (4 - 5) * (2 + 1)"),
        ("007 + 1", "1 + 7"),
    ],
)
def test_order_and_grouping_do_not_matter_to_the_answer(one, other):
    assert canonical(parse(one)) == canonical(parse(other))


@pytest.mark.parametrize(("one", "other"), [("3 - 7", "7 - 3"), ("2 * (3 + 4)", "2 * 3 + 4"), ("1 + 2 - 2", "1")])
def test_different_answers_stay_different(one, other):
    assert canonical(parse(one)) != canonical(parse(other))


# --- the verifier ---


@pytest.mark.parametrize(
    ("response", "reward", "answer"),
    [
        ("8 / (3 - 8 / 3)", 1.0, "8 / (3 - 8 / 3)"),  # passes through a fraction
        ("8÷(3−8÷3)", 1.0, "8 / (3 - 8 / 3)"),
        ("8 * 3 + 3 - 3", 0.0, "3 + 3 * 8 - 3"),  # right value, 3 used too often
        ("8 * 3", 0.0, "3 * 8"),  # right value, numbers left over
        ("8 + 8 + 3 + 3", 0.0, "3 + 3 + 8 + 8"),  # right numbers, wrong value
        ("8 / (3 - 3) + 8", 0.0, None),  # no value
        ("8 / (3 - 8 / 3) = 24", 0.0, None),
        ("-8 + 3", 0.0, None),
        ("", 0.0, None),
    ],
)
def test_verdicts(response, reward, answer):
    assert countdown().verify(question(24, 3, 3, 8, 8), response) == Verdict(reward, answer)


@pytest.mark.parametrize(
    "response",
    [
        "(" * 10_000 + "1" + ")" * 10_000,
        "(" * 1_000_000,
        "1+" * 500_000 + "1",
        "9" * 1_000_000,
        "3" + " " * 1_000_000,
        "\x00",
        "3 + 7\x00",
        "٣ + ٧",
        "３+７",
        "²",
        "\ud800",
        "3 ** 7",
        "3 // 7",
        "3 (7)",
        "(3)(7)",
        "()",
        ")3(",
        "3 7",
        "3 + + 7",
        "3.0 + 7",
        "1e3",
        "0x10",
        "__import__('os')",
        "+",
        "(3 + 7",
        "3 + 7)",
    ],
)
def test_hostile_responses_do_not_parse_and_cost_nothing(response):
    started = time.perf_counter()
    assert countdown().verify(question(10, 3, 7), response) == Verdict(0.0, None)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("response", ["9" * 256, "9*" * 127 + "9", "1/" * 127 + "0", "(" * 127 + "1" + ")" * 127])
def test_the_longest_expressions_parse(response):
    assert parse(response) is not None
    assert countdown().verify(question(10, 3, 7), response).reward == 0.0


@given(st.text() | st.text("0123456789+-*/()×÷− \n\t=:"))
def test_no_string_raises(text):
    task = countdown()
    assert task.verify(question(10, 3, 7), text).reward == 0.0 or evaluate(parse(text)) == 10


# --- questions and demonstrations ---


def problem(prompt: str) -> tuple[list[int], int]:
    numbers, target = re.fullmatch(r"([\d ]+) = (\d+) :", prompt).groups()
    return sorted(map(int, numbers.split())), int(target)


def test_splits_are_disjoint_as_problems_whatever_the_settings():
    tasks = (
        countdown(numbers=(3,), questions=100),
        countdown(numbers=(3, 4), largest_number=12, questions=100),
    )
    held_out = {q.prompt for task in tasks for q in task.questions("held_out")}
    development = {q.prompt for task in tasks for q in task.questions("development")}
    sampled = {q.prompt for task in tasks for seed in range(5) for q in task.sample(300, seeded(seed))}
    shown = {prompt for task in tasks for prompt, _ in task.demonstrations(5000, seeded())}
    assert min(map(len, (held_out, development))) > 250
    assert len(sampled) > 1500
    assert not held_out & development
    assert not (sampled | shown) & (held_out | development)


def test_questions_are_ordered_distinct_and_state_the_problem():
    questions = countdown().questions("held_out")
    assert [q.difficulty for q in questions] == [2] * 20 + [3] * 20 + [4] * 20 + [5] * 20
    assert len({q.id for q in questions}) == len(questions)
    for q in questions:
        assert problem(q.prompt) == (list(q.payload["numbers"]), q.payload["target"])
        assert len(q.payload["numbers"]) == q.difficulty
        assert max(q.payload["numbers"]) <= 20
        assert 1 <= q.payload["target"] <= 100


def test_questions_never_change():
    first = [q.id for q in countdown(numbers=(3, 4), questions=2).questions("held_out")]
    assert first == [
        "countdown 3 11 20 = 6",
        "countdown 2 12 20 = 64",
        "countdown 2 6 16 20 = 62",
        "countdown 9 14 18 20 = 25",
    ]
    more = countdown(numbers=(4, 3), questions=40).questions("held_out")
    assert [q.id for q in more[:2] + more[40:42]] == first


def test_a_sample_is_balanced_mixed_distinct_and_drawn_from_its_generator():
    task = countdown(numbers=(3, 4))
    sample = task.sample(40, seeded())
    difficulties = [q.difficulty for q in sample]
    assert Counter(difficulties) == {3: 20, 4: 20}
    assert difficulties not in (sorted(difficulties), sorted(difficulties, reverse=True))
    assert len({q.id for q in sample}) == 40
    assert sample == task.sample(40, seeded())
    assert sample != task.sample(40, seeded(1))
    remainders = Counter(Counter(q.difficulty for q in task.sample(5, seeded(s)))[3] for s in range(20))
    assert set(remainders) == {2, 3}


def test_demonstrations_are_right_and_fit_the_response():
    task = countdown()
    tokenizer = task.build_tokenizer()
    demonstrations = task.demonstrations(2000, seeded(), (3, 4, 5))
    assert demonstrations == task.demonstrations(2000, seeded(), (3, 4, 5))
    sizes = Counter()
    for prompt, solution in demonstrations:
        numbers, target = problem(prompt)
        sizes[len(numbers)] += 1
        assert task.verify(question(target, *numbers), solution).reward == 1.0
        assert len(tokenizer(solution)["input_ids"]) + 1 <= {3: 8, 4: 12, 5: 16}[len(numbers)]
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_every_rational_path_to_a_target_can_be_drawn():
    """The drawn problems are exactly those with a solution, also through fractions and negative values."""
    small = countdown(numbers=(3,), largest_number=3, largest_target=20)
    generator = seeded()
    drawn = {solved.problem for _ in range(20) for solved in small._draw(3, generator)}
    solvable = set()
    for a, b, c in [(a, b, c) for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)]:
        for x, y in [(x, y) for x in "+-*/" for y in "+-*/"]:
            for text in (f"{a}{x}{b}{y}{c}", f"{a}{x}({b}{y}{c})", f"({a}{x}{b}){y}{c}"):
                value = reference(text)
                if value is not None and value.denominator == 1 and 1 <= value <= 20:
                    solvable.add((tuple(sorted((a, b, c))), int(value)))
    assert drawn == solvable


def test_too_few_problems_are_refused_by_name():
    task = countdown(numbers=(2,), largest_number=3, questions=50)
    with pytest.raises(ConfigError, match=r"held_out problems with 2 numbers, of 50 wanted.*largest_number = 3 "):
        task.questions("held_out")
    with pytest.raises(ConfigError, match="training problems with 2 numbers, of 1000 wanted"):
        task.sample(1000, seeded())


@pytest.mark.parametrize("key", ["largest_number", "largest_target"])
def test_numbers_that_would_not_be_a_token_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=rf"task\.{key} = 1001 must be in \[1, 1000\]"):
        countdown(**{key: 1001})


# --- the tokenizer ---


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Saved and loaded again, as every later stage gets it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    countdown().build_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_saved_tokenizer_is_the_built_one(tokenizer):
    built = countdown().build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab()
    text = "3 7 12 = 64 : 3*(7+12)"
    assert tokenizer(text)["input_ids"] == built(text)["input_ids"]
    assert (tokenizer.padding_side, tokenizer.pad_token, tokenizer.eos_token) == ("left", "<pad>", "<eos>")
    assert list(tokenizer("3")) == ["input_ids", "attention_mask"]


def test_one_token_for_each_integer_and_sign(tokenizer):
    for word in [*map(str, range(101)), *"+-*/()=:"]:
        (token,) = tokenizer(word)["input_ids"]
        assert token != tokenizer.unk_token_id
    assert tokenizer("101 x")["input_ids"] == [tokenizer.unk_token_id] * 2
    assert tokenizer("×÷−")["input_ids"] == tokenizer("*/-")["input_ids"]


def test_decoded_tokens_verify(tokenizer):
    task = countdown()
    for prompt, solution in task.demonstrations(200, seeded()):
        numbers, target = problem(prompt)
        ids = tokenizer(solution)["input_ids"]
        ended = [*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
        text = tokenizer.decode(ended, skip_special_tokens=True)
        assert tokenizer(text)["input_ids"] == ids
        assert task.verify(question(target, *numbers), text).reward == 1.0
        assert tokenizer.decode(tokenizer(prompt)["input_ids"]) == prompt
