"""Log-probabilities and entropies of tokens from hidden states, without the full (tokens × vocabulary) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOGITS = 2**24
"""Logits held at a time (64 MiB in float32): 110 tokens of a vocabulary of 151 936, every token of a tiny one."""


class _TokenScores(torch.autograd.Function):
    """The forward pass goes over chunks of tokens; the backward pass computes the logits again.

    It goes over blocks of the vocabulary, so that the gradient of each output embedding is finished at once and
    nothing but the gradients themselves is as large as the head.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, held: int) -> Any:
        log_probs = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies, largest, log_sums = (torch.empty_like(log_probs) for _ in range(3))
        for part in torch.arange(len(hidden), device=hidden.device).split(max(1, held // len(weight))):
            logits = _logits(hidden[part], weight, temperature)
            largest[part], likeliest = logits.max(1)
            log_p = logits.log_softmax(1)
            log_sums[part] = -log_p.gather(1, likeliest[:, None]).squeeze(1)
            log_probs[part] = log_p.gather(1, targets[part, None]).squeeze(1)
            entropies[part] = -(log_p.exp() * log_p).sum(1)
        ctx.save_for_backward(hidden, weight, targets, largest, log_sums)
        ctx.temperature, ctx.held = temperature, held
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        hidden, weight, targets, largest, log_sums = ctx.saved_tensors
        grad_hidden, grad_weight = torch.zeros_like(hidden, dtype=torch.float32), torch.empty_like(weight)
        for start in range(0, len(weight), block := max(1, ctx.held // max(1, len(hidden)))):
            rows = weight[start : start + block]
            log_p = _logits(hidden, rows, ctx.temperature).sub_(largest[:, None]).sub_(log_sums[:, None])
            grad_logits = log_p.exp_().mul_(-grad[:, None])  # d log p_y / d logits = onehot(y) − p
            here = ((targets >= start) & (targets < start + block)).nonzero().squeeze(1)
            grad_logits[here, targets[here] - start] += grad[here]
            grad_logits = (grad_logits / ctx.temperature).to(weight.dtype)
            grad_hidden += grad_logits @ rows
            torch.mm(grad_logits.T, hidden, out=grad_weight[start : start + block])
        return grad_hidden.to(hidden.dtype), grad_weight, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    return (hidden @ weight.T).float() / temperature


def token_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, held: int = LOGITS
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token and entropy of its distribution, both (N,) in nats and float32.

    The softmax is taken in float32 whatever the dtype of the model. Only the log-probabilities carry a gradient.

    Args:
        hidden: (N, D) last hidden states at the positions that predict the targets.
        weight: (V, D) output embedding.
        targets: (N,) token ids.
        temperature: of the sampling distribution.
        held: logits that are in memory at a time, at least those of one token, or of one output embedding.
    """
    log_probs, entropies = _TokenScores.apply(hidden, weight, targets, temperature, held)  # type: ignore[no-untyped-call]
    return log_probs, entropies
