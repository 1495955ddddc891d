r"""Where a response states its final answer: a box, ``####``, "the answer is", or the last number.

Every step is linear in the length of the response.
"""

from __future__ import annotations

import re
from collections import deque

from riskpo_study.verify.notation import closing_brace, number, plain, prose

__all__ = ["LONGEST", "final_answer"]

LONGEST = 1000  # characters of an answer; the longest of MATH has 159
END = 300  # characters at the end of a response in which "the answer is" announces the final one, as for DAPO's grader
TAIL = 4000  # characters at the end of a response in which the last formula or number is looked for
MOST_BOXES = 16  # last boxes that may hold one answer together
BETWEEN_BOXES = 40  # characters, at most, between boxes that do

_BOX = re.compile(r"box(?:(?<=\\box)ed|ed(?=\{)|(?<=\\fbox)|(?<=\\framebox))\s*")  # begins with a literal: fast
_HASHES = re.compile(r"####[^\S\n]*([^\n]*)")
_PHRASE = re.compile(
    r"(?:answers?|solutions(?= are))\b[\s*_]*(?:[^\n.:=]{0,40}?\b(?:is|are|be)\b|[:=：])[\s*_:]*", re.IGNORECASE
)
_NUMBER = re.compile(r"(?:(?<![\w)\]}.,])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:/\d+)?(?:\s*\\?%)?")
_MATH = re.compile(r"(?<!\\)\$\$?([^$\n]+)(?<!\\)\$|\\\(((?:[^\\]|\\(?![()]))+)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))+)\\\]")
_FORMULA_OR_NUMBER = re.compile(f"{_MATH.pattern}|{_NUMBER.pattern}")
_MONEY = re.compile(r"\s*\d[\d.,]*\s+[a-z]{2}")  # what `_MATH` finds between the signs of "$5 for the $3 pen"
_JOIN = re.compile(r"\s*(?:,|,?\s*and|,?\s*or)\s*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


def final_answer(response: str, several: bool = False) -> str | None:
    r"""The text of the final answer, as it stands; None when there is none, or one longer than `LONGEST`.

    The last box counts, or ``####`` with a number where that comes later. Without either: what "the answer is", or
    "Answer:", says at the end, else the last formula or number, as graders of the field have it. With ``several``,
    boxes that follow one another closely, as in "\boxed{1} and \boxed{2}", are one answer.
    """
    boxes = deque(_BOX.finditer(response), maxlen=MOST_BOXES)
    for match in reversed(deque(_HASHES.finditer(response, boxes[-1].end() if boxes else 0), maxlen=MOST_BOXES)):
        line = match[1][: LONGEST + 1].strip()
        if line and (number(plain(line)) or (not boxes and not response[match.end() :].strip())):
            return _bounded(line)
    if boxes:
        return _boxed(response, boxes, several)
    return _bounded(_announced(response[-END:]) or _last_formula(response[-TAIL:]))


def _bounded(answer: str | None) -> str | None:
    return answer if answer and len(answer) <= LONGEST else None


def _boxed(response: str, boxes: deque[re.Match[str]], several: bool) -> str | None:
    parts: list[str] = []
    following = len(response)
    for box in reversed(boxes):
        found = _content(response, box.end())
        if found is None:
            break
        content, end = found
        between = response[end:following]
        close = end <= following <= end + BETWEEN_BOXES and ("\n\n" not in between or not between.strip("$\\ \n"))
        if parts and not (several and close):
            break
        parts.append(content)
        following = box.start()
    return _bounded(", ".join(reversed(parts)))


def _content(response: str, start: int) -> tuple[str, int] | None:
    """What the box holds whose content, with its brace, begins at ``start``, and where it ends."""
    window = response[start : start + LONGEST + 2]
    if window.startswith("{") and (end := closing_brace(window)) is not None:
        return window[1:end].strip(), start + end + 1
    # Not closed, as when the response ran out of tokens, or without braces: it ends with the line or the formula.
    rest = re.split(r"\n|(?<!\\)\$", window.removeprefix("{"), maxsplit=1)[0]
    return (rest.strip(), start + len(rest)) if len(rest) <= LONGEST else None


def _announced(end: str) -> str | None:
    """What comes after the last "answer is" or "Answer:"; the last with a formula, a digit or a choice, if any has."""
    phrases = [_said(end[match.end() :]) for match in _PHRASE.finditer(end)]
    telling = [said for said in phrases if re.search(r"\d|\\|^\W*[A-E]\W*$", said)]
    return next((said for said in reversed(telling or phrases) if said), None)


def _said(rest: str) -> str:
    """The answer at the beginning of ``rest``: its first formula or formulas, else its first sentence or number."""
    line = rest.partition("\n")[0]
    first = _MATH.search(line) or _MATH.match(rest)
    if first and not _MONEY.match(_inside(first)):
        parts, text = [_inside(first)], first.string
        while (join := _JOIN.match(text, first.end())) and (first := _MATH.match(text, join.end())):
            parts.append(_inside(first))
        return ", ".join(parts)
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].rpartition("=")[2].strip()
    found = _NUMBER.search(sentence)
    if found is None or number(plain(sentence)):
        return sentence
    before, after = sentence[: found.start()], sentence[found.end() :]
    told = len(before.split()) > 1 or (not re.search("[A-Za-z]", before) and prose(after))
    return found[0] if told else sentence  # "that she makes $18 a day", "$18 for the pens"; not "June 20", "3 and 4"


def _last_formula(tail: str) -> str | None:
    """The last formula with a digit, or the last number outside of formulas."""
    last = None
    for found in _FORMULA_OR_NUMBER.finditer(tail):
        text = _inside(found)
        if re.search(r"\d", text) and not _MONEY.match(text):
            last = text
    return last


def _inside(formula: re.Match[str]) -> str:
    """What a formula holds between its signs; a number as it is."""
    return next((group for group in formula.groups() if group is not None), formula[0])
