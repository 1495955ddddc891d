"""Rollouts with the training model itself: nothing to synchronise, any device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import DynamicCache

from riskpo_study import sharding, vision
from riskpo_study.policy import Policy
from riskpo_study.rollouts.engine import Generation, as_prompts


class TransformersEngine:
    """Samples from a `transformers` model.

    A prompt is computed once, and so is every beginning that its responses share; finished responses leave the batch.
    """

    exact = True

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def drawing(self) -> AbstractContextManager[None]:
        """Weights that are split over the processes are put together meanwhile: there must be room for them."""
        return sharding.whole(self.policy.scorer)

    def rest(self) -> None:
        """Nothing to give back: the weights are the policy's own."""

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
        prompts = as_prompts(prompts)
        model, eos = self.policy.model, self.policy.tokenizer.eos_token_id
        device = model.device
        rows = len(prompts) * n
        tokens = torch.full((rows, max_new_tokens), self.policy.tokenizer.pad_token_id)
        log_probs = torch.zeros(rows, max_new_tokens)
        lengths = torch.zeros(rows, dtype=torch.long)
        finished = torch.zeros(rows, dtype=torch.bool)

        input_ids, attention = _left_padded(prompts)
        position, images = (attention.cumsum(1) - 1).clamp(min=0), None
        if vision.sees(model.config):
            ends = range(input_ids.shape[1], input_ids.numel() + 1, input_ids.shape[1])
            spans = [(row, end - len(prompts[row]), end) for row, end in enumerate(ends)]
            position, images = vision.place(prompts, spans, position)
            images = None if images is None else images.to(device)
        input_ids, attention, position = input_ids.to(device), attention.to(device), position.to(device)
        cache = DynamicCache(config=model.config)
        logits = model(
            **vision.inputs(model, input_ids, images),
            attention_mask=attention,
            position_ids=position,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        # Text goes on after the furthest position of the prompt; the first of four is the column's.
        position = position[:, -1:] if position.ndim == 2 else position[1:].amax((0, 2)).unsqueeze(1)
        active = torch.arange(rows)  # the responses still growing
        branch = torch.arange(len(prompts), device=device).repeat_interleave(n)  # row of the logits of each
        for step in range(max_new_tokens):
            log_p = (logits.float() / temperature).log_softmax(-1)
            drawn = _draw(log_p, branch, generator)
            tokens[active, step] = drawn.cpu()
            log_probs[active, step] = log_p[branch, drawn].cpu()
            lengths[active] = step + 1
            going = drawn != eos
            finished[active[~going.cpu()]] = True
            if step + 1 == max_new_tokens or not going.any():
                break
            # Responses that agree so far are computed once: one row for each distinct continuation of a row.
            active = active[going.cpu()]
            continued = branch[going] * log_p.shape[1] + drawn[going]
            distinct, branch = continued.unique(return_inverse=True)
            stem, token = distinct // log_p.shape[1], distinct % log_p.shape[1]
            cache.batch_select_indices(stem)
            attention = torch.cat([attention[stem], attention.new_ones(len(stem), 1)], 1)
            position = position[stem] + 1
            logits = model(
                input_ids=token.unsqueeze(1), attention_mask=attention, position_ids=position, past_key_values=cache
            ).logits[:, -1]

        longest = int(lengths.max())
        shape = (len(prompts), n, longest)
        return Generation(
            prompts=prompts,
            tokens=tokens[:, :longest].reshape(shape),
            lengths=lengths.view(shape[:2]),
            log_probs=log_probs[:, :longest].reshape(shape),
            finished=finished.view(shape[:2]),
        )


def _draw(log_p: Tensor, branch: Tensor, generator: torch.Generator) -> Tensor:
    """One token a response by inverting the cumulative distribution: any device, one generator.

    log_p (branches, V), branch (responses,) -> (responses,).
    """
    cumulative = log_p.exp().cumsum(-1, dtype=torch.float64)[branch]
    uniform = torch.rand(len(branch), 1, generator=generator, dtype=torch.float64).to(log_p.device)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return drawn.squeeze(1).clamp(max=log_p.shape[-1] - 1)


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (Q, P) int64, each prompt ending in the last column."""
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    attention = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return input_ids, attention
