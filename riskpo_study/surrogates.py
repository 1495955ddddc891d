"""Surrogate objectives and their aggregation over tokens.

R responses padded to T tokens. A surrogate gives an objective *per token* (R, T); an aggregation gives the
weight of each token (R, T). The loss of any set of responses is `−Σ weight · objective`, so that gradients
add up exactly over micro-batches once the weights are those of the whole mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from riskpo_study.errors import ConfigError


class Objective(NamedTuple):
    """What a surrogate says about each token; all (R, T), finite but meaningless where the mask is 0."""

    value: Tensor  # to be maximised
    ratio: Tensor  # π_θ / π_old as the surrogate defines it
    clipped: Tensor  # −1 where the lower clip is active (no gradient), +1 where the upper one is, else 0


Surrogate = Callable[[Tensor, Tensor, Tensor, Tensor], Objective]
"""(log π_θ (R, T), log π_old (R, T), advantages (R,), mask (R, T)) -> Objective."""


def sequence_log_ratio(log_probs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """`mean_t (log π_θ − log π_old)` of each response: (R, T) -> (R, 1) (GSPO, arXiv 2507.18071, Eq. 7)."""
    return ((log_probs - old) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _clipped_objective(
    ratio: Tensor, advantages: Tensor, low: float, high: float, dual: float | None = None
) -> Objective:
    advantage = advantages.unsqueeze(1)
    bounded = ratio.clamp(1 - low, 1 + high)
    value = torch.minimum(ratio * advantage, bounded * advantage)
    if dual is not None:
        value = torch.where(advantage < 0, torch.maximum(value, dual * advantage), value)
    upper = (advantage > 0) & (ratio > 1 + high)
    lower = (advantage < 0) & (ratio < 1 - low)
    return Objective(value, ratio, upper.to(torch.int8) - lower.to(torch.int8))


def token_clip(low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Surrogate:
    """PPO's clip on each token's ratio (arXiv 1707.06347).

    `dual` > 1 bounds the objective by `dual·A` from below where A < 0 (arXiv 1912.09729); not in `clipped`.
    """

    def surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        return _clipped_objective((log_probs - old).exp(), advantages, low, high, dual)

    return surrogate


def sequence_clip(low: float = 0.2, high: float = 0.2) -> Surrogate:
    """Clip on the length-normalised ratio `exp(mean_t log-ratio)`, shared by the tokens (GSPO, RiskPO)."""

    def surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        ratio = sequence_log_ratio(log_probs, old, mask).exp().expand_as(log_probs)
        return _clipped_objective(ratio, advantages, low, high)

    return surrogate


def geometric_clip(low: float = 0.4, high: float = 0.4) -> Surrogate:
    """Geometric mean of token ratios, clipped in log space where pessimistic (GMPO, arXiv 2507.20673)."""

    def surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        log_ratio = log_probs - old
        advantage = advantages.unsqueeze(1)
        upper = (advantage > 0) & (log_ratio > high)
        lower = (advantage < 0) & (log_ratio < -low)
        bounded = torch.where(upper | lower, log_ratio.clamp(-low, high), log_ratio)
        ratio = sequence_log_ratio(bounded, torch.zeros_like(bounded), mask).exp().expand_as(bounded)
        return Objective(ratio * advantage, log_ratio.exp(), upper.to(torch.int8) - lower.to(torch.int8))

    return surrogate


def reinforce() -> Surrogate:
    """`A · log π`, no ratio and no clip (GPG, RLOO, PKPO)."""

    def surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        ratio = (log_probs - old).detach().exp()
        return Objective(log_probs * advantages.unsqueeze(1), ratio, torch.zeros_like(ratio, dtype=torch.int8))

    return surrogate


def kl_k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's unbiased, non-negative estimate of KL(π_θ ‖ π_ref) at each token: (R, T)."""
    log_ratio = reference - log_probs
    return log_ratio.exp() - log_ratio - 1


def truncated_importance(log_probs: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Importance weight of each token, min(π / μ, cap), of a policy π whose tokens another model μ has drawn.

    Log-probabilities under π and under μ, same shape -> that shape. The cap bounds the variance that tokens less likely
    under μ bring (truncated importance sampling, Ionides 2008).
    """
    return (log_probs - sampled).exp().clamp(max=cap)


def token_weights(aggregation: str, mask: Tensor, longest: int, group: int) -> Tensor:
    """Weight of each token in the objective of one mini-batch: mask (R, T) -> (R, T).

    Args:
        aggregation: `sequence_mean`: mean over responses of the mean over their tokens (GRPO, GSPO);
            `token_mean`: mean over all tokens (DAPO); `constant_sum`: sum over tokens over the constant
            `longest`, mean over responses (Dr. GRPO); `sequence_sum`: sum over tokens, mean over responses
            (RLOO); `group_sum`: sum over tokens and the `group` responses of a question, mean over questions
            (PKPO).
        mask: 1 at response tokens, 0 at padding.
        longest: the largest number of tokens a response may have.
        group: responses per question, G.
    """
    mask = mask if mask.is_floating_point() else mask.to(torch.get_default_dtype())
    responses = len(mask)
    if aggregation == "sequence_mean":
        return mask / mask.sum(1, keepdim=True).clamp(min=1) / responses
    if aggregation == "token_mean":
        return mask / mask.sum().clamp(min=1)
    if aggregation == "constant_sum":
        return mask / longest / responses
    if aggregation == "sequence_sum":
        return mask / responses
    if aggregation == "group_sum":
        return mask * (group / responses)
    raise ConfigError(
        f"aggregation = {aggregation!r} is unknown; choose sequence_mean, token_mean, constant_sum, "
        "sequence_sum or group_sum"
    )
