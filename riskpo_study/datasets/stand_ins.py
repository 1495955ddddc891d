r"""Small local copies of every dataset, in its published schema, for tests and dry runs without a network.

The questions are arithmetic of our own, the same on every machine; some rows have what is peculiar to the schema, such
as an empty box or an answer stored as a float. `python -m riskpo_study.datasets.stand_ins FOLDER` writes them, those of
code into its folders `deepcoder` and `livecodebench`.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw
from pyarrow.parquet import write_table

from riskpo_study.datasets import deepcoder, livecodebench
from riskpo_study.datasets.prompts import INSTRUCTIONS
from riskpo_study.datasets.registry import DATASETS

__all__ = ["solution", "write", "write_code"]

TRAINING, EVALUATION = 64, 8  # generated questions
WORDS = ("marbles", "apples", "coins", "stamps", "pencils", "shells", "tickets", "buttons")

Row = dict[str, Any]


@dataclass(frozen=True)
class _Sum:
    """How many things there are after some come and some go."""

    numbers: tuple[int, ...]
    thing: str

    @property
    def value(self) -> int:
        return sum(self.numbers)

    @property
    def level(self) -> int:
        return len(self.numbers) - 1

    @property
    def question(self) -> str:
        first, *others = self.numbers
        changes = [f"{abs(n)} {'are put in' if n > 0 else 'are taken out'}" for n in others]
        return (
            f"A box holds ${first}$ {self.thing}. Then {', then '.join(changes)}. How many {self.thing} does it hold?"
        )

    @property
    def working(self) -> str:
        return " ".join([str(self.numbers[0]), *(f"{'+' if n > 0 else '-'} {abs(n)}" for n in self.numbers[1:])])


def write(folder: Path) -> None:
    """`<name>.jsonl`, or `.parquet` for those with nested fields, of every name in `DATASETS`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in DATASETS.items():
        sums = _sums(name, TRAINING if source.role == "training" else EVALUATION)
        rows = list(_SCHEMAS[name](sums))
        if name in ("dapo_math_17k", "olympiad_bench") or source.images:
            write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        else:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _sums(name: str, count: int) -> list[_Sum]:
    """Different ones, each with an answer from 1 to 999."""
    rng = random.Random(name)
    found: dict[_Sum, None] = {}
    while len(found) < count:
        numbers = [rng.randint(2, 400)]
        for _ in range(rng.randint(1, 5)):
            change = rng.randint(2, 99)
            numbers.append(-change if change < sum(numbers) and rng.random() < 0.5 else change)
        if sum(numbers) < 1000:
            found[_Sum(tuple(numbers), rng.choice(WORDS))] = None
    return list(found)


def _dapo(sums: list[_Sum]) -> Iterator[Row]:
    def row(index: int, question: str, answer: str) -> Row:
        return {
            "data_source": "math_dapo",
            "prompt": [{"content": INSTRUCTIONS["dapo"].wrap(question), "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"00000000-0000-4000-8000-{index:012d}"},
        }

    block = [row(index, one.question, str(one.value)) for index, one in enumerate(sums)]
    block.append(row(len(sums), "How many vowels does the word $banana$ have?", "3"))
    block.append(row(len(sums) + 1, "How many  vowels does the word $banana$ have?", "2"))
    yield from block * 3


def _math(sums: list[_Sum]) -> Iterator[Row]:
    for one in sums:
        yield {
            "problem": one.question,
            "level": f"Level {one.level}",
            "type": "Prealgebra",
            "solution": rf"We count: ${one.working} = \boxed{{{one.value}}}$.",
        }
    for level, problem, solution in (
        ("Level 2", r"Halve $\frac{3}{4}$.", r"Half of it is $\boxed{\frac{3}{8}}$, less than $\frac{1}{2}$."),
        ("Level 1", "What is $2 + 3$?", r"It is $\boxed 5$."),
        ("Level ?", "Which numbers are their own squares?", r"They are \fbox{$\left\{0, 1\right\}$}."),
    ):
        yield {"problem": problem, "level": level, "type": "Prealgebra", "solution": solution}


def _math_train(sums: list[_Sum]) -> Iterator[Row]:
    yield from _math(sums)
    unanswered = "There are $\\boxed{}$ of them."
    yield {"problem": "How many even primes are odd?", "level": "Level 5", "type": "Prealgebra", "solution": unanswered}


def _gsm8k(sums: list[_Sum]) -> Iterator[Row]:
    for one in sums:
        working = f"There are {one.working} = <<{one.working.replace(' ', '')}={one.value}>>{one.value} {one.thing}."
        yield {"question": one.question.replace("$", ""), "answer": f"{working}\n#### {one.value}"}
    yield {
        "question": "A hall has 35 rows of 40 seats. How many seats?",
        "answer": "35 * 40 = <<35*40=1400>>\n#### 1,400",
    }


def _aime_2024(sums: list[_Sum]) -> Iterator[Row]:
    for index, one in enumerate(sums):
        solution = rf"${one.working} = \boxed{{{one.value:03}}}$"
        answer = f"{one.value:03}"
        yield {
            "id": 60 + index,
            "problem": one.question,
            "solution": solution,
            "answer": answer,
            "url": "",
            "year": "2024",
        }


def _aime_2025(sums: list[_Sum]) -> Iterator[Row]:
    for index, one in enumerate(sums):
        yield {"problem": one.question, "answer": str(one.value), "id": str(index)}


def _amc_2023(sums: list[_Sum]) -> Iterator[Row]:
    for index, one in enumerate(sums):
        yield {"id": index, "answer": float(one.value), "url": "", "question": one.question}


def _math_500(sums: list[_Sum]) -> Iterator[Row]:
    solved = [(one.question, str(one.value), one.level) for one in sums]
    solved.append((r"Halve $\frac{3}{4}$.", r"\frac{3}{8}", 2))
    for index, (problem, answer, level) in enumerate(solved):
        yield {
            "problem": problem,
            "solution": rf"It is $\boxed{{{answer}}}$.",
            "answer": answer,
            "subject": "Prealgebra",
            "level": level,
            "unique_id": f"test/prealgebra/{index}.json",
        }


def _minerva_math(sums: list[_Sum]) -> Iterator[Row]:
    for one in sums:
        yield {"question": one.question, "answer": str(one.value)}
    yield {"question": "How many metres are four million kilometres?", "answer": "4e9"}


def _olympiad_bench(sums: list[_Sum]) -> Iterator[Row]:
    solved: list[tuple[str | None, str, str, list[str]]] = []
    solved += [(None, one.question, f"${one.working}$", [str(one.value)]) for one in sums]
    solved.append((None, "Halve $3$.", "It is one and a half.", [r"$\frac{3}{2}$"]))
    solved.append(("Let $x$ be a digit.", "When is $x^2 = x$?", "$x(x - 1) = 0$", ["$0$,$1$"]))
    for index, (context, question, solution, answers) in enumerate(solved):
        yield {
            "id": 1600 + index,
            "question": question,
            "solution": [solution],
            "final_answer": answers,
            "context": context,
            "image_1": None,
            "modality": "Text-only",
            "difficulty": "Competition",
            "is_multiple_answer": "," in answers[0],
            "unit": None,
            "answer_type": "Numerical",
            "error": None,
            "question_type": "Open-ended",
            "subfield": "Algebra",
            "subject": "Math",
            "language": "English",
        }


def _geometry3k(sums: list[_Sum]) -> Iterator[Row]:
    for one in sums:
        width = 56 + 4 * (one.value % 8)
        image = Image.new("RGB", (width, 56), "white")
        ImageDraw.Draw(image).polygon([(4, 50), (width - 4, 50), (one.value % 50, 6)], outline="black")
        image.save(file := io.BytesIO(), "PNG")
        yield {
            "images": [{"bytes": file.getvalue(), "path": None}],
            "problem": f"<image>{one.question}",
            "answer": str(one.value),
        }


_SCHEMAS: dict[str, Callable[[list[_Sum]], Iterator[Row]]] = {
    "dapo_math_17k": _dapo,
    "math_train": _math_train,
    "gsm8k_train": _gsm8k,
    "aime_2024": _aime_2024,
    "aime_2025": _aime_2025,
    "amc_2023": _amc_2023,
    "math_500": _math_500,
    "minerva_math": _minerva_math,
    "olympiad_bench": _olympiad_bench,
    "gsm8k_test": _gsm8k,
    "math_test": _math,
    "geometry3k_train": _geometry3k,
    "geometry3k_validation": _geometry3k,
    "geometry3k_test": _geometry3k,
}


@dataclass(frozen=True)
class _Shift:
    """What a program, or a function, has to add to a number."""

    by: int
    function: bool

    @property
    def question(self) -> str:
        wanted = "Return n" if self.function else "Read a number n and print it"
        return f"{wanted} plus {self.by}."

    @property
    def starter_code(self) -> str:
        return "def f(n: int) -> int:" if self.function else ""

    @property
    def tests(self) -> list[tuple[int, int]]:
        return [(n, n + self.by) for n in (0, 7, 30)]


def solution(question: str) -> str:
    """A response that solves one of the problems that `write_code` makes up."""
    by = question.removesuffix(".").rpartition(" ")[2]
    body = f"def f(n): return n + {by}" if question.startswith("Return") else f"print(int(input()) + {by})"
    return f"```python\n{body}\n```"


def write_code(folder: Path) -> None:
    """Every part of `deepcoder` and every file of `livecodebench`, half of the problems with a function to write.

    The contests of LiveCodeBench are ten days apart, from May 2023 to April 2025.
    """
    for part in deepcoder.PARTS:
        rows = [_PARTS[part](one) for one in _shifts(part, TRAINING // 2)]
        place = folder / "deepcoder" / part
        place.mkdir(parents=True, exist_ok=True)
        write_table(pa.Table.from_pylist(rows), place / "train-00000-of-00001.parquet")
    files, _ = livecodebench.RELEASES["release_v6"]
    contests = list(enumerate(_shifts("livecodebench", 12 * len(files))))
    (folder / "livecodebench").mkdir(exist_ok=True)
    for i, name in enumerate(files):
        lines = "".join(json.dumps(_contest(*one)) + "\n" for one in contests[12 * i : 12 * (i + 1)])
        (folder / "livecodebench" / name).write_text(lines, encoding="utf-8")


def _shifts(name: str, count: int) -> list[_Shift]:
    """Different ones."""
    numbers = random.Random(name).sample(range(1, 100), count)
    return [_Shift(number, function=bool(i % 2)) for i, number in enumerate(numbers)]


def _taco(one: _Shift) -> Row:
    inputs, outputs = zip(*one.tests, strict=True)
    tests: Row = {"inputs": [f"{n}\n" for n in inputs], "outputs": [f"{n}\n" for n in outputs]}
    if one.function:
        tests = {"fn_name": "f", "inputs": [[n] for n in inputs], "outputs": [[n] for n in outputs]}
    return {"problem": one.question, "starter_code": one.starter_code, "tests": json.dumps(tests)}


def _primeintellect(one: _Shift) -> Row:
    if one.function:
        tests: list[Row] = [
            {"type": "function_call", "fn_name": "f", "input": [n], "output": [m]} for n, m in one.tests
        ]
    else:
        tests = [{"type": "stdin_stdout", "input": f"{n}\n", "output": f"{m}\n"} for n, m in one.tests]
    return {"problem": one.question, "tests": json.dumps(tests)}


def _lcbv5(one: _Shift) -> Row:
    metadata = {"func_name": "f" if one.function else None}
    tests = [{**test, "metadata": metadata} for test in _contest_tests(one)]
    return {"problem": one.question, "starter_code": one.starter_code, "tests": json.dumps(tests)}


def _contest_tests(one: _Shift) -> list[Row]:
    kind = "functional" if one.function else "stdin"
    return [{"input": str(n), "output": str(m), "testtype": kind} for n, m in one.tests]


def _contest(index: int, one: _Shift) -> Row:
    first, *others = _contest_tests(one)
    return {
        "question_title": "Shift",
        "question_content": one.question,
        "platform": "leetcode" if one.function else "atcoder",
        "question_id": f"abc{index}_a",
        "contest_id": f"abc{index}",
        "contest_date": f"{date(2023, 5, 7) + timedelta(days=10 * index)}T00:00:00",
        "starter_code": one.starter_code,
        "difficulty": ("easy", "medium", "hard")[index % 3],
        "public_test_cases": json.dumps([first]),
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(others)))).decode(),
        "metadata": json.dumps({"func_name": "f"} if one.function else {}),
    }


_PARTS: dict[str, Callable[[_Shift], Row]] = {"taco": _taco, "primeintellect": _primeintellect, "lcbv5": _lcbv5}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_code(Path(sys.argv[1]))
