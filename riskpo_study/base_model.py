"""The model that every run starts from: a small Qwen2 trained from nothing on demonstrations, or a published one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import trange
from transformers import AutoModelForCausalLM, AutoTokenizer

from riskpo_study.errors import ConfigError, DataError
from riskpo_study.files import atomic
from riskpo_study.seeds import derive, generator
from riskpo_study.tasks.protocol import Task, TeachableTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

    from riskpo_study.config import BaseModel as BaseModelConfig

__all__ = ["build_model", "examples", "obtain", "pretrain"]

# AutoTokenizer takes the tokenizer of a Qwen2 checkpoint for Qwen's own, whatever its files say, and splits
# numbers into digits. Where the checkpoint claims code of its own that is not trusted, it believes the files.
KEEP_TOKENIZER = {"AutoTokenizer": [None, None]}
COLUMNS = ["step", "loss", "learning_rate", "gradient_norm", "tokens"]
CONTEXT = 64  # positions: prompt and response of every difficulty
MAX_GRAD_NORM = 1.0
BETAS = (0.9, 0.95)
ROWS = 64  # sequences in one forward pass; of similar length, so that little of it is padding


def obtain(task: Task, config: BaseModelConfig, folder: Path) -> pd.DataFrame:
    """Put the base model and its tokenizer into ``folder``: a published one where the configuration names it.

    Returns what ``pretrain`` does, without rows for a published model.
    Raises ConfigError where the task cannot teach a model, DataError where the published one cannot be had.
    """
    if config.pretrained == "none":
        return pretrain(teachable(task), config, folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(config.pretrained, revision=config.revision, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(config.pretrained, revision=config.revision)
    except (OSError, ValueError) as error:
        raise DataError(
            f"base_model.pretrained = {config.pretrained!r}, revision {config.revision!r}, cannot be loaded "
            f"({str(error).splitlines()[0]}): name a model of the hub, or download it where there is a network "
            f"(hf download {config.pretrained}) and take its folder."
        ) from error
    with atomic(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return pd.DataFrame(columns=COLUMNS)


def teachable(task: Task) -> TeachableTask:
    """The task; ConfigError where it has no demonstrations to learn from."""
    if not hasattr(task, "demonstrations"):
        raise ConfigError(
            f"task.name = {task.name!r} cannot teach a model from nothing: name one in base_model.pretrained"
        )
    return cast("TeachableTask", task)


def examples(task: Task, n: int) -> list[str]:
    """What a few training questions look like, with a solution where the task shows any."""
    draws = generator(0, "examples")
    if hasattr(task, "demonstrations"):
        return [f"{prompt} {solution}" for prompt, solution in teachable(task).demonstrations(n, draws)]
    prompts = [task.prompt(question) for question in task.sample(n, draws)]
    return [prompt if isinstance(prompt, str) else "\n".join(part["content"] for part in prompt) for prompt in prompts]


def pretrain(
    task: TeachableTask, config: BaseModelConfig, folder: Path | str, *, progress: bool = True
) -> pd.DataFrame:
    """Train a model on ``config.steps`` batches of demonstrations; save it with its tokenizer in ``folder``.

    Supervised learning: mean cross-entropy of the response tokens and the end-of-sequence token; AdamW,
    linear warm-up, cosine decay to zero. The same configuration, thread count and versions give the
    same bytes. ``folder`` appears, or is replaced, only when it is complete.

    Returns one row a step: ``step`` (from 1), ``loss`` (nats per response token), ``learning_rate``,
    ``gradient_norm`` (before clipping) and ``tokens`` (response tokens of the batch).
    Raises ConfigError for settings of which no model can be built.
    """
    tokenizer = task.build_tokenizer()
    tokenizer.init_kwargs["auto_map"] = KEEP_TOKENIZER
    model = build_model(config, tokenizer)
    optimizer = _optimizer(model, config)
    draws = generator(config.seed, "base_model", "demonstrations")
    records = []
    bar = trange(1, config.steps + 1, desc="base model", unit="step", disable=not progress)
    for step in bar:
        demonstrations = task.demonstrations(config.batch_size, draws, config.difficulties)
        sequences = tokenize(tokenizer, demonstrations)
        tokens = sum(len(response) for _, response in sequences)
        rate = config.learning_rate * schedule(step, config.steps, config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for input_ids, labels in chunks(sequences):
            loss = response_loss(model, input_ids, labels) / tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM).item()
        optimizer.step()
        optimizer.zero_grad()
        records.append((step, total, rate, norm, tokens))
        bar.set_postfix(loss=f"{total:.3f}", refresh=False)
    with atomic(Path(folder)) as partial:
        model.eval().save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return pd.DataFrame(records, columns=COLUMNS)


def build_model(config: BaseModelConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A Qwen2 model with tied embeddings and random weights, drawn with ``config.seed``."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    if config.width % (2 * config.heads):
        raise ConfigError(
            f"base_model.width = {config.width} must be an even multiple of base_model.heads = "
            f"{config.heads}, because rotary positions turn the channels of a head in pairs."
        )
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):  # initialisation knows no other generator than the global one
        torch.manual_seed(derive(config.seed, "base_model", "weights"))
        model = Qwen2ForCausalLM(shape)
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def response_loss(model: Qwen2ForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropy over the positions ``(B, T)`` whose label is not -100; logits only for those.

    Padding must be on the right: causal attention then never sees it and needs no mask.
    """
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, T, width)
    wanted = labels != -100
    return cross_entropy(model.lm_head(hidden[wanted]), labels[wanted], reduction="sum")


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at ``step`` (from 1): linear warm-up, then cosine decay to zero."""
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup - 1) / max(1, steps - warmup)))


def tokenize(
    tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Pairs (prompt ids, response ids with the end-of-sequence token)."""
    prompts, responses = (tokenizer(list(texts))["input_ids"] for texts in zip(*demonstrations, strict=True))
    return [(p, [*r, tokenizer.eos_token_id]) for p, r in zip(prompts, responses, strict=True)]


def chunks(sequences: list[tuple[list[int], list[int]]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Right-padded ``(input_ids, labels)``, each ``(B, T)``, of sequences ordered by length."""
    ordered = sorted(sequences, key=lambda pair: len(pair[0]) + len(pair[1]))
    for start in range(0, len(ordered), ROWS):
        chunk = ordered[start : start + ROWS]
        width = max(len(p) + len(r) for p, r in chunk) - 1  # the last token is only predicted
        input_ids = [(p + r)[:-1] for p, r in chunk]
        labels = [[-100] * (len(p) - 1) + r for p, r in chunk]
        yield _pad(input_ids, width, 0), _pad(labels, width, -100)


def _pad(rows: list[list[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _optimizer(model: Qwen2ForCausalLM, config: BaseModelConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, not on biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)
