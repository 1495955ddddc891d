"""Contamination: evaluation questions that training questions repeat, in full or in runs of 13 words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

import pandas as pd

from riskpo_study.datasets.loading import Question

__all__ = ["overlap", "overlap_by_source"]

# A word is a run of letters or a run of digits; Chinese, which DAPO-Math-17k has too, is counted by character.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+|\d+")
_FILLING = re.compile(r"[\s$]+")


def overlap(training: Iterable[Question], evaluation: Iterable[Question], n: int = 13) -> pd.DataFrame:
    """What of each evaluation question stands in the training questions.

    Compared are texts without case, spaces and dollar signs, together with images (`exact`), and runs of `n` words
    without punctuation, as GPT-3's report does with n = 13 (arXiv 2005.14165, appendix C). A run may be a set phrase
    ("can be written as m/n, where m and n are relatively prime positive integers" has 15 words), so that `share` says
    more than the fact of a match. A question of fewer than `n` words has no run and can only match exactly.

    Returns:
        One row an evaluation question, in order: `source`, `question_id`; `exact`; `runs`, the number of different
        ones; `share`, the part of them that occurs in any training question, 0 to 1; `training_id` of the equal
        question, or else of the one that shares most runs, missing where none does.
    """
    tested = list(evaluation)
    tested_runs = [_runs(question.question, n) for question in tested]
    holders = defaultdict(list)  # run → evaluation questions with it
    for index, runs in enumerate(tested_runs):
        for run in runs:
            holders[run].append(index)
    equal: dict[tuple[str, ...], str] = {}
    shared: list[set[tuple[str, ...]]] = [set() for _ in tested]
    closest: list[tuple[int, str | None]] = [(0, None) for _ in tested]
    for question in training:
        equal.setdefault(_bare(question), question.question_id)
        common = Counter[int]()
        for run in _runs(question.question, n) & holders.keys():
            for index in holders[run]:
                shared[index].add(run)
                common[index] += 1
        for index, count in common.items():
            if count > closest[index][0]:
                closest[index] = (count, question.question_id)
    rows = []
    for question, runs, hits, (_, most) in zip(tested, tested_runs, shared, closest, strict=True):
        twin = equal.get(_bare(question))
        share = len(hits) / len(runs) if runs else 0.0
        rows.append((question.source, question.question_id, twin is not None, len(runs), share, twin or most))
    return pd.DataFrame(rows, columns=["source", "question_id", "exact", "runs", "share", "training_id"])


def overlap_by_source(found: pd.DataFrame) -> pd.DataFrame:
    """Of what `overlap` found, one row an evaluation dataset: how many questions, and how many of them match.

    Returns:
        `source`; `questions`; `exact`; `any_run`, with a run of words in the training questions; `half`, with half of
        their runs there; `short`, of too few words to have a run.
    """
    marks = found.assign(any_run=found["share"] > 0, half=found["share"] >= 0.5, short=found["runs"] == 0)
    counted = marks.groupby("source", sort=False)[["exact", "any_run", "half", "short"]].sum()
    counted.insert(0, "questions", marks.groupby("source", sort=False).size())
    return counted.reset_index()


def _runs(text: str, n: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(_plain(text))
    return set(zip(*(words[start:] for start in range(n)), strict=False))


def _bare(question: Question) -> tuple[str, ...]:
    """Its text and its images, without which questions like "Find x" say nothing."""
    images = [hashlib.sha256(image).hexdigest() for image in question.images]
    return _FILLING.sub("", _plain(question.question)), *images


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
