"""Verdicts on hand-made answers, on the real questions of ../shared/data, and on text that is out for trouble."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_study.errors import ConfigError, DataError
from riskpo_study.verify import equivalence, math_answers
from riskpo_study.verify.final_answer import LONGEST, final_answer
from riskpo_study.verify.math_answers import Grade, MathGrader
from riskpo_study.verify.notation import elements, number, plain

pytest.importorskip("math_verify")

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"

# Gold answer, then right answers, each the content of a box.
RIGHT: dict[str, list[str]] = {
    # numbers
    "18": ["18", "18.", "18.0", "18.00", "+18", "018", r"\$18", r"\$18.00", "$18$", "**18**", "18 dollars", "€18",
           r"\underline{18}", r"\color{red}{18}", "eighteen"],
    "1000": ["1,000", "1{,}000", r"1\,000", r"1,\!000", "1 000", r"10^3", "1e3", r"1.0 \times 10^{3}", "1,000 meters"],
    "27.0": ["27", "x = 27", r"\dfrac{54}{2}", r"3^3"],
    "-1": ["−1", "-1.0", r"\frac{-3}{3}", r"\cos \pi"],
    "073": ["73", "073"],
    ".5": ["0.5", r"\frac12", "1/2", "½", r"\dfrac{1}{2}", r"\tfrac12", r"2^{-1}", r"50\%", "{0.5}", "0.5000001"],
    r"3\frac12": ["3.5", r"\frac{7}{2}", "7/2", "3 1/2", r"3 \frac{1}{2}", "3½"],
    r"-1\frac{1}{2}": ["-1.5", r"-\frac32", r"\frac{-3}{2}"],
    r"\frac{3}{56}": ["3/56", r"\frac3{56}", r"\frac{6}{112}", r"\dfrac {3} {56}"],
    r"\frac13": [r"0.\overline{3}", "0.333333", r"\frac{1}{3} \approx 0.333", r"33\frac{1}{3}\%"],
    "1.6e-19": [r"1.6 \times 10^{-19}", r"1.6\cdot10^{-19}", r"1.60 \times 10^{-19} \text{ C}"],
    "1024": ["2^{10}", r"\binom{1024}{1}", r"4 \cdot 256"],
    r"11,\! 111,\! 100": ["11111100", "11,111,100"],
    r"\frac{270}7\text{ degrees}": [r"\frac{270}{7}^\circ", r"38\frac47", r"\dfrac{270}{7}"],
    r"864 \mbox{ inches}^2": ["864", r"864 \text{ square inches}", r"864\text{ in}^2"],
    r"\$36": ["36", r"\$36", "36 dollars", r"36\text{ dollars}"],
    r"50\%": ["50", "50%", "0.5", r"\frac12", "50 percent", r"50\text{ percent}"],
    "2516_8": ["2516_8", "2516_{8}", "2516"],
    # units and degrees
    "10": [r"10 \text{ cm}", r"10\text{ cm}^2", "10 cm^2", r"10\ \mathrm{cm}^{2}", r"10\,\mathrm{m}/\mathrm{s}",
           r"10 \frac{\text{m}}{\text{s}}", "10 mph", "10 km/h", "10 square units", r"10^{\circ}", r"10^\circ", "10°",
           "10 degrees", r"\text{10 eggs}", "10 eggs per day", r"\angle A = 10^\circ", "m+n = 10", "7+3=10", r"10\%",
           "10 (approximately)"],
    r"10^{\circ}": ["10", r"10 \text{ degrees}", r"10^\circ", r"10^\circ\text{C}"],
    r"12\pi": [r"12\pi \text{ cm}^2", "12π", r"12 \cdot \pi", r"\pi \cdot 12", "37.699112", r"12\pi square inches"],
    # expressions
    r"2\sqrt{3}": [r"2\sqrt3", r"\sqrt{12}", r"\sqrt 3 \cdot 2", "2√3", "2sqrt(3)", "3.464102", r"\frac{6}{\sqrt{3}}"],
    r"\sqrt{221}": ["√221", "√ 221", "√(221)", "√{221}", r"\sqrt221", r"\sqrt 221", "sqrt221", "sqrt(221)"],
    r"8\sqrt{13}": ["8√13", r"8\sqrt13", "8sqrt13", "8√13 cm", "8 · √13", r"√13 \cdot 8", "√832"],
    r"5\sqrt{2}": ["√50", "5√2", r"\sqrt50"],
    r"\sqrt{34}x": ["√34x", r"\sqrt34 x", "x√34"],
    r"\frac{\sqrt{10}}{2}": ["√10/2", "√2.5", r"\sqrt2.5", r"\frac{√10}{2}"],
    r"\frac{\pi}{4}": [r"\pi/4", r"\frac{1}{4}\pi", r"\dfrac\pi4", r"\arctan 1"],
    r"(x+1)^2": ["x^2+2x+1", "(1+x)(x+1)", "y = (x + 1)^2", "f(x) = x^2 + 2x + 1"],
    "6+9i": ["9i+6", "6 + 9i", "3(2+3i)", r"6+9\mathrm{i}"],
    "2c": ["2c", "c+c", "2 \\cdot c"],
    r"\sqrt[3]{2}": ["2^{1/3}", r"2^{\frac13}"],
    r"y=2x+3": ["2x+3", "y = 3 + 2x", "y=2x+3"],
    "x=5": ["5", "x = 5", r"x = \frac{10}{2}"],
    "x-2y+1=0": ["2y-x-1=0", "x + 1 = 2y"],
    "x > 3": ["3 < x", r"x \gt 3", r"(3,\infty)"],
    # lists, sets, points, intervals, matrices
    "1,2": ["2,1", "1, 2", r"1 \text{ and } 2", "1 or 2", r"\{1, 2\}", "x = 1, x = 2", r"x=2 \text{ or } x=1", "(1,2)"],
    r"\text{B, E}": ["E, B", r"\text{B and E}"],
    "3,5,7": ["7, 5, and 3", r"\{3,5,7\}", r"3, 5, \text{ and } 7"],
    "1+\\sqrt2,1-\\sqrt2": [r"1 \pm \sqrt{2}", r"x = 1 - \sqrt 2, 1 + \sqrt 2"],
    r"\pm 3": ["3, -3", r"\pm3", "x = \\pm 3"],
    "1000, 2000": ["1,000, 2,000", "2000 and 1000"],
    "(1,2)": ["(1, 2)", r"\left(1, 2\right)", r"\left( \frac22, 2.0 \right)", "(x, y) = (1, 2)", "x=1, y=2",
              r"\bigl(1,2\bigr)"],
    r"\left(3,\frac{\pi}{2}\right)": [r"(3, \pi/2)", r"(3,\tfrac{\pi}{2})"],
    r"[-2,7]": [r"x \in [-2,7]", r"\left[-2, 7\right]", r"-2 \le x \le 7"],
    r"x \in [-2,7]": [r"[-2, 7]", r"x\in[-2,7]"],
    r"(-\infty,-2)\cup(3,\infty)": [r"(3, \infty) \cup (-\infty, -2)",
                                    r"\left(-\infty, -2\right) \cup \left(3, +\infty\right)"],
    "(2,3),(4,5)": ["(4,5), (2,3)", r"\{(2,3),(4,5)\}", r"(2,3) \text{ and } (4,5)"],
    r"\begin{pmatrix} 1 \\ \frac12 \end{pmatrix}": [r"\begin{bmatrix} 1 \\[4pt] 0.5 \end{bmatrix}",
                                                    r"\left(\begin{matrix} 1 \\ 1/2 \end{matrix}\right)"],
    r"\emptyset": [r"\varnothing", "∅", r"\{\}"],
    # words, choices, times
    r"\text{east}": ["east", "East", r"\textbf{east}", r"\text{ east}"],
    r"\text{June 20}": ["June 20", r"\text{june 20}", "June~20"],
    r"\text{Evelyn}": ["Evelyn", r"\mathrm{Evelyn}"],
    "ellipse": [r"\text{an ellipse}", "Ellipse."],
    "B": [r"\text{(B)}", "(B)", "B.", r"\textbf{(B)}\ 12", r"\text{(B) } 12", "b", r"\text{Option B}"],
    r"\text{(B)}": ["B", "(B)"],
    "12": [r"\textbf{(B)}\ 12", r"\text{(B) } 12"],
    "5:30": [r"5\!:\!30", "5{:}30", r"5:30 \text{ PM}"],
    "3:2": [r"\frac32", "3 : 2", "1.5"],
}  # fmt: skip

# Gold answer, then wrong answers.
WRONG: dict[str, list[str]] = {
    "18": ["19", "-18", "1.8", "180", "1800", "0.18", "18.1", "x", r"\text{eggs}", "18x", "1, 8", "(18, 0)", "17, 18"],
    "5": ["500", "0.05", r"\sqrt{24}", "5, 6", "5_8 + 1", r"\infty", r"5\pi"],
    r"\frac13": ["0.33333", "0.333", "0.3", r"\frac{1}{3}x", "3", r"33\%"],
    r"\frac{7}{2}": [r"3 \cdot \frac12", r"\frac{3}{2}"],
    "16.67": [r"16\frac{1}{3}", "16.6"],
    "2516_8": ["2516_9", "2517_8"],
    r"50\%": ["5", "500", "0.05"],
    r"2\sqrt{3}": [r"3\sqrt{2}", "3.46", r"2\sqrt[3]{3}", "2"],
    r"42\sqrt{2}": ["2√221", r"2\sqrt221", "2sqrt221"],  # LaTeX would print the latter as the root of 2, times 21
    "1000000": ["1000001", "999999"],
    r"(x+1)^2": ["x^2+1", "(y+1)^2", "(x-1)^2"],
    "2c": ["2", "2d", "3c"],
    "1,2": ["1,3", "1", "1,2,3", "2,2"],
    "(1,2)": ["(2,1)", "[1,2]", "(1,2,0)", "1", "x=2, y=1"],
    "[1,2)": ["(1,2)", "[1,2]", "(1,2]"],
    "x=1,y=2": ["x=2,y=1"],
    "x > 3": [r"x \ge 3", "x < 3", "3"],
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}": [r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}",
                                             r"\begin{pmatrix} 1 & 2 \end{pmatrix}"],
    r"\text{east}": ["west", "seat", "5", "e"],
    r"\text{June 20}": ["June 21", "20"],
    "B": ["C", "12", r"\text{(C) } 5", "AB", "B and E"],
    r"\emptyset": ["0", r"\{0\}"],
    "y=2x+3": ["y=2x-3", "x=2y+3", "3"],
}  # fmt: skip

# Gold answer, answer, verdict: near misses, and spellings that are not easily told from them.
NEAR_MISSES = [
    # Spaces between digits.
    ("12", "1 2", False), ("12", r"1\quad2", False), ("12", r"1\;2", False), ("12", "1~2", False),
    ("12", "{1}{2}", False), ("12", r"\text{1}\text{2}", False), ("9", "1 8", False), ("18", r"1\,8", False),
    ("11/2", "1 1/2", False), ("3/2", "1 1/2", True), ("23/4", "2 3/4", False), ("11/4", "2 3/4", True),
    ("100", "10 0", False), ("100", "1 00", False), ("1000", r"1\,000", True), ("1000", "1 000", True),
    ("1234567", "1 234 567", True), ("x^2", "x^{2}", True), (r"\frac12", r"\frac 1 2", True),
    # Words that multiply.
    ("2500000", "2.5 million", True), ("2500000", r"2.5\text{ million}", True), ("25000", "25 thousand", True),
    ("2500000", r"\$2.5 \text{ million}", True), ("18", "18 million", False), ("18", r"18\text{ million}", False),
    ("18", r"18\text{ billion dollars}", False), ("18000000000", r"18\text{ billion dollars}", True),
    ("18", "18 squared", False), ("18", r"18\text{ halves}", False), ("18", "18 feet squared", True),
    ("500000", r"\frac{1}{2}\text{ million}", True),
    # Lists, points and intervals.
    ("2,3", "[2,3]", False), ("2,3", "2<x<3", False), ("[2,3]", "2,3", False), ("[2,3]", r"\{2,3\}", False),
    ("(2,3)", "2<x<3", True), (r"\{2,3\}", r"2 \le x \le 3", False), ("[2,3]", r"2 \le x \le 3", True),
    (r"\frac12", r"\frac{1}{2} \text{ or } 0.5", True), ("1/2", "1/2 (or 0.5)", True), ("18", "18, 18", True),
    ("18", r"18\text{ or }18", True), ("18", r"18\text{ or }19", False), ("18", "(18, 18)", False),
    ("1,2,3", r"\{1,2,3,3\}", True), ("1,2,3", r"\{1,2,2\}", False), ("1,2", "2,2", False),
    (r"x=2k\pi", r"x=2k\pi \ (k\in\mathbb{Z})", True), (r"2k\pi", r"x=2k\pi, k \in \mathbb{Z}", True),
    ("x", r"f(x)=x \text{ for all } x", True), (r"\emptyset", r"\text{none}", True),
    (r"\text{no solution}", r"\emptyset", True), ("2,3", "x_1=2,x_2=3", True),
    # Decimals for an integer, and for what is none.
    ("18", "17.99999", False), ("18", "18.001", False), ("18", "18.0009", False), ("18", "18.0000001", False),
    ("1234567", "1234567.5", False), ("1", "0.9999", False), (r"12\pi", "37.7", False), (r"2\sqrt3", "3.464", False),
    (r"\frac{1+\sqrt5}{2}", "1.618", False), (r"\frac{1+\sqrt5}{2}", "1.618034", True), ("x^2", "x^{2.00001}", False),
    (r"\frac34", "0.7500001", True), ("0.001", "0.00100001", True), (r"1.6 \times 10^{-19}", "1.7e-19", False),
    # Units.
    ("18", "18 sec", True), ("18", "18sec", True), ("90", "90min", True), ("18", r"18\ \mathrm{g\cdot mol^{-1}}", True),
    ("18", "18 Hz", True), ("18", "18 keV", True), ("18", "18元", True), ("18", "18 岁", True), ("18", "18万", False),
    (r"\min(2,3)", r"\min(2, 3)", True), ("60", "60^o", True), ("60", "60^{o}", True),
    # Binomials, factorials, bases, complex numbers.
    (r"\binom{n}{k}", r"{n \choose k}", True), ("120", r"{10\choose3}", True), ("10!", "3,628,800", True),
    ("10!", "3,628,801", False), ("11101_2", "(11101)_2", True), ("11101_2", "(11101)_3", False),
    (r"\frac{1}{1+i}", r"\frac{1-i}{2}", True), ("1+2i", r"1+2\cdot i", True), ("-1", "i^2", True), ("1", "i^2", False),
    # Choices.
    ("A", "A = 5", False), ("B", "B = 3", False), ("B", "B.5", False), ("B", "B. 5", True), ("B", "B.", True),
    # The answer in a sentence.
    ("18", r"\text{The answer is } 18", True), ("18", "答案是18", True), ("18", "The answer is 19", False),
]  # fmt: skip

# Whole responses: gold answer, response, whether it is right.
RESPONSES = [
    ("18", "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", True),
    ("70000", "His profit was 70,000.\n#### 70,000", True),
    ("18", "First \\boxed{5}, no: \\boxed{18}. The 3 hens lay it.", True),
    ("5", "First \\boxed{5}, no: \\boxed{18}.", False),
    ("1,2", r"Hence $x = \boxed{1}$ or $x = \boxed{2}$.", True),
    ("2", r"Hence $x = \boxed{1}$ or $x = \boxed{2}$.", True),
    ("18", r"$\boxed {18}$", True),
    ("18", r"$\fbox{18}$ and $\framebox{18}$", True),
    ("18", r"\boxed{x = \boxed{18}}", True),
    ("18", r"\boxed 18$ eggs", True),
    ("18", r"So it is \boxed{18", True),
    (r"\frac{1}{2}", r"So it is \boxed{\frac{1}{2}", True),
    (r"\frac{1}{2}", r"So it is \boxed{\frac{1}{2", False),
    (r"\{1,2\}", r"The set is $\boxed{\{1, 2\}}$, which has 2 elements.", True),
    ("18", "**Answer:** 18", True),
    ("18", "Answer: $18$", True),
    ("18", "ANSWER: \\boxed{18}", True),
    ("18", "Final Answer: The final answer is $18$. I hope it is correct.", True),
    ("18", "So the answer is that she makes $18 every day.", True),
    ("18", "The answer is 3 + 15 = 18 dollars.", True),
    (r"8\sqrt{13}", "The answer is 8√13.", True),
    ("B", "The correct answer is (B).", True),
    ("east", "Therefore, the answer is **East**.", True),
    ("3,4", "The answers are 3 and 4.", True),
    (r"\frac34", "Therefore, the answer is:\n\n\\[\n\\frac{3}{4}\n\\]", True),
    ("18", "9 * 2 = $18 a day", True),
    ("18", "She eats 3, so she sells 18 of 21", False),
    ("18", "The answer is 18, I think." + " Let me check that again, as it was hard." * 20 + " So 17", False),
    ("7", "#### Step 3: solve\n#### 4. Add\nIt is \\boxed{7}.", True),
    ("7", "\\boxed{6} \n#### 7", True),
    ("18", "#### The answer is 18", True),
    ("1,2", "$\\boxed{1}$\n\n$\\boxed{2}$", True),
    ("1,2", "\\boxed{1}\n\nNo: \\boxed{2}", False),
    ("1,2", "The solutions are $x=1$ and $x=2$.", True),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(workers=2, seconds=60) as grader:  # a machine may be busy; the limit has a test of its own
        yield grader


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(f"Thus $\\boxed{{{answer}}}$.", gold) for gold, answers in table.items() for answer in answers]


@pytest.fixture(scope="module")
def grades(grader: MathGrader) -> dict[tuple[str, str], Grade]:
    """All of the tables in one call."""
    pairs = cases(RIGHT) + cases(WRONG) + [(f"$\\boxed{{{answer}}}$", gold) for gold, answer, _ in NEAR_MISSES]
    return dict(zip(pairs, grader.grade(*map(list, zip(*pairs, strict=True))), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(("response", "gold"), cases(RIGHT))
def test_right_in_another_spelling(grades: dict[tuple[str, str], Grade], response: str, gold: str) -> None:
    assert grades[response, gold].status == "right"


@pytest.mark.parametrize(("response", "gold"), cases(WRONG))
def test_wrong_however_similar(grades: dict[tuple[str, str], Grade], response: str, gold: str) -> None:
    assert grades[response, gold].status == "wrong"


@pytest.mark.parametrize(("gold", "answer", "right"), NEAR_MISSES)
def test_near_misses(grades: dict[tuple[str, str], Grade], gold: str, answer: str, right: bool) -> None:
    assert grades[f"$\\boxed{{{answer}}}$", gold].right == right


def test_final_answer_is_found_in_the_response(grader: MathGrader) -> None:
    found = grader.check([response for _, response, _ in RESPONSES], [gold for gold, _, _ in RESPONSES])
    assert [case for case, right in zip(RESPONSES, found, strict=True) if right != case[2]] == []


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data is not here")
def test_real_questions_in_the_spellings_of_models(grader: MathGrader) -> None:
    rows = {name: [json.loads(line) for line in (REAL / f"{name}.jsonl").open()] for name in
            ("aime24", "amc23", "gsm8k_first100")}  # fmt: skip
    golds = [row["answer"] for table in rows.values() for row in table]  # "025", 27.0, "... #### 18"
    values = [int(float(str(gold).rpartition("####")[2].replace(",", ""))) for gold in golds]
    for spell in [
        r"\boxed{{{0}}}", r"$$\boxed{{{0}.0}}$$", r"\boxed{{{0:,}}}", r"\boxed{{x = {0} \text{{ dollars}}}}",
        r"\boxed{{\dfrac{{{0}}}{{1}}}}", "#### {0:,}", "The answer is ${0}$.", "**Final Answer:** \\${0} per day",
    ]:  # fmt: skip
        assert all(grader.check([spell.format(value) for value in values], golds)), spell
        assert not any(grader.check([spell.format(value + 1) for value in values], golds)), spell
    # A solution that the data set itself has, with the answer in a box or after ####.
    assert all(grader.check([row["answer"] for row in rows["gsm8k_first100"]], golds[-100:]))


def test_equal_answers_are_one_vote(grader: MathGrader) -> None:
    votes = {
        "1/2": ["0.5", r"\frac12", r"\dfrac{2}{4}", "x = 1/2", "½"],
        "1, 2": ["2, 1", r"\{1,2\}", r"1 \text{ and } 2"],
        "(1, 2)": ["(1,2)", r"\left(1, 2\right)"],
        "3*sqrt(2)": [r"3\sqrt2", r"\sqrt{18}"],
        "east": ["east", r"\text{East}"],
    }
    for answer, spellings in votes.items():
        found = grader.grade([f"\\boxed{{{spelling}}}" for spelling in spellings], [r"\sqrt{7}"] * len(spellings))
        assert set(found) == {Grade("wrong", answer)}


def test_right_answers_vote_for_the_gold_one(grader: MathGrader) -> None:
    gold = r"2\sqrt{6}"
    found = grader.grade([r"\boxed{\sqrt{24}}", r"\boxed{4.898979}", r"\boxed{2\sqrt6}"], [gold] * 3)
    assert set(found) == {Grade("right", r"2\sqrt6")}


# Numbers, in the spellings that are judged by their text alone.
integers = st.integers(-9999, 9999)
fractions = st.builds(lambda a, b: (f"\\frac{{{a}}}{{{b}}}", Fraction(a, b)), integers, st.integers(1, 99))
small, large = st.integers(1, 9), st.integers(10, 99)
mixed = st.builds(lambda a, b, c: (f"{a}\\frac{{{b}}}{{{c}}}", a + Fraction(b, c)), small, small, large)
decimals = st.decimals(-999, 999, places=3).map(lambda value: (str(value), Fraction(value)))
spelled = st.one_of(integers.map(lambda value: (str(value), Fraction(value))), fractions, mixed, decimals)


@given(spelled)
def test_number_is_what_it_says(pair: tuple[str, Fraction]) -> None:
    text, value = pair
    found = number(plain(text))
    assert found is not None and found.value == value


@given(spelled, spelled)
def test_text_alone_judges_numbers_as_math_verify_does(one: tuple[str, Fraction], other: tuple[str, Fraction]) -> None:
    from math_verify import parse, verify

    for (answer, _), (gold, _) in [(one, other), (one, one)]:
        theirs = verify(
            *(parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)), timeout_seconds=None
        )
        assert math_answers._by_text(plain(answer), plain(gold)) == math_answers.Grade(
            "right" if theirs else "wrong", equivalence.canonical(plain(gold if theirs else answer))
        )


@given(st.text(alphabet=st.sampled_from("0123456789abx.,;:(){}[]\\$%^_&#-+=/ \n\0é∞½"), max_size=60))
def test_any_text_gets_through_without_a_worker_or_an_error(text: str) -> None:
    for response in (text, f"\\boxed{{{text}}}", f"The answer is {text}", f"\\text{{{text}}}"):
        answer = final_answer(response, several=True)
        spelling = plain(answer or "")
        assert plain(spelling) is not None and elements(spelling).parts is not None
        number(spelling)
        equivalence.canonical(spelling)


TROUBLE = {
    "tower": r"\boxed{9^{9^{9^9}}}",
    "braces": "\\boxed{" + "{" * 10_000 + "}" * 10_000 + "}",
    "open braces": "\\boxed{" * 10_000,
    "megabyte": "the answer is 1, " * 60_000,
    "megabyte in a box": "\\boxed{" + "1" * 1_000_000 + "}",
    "unbalanced": r"\boxed{\frac{1}{}",
    "NUL": "\\boxed{1\x002}",
    "surrogate": "\\boxed{\udc80}",
    "set of a set": "\\boxed{" + "\\{" * 240 + "5" + "\\}" * 240 + "}",
    "point of points": "\\boxed{" + "(1," * 240 + "5" + ")" * 240 + "}",
    "units": "\\boxed{1" + "\\text{ab} " * 90 + "+}",
    "spaces": "\\boxed{1" + " " * 900 + "+}",
    "parentheses": "\\boxed{" + "(" * 450 + "x" + ")" * 450 + "}",
    "roots": "\\boxed{" + r"\sqrt{" * 140 + "2" + "}" * 140 + "}",
    "signs": r"\boxed{$%^&_#\\\}",
    "factorial": r"\boxed{(10^{10})!}",
}


def test_trouble_costs_its_limit_and_affects_nobody_else() -> None:
    with MathGrader(workers=2, seconds=2.0) as grader:
        grader.check([r"\boxed{\sqrt{12}}"] * 2, [r"2\sqrt{3}", r"3\sqrt{2}"])  # workers start
        responses = [text for trouble in TROUBLE.values() for text in (trouble, r"\boxed{\sqrt{12}}")]
        start = time.monotonic()
        found = grader.grade(responses, [r"2\sqrt3"] * len(responses))
        assert time.monotonic() - start < 2.0 * len(TROUBLE)
    status = {name: grade.status for name, grade in zip(TROUBLE, found[::2], strict=True)}
    assert status["tower"] == status["factorial"] == "limit"
    assert {status[name] for name in ("braces", "open braces", "megabyte in a box", "unbalanced", "NUL")} == {
        "unparsed"
    }
    assert "right" not in status.values()
    assert {grade.status for grade in found[1::2]} == {"right"}
    assert all(grade.answer is None for grade in found if grade.status in ("limit", "unparsed"))


def test_no_answer_at_all_is_unparsed(grader: MathGrader) -> None:
    for response in ["", "   ", "I do not know.", r"\boxed{}", r"\boxed{5} or \boxed{}", "\\boxed{?}", "\\boxed{1 + }"]:
        assert grader.grade([response], [r"\sqrt{7}"]) == [Grade("unparsed", None)], response


def test_order_is_kept_and_equal_pairs_are_judged_once(grader: MathGrader) -> None:
    golds = [str(i % 7) for i in range(200)]
    responses = [f"\\boxed{{\\sqrt{{{(i % 7) ** 2 + (i % 3 == 0)}}}}}" for i in range(200)]
    assert grader.check(responses, golds) == [i % 3 != 0 for i in range(200)]


def test_cache_answers_without_a_worker_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with MathGrader(workers=1, cache=3) as grader:
        asked: list[int] = []
        through = grader._pool.map
        monkeypatch.setattr(grader._pool, "map", lambda jobs: asked.append(len(jobs)) or through(jobs))
        pairs = [(f"\\boxed{{\\sqrt{{{i}}}}}", rf"{i}\sqrt{{2}}") for i in (2, 3, 5, 6)]
        for chosen in (pairs[:3], pairs[:3], pairs[3:], pairs[:1]):  # the fourth pushes the first out
            grader.check(*map(list, zip(*chosen, strict=True)))  # type: ignore[arg-type]
        assert asked == [3, 0, 1, 1]
        assert len(grader._cache) == 3


def test_module_functions_share_a_grader_in_any_thread() -> None:
    found: list[object] = []

    def judge() -> None:
        found.append(math_answers.check([r"\boxed{\sqrt{8}}", r"\boxed{3}", ""], [r"2\sqrt{2}", "4", "4"]))

    threads = [threading.Thread(target=judge) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True, False, False]] * 3
    math_answers.close()
    assert math_answers.grade([r"\boxed{3}"], ["3"]) == [Grade("right", "3")]
    math_answers.close()


@pytest.mark.parametrize(
    "gold", ["", "  ", "$$", "?", r"\frac{1}{", "}{", "1\x00", "1" * (LONGEST + 1), "so \\boxed{}"]
)
def test_a_gold_answer_that_cannot_be_read_is_named(grader: MathGrader, gold: str) -> None:
    with pytest.raises(DataError) as error:
        grader.check([r"\boxed{1}", r"\boxed{1}"], ["1", gold])
    assert f"The gold answer {gold[:100]!r} cannot be read" in str(error.value)


def test_a_gold_answer_that_only_math_verify_cannot_read_is_matched_by_its_text(grader: MathGrader) -> None:
    assert grader.check([r"\boxed{x\equiv3\pmod{7}}"], [r"x \equiv 3 \pmod 7"]) == [True]


def test_misuse_is_named(grader: MathGrader) -> None:
    with pytest.raises(DataError, match="There are 1 responses and 2 gold answers: give one to each"):
        grader.check(["1"], ["1", "2"])
    with pytest.raises(ConfigError, match="cache = -1 of a grader must not be negative"):
        MathGrader(cache=-1)
    with pytest.raises(ConfigError, match="seconds = 0 of a worker pool must be positive"):
        MathGrader(seconds=0)


def test_without_math_verify_the_remedy_is_named_and_nothing_heavy_is_imported() -> None:
    code = """
        import sys
        sys.modules["math_verify"] = None
        from riskpo_study.errors import ConfigError
        from riskpo_study.verify import math_answers
        print([name for name in ("torch", "sympy", "numpy") if name in sys.modules])
        try:
            math_answers.check(["1"], ["1"])
        except ConfigError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert result.stdout.splitlines() == [
        "[]", "Judging mathematical answers needs math-verify: pip install -e '.[math]' -c constraints.txt"
    ], result.stderr  # fmt: skip
