r"""Whether an answer means the same as the gold answer, by its text where that decides.

What it does not decide is asked of a function, `symbolic.same` in a worker. Both are in plain spelling
(`notation.plain`). What equals what:

- numbers by value; where one of them is written with decimals, to six of them, as math-verify has it (see `near`), so
  that 4.898979 is ``2\sqrt{6}`` and 0.3333 is not 1/3; 50 % is 50 and 0.5;
- lists without brackets and sets in any order and however often an element is named; points, intervals and matrices
  element by element; (1, 2) is not [1, 2], which is no list either;
- ``x = 5`` is 5, ``x \in [0, 1]`` is [0, 1], and (B) is B, with or without the text of the choice;
- words by their letters; all else as math-verify has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

from riskpo_study.verify.notation import Elements, Number, elements, key, number, prose, split

__all__ = ["Symbolic", "Unparsed", "canonical", "equivalent", "near"]

Symbolic = Callable[[str, str], bool]
"""(answer, gold answer) -> whether they are equal, for single expressions; may raise `Unparsed`."""
Real = TypeVar("Real", Fraction, float)

_EQUALS = re.compile(r"(?<![<>!:])=")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_MEMBER = re.compile(r"^[A-Za-z]\w?\s*\\in(?![A-Za-z])\s*")
_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice) )?\(?([A-E])\)?(?=$|[\s:,)]|\.(?!\d))(?!\s*=)")
_CHOICE_LABEL = re.compile(r"^\([A-E]\)\s*(?=\S)")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}")
_ORDER = re.compile(r"[<>]|\\[lg]e(?![A-Za-z])")
_SET = re.compile(r"[<>=|]|\\(?:[lgn]e|in|cup|cap|setminus|mathbb|emptyset|pm|mp)(?![A-Za-z])")  # may equal a list


class Unparsed(Exception):
    """The answer is no mathematical expression."""


def equivalent(answer: str, gold: str, symbolic: Symbolic) -> bool:
    """Whether the answer means the gold one; what the text does not decide is asked of ``symbolic``."""
    if key(answer) == key(gold):
        return True
    if re.fullmatch("[A-E]", gold):
        choice = _CHOICE.match(answer)
        return choice is not None and {choice[1], *re.findall(r"\b[A-E]\b", answer)} == {gold}
    answer, gold = (_MEMBER.sub("", _CHOICE_LABEL.sub("", text)) for text in (answer, gold))
    mine, its = number(answer), number(gold)
    if mine and its:
        return _same_number(mine, its)
    ours, theirs = elements(answer), elements(gold)
    if mine and len(theirs.parts) == 1:  # "3,628,800" for 10! is no list
        answer = answer.replace(",", "")
        ours = elements(answer)
    sides, their_sides = split(answer, _EQUALS), split(gold, _EQUALS)
    if len(sides) > len(their_sides) == 1 == len(ours.parts):
        return equivalent(sides[-1], gold, symbolic)
    if len(their_sides) > len(sides) == 1 == len(theirs.parts) and _names(their_sides[0]):
        return equivalent(answer, their_sides[-1], symbolic)
    if len(ours.parts) == len(theirs.parts) == 1:
        if len(sides) == len(their_sides) == 2 and key(sides[0]) == key(their_sides[0]):
            return equivalent(sides[1], their_sides[1], symbolic)
        return _same_single(answer, gold, symbolic)
    return _same_list(answer, gold, ours, theirs, symbolic)


def _names(side: str) -> bool:
    r"""Whether the left side of an equation only names the right one: ``x``, ``f(x)``, ``a_1``, ``\angle ABC``."""
    return not re.search(r"[\d+*/^-]", re.sub(r"_\{?\w+\}?|\([^()]*\)", "", side))


def _same_number(answer: Number, gold: Number) -> bool:
    if answer.base and gold.base and answer.base != gold.base:
        return False
    values = [answer.value]
    if answer.percent != gold.percent:
        values.append(answer.value / 100 if answer.percent else answer.value * 100)
    rounded = answer.rounded or gold.rounded
    return any(value == gold.value or (rounded and near(value, gold.value)) for value in values)


def near(value: Real, gold: Real) -> bool:
    """Whether a decimal is equal to six decimals, and to a ten-thousandth where these are few; never to an integer."""
    return gold % 1 != 0 and round(value, 6) == round(gold, 6) and abs(value - gold) <= abs(gold) / 10_000


def _same_single(answer: str, gold: str, symbolic: Symbolic) -> bool:
    ours, theirs = elements(answer), elements(gold)
    if ours.opening != theirs.opening and "{" in (ours.opening, theirs.opening):  # a set of one
        return equivalent(ours.parts[0], theirs.parts[0], symbolic)
    pieces, their_pieces = split(answer, _CUP), split(gold, _CUP)
    if len(pieces) == len(their_pieces) > 1 and _matched(pieces, their_pieces, symbolic):
        return True
    if (matrix := _MATRIX.fullmatch(answer)) and (their_matrix := _MATRIX.fullmatch(gold)):
        rows, their_rows = _rows(matrix[1]), _rows(their_matrix[1])
        return len(rows) == len(their_rows) and all(map(_in_order, rows, their_rows, [symbolic] * len(rows)))
    return not prose(answer) and not prose(gold) and symbolic(answer, gold)


def _same_list(answer: str, gold: str, ours: Elements, theirs: Elements, symbolic: Symbolic) -> bool:
    listed, their_listed = ours.opening in ("", "{"), theirs.opening in ("", "{")
    if 1 in (len(ours.parts), len(theirs.parts)):
        single, several_listed = (answer, their_listed) if len(ours.parts) == 1 else (gold, listed)
        if not _SET.search(single):
            return listed and their_listed and _matched(ours.parts, theirs.parts, symbolic)
        compared = not prose(single) and not (several_listed and _ORDER.search(single))
        return compared and symbolic(answer, gold)
    brackets, their_brackets = ours.opening + ours.closing, theirs.opening + theirs.closing
    if brackets != their_brackets and re.search(r"[\[\]]", brackets + their_brackets):
        return False
    return (_matched if their_listed else _in_order)(ours.parts, theirs.parts, symbolic)


def _rows(matrix: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("&")] for row in matrix.split(r"\\") if row.strip()]


def _in_order(ours: Sequence[str], theirs: Sequence[str], symbolic: Symbolic) -> bool:
    return len(ours) == len(theirs) and all(
        equivalent(mine, its, symbolic) for mine, its in zip(ours, theirs, strict=True)
    )


def _matched(ours: Sequence[str], theirs: Sequence[str], symbolic: Symbolic) -> bool:
    """Whether the elements are the same in some order, however often."""
    given, wanted = set(map(key, ours)), set(map(key, theirs))
    return all(
        key(mine) in wanted or any(equivalent(mine, its, symbolic) for its in theirs) for mine in dict.fromkeys(ours)
    ) and all(
        key(its) in given or any(equivalent(mine, its, symbolic) for mine in ours) for its in dict.fromkeys(theirs)
    )


def canonical(text: str, expression: Callable[[str], str] = key) -> str:
    """One spelling for answers that mean the same: exact values, sets sorted; ``expression`` spells all else."""
    text = _MEMBER.sub("", text)
    if value := number(text):
        return str(value.value) + (f"_{value.base}" if value.base else "")
    found = elements(text)
    if len(found.parts) == 1:
        sides = split(text, _EQUALS)
        return canonical(sides[-1], expression) if len(sides) > 1 and _names(sides[0]) else expression(text)
    parts = [canonical(part, expression) for part in found.parts]
    return (
        ", ".join(sorted(parts)) if found.opening in ("", "{") else f"{found.opening}{', '.join(parts)}{found.closing}"
    )
