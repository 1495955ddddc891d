"""Countdown: write an expression that uses every given number exactly once and equals the target.

To the prompt ``3 7 12 = 15 :`` one right response is ``(12 - 7) * 3``. A *problem* is the sorted numbers and
the target; every target is the value of a random expression, so each problem has a solution. A hash of the
problem alone puts it into the training split (80 %), the development split or the held-out split (10 %
each): they are disjoint whatever the seeds and settings.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Hashable
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from riskpo_study.errors import ConfigError
from riskpo_study.seeds import generator
from riskpo_study.tasks import drawn
from riskpo_study.tasks.protocol import Difficulty, Question, Split, Task, Verdict
from riskpo_study.tasks.vocabulary import word_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from riskpo_study.config import Task as TaskConfig

__all__ = ["Countdown", "canonical", "evaluate", "parse"]

LARGEST = 1000  # every integer up to the largest is a token, and int64 holds the fractions of `_draw`
LONGEST = 256  # characters of a response that are read; five numbers need at most 50
DRAWS = 1024  # random expressions drawn at once
PATIENCE = 64  # draws in a row without a new problem before there are held to be no more

OPERATORS = "+-*/"
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
ATOM = 3
ASCII = str.maketrans({"×": "*", "÷": "/", "−": "-"})
TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")

Postfix = list[int | str]


def parse(text: str) -> Postfix | None:
    """The expression in postfix order, numbers as int; None when ``text`` is not one expression.

    Shunting-yard, hence without recursion and linear in the length. Understands non-negative integers,
    ``+ - * / × ÷ −`` and parentheses; operators of equal precedence associate to the left.
    """
    if len(text) > LONGEST:
        return None
    text = text.translate(ASCII).rstrip()
    postfix: Postfix = []
    pending: list[str] = []  # operators and opening parentheses whose right-hand side is still open
    operand_next, position = True, 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            return None
        token, position = match[1], match.end()
        if operand_next and token == "(":
            pending.append(token)
        elif operand_next and token.isdigit():
            postfix.append(int(token))
            operand_next = False
        elif not operand_next and token in PRECEDENCE:
            while pending and PRECEDENCE.get(pending[-1], 0) >= PRECEDENCE[token]:
                postfix.append(pending.pop())
            pending.append(token)
            operand_next = True
        elif not operand_next and token == ")" and "(" in pending:
            while (top := pending.pop()) != "(":
                postfix.append(top)
        else:
            return None
    if operand_next or "(" in pending:
        return None
    return postfix + pending[::-1]


def evaluate(postfix: Postfix) -> Fraction | None:
    """The exact value; None when it divides by zero."""
    stack: list[Fraction] = []
    for token in postfix:
        if isinstance(token, int):
            stack.append(Fraction(token))
            continue
        right = stack.pop()
        if token == "/" and right == 0:
            return None
        stack.append(OPERATIONS[token](stack.pop(), right))
    return stack.pop()


class _Chain(NamedTuple):
    """Terms joined by + and - (or factors by * and /), split by sign; an ATOM is a chain of one."""

    precedence: int
    plus: list[str]
    minus: list[str]

    def __str__(self) -> str:
        plus, minus = (" + ", " - ") if self.precedence == 1 else (" * ", " / ")
        ordered = [sorted(terms, key=lambda term: (len(term), term)) for terms in (self.plus, self.minus)]
        return plus.join(ordered[0]) + "".join(minus + term for term in ordered[1])

    def within(self, precedence: int) -> tuple[list[str], list[str]]:
        """Its terms as part of a chain of this precedence."""
        if self.precedence == precedence:
            return self.plus, self.minus
        return [f"({self})" if self.precedence < precedence else str(self)], []


def canonical(postfix: Postfix) -> str:
    """One spelling for all orders and groupings: ``7 - (3 - 2)`` becomes ``2 + 7 - 3``."""
    stack: list[_Chain] = []
    for token in postfix:
        if isinstance(token, int):
            stack.append(_Chain(ATOM, [str(token)], []))
            continue
        precedence = PRECEDENCE[token]
        right, left = (stack.pop().within(precedence) for _ in "rl")
        plus, minus = right if token in "+*" else right[::-1]
        stack.append(_Chain(precedence, left[0] + plus, left[1] + minus))
    return str(stack.pop())


class _Problem(NamedTuple):
    numbers: tuple[int, ...]  # ascending
    target: int

    @property
    def name(self) -> str:
        return f"{' '.join(map(str, self.numbers))} = {self.target}"

    @property
    def split(self) -> Split | Literal["training"]:
        return drawn.part(drawn.TENTHS, "countdown", self.name)

    @property
    def prompt(self) -> str:
        return f"{self.name} :"


class _Solved(NamedTuple):
    """A random expression: ``steps`` apply an operator to two neighbours, which the result replaces."""

    numbers: list[int]
    steps: list[tuple[int, int]]  # position of the left neighbour, index of the operator
    value: int

    @property
    def problem(self) -> _Problem:
        return _Problem(tuple(sorted(self.numbers)), self.value)

    @property
    def solution(self) -> str:
        """With as few parentheses as keep the value: n numbers never need more than n - 2 pairs."""
        parts = [(str(number), ATOM) for number in self.numbers]
        for position, index in self.steps:
            symbol = OPERATORS[index]
            precedence = PRECEDENCE[symbol]
            (left, inner_left), (right, inner_right) = parts[position : position + 2]
            if inner_left < precedence:
                left = f"({left})"
            if inner_right < precedence or (inner_right == precedence and symbol in "-/"):
                right = f"({right})"
            parts[position : position + 2] = [(f"{left} {symbol} {right}", precedence)]
        return parts[0][0]


class Countdown(Task):
    """The task of the settings ``task``: a question has one of ``numbers`` many numbers, its difficulty.

    Raises ConfigError when ``largest_number`` or ``largest_target`` is above 1000.
    """

    name = "countdown"
    modules: tuple[str, ...] = ("tasks/countdown", "tasks/drawn", "tasks/vocabulary")

    def __init__(self, config: TaskConfig) -> None:
        for key in ("largest_number", "largest_target"):
            if not 1 <= getattr(config, key) <= LARGEST:
                raise ConfigError(f"task.{key} = {getattr(config, key)} must be in [1, {LARGEST}].")
        self.config = config

    @property
    def difficulties(self) -> list[Difficulty]:
        """How many numbers questions have."""
        return [*sorted(self.config.numbers)]

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different training questions in random order, equally many of each difficulty."""
        mixture = self._mixture(n, self.config.numbers, generator, distinct=True)
        return [_question(solved) for solved in mixture]

    def verify(self, question: Question, response: str) -> Verdict:
        """Reward 1 for an expression of exactly the question's numbers that equals the target, else 0."""
        postfix = parse(response)
        if postfix is None:
            return Verdict(0.0, None)
        used = sorted(token for token in postfix if isinstance(token, int))
        value = evaluate(postfix)
        right = used == list(question.payload["numbers"]) and value == question.payload["target"]
        return Verdict(float(right), None if value is None else canonical(postfix))

    def questions(self, split: Split) -> list[Question]:
        """``config.questions`` different problems per difficulty; a longer list begins with a shorter."""
        return [
            _question(solved)
            for size in sorted(self.config.numbers)
            for solved in self._take(
                self.config.questions, size, split, generator(0, "countdown", split, size), distinct=True
            )
        ]

    def demonstrations(
        self, n: int, generator: torch.Generator, difficulties: Collection[int] | None = None
    ) -> list[tuple[str, str]]:
        """``n`` random training problems, equally many of each difficulty, with a random solution each."""
        mixture = self._mixture(n, difficulties or self.config.numbers, generator, distinct=False)
        return [(solved.problem.prompt, solved.solution) for solved in mixture]

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level: each integer up to the largest number or target, operator and sign is one token."""
        integers = map(str, range(max(self.config.largest_number, self.config.largest_target) + 1))
        signs = {chr(sign): plain for sign, plain in ASCII.items()}
        return word_level([*OPERATORS, "(", ")", "=", ":", *integers], r"[0-9]+|\S", replaced=signs)

    def _mixture(self, n: int, sizes: Collection[int], generator: torch.Generator, *, distinct: bool) -> list[_Solved]:
        """``n`` of the training split in random order; chance decides which sizes get the remainder."""
        shuffled = [list(sizes)[i] for i in torch.randperm(len(sizes), generator=generator).tolist()]
        mixture: list[_Solved] = []
        for i, size in enumerate(shuffled):
            share = len(range(i, n, len(sizes)))
            mixture += self._take(share, size, "training", generator, distinct=distinct)
        return [mixture[i] for i in torch.randperm(n, generator=generator).tolist()]

    def _take(self, n: int, size: int, split: str, generator: torch.Generator, *, distinct: bool) -> list[_Solved]:
        """The first ``n`` random expressions of the split, with ``distinct`` the first of each problem."""
        found: dict[Hashable, _Solved] = {}
        fruitless = 0
        while len(found) < n:
            before = len(found)
            for solved in self._draw(size, generator):
                problem = solved.problem
                if problem.split == split:
                    found.setdefault(problem if distinct else len(found), solved)
                    if len(found) == n:
                        break
            fruitless = fruitless + 1 if len(found) == before else 0
            if fruitless == PATIENCE:
                raise ConfigError(
                    f"There are only about {len(found)} {split} problems with {size} numbers, of {n} wanted: "
                    f"ask for fewer, or raise task.largest_number = {self.config.largest_number} or "
                    f"task.largest_target = {self.config.largest_target}."
                )
        return list(found.values())

    def _draw(self, size: int, generator: torch.Generator) -> list[_Solved]:
        """Of ``DRAWS`` random expressions those whose value is an integer from 1 to the largest target."""
        numbers = torch.randint(1, self.config.largest_number + 1, (DRAWS, size), generator=generator)
        numerators, denominators = numbers, torch.ones_like(numbers)
        valid = torch.ones(DRAWS, dtype=torch.bool)
        steps = []
        for left_over in range(size - 1, 0, -1):
            position = torch.randint(left_over, (DRAWS, 1), generator=generator)
            symbol = torch.randint(len(OPERATORS), (DRAWS, 1), generator=generator)
            steps.append((position, symbol))
            (a, c), (b, d) = (
                (fraction.gather(1, position), fraction.gather(1, position + 1))
                for fraction in (numerators, denominators)
            )
            # a/b ∘ c/d, unreduced: in magnitude at most 16 · largest_number ** size
            valid &= ((symbol != 3) | (c != 0)).squeeze(1)
            numerator = torch.stack((a * d + c * b, a * d - c * b, a * c, a * d)).gather(0, symbol[None])[0]
            denominator = torch.where(symbol == 3, b * c, b * d)
            column = torch.arange(left_over).expand(DRAWS, -1)
            column = column + (column > position)
            numerators = numerators.gather(1, column).scatter(1, position, numerator)
            denominators = denominators.gather(1, column).scatter(1, position, denominator)
        denominator = denominators[:, 0].where(valid, 1)
        value = numerators[:, 0].div(denominator, rounding_mode="floor")
        valid &= value * denominator == numerators[:, 0]
        valid &= (value >= 1) & (value <= self.config.largest_target)
        path = torch.stack([torch.cat(step, 1) for step in steps], 1)  # (DRAWS, size - 1, 2)
        rows = zip(numbers[valid].tolist(), path[valid].tolist(), value[valid].tolist(), strict=True)
        return [_Solved(*row) for row in rows]


def _question(solved: _Solved) -> Question:
    problem = solved.problem
    return Question(
        id=f"countdown {problem.name}",
        prompt=problem.prompt,
        difficulty=len(problem.numbers),
        payload={"numbers": problem.numbers, "target": problem.target},
    )
