"""Programs: from examples of inputs and outputs write the body of a Python function; hidden tests decide.

To the prompt ``7 -3 12 4 = 24 ; 5 2 9 9 = 18 ; -6 1 8 = 16 -> int with max * :`` one right response is
``return max ( x ) * 2``. The inputs ``SHOWN`` are the same in every prompt. Behind ``with`` stand the building blocks
of one solution, in a fixed order and without its numbers and names: without them a model of this size, trained for
minutes, finds next to none. A response may use others.

A *problem* is a behaviour: what a function returns for the hidden inputs ``PROBES``. Two programs that agree on these
are the same problem; a hash of the behaviour alone puts it into the training split (30 %), the development split or the
held-out split (20 % each): they are disjoint whatever the seeds and settings. The rest is only ever demonstrated: as
there are few simple behaviours, a base model would otherwise know by heart what it is then to train on.
Responses run in the sandbox and may use all of Python.
"""

from __future__ import annotations

import ast
import functools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from riskpo_study.seeds import derive
from riskpo_study.tasks import drawn
from riskpo_study.tasks.protocol import Difficulty, Question, Split, Task, Verdict
from riskpo_study.tasks.sandboxed import SANDBOX, verdicts
from riskpo_study.tasks.vocabulary import word_level
from riskpo_study.verify.sandbox import Case, Limits, Program, Sandbox

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from riskpo_study.config import Programs as ProgramsConfig
    from riskpo_study.config import Task as TaskConfig

__all__ = ["Programs", "draw"]

LARGEST = 99  # in magnitude, of a token and of every number a problem returns
LONGEST_LIST = 5  # that a problem takes or returns
LONGEST = 256  # characters of a response that are read
LONGEST_BODY = 19  # tokens of a program that is drawn, so that prompt, response and its end have at most 64
DISTINCT = 5  # outputs that the fixed inputs of a problem have at least
EASIER = 1000  # programs drawn to tell what takes fewer operations
PATIENCE = 20_000  # programs drawn in a row without a new problem before there are held to be no more
LIMITS = Limits(cpu_seconds=1, wall_seconds=5.0, memory_bytes=256 << 20, output_bytes=1 << 16)

NAMES = {"__builtins__": {}, "sum": sum, "max": max, "min": min, "len": len, "abs": abs, "sorted": sorted}
CONSTANTS, DIVISORS = (1, 2, 3, 4, 5), (2, 3)
Value = int | list[int]
Part = Split | Literal["training", "demonstrated"]
PARTS: tuple[Part, ...] = (  # by tenths of a hash
    "held_out", "development", "training", "training", "training",
    "held_out", "development", "demonstrated", "demonstrated", "demonstrated",
)  # fmt: skip
Kind = Literal["int", "list", "element", "changed", "kept", "constant"]

# How tightly an expression holds together, as in Python's grammar.
CONDITIONAL, COMPARISON, SUM, PRODUCT, ATOM = range(5)


class _Form(NamedTuple):
    """A way to make an expression: its text, how tightly it holds, and the kind and least tightness of each part."""

    text: str
    tightness: int
    parts: tuple[tuple[Kind, int], ...]


def _arithmetic(kind: Kind) -> list[_Form]:
    return [
        *(_Form(f"{{}} {sign} {{}}", SUM, ((kind, SUM), (kind, PRODUCT))) for sign in "+-"),
        _Form("{} * {}", PRODUCT, ((kind, PRODUCT), (kind, ATOM))),
    ]


# What a program of a kind can be made of. Inside a comprehension an "element" is an integer, "changed" one with at
# least one operation, and "kept" a condition, each about its variable v.
FORMS: dict[Kind, list[_Form]] = {
    "int": [
        *(_Form(f"{name} ( {{}} )", ATOM, (("list", CONDITIONAL),)) for name in ("sum", "max", "min", "len")),
        *(_Form(f"{{}} {index}", ATOM, (("list", ATOM),)) for index in ("[0]", "[-1]")),
        *_arithmetic("int"),
    ],
    "list": [
        _Form("sorted ( {} )", ATOM, (("list", CONDITIONAL),)),
        *(_Form(f"{{}} {part}", ATOM, (("list", ATOM),)) for part in ("[::-1]", "[1:]", "[:-1]")),
        _Form("[ {} for v in {} ]", ATOM, (("changed", CONDITIONAL), ("list", COMPARISON))),
        _Form("[ v for v in {} if {} ]", ATOM, (("list", COMPARISON), ("kept", COMPARISON))),
    ],
    "element": [
        *_arithmetic("element"),
        *(_Form(f"{{}} {sign} {{}}", PRODUCT, (("element", PRODUCT), ("constant", ATOM))) for sign in ("%", "//")),
        _Form("abs ( {} )", ATOM, (("element", CONDITIONAL),)),
        _Form(
            "{} if {} else {}",
            CONDITIONAL,
            (("element", COMPARISON), ("kept", COMPARISON), ("element", CONDITIONAL)),
        ),
    ],
    "kept": [
        *(_Form(f"{{}} {sign} {{}}", COMPARISON, (("element", SUM), ("int", SUM))) for sign in (">", "<", "==")),
        _Form("{} % 2 == 0", COMPARISON, (("element", PRODUCT),)),
    ],
}
FORMS["changed"] = FORMS["element"]
AT_LEAST: dict[Kind, int] = {"kept": 1, "changed": 1}  # operations

BLOCKS = [
    *("sorted", "sum", "max", "min", "len", "abs", "[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "for", "if", "else"),
    *("+", "-", "*", "//", "%", "==", "<", ">"),
]
WORDS = [*BLOCKS, "return", "x", "v", "in", "int", "list", "with", "(", ")", "[", "]", "=", ";", "->", ":"]


def _inputs(purpose: str, n: int, shortest: int, longest: int) -> list[list[int]]:
    rng = random.Random(derive(0, "programs", purpose))
    return [[rng.randint(-9, 20) for _ in range(rng.randint(shortest, longest))] for _ in range(n)]


PROBES = _inputs("probes", 24, 1, LONGEST_LIST)
SHOWN = [[7, -3, 12, 4], [5, 2, 9, 9], [-6, 1, 8]]  # the inputs in every prompt


def draw(operations: int, rng: random.Random) -> str:
    """The body of a random function of ``x`` with exactly so many operations."""
    return f"return {_expression(rng.choice(('int', 'list')), operations, rng)[0]}"


def _expression(kind: Kind, operations: int, rng: random.Random) -> tuple[str, int]:
    """Its text, and how tightly it holds together."""
    if operations == 0:
        if kind == "list":
            return "x", ATOM
        return "v" if kind == "element" and rng.random() < 0.7 else str(rng.choice(CONSTANTS)), ATOM
    while True:
        form = rng.choice(FORMS[kind])
        spare = operations - 1 - sum(AT_LEAST.get(part, 0) for part, _ in form.parts)
        if spare < 0:
            continue
        growing = [part != "constant" for part, _ in form.parts]
        cuts = sorted(rng.randint(0, spare) for _ in range(sum(growing) - 1))
        shares = iter([end - start for start, end in zip([0, *cuts], [*cuts, spare], strict=True)])
        texts = []
        for (part, tightness), grows in zip(form.parts, growing, strict=True):
            if grows:
                text, held = _expression(part, AT_LEAST.get(part, 0) + next(shares), rng)
                texts.append(text if held >= tightness else f"( {text} )")
            else:
                texts.append(str(rng.choice(DIVISORS)))
        if any(not text.isdigit() for text in texts):
            return form.text.format(*texts), form.tightness


def outputs(body: str, inputs: Sequence[Sequence[int]]) -> tuple[Value, ...] | None:
    """What a body that `draw` made returns for each input; None where it fails or returns what a problem may not.

    Never for the text of a response, which only the sandbox may run.
    """
    function = eval(f"lambda x: {body.removeprefix('return ')}", NAMES)
    found: list[Value] = []
    for given in inputs:
        try:
            value = function(list(given))
        except (IndexError, ValueError):  # of an empty list: its first element, its largest
            return None
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > LONGEST_LIST or not all(abs(number) <= LARGEST for number in numbers):
            return None
        found.append(value)
    return tuple(found)


@dataclass(frozen=True)
class _Problem:
    """A behaviour; ``body`` is one program that shows it."""

    operations: int
    body: str
    outputs: tuple[Value, ...]  # for PROBES

    @functools.cached_property
    def name(self) -> str:
        return f"{derive(0, 'programs', str(self.outputs)):016x}"

    @functools.cached_property
    def split(self) -> Part:
        return drawn.part(PARTS, "programs", "split", self.name)

    def prompt(self) -> str:
        """The outputs for SHOWN, of which type they are, and the building blocks of the body."""
        shown = outputs(self.body, SHOWN)
        assert shown is not None
        pairs = (f"{_spelled(given)} = {_spelled(value)}".rstrip() for given, value in zip(SHOWN, shown, strict=True))
        kind = "list" if isinstance(shown[0], list) else "int"
        blocks = sorted((word for word in self.body.split() if word in BLOCKS), key=BLOCKS.index)
        return f"{' ; '.join(pairs)} -> {kind} with {' '.join(blocks)} :"


def _spelled(value: Value) -> str:
    return " ".join(map(str, value if isinstance(value, list) else [value]))


@functools.lru_cache(1 << 14)
def _problem(body: str, operations: int) -> _Problem | None:
    """The problem that a program solves; None where that would be no good problem."""
    behaviour = outputs(body, PROBES) if len(body.split()) <= LONGEST_BODY else None
    if behaviour is None or list(behaviour) == PROBES or len(set(map(str, behaviour))) < DISTINCT:
        return None
    if str(behaviour) in _easier(operations) or outputs(body, SHOWN) is None:
        return None
    return _Problem(operations, body, behaviour)


@functools.cache
def _easier(operations: int) -> frozenset[str]:
    """What programs with fewer operations do: the most usual of it, found by drawing."""
    behaviours: list[str] = []
    for fewer in range(1, operations):
        rng = random.Random(derive(0, "programs", "easier", fewer))
        behaviours += [str(outputs(draw(fewer, rng), PROBES)) for _ in range(EASIER)]
    return frozenset(behaviours)


class Programs(Task):
    """The task of the sections ``task`` and ``programs``: a difficulty is how many operations a program has."""

    name = "programs"
    modules: tuple[str, ...] = ("tasks/programs", "tasks/drawn", "tasks/vocabulary", *SANDBOX)

    def __init__(self, task: TaskConfig, config: ProgramsConfig) -> None:
        self.config, self.each = config, task.questions

    @property
    def difficulties(self) -> list[Difficulty]:
        """How many operations the programs behind the questions have: ``3 operations``."""
        return [_difficulty(operations) for operations in sorted(self.config.operations)]

    @property
    def provenance(self) -> dict[str, object]:
        """The settings, which decide every question."""
        return {"operations": self.config.operations}

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different training questions in random order, equally many of each difficulty."""
        mixture = _mixture(n, self.config.operations, "training", drawn.seeded(generator), set())
        return [_question(problem) for problem in mixture]

    def verify(self, question: Question, response: str) -> Verdict:
        """Reward 1 for a function body that returns what it should for every hidden input, else 0."""
        return self.verify_all([(question, response)])[0]

    def verify_all(self, pairs: Sequence[tuple[Question, str]]) -> list[Verdict]:
        """Judge responses together, as fast as the sandbox can; equal programs for a question run once.

        A response is a program, and an answer, where Python can parse it as a function's body.
        """
        sources = [source_of(response) for _, response in pairs]
        programs = [
            None if source is None else (question.id, Program(source, question.payload["cases"], "f"), source)
            for (question, _), source in zip(pairs, sources, strict=True)
        ]
        return verdicts(self.sandbox, programs)

    @functools.cached_property
    def sandbox(self) -> Sandbox:
        """Where responses run; started when first needed, closed with the task."""
        return Sandbox(LIMITS, self.config.workers)

    def questions(self, split: Split) -> list[Question]:
        """``task.questions`` problems per difficulty, all different; a longer list begins with a shorter."""
        taken: set[str] = set()
        found: list[Question] = []
        for operations in sorted(self.config.operations):
            rng = random.Random(derive(0, "programs", split, operations))
            found += [_question(problem) for problem in _first(self.each, operations, split, rng, taken)]
        return found

    def demonstrations(
        self, n: int, generator: torch.Generator, difficulties: Collection[int] | None = None
    ) -> list[tuple[str, str]]:
        """``n`` random demonstrated problems, equally many of each number of operations, each with a solution."""
        mixture = _mixture(n, difficulties or self.config.operations, "demonstrated", drawn.seeded(generator), None)
        return [(problem.prompt(), problem.body) for problem in mixture]

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level: each integer of a problem, name, sign and index such as ``[::-1]`` is one token."""
        split = r"\[(?:0|-1|1:|:-1|::-1)\]|->|//|==|-?[0-9]+|[A-Za-z]+|\S"
        return word_level([*WORDS, *map(str, range(-LARGEST, LARGEST + 1))], split)


def source_of(response: str) -> str | None:
    """The function that has the response as its body, as Python itself would spell it; None where it has no such.

    Parsed, not run; the length is bounded.
    """
    if len(response) > LONGEST:
        return None
    try:
        return ast.unparse(ast.parse(f"def f(x):\n{indent(response, '    ')}"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _mixture(
    n: int, difficulties: Collection[int], split: str, rng: random.Random, taken: set[str] | None
) -> list[_Problem]:
    return drawn.mixture(n, difficulties, rng, lambda count, operations: _first(count, operations, split, rng, taken))


def _first(n: int, operations: int, split: str, rng: random.Random, taken: set[str] | None) -> list[_Problem]:
    return drawn.first(
        n, split, lambda: _problem(draw(operations, rng), operations), taken, patience=PATIENCE,
        kind=f"with {operations} operations", remedy="for more operations",
    )  # fmt: skip


def _question(problem: _Problem) -> Question:
    cases = tuple(Case([given], value) for given, value in zip(PROBES, problem.outputs, strict=True))
    return Question(f"programs {problem.name}", problem.prompt(), _difficulty(problem.operations), {"cases": cases})


def _difficulty(operations: int) -> Difficulty:
    return f"{operations} operation{'s' if operations > 1 else ''}"
