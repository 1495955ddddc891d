"""Answers judged a second by `riskpo_study.verify.math_answers`, on outputs like a model's.

Each is some hundred to a thousand words of reasoning with formulas and ends in a box: integers, fractions, radicals,
polynomials, intervals, points, matrices, words. About half are right, and then mostly spelled unlike the gold answer.

"distinct" holds no answer twice, so that no cache helps; "again" is the same with every verdict in the cache; in
"eight a question", as in a batch of training, eight responses share a question and its answers. The peer is math-verify
alone, in one process, without limits. Workers have started before the clock does. Needs the extra `math`.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Callable
from statistics import median

from math_verify import parse, verify
from report import machine, publish, render

from riskpo_study.verify.math_answers import MathGrader

WORKERS = 2
PHRASES = [
    "Let us first write down what is given: ${a}x + {b} = {c}$ and $y \\le \\frac{{{a}}}{{{b}}}$.",
    "Substituting, we get $$x^2 - {a}x + {b} = 0,$$ whose discriminant is ${a}^2 - 4 \\cdot {b}$.",
    "That means that each of the {a} students gets {b} apples, {c} in total.",
    "By the law of cosines, \\[ c^2 = {a}^2 + {b}^2 - 2 \\cdot {a} \\cdot {b} \\cos\\left({c}^\\circ\\right). \\]",
    "We should check whether this also holds for $n = {c}$; it does, because ${c} > {b}$.",
    "So the number of ways is $\\binom{{{c}}}{{2}} = \\frac{{{c} \\cdot ({c} - 1)}}{{2}}$, and the answer is not {a}.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2000, help="outputs in each set (default: 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls of each contender (default: 3)")
    parser.add_argument("--publish", action="store_true", help="write results/math_answers.json and README.md")
    options = parser.parse_args()

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own limits are off
    description = machine()
    draws = random.Random(0)
    distinct = outputs(options.answers, draws)
    shared = [output for output in outputs(options.answers // 8, draws) for _ in range(8)]
    draws.shuffle(shared)
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        with MathGrader(workers=WORKERS) as grader:
            grader.check(*zip(*outputs(50, random.Random(1)), strict=True))
            timed(seconds, "distinct", distinct, grader.check)
            timed(seconds, "distinct, again", distinct, grader.check)
            timed(seconds, "eight a question", shared, grader.check)
        timed(seconds, "distinct, math-verify alone", distinct[: options.answers // 4], alone)
    words = sorted(len(response.split()) for response, _ in distinct)
    result = {
        "machine": description,
        "settings": f"{options.answers} outputs of {words[0]} to {words[-1]} words, {WORKERS} workers, median of "
        f"{options.rounds} rounds.",
        "cells": [
            {"outputs": name, "answers per second": f"{median(rates):,.0f}", "slowest round": f"{min(rates):,.0f}"}
            for name, rates in seconds.items()
        ],
    }
    print(render(result))
    if options.publish:
        publish("math_answers", result)


def timed(
    rates: dict[str, list[float]],
    name: str,
    pairs: list[tuple[str, str]],
    judge: Callable[[list[str], list[str]], list[bool]],
) -> None:
    """Judge all pairs and note how many a second were done."""
    responses, golds = map(list, zip(*pairs, strict=True))
    start = time.perf_counter()
    verdicts = judge(responses, golds)
    rates.setdefault(name, []).append(len(pairs) / (time.perf_counter() - start))
    assert 0.4 < sum(verdicts) / len(pairs) < 0.6, f"{name}: {sum(verdicts)} of {len(pairs)} right"


def alone(responses: list[str], golds: list[str]) -> list[bool]:
    return [
        verify(
            parse(f"\\boxed{{{gold}}}", parsing_timeout=None),
            parse(response, parsing_timeout=None),
            timeout_seconds=None,
        )
        for response, gold in zip(responses, golds, strict=True)
    ]


def outputs(n: int, draws: random.Random) -> list[tuple[str, str]]:
    """``n`` pairs (response, gold answer), no two with the same answers."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    while len(found) < n:
        answer, gold = pair(draws)
        if draws.random() < 0.5:
            answer = pair(draws)[0]  # of another question: wrong
        sentences = (
            draws.choice(PHRASES).format(a=draws.randint(2, 99), b=draws.randint(2, 99), c=draws.randint(100, 999))
            for _ in range(draws.randint(15, 60))
        )
        found[answer, gold] = f"{' '.join(sentences)}\n\nTherefore, the answer is $\\boxed{{{answer}}}$.", gold
    return list(found.values())


def pair(draws: random.Random) -> tuple[str, str]:
    """A right answer and its gold answer."""
    a, b, c, d = (draws.randint(2, 999) for _ in range(4))
    integer = (
        draws.choice([f"{a * b}", f"{a * b:,}", f"{a * b} \\text{{ cm}}", f"x = {a * b}", f"\\${a * b}.00"]),
        f"{a * b}",
    )
    kinds = {
        "integer": integer,
        "fraction": (f"{a}/{b}", f"\\frac{{{a}}}{{{b}}}"),
        "radical": (f"\\sqrt{{{a * a * b}}}", f"{a}\\sqrt{{{b}}}"),
        "polynomial": (f"(x+{a})(x-{b})", f"x^2 + {a - b}x - {a * b}".replace("+ -", "- ")),
        "interval": (f"\\left({-a}, \\dfrac{{{b}}}{{{c}}}\\right]", f"({-a},\\frac{{{b}}}{{{c}}}]"),
        "point": (f"({a}, {2 * b}/2, \\sqrt{{{c}}})", f"\\left({a},{b},\\sqrt{{{c}}}\\right)"),
        "multiple of π": (f"{a}\\pi/{b}", f"\\frac{{{a}\\pi}}{{{b}}}"),
        "matrix": (
            f"\\begin{{pmatrix}} {a} & {2 * b}/2 \\\\ {c} & {d} \\end{{pmatrix}}",
            f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}",
        ),
        "words": (f"June {a}", f"\\text{{June {a}}}"),
    }
    return kinds[draws.choices(list(kinds), weights=[55, 12, 8, 8, 4, 4, 4, 2, 3])[0]]


if __name__ == "__main__":
    main()
