"""What the trainer and the evaluation ask of a rollout engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from riskpo_study.errors import DataError
from riskpo_study.policy import Policy, Responses
from riskpo_study.vision import EncodedPrompt


@dataclass(frozen=True)
class Generation(Responses):
    """Responses with what the sampler knows of them."""

    log_probs: Tensor  # (Q, G, T) of the sampled tokens at the sampling temperature, zero at padding
    finished: Tensor  # (Q, G) bool: ended with the end-of-sequence token (finish reason "stop", else "length")


class Engine(Protocol):
    """Draws responses. Training needs the plain softmax distribution: temperature only, neither top-p nor top-k."""

    exact: bool
    """Whether its log-probabilities are the policy's own, to rounding in the last digits."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: float,
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> Generation:
        """n responses of at most `max_new_tokens` tokens to each prompt; the same generator gives the same tokens."""
        ...

    def drawing(self) -> AbstractContextManager[None]:
        """Around calls of `generate`: several processes enter and leave it together, and call as often as they like."""
        ...

    def rest(self) -> None:
        """Give back memory until the next `sync`; called before every update."""
        ...

    def sync(self, policy: Policy) -> None:
        """Take over the policy's weights; called after every update."""
        ...


def as_prompts(prompts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """What `Generation.prompts` keeps. Raises DataError for a prompt without tokens."""
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise DataError(f"prompt {index} of the batch has no tokens; a model needs at least one to start from")
    return tuple(prompt if isinstance(prompt, EncodedPrompt) else tuple(prompt) for prompt in prompts)
