r"""Gold answers, cut out of what a dataset publishes and written in one spelling that a LaTeX parser understands.

Every function returns an empty text for an empty answer and raises ValueError, which says why, for a value that holds
none at all; who calls it knows the dataset and the row.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

from riskpo_study.verify.notation import closing_brace

__all__ = ["after_hashes", "canonical", "last_boxed", "listed"]

_DOLLAR = re.compile(r"(?<!\\)\$")
_BETWEEN_FORMULAS = re.compile(r"\$\s*,\s*\$")
_NUMBER = re.compile(r"([+-]?)([0-9]+)(\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?")
_COMMA = r"(?:,\\!|\{,\}|,)"  # between thousands
_GROUPED = re.compile(rf"[+-]?[0-9]{{1,3}}(?:{_COMMA}[0-9]{{3}})+(?:\.[0-9]+)?")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")


def canonical(answer: Any) -> str:
    r"""A number or LaTeX, without dollar signs; of equal numbers mostly the same text.

    `27.0`, `027` and `$27$` become `27`, `57,500` and `57{,}500` become `57500`, `$1$,$2$` becomes `1, 2`, and
    `4.5e33`, in which a LaTeX parser sees Euler's number, `4.5 \times 10^{33}`. Other text stays as it is.
    """
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"is neither text nor a number: {reprlib.repr(answer)}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise ValueError(f"is no finite number: {answer!r}")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = _DOLLAR.sub("", _BETWEEN_FORMULAS.sub(", ", str(answer))).strip()
    text = re.sub(r"\bnp\.", r"\\", text)  # Minerva Math has an answer in NumPy's words: np.arcsin(10/13)
    if _GROUPED.fullmatch(text):
        text = re.sub(_COMMA, "", text)
    if number := _NUMBER.fullmatch(text):
        return _number(*number.groups(default=""))
    return text


def _number(sign: str, whole: str, decimals: str, exponent: str) -> str:
    whole = whole.lstrip("0") or "0"
    if not decimals.strip(".0"):
        decimals = ""
    sign = "-" if sign == "-" and (whole, decimals) != ("0", "") else ""
    power = rf" \times 10^{{{int(exponent)}}}" if exponent and int(exponent) else ""
    return f"{sign}{whole}{decimals}{power}"


def after_hashes(solution: Any) -> str:
    """What follows the last `####`, as GSM8K ends its solutions."""
    if not isinstance(solution, str) or "####" not in solution:
        raise ValueError("has no '####' before the answer")
    answer = canonical(solution.rpartition("####")[2])
    if len(answer.split()) > 1:
        raise ValueError(f"has more than a number after '####': {reprlib.repr(answer)}")
    return answer


def last_boxed(solution: Any) -> str:
    r"""What the last `\boxed{…}` or `\fbox{…}` holds, braces within it included, as MATH marks its answers.

    A box without braces, as in `$\boxed 5$`, reaches up to the end of the formula.
    """
    boxes = list(_BOX.finditer(solution)) if isinstance(solution, str) else []
    if not boxes:
        raise ValueError(r"has no \boxed{} with the answer")
    start = boxes[-1].end()
    if solution[start : start + 1] != "{":
        return canonical(re.split(r"[$\n]", solution[start:], maxsplit=1)[0])
    end = closing_brace(solution, start)
    if end is None:
        raise ValueError(r"has a last \boxed{ that is not closed")
    return canonical(solution[start + 1 : end])


def listed(answers: Any) -> str:
    """One answer, or several as `1, 2`: OlympiadBench publishes a list of texts."""
    if isinstance(answers, list):
        found = [canonical(answer) for answer in answers]
        if len(found) > 1 and "" in found:
            raise ValueError(f"has an empty answer among several: {reprlib.repr(answers)}")
        return ", ".join(found)
    return canonical(answers)
