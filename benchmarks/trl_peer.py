"""TRL's GRPOTrainer as a worker: one training step for each line on stdin, its record as a line on stdout.

train_step.py runs it, in TRL's own environment. The first line on stdin is the setup (see `main`), which is
answered with the versions once the trainer stands before its first step.

The settings are the fastest found on a CPU among those that compute the same update: float32 (default:
bfloat16), no gradient checkpointing (default: on), no reference model, SDPA attention, fused AdamW,
`MICRO_BATCH` completions in a pass, the dynamic cache, neither logging nor saving.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any, TextIO

import torch
import trl
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from riskpo_study.config import Task
from riskpo_study.tasks.countdown import Countdown
from riskpo_study.tasks.protocol import Question

MICRO_BATCH = 160


class Turns(TrainerCallback):
    """Takes one step at a time. It waits where a step begins, so that nothing of a step goes unmeasured."""

    def __init__(self, task: Countdown, replies: TextIO) -> None:
        self.task, self.replies = task, replies
        self.start = 0.0
        self.record: dict[str, Any] = {"trl": trl.__version__, "torch": torch.__version__}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.start:
            self.record["step"] = time.perf_counter() - self.start
        print(json.dumps(self.record), file=self.replies, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        self.start = time.perf_counter()

    def reward(
        self,
        completions: list[str],
        completion_ids: list[list[int]],
        question: list[dict[str, Any]],
        **_: Any,
    ) -> list[float]:
        """The reward function. TRL calls it between generation and update, so it also tells the two apart."""
        start = time.perf_counter()
        pairs = zip((Question(**fields) for fields in question), completions, strict=True)
        rewards = [self.task.verify(asked, text).reward for asked, text in pairs]
        self.record = {
            "generate": start - self.start,
            "verify": time.perf_counter() - start,
            "tokens": sum(map(len, completion_ids)),
            "reward": sum(rewards) / len(rewards),
        }
        return rewards


def main() -> None:
    """Setup: `model` (a folder), `task` and `train` (sections of the configuration), `questions` by step."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # libraries print, too
    setup = json.loads(sys.stdin.readline())
    train = setup["train"]
    torch.set_num_threads(train["threads"])
    turns = Turns(Countdown(Task(**setup["task"])), replies)
    arguments = GRPOConfig(
        output_dir=tempfile.gettempdir(),  # must exist; nothing is written
        num_generations=train["responses"],
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=train["questions"] * train["responses"] // MICRO_BATCH,
        max_completion_length=train["max_new_tokens"],
        temperature=train["temperature"],
        top_p=1.0,
        top_k=0,
        loss_type="grpo",
        beta=0.0,
        epsilon=0.2,
        learning_rate=train["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=train["weight_decay"],
        max_grad_norm=train["max_grad_norm"],
        max_steps=len(setup["questions"]),
        shuffle_dataset=False,  # the questions of our steps, in their order
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"prompt": asked["prompt"], "question": asked} for step in setup["questions"] for asked in step]
    GRPOTrainer(
        setup["model"], turns.reward, args=arguments, train_dataset=Dataset.from_list(rows), callbacks=[turns]
    ).train()


if __name__ == "__main__":
    main()
