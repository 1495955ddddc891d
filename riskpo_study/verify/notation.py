r"""The many spellings of an answer: a plain one for all of them, exact numbers, the elements of lists and intervals.

Text only: nothing here evaluates an expression. Texts are short (`final_answer.LONGEST`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Elements", "Number", "balanced", "closing_brace", "elements", "key", "number", "plain", "prose", "split"]

_SIGNS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*",
    "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "°": r"^\circ ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "≈": r"\approx ",
    "∅": r"\emptyset ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅛": r"\frac{1}{8}", "％": "%", "’": "'", "€": "", "£": "", "¥": "",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "，": ", ", "：": ":", "（": "(", "）": ")", "。": ".",
})  # fmt: skip

# Applied in this order. What follows \ belongs to a command unless another \ precedes it: \\ ends a row of a matrix.
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        # Space, and what only sets it: 1{,}000, 1,\!000, \\[4pt], \quad, $, \left.
        (r"\{([,:])\}", r"\1"),
        (r"(?<!\\)\\!\s*", ""),
        (r"\\\\\s*\[[\d.]+\s*[a-z]{2}\]", r"\\\\"),
        (r"(?<!\\)\\(?:[,;:> \t\n]|q?quad(?![A-Za-z]))|~|\s+", " "),
        (r"(?<!\\)\\[()\[\]]|\\?\$|\\#", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?|(?:display|text|script)style)(?![A-Za-z])", ""),
        # Percent, fractions without braces, fonts and colours.
        (r"\\text\s*\{\s*(?:percent|\\?%)\s*\}|\\%|(?<![A-Za-z])percent(?![A-Za-z])", "%"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d|\\pi|(?<=\s)[A-Za-z])", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})\s*(\w|\\pi)", r"\1{\2}"),
        (r"\\(?:(?:text|math)(?:bf|it|rm|sf|normal)|[mh]box|boldsymbol|bm|emph|underline)\s*(?=\{)", r"\\text"),
        (r"\\(?:text)?color\s*\{[^{}]*\}", ""),
        (r"\{\s*\\(?:rm|bf|it)(?![A-Za-z])\s*", r"\\text{"),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        # What is said around the answer, as in "18 (or 36/2)".
        (r"^((?:\\text ?\{)?) ?(?:(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer is|答案[是为]):? ?", r"\1"),
        (r"\( ?or ([^()]*)\)$", r", \1"),
        (r"(?<=.)\\text ?\{,? ?for (?:all|any|every)\b.*$", ""),
        (r"(?<=.)[,(] ?[a-z] ?\\in ?\\mathbb ?\{?[NZQR]\}? ?\)?$", ""),
        (r"^(?:\\text ?\{)? ?(?:[Nn]o (?:real )?solutions?|[Nn]one)[ .}]*$", r"\\emptyset"),
        # One command of several for relations, braces, the empty set and degrees, which go, with C or F after them.
        (r"\\leq(?:slant|q)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?:slant|q)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\degree(?![A-Za-z])", r"^\\circ "),
        (r"\^\s*(?:\{\s*(?:\\circ|o)\s*\}|(?:\\circ|o)(?![A-Za-z]))\s*(?:(?:\\text\s*\{\s*[CF]\s*\}|[CF])\s*$)?", ""),
        # Words and functions as they are typed without LaTeX: infinity, pi, sqrt(2), sqrt34, and √221 by way of _SIGNS.
        (r"bmatrix", "pmatrix"),
        (r"(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"\\?(?<![A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        # A root without braces is that of the whole number: whoever types \sqrt221 means 221, and so the evaluation of
        # Qwen2.5-Math reads it. LaTeX, and with it math-verify, put only the first digit under the root: 21√2.
        (r"\\?(?<![A-Za-z])sqrt\s*(\d+(?:\.\d+)?)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([A-Za-z])", r"\\sqrt{\1}"),
        (r" +", " "),
    ]
]  # fmt: skip

_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWER = re.compile(rf"(?<=[\d)}}]) ?((?:\\text ?\{{)?) ?({'|'.join(_POWERS)})(?![A-Za-z])")
_SHORT_UNITS = re.compile(  # longer words are units, too
    r"[mgshLl]|[mcdk]m|in|ft|yd|mi|[km]g|lbs?|oz|hrs?|m[lL]|[mk]ph|[ap]m|[AP]M|[ap]\.m|sq|cu|of|"
    r"mins?|secs?|[kMG]?(?:Hz|eV|Pa)"
)
_NO_NOUN = r"(?:squared|cubed|halves|(?:thir|four|fif|six|seven|eigh|nin|ten|hundred|thousand)(?:d|th)s)(?![A-Za-z])"
_NAME = rf"\\text ?\{{ ?(?![ie] ?\}}|{_NO_NOUN})[A-Za-z/][^{{}}]*(?:\{{-?\d\}}[^{{}}]*)*\}}(?: ?\^ ?\{{?-?\d\}}?)?"
_UNIT = re.compile(  # "\text{ cm}^2", "/\text{s}", "\frac{\text{m}}{\text{s}}"
    rf"(?: ?(?:/|\\cdot|\\times))? ?(?:{_NAME}|\\frac\{{{_NAME}\}}\{{{_NAME}\}}) ?$"
)
_NO_UNIT = re.compile(
    r"\b(?:and|or|to|if|for|when|where|mod|choose|times|plus|minus|arc\w+|sin|cos|tan|cot|csc|log|ln|exp|lcm|gcd|max|"
    r"is|are|(?:sec|min)(?! ?$))\b"
)
_FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|sqrt|frac|pmatrix|matrix|array|cases"
_PROSE = re.compile(rf"(?<![\\A-Za-z])(?!(?:{_FUNCTIONS})(?![A-Za-z]))[A-Za-z]{{4,}}")


def plain(text: str) -> str:
    r"""The plain spelling: without units, degree and dollar signs, spacing, fonts; one command for all its variants."""
    text = text.translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _POWER.sub(lambda found: rf" \times 10^{{{_POWERS[found[2]]}}} {found[1]}", text)
    text = _trim(text)
    while (unit := _UNIT.search(text)) and re.search(r"[\w)}\]%.] ?$", text[: unit.start()]):
        text = text[: unit.start()]
    text = _trim(_without_words(_trim(text)))
    while (unwrapped := re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)) != text:  # \text{1}\text{2} is not 12
        text = unwrapped
    text = re.sub(" +", " ", text)
    text = _trim(_without_words(_trim(text)))
    exact, _, rounded = text.partition(r"\approx")
    text = _trim(exact) or _trim(rounded)
    if group := re.fullmatch(r"\(([^(),;]*)\)|\{([^{}]*)\}", text):
        text = _trim(group[1] or group[2] or "")
    return text


def _trim(text: str) -> str:
    return text.lstrip(" *`'\"=:,;").rstrip(" *`'\"=:,;.\\")


def _without_words(text: str) -> str:
    """``18`` for "18 dollars per day", ``25`` for "25 cm^2"."""
    text = re.sub(r" \([A-Za-z ]{3,}\)$|(?<=\d) ?(?![百千万亿十])[\u4e00-\u9fff]+$", "", text)
    base = re.sub(r"(?<=[A-Za-z])\s*\^\s*\{?\d\}?$", "", text)
    value = base.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ./'-")
    words = base[len(value) :]
    if value.endswith("\\") and words.startswith("pi"):
        value, words = value + "pi", words[2:]
    if not (re.search(r"[\d)}%]$|\\pi$", value) and re.search(r"\d|\\pi", value)) or _NO_UNIT.search(words):
        return text
    first = re.match(r"(\s*)([A-Za-z]+(?:\.[a-z])?)", words)
    if first is None or prose(value) or re.match(_NO_NOUN, first[2]):
        return text
    known = bool(_SHORT_UNITS.fullmatch(first[2])) and (bool(first[1]) or len(first[2]) > 1)
    return value if known or len(first[2]) > (2 if first[1] else 3) else text


def prose(text: str) -> bool:
    """Whether the text holds a word, which is then not a product of variables."""
    return _PROSE.search(text) is not None


def key(text: str) -> str:
    """Equal for plain spellings that differ in spaces, braces around one character, case or article of words."""
    if "\\" not in text:
        text = re.sub(r"^(?:the|an?) ", "", text.lower())
    return re.sub(r"(?<=[A-Za-z^_}])\{(\w)\}", r"\1", _close(text))


def _close(text: str) -> str:
    """Without spaces, but for those between digits: "1 2" is not 12."""
    return re.sub(r"\s+(?![\s\d])|(?<![\s\d])\s+", "", text)


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a sign of its own and opens no group


def closing_brace(text: str, start: int = 0) -> int | None:
    """Where the group ends whose brace stands at ``start``; None where it is not closed."""
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return brace.start()
    return None


def balanced(text: str) -> bool:
    """Whether every brace has its partner."""
    depth = 0
    for brace in _BRACE.findall(text):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0


class Number(NamedTuple):
    """An exact value, and what its spelling says besides."""

    value: Fraction
    rounded: bool  # written with decimals that are not all zero
    percent: bool
    base: str  # the subscript of 2516_8; empty without one


_DIGITS = r"(?:\d+(?:\.\d*)?|\.\d+)"
_GROUPS = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)")
_MIXED = re.compile(r"(\d+)(?: ?(?=\\frac)| (?=\d+/\d+$))")
_ARGUMENT = rf"(?:\{{([+-]?{_DIGITS})\}}|(\d))"
_FRACTION = re.compile(rf"\\frac{_ARGUMENT}{_ARGUMENT}")
_SLASH = re.compile(rf"({_DIGITS})/({_DIGITS})")
_DECIMAL = re.compile(
    rf"({_DIGITS})(?:\\overline\{{?(\d+)\}}?)?(?:(?:[eE]|(?:\\times|\\cdot|\*)10\^)\{{?([+-]?\d{{1,3}})\}}?)?"
)
_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip


@lru_cache(maxsize=4096)
def number(text: str) -> Number | None:
    r"""The number that a plain spelling stands for, if it is just one.

    Integers (``1,000``, ``2516_8``), decimals (``.5``, ``0.\overline{3}``, ``1.5 \times 10^6``, ``1.5e6``), fractions
    and mixed numbers (``3\frac12`` is 3 + 1/2), each with a sign and a percent sign; small ones in words.
    """
    if text.lower() in _WORDS:
        return Number(Fraction(_WORDS.index(text.lower())), False, False, "")
    body = text.removesuffix("%").rstrip()
    percent = text.endswith("%")
    body, _, subscript = body.partition("_")
    base = subscript.strip("{} ")
    if subscript and not (base.isdecimal() and re.fullmatch(r"-?\d+|\(\d+\)", body)):
        return None
    body = body.strip("()") if base else body
    sign = -1 if body.startswith("-") else 1
    body = body[1:].lstrip() if body.startswith(("-", "+")) else body
    if _GROUPS.fullmatch(body.partition(".")[0]):
        body = re.sub("[, ]", "", body)
    whole = Fraction(0)
    if mixed := _MIXED.match(body):
        whole, body = Fraction(mixed[1]), body[mixed.end() :]
    body = _close(body)
    rounded = False
    if fraction := _FRACTION.fullmatch(body) or _SLASH.fullmatch(body):
        above, below = (Fraction(part) for part in fraction.groups() if part)
        if below == 0:
            return None
        value = above / below
    elif decimal := None if mixed else _DECIMAL.fullmatch(body):
        digits, repeated, exponent = decimal.groups()
        value = Fraction(digits)
        if repeated:
            value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(digits.partition(".")[2]))
        value *= Fraction(10) ** int(exponent or 0)
        rounded = not repeated and value.denominator != 1
    else:
        return None
    return Number(sign * (whole + value), rounded, percent, base)


class Elements(NamedTuple):
    r"""A list: its brackets, ``(``, ``[``, ``{`` or none, and its elements."""

    opening: str
    closing: str
    parts: tuple[str, ...]


_SEPARATORS = re.compile(r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_GROUPING_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def elements(text: str) -> Elements:
    r"""The elements of a list, tuple, interval or set; another text is its own single element. ``1 \pm 2`` has two."""
    opening, inside, closing = "", text, ""
    bracketed = text.replace(r"\{", "{").replace(r"\}", "}")
    if _encloses(bracketed):
        opening, inside, closing = bracketed[0], bracketed[1:-1], bracketed[-1]
    if re.search(r"[,;] ", inside):  # "1,000, 2,000"
        inside = _GROUPING_COMMA.sub("", inside)
    parts = split(inside, _SEPARATORS)
    if not opening and len(parts) == 1 and inside.count(r"\pm") == 1:
        parts = [inside.replace(r"\pm", sign).strip(" +") for sign in "+-"]
    return Elements(opening, closing, tuple(parts))


def split(text: str, separators: re.Pattern[str]) -> list[str]:
    """The pieces between separators that stand in no brackets, without empty ones."""
    pieces, depth, begin = [], 0, 0
    for match in re.finditer(rf"\\[A-Za-z]+|\\(?![{{}}]).|[({{\[]|[)}}\]]|(?P<separator>{separators.pattern})", text):
        if match["separator"] and depth == 0:
            pieces.append(text[begin : match.start()])
            begin = match.end()
        depth += (match[0] in "({[") - (match[0] in ")}]")
    pieces.append(text[begin:])
    return [piece for piece in map(_trim, pieces) if piece]


def _encloses(text: str) -> bool:
    """Whether the text begins with a bracket whose partner is its last character."""
    depth = 0
    if not text.startswith(("(", "[", "{")):
        return False
    for match in re.finditer(r"[({\[)}\]]", text):
        depth += 1 if match[0] in "({[" else -1
        if depth == 0:
            return match.end() == len(text)
    return False
