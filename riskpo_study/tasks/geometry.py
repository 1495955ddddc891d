"""Geometry: read quantities off a small figure and combine them; a number decides.

One question shows four bars and says ``Find A + C.``; a right response is ``6 + 7 = 13``, or ``13``. The figures:

- ``bars``: a chart of four bars, without a scale: a unit is six pixels. Asked is the sum of some.
- ``angles``: rays that divide half a turn or a full one, or a triangle, with all angles but x labelled. Asked is x.
- ``lengths``: a segment in two parts, or a polygon, with its lengths labelled. Asked is the whole or the perimeter.
- ``counting``: four kinds of marks on a grid. Asked is how many there are of some kinds together.

A *problem* is the figure's kind with its quantities, in order, and which of them are asked for; how many these are is
the difficulty. A hash of the problem alone puts it into the training split (80 %), the development split or the
held-out split (10 % each), and decides whatever else the drawing needs, such as where marks stand: equal problems look
alike. Figures are drawn evenly, but there are few different angles and lengths with two quantities: held-out questions
with two are nearly all about bars and marks. Marks stand on a grid of 8 pixels and labels on one of 16, the patches and
the tokens of a vision transformer that is trained for minutes.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Collection, Mapping
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from PIL import Image, ImageDraw

from riskpo_study.seeds import derive
from riskpo_study.tasks import drawn
from riskpo_study.tasks.protocol import Difficulty, Prompt, Question, Split, Task, Verdict
from riskpo_study.tasks.vocabulary import word_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from riskpo_study.config import Geometry as GeometryConfig
    from riskpo_study.config import Task as TaskConfig

__all__ = ["SIZE", "Geometry", "final_number"]

SIZE = 64  # pixels, of both sides
CELL = 8  # pixels, for a mark; a label has twice that
LONGEST = 256  # digits and signs of a number that is read
CELLS, MIDDLE = SIZE // CELL, SIZE // 2
PATIENCE = 5_000  # problems drawn in a row without a new one before there are held to be no more

BARS, MARKS = "ABCD", ("circles", "squares", "triangles", "crosses")
TALLEST = 9  # of a bar, in units
UNIT = 6  # pixels
COLOURS = ("red", "lime", "blue", "black")
MOST_MARKS = 5  # of a kind
SHORTEST, LONGEST_SIDE = 1, 9
SMALLEST_ANGLE, LARGEST_ANGLE = 20, 90  # that is labelled, in degrees: multiples of ten

WAYS, WEIGHTS = ("at once", "in one", "step by step"), (1, 2, 3)  # how demonstrations answer, and how often

GLYPHS = {  # 3 pixels wide, 5 high, from the top, a digit a row
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "A": "25755", "B": "65656", "C": "34443", "D": "65556", "x": "05255",
}  # fmt: skip

TEXT = ("Find", "Count", "the", "and", "length", "perimeter", "x", ".", ",")
WORDS = (*map(str, range(361)), " + ", " - ", " = ", *TEXT, *BARS, *MARKS)
VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
CHAT = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}" + "".join(VISION) + "{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]+|/[0-9]+)?|\.[0-9]+)")
AROUND = " \t\n$°"  # that do not belong to a number


Point = tuple[int, int]
"""In pixels from the upper left corner."""
Cell = tuple[int, int]
"""Column and row on the grid of labels."""


class _Problem(NamedTuple):
    figure: str
    numbers: tuple[int, ...]  # all that the figure shows, in its order
    asked: tuple[int, ...]  # positions of those that the question is about

    @property
    def name(self) -> str:
        asked = "".join(map(str, self.asked))
        return f"{self.figure} {' '.join(map(str, self.numbers))} / {asked}"

    @property
    def split(self) -> Split | Literal["training"]:
        return drawn.part(drawn.TENTHS, "geometry", self.name)

    @property
    def used(self) -> list[int]:
        return [self.numbers[i] for i in self.asked]

    @property
    def whole(self) -> int | None:
        """What the quantities are taken from; None where they are added."""
        return None if self.figure != "angles" else _turn(len(self.numbers))

    @property
    def answer(self) -> int:
        return sum(self.used) if self.whole is None else self.whole - sum(self.used)

    @property
    def text(self) -> str:
        match self.figure:
            case "bars":
                return f"Find {' + '.join(BARS[i] for i in self.asked)}."
            case "angles":
                return "Find x."
            case "lengths":
                return "Find the length." if len(self.numbers) <= 2 else "Find the perimeter."
        *others, last = (MARKS[i] for i in self.asked)
        return f"Count the {', '.join(others)}{' and ' if others else ''}{last}."


def _turn(angles: int) -> int:
    """Degrees that so many labelled angles and x have together."""
    return 180 if angles <= 2 else 360


def _draw(figure: str, size: int, rng: random.Random) -> _Problem | None:
    """A random problem in which so many quantities are asked for; None where they make no figure that can be read."""
    match figure:
        case "bars":
            return _Problem(figure, _integers(4, 1, TALLEST, rng), tuple(sorted(rng.sample(range(4), size))))
        case "counting":
            return _Problem(figure, _integers(4, 1, MOST_MARKS, rng), tuple(sorted(rng.sample(range(4), size))))
        case "angles":
            numbers = tuple(10 * n for n in _integers(size, SMALLEST_ANGLE // 10, LARGEST_ANGLE // 10, rng))
            possible = sum(numbers) <= _turn(size) - SMALLEST_ANGLE
        case _:
            numbers = _integers(size, SHORTEST, LONGEST_SIDE, rng)
            possible = size <= 2 or 2 * max(numbers) < sum(numbers)
    problem = _Problem(figure, numbers, tuple(range(size)))
    return problem if possible and _legible(problem) else None


def _legible(problem: _Problem) -> bool:
    """Whether no two labels stand in the same cell, nor in neighbours of a row, where they would look like one."""
    cells = [cell for _, cell in _labels(problem)]
    return len({*cells}) == len(cells) and not any((column + 1, row) in cells for column, row in cells)


def _integers(n: int, low: int, high: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randint(low, high) for _ in range(n))


def render(problem: _Problem) -> Image.Image:
    """The figure, black on white, SIZE x SIZE pixels."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    if problem.figure == "bars":
        for i, height in enumerate(problem.numbers):
            left, base = 16 * i + CELL // 2, SIZE - CELL
            draw.rectangle((left, base - UNIT * height, left + CELL - 1, base - 1), fill=COLOURS[i])
            image.paste(_written(BARS[i], 1), (left + 2, base + 2))
    elif problem.figure == "counting":
        kinds = [kind for kind, count in enumerate(problem.numbers) for _ in range(count)]
        for kind, cell in zip(kinds, _chance(problem).sample(range(CELLS**2), len(kinds)), strict=True):
            image.paste(_mark(kind), (cell % CELLS * CELL, cell // CELLS * CELL))
    else:
        for ends in _lines(problem):
            draw.line(ends, fill="black")
        for text, (column, row) in _labels(problem):
            label = _written(text, 2)
            place = (2 * CELL * column + CELL - label.width // 2, 2 * CELL * row + CELL - label.height // 2)
            image.paste(label, place)
    return image


def _lines(problem: _Problem) -> list[tuple[Point, Point]]:
    match problem.figure, len(problem.numbers):
        case "lengths", 1 | 2:
            (left, y), *_, (right, _) = points = _segment(problem)
            return [((left, y), (right, y)), *(((x, y - 3), (x, y + 3)) for x, _ in points)]
        case ("lengths", _) | ("angles", 2):
            corners = _corners(problem)
            return list(zip(corners, corners[1:] + corners[:1], strict=True))
        case "angles", _:
            return [((MIDDLE, MIDDLE), _at(MIDDLE - 1, degrees)) for degrees in _rays(problem)]
    return []


def _labels(problem: _Problem) -> list[tuple[str, Cell]]:
    """Texts with their cells, which differ in a problem worth asking."""
    texts = [*map(str, problem.numbers)]
    match problem.figure, len(problem.numbers):
        case "lengths", 1 | 2:
            points = _segment(problem)
            middles = [((a[0] + b[0]) // 2, a[1] - CELL) for a, b in pairwise(points)]
            return [(text, _cell(point)) for text, point in zip(texts, middles, strict=True)]
        case "lengths", _:
            ends = pairwise(_rays(problem))
            middles = [_at(round(20 * math.cos(math.radians(b - a) / 2)) + 10, (a + b) / 2) for a, b in ends]
            return [(text, _cell(point)) for text, point in zip(texts, middles, strict=True)]
        case "angles", 2:
            centre = [sum(values) / 3 for values in zip(*_corners(problem), strict=True)]
            inner = [(round(x + (centre[0] - x) / 3), round(y + (centre[1] - y) / 3)) for x, y in _corners(problem)]
            return [(text, _cell(point)) for text, point in zip([*texts, "x"], inner, strict=True)]
        case "angles", _:
            ends = pairwise(_rays(problem))
            return [(text, _cell(_at(21, (a + b) / 2))) for text, (a, b) in zip([*texts, "x"], ends, strict=True)]
    return []


def _rays(problem: _Problem) -> list[float]:
    """Directions, in degrees, of the rays or corners: an angle or a length, and x, come between one and the next.

    The last is the first again, a full turn on; but on the other side of the line that one angle and x make up.
    """
    shares = [*problem.numbers]
    if problem.figure == "angles":
        shares.append(problem.answer)
    first, whole = _chance(problem).randrange(360), 180 if len(shares) == 2 else 360
    return [first + whole * part / sum(shares) for part in accumulate(shares, initial=0)]


def _corners(problem: _Problem) -> list[Point]:
    """Of a polygon on a circle, its sides roughly to scale; or of a triangle with its angles."""
    if problem.figure == "lengths":
        return [_at(20, degrees) for degrees in _rays(problem)[:-1]]
    a, b, c, _ = _rays(problem)  # an angle at a circle is half the arc that it sees: the first corner faces a to b
    return [_at(30, c), _at(30, a), _at(30, b)]


def _segment(problem: _Problem) -> list[Point]:
    """The ends of the segment's parts, from left to right."""
    y = 2 * CELL * _chance(problem).randint(1, 3) + CELL // 2
    left, right = CELL // 2, SIZE - CELL // 2
    parts = accumulate(problem.numbers, initial=0)
    return [(left + round((right - left) * part / sum(problem.numbers)), y) for part in parts]


def _at(radius: int, degrees: float) -> Point:
    """So far from the middle, in a direction counted counter-clockwise from the right."""
    angle = math.radians(degrees)
    return round(MIDDLE + radius * math.cos(angle)), round(MIDDLE - radius * math.sin(angle))


def _cell(point: Point) -> Cell:
    x, y = (min(max(value // (2 * CELL), 0), CELLS // 2 - 1) for value in point)
    return x, y


def _chance(problem: _Problem) -> random.Random:
    return random.Random(derive(0, "geometry", "drawing", problem.name))


@functools.cache
def _written(text: str, scale: int) -> Image.Image:
    """Black on white."""
    label = Image.new("L", (4 * len(text) - 1, 5), 255)
    for i, sign in enumerate(text):
        for y, row in enumerate(GLYPHS[sign]):
            for x in range(3):
                if int(row) >> (2 - x) & 1:
                    label.putpixel((4 * i + x, y), 0)
    return label.resize((scale * label.width, scale * label.height), Image.Resampling.NEAREST)


@functools.cache
def _mark(kind: int) -> Image.Image:
    mark = Image.new("L", (CELL, CELL), 255)
    draw = ImageDraw.Draw(mark)
    match MARKS[kind]:
        case "circles":
            draw.ellipse((1, 1, 6, 6), outline=0)
        case "squares":
            draw.rectangle((1, 1, 6, 6), fill=0)
        case "triangles":
            draw.polygon([(0, 6), (6, 6), (3, 0)], outline=0)
        case "crosses":
            draw.line((1, 1, 6, 6), fill=0)
            draw.line((1, 6, 6, 1), fill=0)
    return mark


def final_number(response: str) -> Fraction | None:
    """The number that a response ends with: after its last equals sign where it has one, else all of it.

    An integer, decimal or fraction; spaces, a full stop, dollar and degree signs around it do not matter.
    """
    end = response.rpartition("=")[2].strip(AROUND)
    text = end.removesuffix(".").strip(AROUND)
    if len(text) > LONGEST or not NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


def _solution(problem: _Problem, rng: random.Random) -> str:
    """The answer alone, one sum, or step by step; the quantities in random order."""
    used = rng.sample(problem.used, len(problem.used))
    sign = " + " if problem.whole is None else " - "
    (way,) = rng.choices(WAYS, WEIGHTS)
    terms = used if problem.whole is None else [problem.whole, *used]
    if way == "at once" or len(terms) == 1:
        return str(problem.answer)
    if way == "in one":
        return f"{sign.join(map(str, terms))} = {problem.answer}"
    total, *others = terms
    said = str(total)
    for term in others:
        total = total + term if problem.whole is None else total - term
        said += f"{sign}{term} = {total}"
    return said


class Geometry(Task):
    """The task of the sections ``task`` and ``geometry``: a difficulty is how many quantities a question combines."""

    name = "geometry"
    modules: tuple[str, ...] = ("tasks/geometry", "tasks/drawn", "tasks/vocabulary")

    def __init__(self, task: TaskConfig, config: GeometryConfig) -> None:
        self.config, self.each = config, task.questions

    @property
    def difficulties(self) -> list[Difficulty]:
        """How many quantities questions combine: ``3 quantities``."""
        return [_difficulty(size) for size in sorted(self.config.quantities)]

    @property
    def provenance(self) -> Mapping[str, object]:
        """The settings, which decide every question."""
        return {"figures": self.config.figures, "quantities": self.config.quantities}

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different training questions in random order, equally many of each difficulty."""
        mixture = self._mixture(n, self.config.quantities, drawn.seeded(generator), set())
        return [_question(problem) for problem in mixture]

    def verify(self, question: Question, response: str) -> Verdict:
        """Reward 1 for a response that ends with the right number, in any notation, else 0."""
        number = final_number(response)
        return Verdict(float(number == question.payload["answer"]), None if number is None else str(number))

    def questions(self, split: Split) -> list[Question]:
        """``task.questions`` different problems per difficulty; a longer list begins with a shorter."""
        found: list[Question] = []
        for size in sorted(self.config.quantities):
            rng = random.Random(derive(0, "geometry", split, size))
            found += [_question(problem) for problem in self._first(self.each, size, split, rng, set())]
        return found

    def demonstrations(
        self, n: int, generator: torch.Generator, difficulties: Collection[int] | None = None
    ) -> list[tuple[Prompt, str]]:
        """``n`` random training problems, equally many of each difficulty, each solved in one of three ways."""
        rng = drawn.seeded(generator)
        mixture = self._mixture(n, difficulties or self.config.quantities, rng, None)
        return [(_prompt(problem), _solution(problem, rng)) for problem in mixture]

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """Digits, signs with the spaces around them, and words; as in Qwen2.5-VL an image stands between two marks."""
        from tokenizers import decoders

        split = r" [-+=] |[0-9]+|[A-Za-z]+|[.,]"
        return word_level(WORDS, split, marks=VISION, decoder=decoders.Fuse(), chat_template=CHAT)

    def _mixture(
        self, n: int, difficulties: Collection[int], rng: random.Random, taken: set[str] | None
    ) -> list[_Problem]:
        return drawn.mixture(n, difficulties, rng, lambda count, size: self._first(count, size, "training", rng, taken))

    def _first(self, n: int, size: int, split: str, rng: random.Random, taken: set[str] | None) -> list[_Problem]:
        figures = self.config.figures
        return drawn.first(
            n, split, lambda: _draw(rng.choice(figures), size, rng), taken, patience=PATIENCE,
            kind=f"of {' and '.join(figures)} with {size} quantities", remedy="name more figures in geometry.figures",
        )  # fmt: skip


def _prompt(problem: _Problem) -> Prompt:
    """A message of the user: the figure, then what to find."""
    parts = [{"type": "image", "image": render(problem)}, {"type": "text", "text": problem.text}]
    return [{"role": "user", "content": parts}]


def _question(problem: _Problem) -> Question:
    level, payload = _difficulty(len(problem.asked)), {"answer": problem.answer}
    return Question(f"geometry {problem.name}", _prompt(problem), level, payload)


def _difficulty(size: int) -> Difficulty:
    return f"{size} {'quantity' if size == 1 else 'quantities'}"
