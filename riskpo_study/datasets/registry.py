r"""The datasets of the paper: where they are published, what their rows look like, how many they are.

Each is pinned to the commit for which schema, file names and counts were found documented: in the dataset's card, in
the viewer of the hub, or by users who name the commit. The counts are checked when the dataset is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from riskpo_study.datasets.gold_answers import after_hashes, canonical, last_boxed, listed
from riskpo_study.datasets.prompts import INSTRUCTIONS

__all__ = ["DATASETS", "Form", "Source"]


@dataclass(frozen=True)
class Form:
    """Which fields of a row hold question and answer; dots lead into nested ones, as in `prompt.0.content`."""

    question: str
    answer: str
    cut: Callable[[Any], str]
    """The gold answer from the value of the field `answer`; see `riskpo_study.datasets.gold_answers`."""


@dataclass(frozen=True)
class Source:
    """One split of a dataset on the Hugging Face hub."""

    role: Literal["training", "evaluation"]
    repository: str
    config: str | None
    split: str
    files: str
    """Pattern of the split's files in the repository."""
    commit: str
    rows: int
    """Rows at that commit."""
    questions: int
    """What is left of them: without repetitions, or, where a row is a question, without rows that lack an answer."""
    forms: tuple[Form, ...]
    """The published form first; a row is read by the first one whose fields it has."""
    identifier: str | None = None
    """Field with an identifier; rows without one are numbered from 0."""
    level: str | None = None
    """Field with the difficulty: 1 to 5, or `Level 1` to `Level 5`; `Level ?` is unknown."""
    context: str | None = None
    """Field that, where it is not empty, comes before the question."""
    images: str | None = None
    """Field with the images that the question marks with `<image>`, each as the bytes of a file."""
    clean: Callable[[str], str] = str.strip
    """The bare question from the value of the field."""
    repeats: bool = False
    """Questions occur in many rows: one is kept of each, and none of those that stand with different answers."""


def _math(split: str, rows: int, questions: int) -> Source:
    # {"problem", "level": "Level 5", "type": "Algebra", "solution": "… $\\boxed{…}$ …"}: dataset card. Two training
    # rows have "Level ?", two an empty box; some boxes have no braces and some are an \fbox.
    return Source(
        role="training" if split == "train" else "evaluation",
        repository="DigitalLearningGmbH/MATH-lighteval",
        config="default",
        split=split,
        files=f"data/{split}-*.parquet",
        commit="0530c78699ea5e8eb5530600900e1f328b48acad",
        rows=rows,
        questions=questions,
        forms=(Form("problem", "solution", last_boxed),),
        identifier="idx",  # of the Qwen2.5-Math evaluation repository; the hub has none
        level="level",
    )


def _gsm8k(split: str, rows: int) -> Source:
    # {"question", "answer": "… <<48/2=24>> …\n#### 72"}, thousands with commas: dataset card.
    return Source(
        role="training" if split == "train" else "evaluation",
        repository="openai/gsm8k",
        config="main",
        split=split,
        files=f"main/{split}-*.parquet",
        commit="740312add88f781978c0658806c59bc2815b9866",
        rows=rows,
        questions=rows,
        forms=(Form("question", "answer", after_hashes),),
        identifier="idx",  # of the Qwen2.5-Math evaluation repository; the hub has none
    )


def _geometry3k(split: str, rows: int) -> Source:
    # {"images": [{"bytes", "path"}], "problem": "<image>Find x.", "answer": "2 \\sqrt { 221 }"}: dataset card, and how
    # EasyR1 and verl read it; the commit is the one that users name.
    return Source(
        role="training" if split == "train" else "evaluation",
        repository="hiyouga/geometry3k",
        config="default",
        split=split,
        files=f"data/{split}-*.parquet",
        commit="fd21e533e1e50d0662a2bf7b223e60511bd5f8b7",
        rows=rows,
        questions=rows,
        forms=(Form("problem", "answer", canonical),),
        images="images",
    )


DATASETS = {
    # {"data_source", "prompt": [{"content": instruction + question, "role": "user"}], "ability",
    #  "reward_model": {"ground_truth": "34", "style"}, "extra_info": {"index": uuid}}: verl's format for RL data.
    # The same 17 917 rows a hundred times; 17 398 different texts, 17 188 apart from spaces, 12 of them with two
    # answers: github.com/Geraldxm/math-vault, derived/dapo_math_17k_dedup.
    "dapo_math_17k": Source(
        role="training",
        repository="BytedTsinghua-SIA/DAPO-Math-17k",
        config=None,
        split="train",
        files="data/dapo-math-17k.parquet",
        commit="65877096c24ffa7abc4e4fa5edb95cf3413a5674",
        rows=1_791_700,
        questions=17_176,
        forms=(Form("prompt.-1.content", "reward_model.ground_truth", canonical),),  # after a system's turn, if any
        identifier="extra_info.index",
        clean=INSTRUCTIONS["dapo"].unwrap,
        repeats=True,
    ),
    "math_train": _math("train", rows=7_500, questions=7_498),
    "gsm8k_train": _gsm8k("train", rows=7_473),
    # {"id": 60, "problem", "solution", "answer": "025", "url", "year"}: dataset viewer.
    "aime_2024": Source(
        role="evaluation",
        repository="HuggingFaceH4/aime_2024",
        config=None,
        split="train",
        files="data/train-*.parquet",
        commit="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        rows=30,
        questions=30,
        forms=(Form("problem", "answer", canonical),),
        identifier="id",
    ),
    # {"problem", "answer": "70", "id": "0"}: dataset viewer.
    "aime_2025": Source(
        role="evaluation",
        repository="math-ai/aime25",
        config=None,
        split="test",
        files="test.jsonl",
        commit="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        rows=30,
        questions=30,
        forms=(Form("problem", "answer", canonical),),
        identifier="id",
    ),
    # {"id": 0, "answer": 27.0, "url", "question"}: dataset viewer. AMC 12A and 12B, reworded to ask for an integer.
    "amc_2023": Source(
        role="evaluation",
        repository="math-ai/amc23",
        config=None,
        split="test",
        files="test-*.parquet",
        commit="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        rows=40,
        questions=40,
        forms=(Form("question", "answer", canonical),),
        identifier="id",
    ),
    # {"problem", "solution", "answer", "subject", "level": 2, "unique_id": "test/algebra/1.json"}: dataset card.
    "math_500": Source(
        role="evaluation",
        repository="HuggingFaceH4/MATH-500",
        config=None,
        split="test",
        files="test.jsonl",
        commit="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        rows=500,
        questions=500,
        forms=(Form("problem", "answer", canonical),),
        identifier="unique_id",
        level="level",
    ),
    # {"question", "answer": "4.5e33"}: dataset viewer. In the Qwen2.5-Math evaluation repository
    # {"problem", "solution": "… \\boxed{4.5e33} …", "type", "idx"}. Answers are without their units.
    "minerva_math": Source(
        role="evaluation",
        repository="math-ai/minervamath",
        config=None,
        split="test",
        files="test.jsonl",
        commit="ee46ddc498933b1977577953250ca5c66be64f96",
        rows=272,
        questions=272,
        forms=(Form("question", "answer", canonical), Form("problem", "solution", last_boxed)),
        identifier="idx",
    ),
    # {"id": 1606, "question", "solution": […], "final_answer": ["$\\frac{1}{2}$"], "context": null, "image_1": null, …,
    #  "is_multiple_answer", "unit", "answer_type", "subfield", …}: dataset card, github.com/OpenBMB/OlympiadBench.
    # OE_TO_maths_en_COMP: open-ended, text only, mathematics, English, competition.
    "olympiad_bench": Source(
        role="evaluation",
        repository="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
        split="train",
        files="OlympiadBench/OE_TO_maths_en_COMP/*.parquet",
        commit="91184b52131e7fc9455fef848035173aea8cc01a",
        rows=674,
        questions=674,
        forms=(Form("question", "final_answer", listed),),
        identifier="id",
        context="context",
    ),
    "gsm8k_test": _gsm8k("test", rows=1_319),
    "math_test": _math("test", rows=5_000, questions=5_000),
    "geometry3k_train": _geometry3k("train", rows=2_101),
    "geometry3k_validation": _geometry3k("validation", rows=300),
    "geometry3k_test": _geometry3k("test", rows=601),
}
