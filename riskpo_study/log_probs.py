"""Log-probabilities and entropies of tokens from hidden states, without the full (tokens × vocabulary) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 2**24
"""Logits held at a time (64 MiB in float32): 110 tokens of a vocabulary of 151 936, every token of a tiny one."""


class _TokenScores(torch.autograd.Function):
    """Forward and backward run over chunks of tokens; the backward pass computes its logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk: int) -> Any:
        log_probs = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies = torch.empty_like(log_probs)
        for part in torch.arange(len(hidden), device=hidden.device).split(chunk):
            log_p = _log_softmax(hidden[part], weight, temperature)
            log_probs[part] = log_p.gather(1, targets[part, None]).squeeze(1)
            entropies[part] = -(log_p.exp() * log_p).sum(1)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        hidden, weight, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part in torch.arange(len(hidden), device=hidden.device).split(ctx.chunk):
            # d log p_y / d logits = onehot(y) − p
            grad_logits = _log_softmax(hidden[part], weight, ctx.temperature).exp_().mul_(-grad[part, None])
            grad_logits.scatter_add_(1, targets[part, None], grad[part, None])
            grad_logits = (grad_logits / ctx.temperature).to(weight.dtype)
            grad_hidden[part] = grad_logits @ weight
            _add_product(grad_weight, grad_logits.T, hidden[part])
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right` in float32, without a second matrix of that size."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
        return
    for rows in torch.arange(len(total), device=total.device).split(max(1, _CHUNK_ELEMENTS // total.shape[1])):
        total[rows] += left[rows] @ right


def _log_softmax(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    return ((hidden @ weight.T).float() / temperature).log_softmax(1)


def token_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token and entropy of its distribution, both (N,) in nats and float32.

    The softmax is taken in float32 whatever the dtype of the model. Only the log-probabilities carry a gradient.

    Args:
        hidden: (N, D) last hidden states at the positions that predict the targets.
        weight: (V, D) output embedding.
        targets: (N,) token ids.
        temperature: of the sampling distribution.
        chunk: tokens at a time; by default as many as hold 2²⁴ logits.
    """
    chunk = chunk or max(1, _CHUNK_ELEMENTS // weight.shape[0])
    log_probs, entropies = _TokenScores.apply(hidden, weight, targets, temperature, chunk)  # type: ignore[no-untyped-call]
    return log_probs, entropies
