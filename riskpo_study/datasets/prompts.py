r"""How a model is asked: instructions around a question, as messages for the chat template of its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from riskpo_study.errors import ConfigError

__all__ = ["INSTRUCTIONS", "Instruction", "messages"]


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
}


def messages(question: str, instruction: str) -> list[dict[str, str]]:
    """The conversation that `tokenizer.apply_chat_template` turns into a prompt: one turn of the user.

    Raises:
        ConfigError: for an instruction that is not in `INSTRUCTIONS`.
    """
    if instruction not in INSTRUCTIONS:
        raise ConfigError(f"instruction = {instruction!r} is unknown; choose one of: {', '.join(INSTRUCTIONS)}.")
    return [{"role": "user", "content": INSTRUCTIONS[instruction].wrap(question)}]
