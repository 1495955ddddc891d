r"""How a model is asked: instructions around a question, as messages for the chat template of its tokenizer."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from riskpo_study.errors import ConfigError

__all__ = ["IMAGE", "INSTRUCTIONS", "Instruction", "illustrated", "messages"]

IMAGE = "<image>"
"""Stands in a question where an image belongs, as in the datasets of EasyR1 and verl."""


@dataclass(frozen=True)
class Instruction:
    """The words before and after a question."""

    before: str = ""
    after: str = ""

    def wrap(self, question: str) -> str:
        """The question with the instruction around it."""
        return f"{self.before}{question}{self.after}"

    def unwrap(self, prompt: str) -> str:
        """The bare question of a prompt that carries the instruction, or of one that does not."""
        return prompt.strip().removeprefix(self.before.strip()).removesuffix(self.after.strip()).strip()


INSTRUCTIONS = {
    # Model cards of DeepSeek-R1-Distill-Qwen (which want it in the user's turn and no system prompt) and Qwen2.5-Math.
    "boxed": Instruction(after="\nPlease reason step by step, and put your final answer within \\boxed{}."),
    # Part of every prompt in DAPO-Math-17k.
    "dapo": Instruction(
        before="Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n",
        after='\n\nRemember to put your answer on its own line after "Answer:".',
    ),
    # Of EasyR1 and verl for Geometry3K.
    "think": Instruction(
        after=" You FIRST think about the reasoning process as an internal monologue and then provide the final "
        "answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in "
        "\\boxed{}.",
    ),
}


def messages(question: str, instruction: str) -> list[dict[str, str]]:
    """The conversation that `tokenizer.apply_chat_template` turns into a prompt: one turn of the user.

    Raises:
        ConfigError: for an instruction that is not in `INSTRUCTIONS`.
    """
    if instruction not in INSTRUCTIONS:
        raise ConfigError(f"instruction = {instruction!r} is unknown; choose one of: {', '.join(INSTRUCTIONS)}.")
    return [{"role": "user", "content": INSTRUCTIONS[instruction].wrap(question)}]


def illustrated(messages: Sequence[Mapping[str, str]], files: Sequence[bytes]) -> list[dict[str, Any]]:
    """Messages whose content is a list of parts: each `IMAGE` in a text is the image of the next file.

    There must be as many files as marks, as `load` makes sure.
    """
    images = iter(files)
    found = []
    for message in messages:
        parts: list[dict[str, Any]] = []
        for index, text in enumerate(message["content"].split(IMAGE)):
            if index:
                parts.append({"type": "image", "image": Image.open(io.BytesIO(next(images))).convert("RGB")})
            if text:
                parts.append({"type": "text", "text": text})
        found.append({"role": message["role"], "content": parts})
    return found
