r"""Whether expressions are equal by math-verify: what the workers of `math_answers` run.

Only workers import this module: it takes seconds, and what it does with untrusted text may take for ever.
"""

from __future__ import annotations

import gc
import re
from cmath import isclose, isfinite
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr, Float, I
from sympy.core import random as sympy_random

from riskpo_study.verify.equivalence import Unparsed, canonical, equivalent, near
from riskpo_study.verify.notation import key, prose

__all__ = ["judge", "same"]

# The spelling is plain already, and math-verify's own list of units takes the c from 2c.
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_EXTRACTION = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=_NORMALIZATION)]


def judge() -> Callable[[list[str]], dict[str, str | None]]:
    """The function that a worker calls with jobs, as `worker_pool` wants it made."""
    gc.freeze()  # sympy's many objects stay; going through them again and again takes a tenth of the time
    return _job


def _job(pair: list[str]) -> dict[str, str | None]:
    """The fields of a `Grade` for [answer, gold]."""
    answer, gold = pair
    sympy_random.seed(0)  # the same verdict, whatever the worker did before
    try:
        if equivalent(answer, gold, same):
            return {"status": "right", "answer": None}
        return {"status": "wrong", "answer": canonical(answer, _spelled)}
    except Unparsed:
        return {"status": "unparsed", "answer": None}


def same(answer: str, gold: str) -> bool:
    """Whether two expressions in plain spelling are equal. Raises Unparsed for an answer that is none."""
    ours, theirs = _read(answer), _read(gold)
    if ours is None:
        raise Unparsed
    if theirs is None:
        return False
    if re.search(r"\d", answer + gold) and (values := _at_a_point(ours, theirs)):
        if re.search(r"\.\d", answer + gold) and not ours.free_symbols | theirs.free_symbols and _near(*values):
            return True
        if not isclose(*values, rel_tol=1e-9, abs_tol=1e-12):
            return False  # which `verify` would find, too, after a slow search for a common form
    return bool(verify(theirs, ours, allow_set_relation_comp=True, timeout_seconds=None))


@lru_cache(maxsize=1024)
def _read(text: str) -> Any:
    """Sympy's object; None for what math-verify cannot read."""
    if re.search(r"\d \d", text):  # 1 8 would be 1 + 8
        return None
    formula = rf"\[{text.replace('%', '')}\]"
    found = parse(
        formula, _EXTRACTION, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    if not found:
        return None
    units = [symbol for symbol in getattr(found[0], "free_symbols", ()) if symbol.name == "i"]
    return found[0].subs(dict.fromkeys(units, I)) if units else found[0]  # 2i, which is read as 2 times a variable


def _at_a_point(*expressions: Any) -> list[complex] | None:
    """Their values with numbers for the variables; None when one has no finite value."""
    if not all(isinstance(expression, Expr) for expression in expressions):
        return None
    variables = sorted(set[Any]().union(*(expression.free_symbols for expression in expressions)), key=str)
    point = {variable: Float(0.6180339887 + 0.4142135624 * i) for i, variable in enumerate(variables)}
    try:
        values = [complex(expression.evalf(subs=point)) for expression in expressions]
    except Exception:  # sympy raises errors of every kind
        return None
    return values if all(map(isfinite, values)) else None


def _near(value: complex, gold: complex) -> bool:
    return abs(value.imag) < 1e-12 > abs(gold.imag) and near(value.real, gold.real)


def _spelled(text: str) -> str:
    """Sympy's spelling; the plain one where there is none."""
    try:
        return key(text) if prose(text) else str(_read(text).doit())
    except Exception:  # not read, an integer too long to print, or whatever sympy raises
        return key(text)
