"""What a task offers to the trainer and the evaluation: questions in, verdicts out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

Split = Literal["development", "held_out"]


@dataclass(frozen=True)
class Question:
    """One question: ``id`` names the problem, ``payload`` is what the verifier needs to know about it."""

    id: str
    prompt: str
    difficulty: int
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
    """A source of questions whose responses can be verified."""

    name: str

    def sample(self, n: int, generator: torch.Generator) -> list[Question]:
        """``n`` different questions of the training split, in random order."""
        ...

    def prompt(self, question: Question) -> str:
        """The text that the policy continues."""
        ...

    def verify(self, question: Question, response: str) -> Verdict:
        """Judge a response; never raises, whatever the string."""
        ...

    def questions(self, split: Split) -> list[Question]:
        """The fixed questions of an evaluation split, ordered by difficulty."""
        ...


class TeachableTask(Task, Protocol):
    """A task that can also show solutions, so that a base model can be trained for it from nothing."""

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the task's language."""
        ...

    def demonstrations(
        self, n: int, generator: torch.Generator, difficulties: Collection[int] | None = None
    ) -> list[tuple[str, str]]:
        """``n`` pairs (prompt, solution) of the training split; by default of the task's difficulties."""
        ...


def verdicts(task: Task, question: Question, responses: Sequence[str]) -> list[Verdict]:
    """Judge the responses to one question; equal ones are verified once."""
    judged = {response: task.verify(question, response) for response in set(responses)}
    return [judged[response] for response in responses]
