"""What a task offers to the trainer and the evaluation: questions in, verdicts out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerFast

Split = Literal["development", "held_out"]

Difficulty = int | str
"""What results are told apart by, as figures and tables call it: a level (``3 operations``) or the name of a benchmark.

Countdown's are integers, which are read as numbers of numbers."""


Prompt = str | Sequence[Mapping[str, Any]]
"""A text that the model continues, or messages (`role`, `content`) that it answers in its chat template.

The content is a text, or a list of parts as `transformers` has them: `{"type": "text", "text": ...}` and, for models
that see, `{"type": "image", "image": PIL.Image.Image}`.
"""


@dataclass(frozen=True)
class Question:
    """One question: ``id`` names the problem, ``payload`` is what the verifier needs to know about it."""

    id: str
    prompt: Prompt = field(hash=False)
    difficulty: Difficulty
    payload: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Verdict:
    """What a response is worth.

    ``answer`` is the response in canonical spelling, equal for responses that mean the same, so that
    answers can be counted for majority voting; None when the response is not an answer at all.
    """

    reward: float
    answer: str | None


class Task(Protocol):
    """A source of questions whose responses can be verified.

    A class that derives from it has what is said here of questions that it makes itself: no data, disjoint splits.
    """

    name: str

    modules: tuple[str, ...]
    """Paths in the package, without suffix, of the code that decides questions and verdicts."""

    @property
    def difficulties(self) -> Sequence[Difficulty]:
        """Of its training questions, in ascending order."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What identifies data that the task does not make itself; a run goes on only with the same."""
        return {}

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different questions of the training split, in random order."""
        ...

    def prompt(self, question: Question) -> Prompt:
        """What the policy continues or answers."""
        return question.prompt

    def verify(self, question: Question, response: str) -> Verdict:
        """Judge a response; never raises, whatever the string."""
        ...

    def verify_all(self, pairs: Sequence[tuple[Question, str]]) -> list[Verdict]:
        """`verify` of every question and response; for a task that judges many together faster than one by one."""
        return [self.verify(*pair) for pair in pairs]

    def questions(self, split: Split) -> list[Question]:
        """The fixed questions of an evaluation split, ordered by difficulty."""
        ...

    def overlap(self) -> pd.DataFrame:
        """What training and held-out questions share, a row a source; none where they are disjoint by construction."""
        import pandas as pd

        return pd.DataFrame()


class TeachableTask(Task, Protocol):
    """A task that can also show solutions, so that a base model can be trained for it from nothing."""

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the task's language."""
        ...

    def demonstrations(
        self, n: int, generator: torch.Generator, difficulties: Collection[int] | None = None
    ) -> Sequence[tuple[Prompt, str]]:
        """``n`` pairs (prompt, solution) of the training split; by default of the levels that the task asks."""
        ...


def verdicts(task: Task, questions: Sequence[Question], responses: Sequence[Sequence[str]]) -> list[list[Verdict]]:
    """Judge the responses to each question; equal ones are verified once."""
    pairs = [
        (question, text) for question, row in zip(questions, responses, strict=True) for text in dict.fromkeys(row)
    ]
    by_text = {
        (question.id, text): verdict for (question, text), verdict in zip(pairs, task.verify_all(pairs), strict=True)
    }
    return [[by_text[question.id, text] for text in row] for question, row in zip(questions, responses, strict=True)]
