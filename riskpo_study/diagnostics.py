"""What is measured at every training step, as pure functions of the step's tensors.

Names are `group/statistic`. Entropies and log-probabilities are in nats; lengths in tokens. Covariances are
taken within a question or a group of bundles: only these can turn into entropy. Definitions: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from riskpo_study import bundles, risk, surrogates
from riskpo_study.algorithms import RiskSettings
from riskpo_study.tasks.protocol import Difficulty

Metrics = dict[str, float]


def covariance(x: Tensor, y: Tensor) -> float:
    """Mean over the rows of (N, G) tensors of the unbiased covariance within a row."""
    centred = (x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))
    return (centred.sum(1) / (x.shape[1] - 1)).mean().item()


def tail_terms(log_probs: Tensor, scores: Tensor, q_alpha: float, q_beta: float) -> tuple[float, float]:
    """`L = Cov(log π, (q_α−R)⁺)` and `U = Cov(log π, (R−q_β)⁺)`, both of (N, G) tensors, within rows.

    Theorem 2 of the paper, as an identity: Cov(log π, A_MVaR) − Cov(log π, R) = −(ω·L + U).
    """
    lower = covariance(log_probs, (q_alpha - scores).clamp(min=0))
    upper = covariance(log_probs, (scores - q_beta).clamp(min=0))
    return lower, upper


def masked_mean(values: Tensor, mask: Tensor) -> float:
    """Mean of the values where the mask holds; NaN where it holds nowhere."""
    return values[mask].double().mean().item() if mask.any() else float("nan")


def generation_metrics(
    rewards: Tensor,
    difficulties: Sequence[Difficulty],
    log_probs: Tensor,
    lengths: Tensor,
    finished: Tensor,
    levels: Sequence[Difficulty],
) -> Metrics:
    """Of everything that was generated, also of what dynamic sampling throws away.

    Args:
        rewards, lengths, finished: (Q, G).
        difficulties: of the Q questions; `levels` are those that the task has.
        log_probs: (Q, G) of whole responses.
    """
    accuracy = {
        f"accuracy/{level}": masked_mean(
            rewards, torch.tensor([[one == level] for one in difficulties]).expand_as(rewards)
        )
        for level in levels
    }
    return {
        "reward/mean": rewards.mean().item(),
        "reward/std": rewards.std().item(),
        **accuracy,
        "entropy/sampled": -(log_probs.sum() / lengths.sum()).item(),  # unbiased estimate of the mean token entropy
        "length/mean": lengths.double().mean().item(),
        "length/max": float(lengths.max()),
        "length/truncated": (~finished).double().mean().item(),
        "generated/questions": float(len(rewards)),
        "share/zero_variance": (rewards == rewards[:, :1]).all(1).double().mean().item(),
    }


def bundle_metrics(
    rewards: Tensor,
    advantages: Tensor,
    log_probs: Tensor,
    permutation: Tensor,
    quantiles: tuple[float, ...] | None,
    settings: RiskSettings,
) -> Metrics:
    """Of the responses that are learned from: bundle scores, their quantiles and regions, covariances with log π.

    Args:
        rewards, advantages, log_probs: (Q, G); log-probabilities of whole responses under the sampling policy.
        permutation: (N, B, G).
        quantiles: (q_α, q_β) that the algorithm used; without them the batch's own stand in for regions, L and U.
    """
    scores = bundles.scores(rewards, permutation)  # (N, G)
    bundle_log_probs = bundles.scores(log_probs, permutation)
    empirical = tuple(risk.quantile(scores.flatten(), level).item() for level in (settings.alpha, settings.beta))
    q_alpha, q_beta = quantiles or empirical
    tracked = quantiles or (float("nan"), float("nan"))
    lower, upper = tail_terms(bundle_log_probs, scores, q_alpha, q_beta)
    return {
        "quantile/alpha": tracked[0],
        "quantile/beta": tracked[1],
        "quantile/alpha_batch": empirical[0],
        "quantile/beta_batch": empirical[1],
        "region/lower": (scores < q_alpha).double().mean().item(),
        "region/middle": ((scores >= q_alpha) & (scores <= q_beta)).double().mean().item(),
        "region/upper": (scores > q_beta).double().mean().item(),
        "covariance/advantage": covariance(log_probs, advantages),
        "covariance/reward": covariance(log_probs, rewards),
        "covariance/bundle_score": covariance(bundle_log_probs, scores),
        "covariance/lower": lower,  # L
        "covariance/upper": upper,  # U
        "share/zero_advantage": (advantages.abs() < 1e-12).double().mean().item(),
        "advantage/mean": advantages.mean().item(),
        "advantage/std": advantages.std().item(),
    }


def risk_metrics(rewards: Tensor, permutation: Tensor, settings: RiskSettings) -> Metrics:
    """Of the responses that are learned from: what the measure says of bundles of questions in random order.

    Args:
        rewards: (Q, G).
        permutation: (N, B, G).
        settings: the same for every algorithm, so that they compare.
    """
    scores = bundles.scores(rewards, permutation).flatten()
    return {
        "risk/mean": scores.mean().item(),
        "risk/cvar": risk.cvar(scores, settings.alpha).item() if settings.alpha > 0 else float("nan"),
        "risk/rvar": risk.rvar(scores, settings.alpha, settings.beta).item(),
        "risk/mvar": risk.mvar(scores, settings.alpha, settings.beta, settings.omega).item(),
    }


def update_metrics(entropies: Tensor, ratios: Tensor, clipped: Tensor, mask: Tensor, right: Tensor) -> Metrics:
    """Of the forward passes of the update.

    Args:
        entropies, ratios, clipped, mask: (Q, G, T), see `surrogates.Objective`.
        right: (Q, G) bool, responses with full reward.
    """
    return {
        "entropy/mean": masked_mean(entropies, mask),
        "entropy/right": masked_mean(entropies, mask & right.unsqueeze(2)),
        "entropy/wrong": masked_mean(entropies, mask & ~right.unsqueeze(2)),
        "ratio/mean": masked_mean(ratios, mask),
        "ratio/max": ratios[mask].max().item(),
        "clip_ratio/low": masked_mean(clipped < 0, mask),
        "clip_ratio/high": masked_mean(clipped > 0, mask),
    }


def mismatch_metrics(log_probs: Tensor, sampled: Tensor, mask: Tensor) -> Metrics:
    """How far the model that sampled is from the policy: (Q, G, T) in nats, at tokens of `mask`.

    `mismatch/kl` is KL(sampler ‖ policy).
    """
    ours, theirs = log_probs[mask].double(), sampled[mask].double()
    difference = (ours - theirs).abs()
    return {
        "mismatch/mean": difference.mean().item(),
        "mismatch/max": difference.max().item(),
        "mismatch/kl": surrogates.kl_k3(theirs, ours).mean().item(),
    }


def is_right(rewards: Tensor) -> Tensor:
    """Whether a response earned the full reward of 1: same shape, bool."""
    return rewards >= 1.0
