"""Rollouts with the training model itself: nothing to synchronise, any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from riskpo_study.errors import DataError
from riskpo_study.policy import Policy
from riskpo_study.rollouts.engine import Generation


class TransformersEngine:
    """Samples from a `transformers` model: each prompt is computed once, finished responses leave the batch."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def sync(self, policy: Policy) -> None:
        """Nothing moves: the engine reads the policy's own weights."""
        self.policy = policy

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: float,
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> Generation:
        """See `Engine.generate`. Raises `DataError` for an empty prompt."""
        for index, prompt in enumerate(prompts):
            if not len(prompt):
                raise DataError(f"prompt {index} of the batch has no tokens; a model needs at least one to start from")
        model, eos = self.policy.model, self.policy.tokenizer.eos_token_id
        device = model.device
        rows = len(prompts) * n
        tokens = torch.full((rows, max_new_tokens), self.policy.tokenizer.pad_token_id)
        log_probs = torch.zeros(rows, max_new_tokens)
        lengths = torch.zeros(rows, dtype=torch.long)
        finished = torch.zeros(rows, dtype=torch.bool)

        input_ids, attention = (part.to(device) for part in _left_padded(prompts))
        cache = DynamicCache(config=model.config)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        output = model(
            input_ids=input_ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1].repeat_interleave(n, 0)
        cache.batch_repeat_interleave(n)
        attention, position = attention.repeat_interleave(n, 0), positions[:, -1:].repeat_interleave(n, 0)
        active = torch.arange(rows)  # the rows still growing
        for step in range(max_new_tokens):
            log_p = (logits.float() / temperature).log_softmax(-1)
            drawn = _draw(log_p, generator)
            tokens[active, step] = drawn.squeeze(1).cpu()
            log_probs[active, step] = log_p.gather(1, drawn).squeeze(1).cpu()
            lengths[active] = step + 1
            going = tokens[active, step] != eos
            finished[active[~going]] = True
            if step + 1 == max_new_tokens or not going.any():
                break
            if not going.all():
                active, kept = active[going], going.nonzero().squeeze(1).to(device)
                cache.batch_select_indices(kept)
                drawn, attention, position = drawn[kept], attention[kept], position[kept]
            attention = torch.cat([attention, attention.new_ones(len(active), 1)], 1)
            position = position + 1
            logits = model(
                input_ids=drawn, attention_mask=attention, position_ids=position, past_key_values=cache
            ).logits[:, -1]

        longest = int(lengths.max())
        shape = (len(prompts), n, longest)
        return Generation(
            prompts=tuple(tuple(prompt) for prompt in prompts),
            tokens=tokens[:, :longest].reshape(shape),
            lengths=lengths.view(shape[:2]),
            log_probs=log_probs[:, :longest].reshape(shape),
            finished=finished.view(shape[:2]),
        )


def _draw(log_p: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row by inverting the cumulative distribution, (rows, V) -> (rows, 1): any device, one generator."""
    cumulative = log_p.exp().cumsum(-1, dtype=torch.float64)
    uniform = torch.rand(len(log_p), 1, generator=generator, dtype=torch.float64).to(log_p.device)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return drawn.clamp(max=log_p.shape[-1] - 1)


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (Q, P) int64, each prompt ending in the last column."""
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    attention = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return input_ids, attention
