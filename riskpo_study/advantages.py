"""Advantage estimators: rewards (Q, G) -> advantages (Q, G), one pure function each.

Q questions, G >= 2 responses a question. Every function keeps the dtype (float32 or float64); those that
compare a question's own responses are written as their difference from the plain baseline `r − mean`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from riskpo_study import bundles, risk
from riskpo_study.errors import ConfigError

_STD_GUARD = 1e-6  # δ in (r − mean) / (std + δ), as in the released implementations


def check_group(rewards: Tensor) -> None:
    """Raise `ConfigError` unless `rewards` is (Q, G) with G >= 2, of a floating-point type."""
    if not rewards.is_floating_point():
        raise ConfigError(f"rewards of type {rewards.dtype} cannot be averaged; give floating-point numbers")
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ConfigError(
            f"rewards of shape {tuple(rewards.shape)} cannot be compared in groups; give (Q, G) with G >= 2"
        )


def dr_grpo(rewards: Tensor) -> Tensor:
    """`r − mean` of the question's responses (Dr. GRPO, arXiv 2503.20783)."""
    check_group(rewards)
    return rewards - rewards.mean(dim=1, keepdim=True)


def grpo(rewards: Tensor) -> Tensor:
    """`(r − mean) / (std + δ)` with the unbiased std (GRPO, arXiv 2402.03300; also DAPO, GMPO and GSPO)."""
    centred = dr_grpo(rewards)
    return centred / (rewards.std(dim=1, keepdim=True) + _STD_GUARD)  # differs from Dr. GRPO: over the std


def gpg(rewards: Tensor) -> Tensor:
    """`α (r − mean)`, α = Q / (Q − M) with M questions of zero variance (GPG, arXiv 2504.02546)."""
    centred = dr_grpo(rewards)
    informative = (rewards != rewards[:, :1]).any(dim=1).sum()
    return centred * (len(rewards) / informative.clamp(min=1).to(rewards.dtype))


def rloo(rewards: Tensor) -> Tensor:
    """`r − mean of the other responses` (RLOO, arXiv 2402.14740)."""
    centred = dr_grpo(rewards)
    responses = rewards.shape[1]
    return centred * (responses / (responses - 1))


def reinforce_pp(rewards: Tensor) -> Tensor:
    """Group-centred, then whitened over the batch (REINFORCE++ with baseline, arXiv 2501.03262)."""
    centred = dr_grpo(rewards)
    return (centred - centred.mean()) / (centred.var() + 1e-8).sqrt()


def pass_at_k(rewards: Tensor, k: int) -> Tensor:
    """Leave-one-out-minus-one weights of the pass@k objective (PKPO, arXiv 2505.15201), for any real rewards.

    `A_i = k/G · E_T (r_i − max_T)⁺`, T a uniform subset of k − 1 of the other responses: what response i adds
    to the best of k. In ascending order the j-th response is the best of C(j−1, k−2) such subsets.

    Raises:
        ConfigError: unless 2 <= k <= G.
    """
    check_group(rewards)
    responses = rewards.shape[1]
    if not 2 <= k <= responses:
        raise ConfigError(f"pass_at_k with k = {k} needs 2 <= k <= G = {responses} responses a question")
    ordered, order = rewards.sort(dim=1)
    subsets = math.comb(responses - 1, k - 1)
    best = torch.tensor(
        [math.comb(j, k - 2) / subsets for j in range(responses)], dtype=rewards.dtype, device=rewards.device
    )
    below = best.cumsum(0) - best  # P(max_T has a lower rank)
    value_below = (ordered * best).cumsum(1) - ordered * best
    gain = ordered * below - value_below
    return torch.empty_like(rewards).scatter_(1, order, gain * (k / responses))


def quantile_baseline(rewards: Tensor, level: float) -> Tensor:
    """`r − F⁻¹(level)` of the question's own rewards (QAE, arXiv 2509.22611)."""
    check_group(rewards)
    return rewards - risk.quantile(rewards, level).unsqueeze(1)


def max_rl(rewards: Tensor) -> Tensor:
    """`(r − mean) / mean` of rewards >= 0, zero where no response is right (MaxRL, arXiv 2602.02710)."""
    centred = dr_grpo(rewards)
    mean = rewards.mean(dim=1, keepdim=True)
    return centred / torch.where(mean > 0, mean, torch.ones_like(mean))


def focal(rewards: Tensor, gamma: float) -> Tensor:
    """GRPO times `(1 − p̂)^γ`, p̂ the question's accuracy (arXiv 2602.06717): solved questions fade out."""
    return grpo(rewards) * (1 - rewards.mean(dim=1, keepdim=True)).clamp(0, 1) ** gamma


def entropic(rewards: Tensor, beta: float) -> Tensor:
    """`(e^{βr} / mean e^{βr} − 1) / β`, the entropic risk measure (RS-GRPO, arXiv 2509.24261)."""
    check_group(rewards)
    shifted = rewards - rewards.amax(dim=1, keepdim=True)  # cancels in the ratio; avoids overflow
    tilted = (beta * shifted).exp()
    return (tilted / tilted.mean(dim=1, keepdim=True) - 1) / beta


def mvar_accuracy(rewards: Tensor, alpha: float, beta: float, omega: float, utility: str = "linear") -> Tensor:
    """MVaR of the distribution of *question accuracies*, ours (docs/method.md, section 10): a weight by rank.

    A response counts 1 + ω where its question ranks below the level α of the batch by accuracy, 1 up to β, and 0
    above; equal accuracies share the weight of their ranks. The accuracy is that of the question's *other* responses
    and is compared with the other questions', so that a response has no part in its own weight.

    Args:
        rewards: (Q, G), Q >= 2.
        alpha, beta, omega: levels and weight of the measure.
        utility: `linear` maximises the measure of the accuracies themselves, `log` (with `max_rl`) of their logarithms.
    """
    base = {"linear": rloo, "log": max_rl}
    if utility not in base:
        raise ConfigError(f"utility = {utility!r} is unknown; choose linear or log")
    risk.check_levels(alpha, beta)
    advantage = base[utility](rewards)
    questions, responses = rewards.shape
    if questions < 2:
        raise ConfigError("mvar_accuracy ranks a question among others; give rewards of at least 2 questions")
    others = (rewards.sum(1, keepdim=True) - rewards) / (responses - 1)  # (Q, G)
    rivals = rewards.mean(1).sort().values  # (Q,)
    own = rewards.mean(1, keepdim=True)
    lower = torch.searchsorted(rivals, others) - (own < others).long()
    upper = torch.searchsorted(rivals, others, right=True) - (own <= others).long()
    # A response holds the ranks from `lower` to `upper`, its own among them, of Q.
    first, last = lower / questions, (upper + 1) / questions
    share = [(last.clamp(max=level) - first.clamp(max=level)) / (last - first) for level in (alpha, beta)]
    return advantage * (omega * share[0] + share[1]).to(rewards.dtype)


def riskpo(
    rewards: Tensor,
    permutation: Tensor,
    q_alpha: float,
    q_beta: float,
    omega: float,
    baseline: str = "group",
    scale: str = "none",
    credit: str = "shared",
) -> Tensor:
    """RiskPO as the paper defines it (arXiv 2510.00911): its responses share MVaR's advantage of a bundle.

    Args:
        rewards: (Q, G).
        permutation: (N, B, G) from `bundles.permutations`.
        q_alpha, q_beta: quantiles of the *global* bundle-score distribution, known before this batch.
        omega: extra weight of the lower tail.
        baseline: `none` is the paper's formula, never positive; `group` and `batch` subtract the mean
            advantage of the *other* bundles of the group or batch, which leaves the expected gradient as it
            is.
        scale: `none`, or `batch_std` to divide by the standard deviation of the batch's bundle scores.
        credit: `shared` is the paper's; `marginal` (ours) replaces the drawn bundle by the expectation over all
            bundles that a response could have been in, and its baseline is over the responses to one question.
    """
    advantage = partial(risk.mvar_advantage, q_alpha=q_alpha, q_beta=q_beta, omega=omega)
    return _of_bundles(rewards, permutation, advantage, baseline, scale, credit)


def risk_seeking(
    rewards: Tensor,
    permutation: Tensor,
    q_alpha: float,
    q_beta: float,
    omega: float,
    baseline: str = "group",
    scale: str = "none",
    credit: str = "shared",
) -> Tensor:
    """The paper's risk-seeking counterpart (Fig. 6), weight on the upper tail. Arguments as in `riskpo`."""
    advantage = partial(risk.risk_seeking_advantage, q_alpha=q_alpha, q_beta=q_beta, omega=omega)
    return _of_bundles(rewards, permutation, advantage, baseline, scale, credit)


def _of_bundles(
    rewards: Tensor,
    permutation: Tensor,
    of_scores: Callable[[Tensor], Tensor],
    baseline: str,
    scale: str,
    credit: str,
) -> Tensor:
    """The advantages that `of_scores` gives to bundle scores, handed to the responses: (Q, G)."""
    check_group(rewards)
    bundle_scores = bundles.scores(rewards, permutation)  # (N, G)
    if credit == "shared":
        advantage = _less_baseline(of_scores(bundle_scores), baseline)
        advantage = bundles.scatter(advantage.unsqueeze(1), permutation)
    elif credit == "marginal":
        grouped = rewards.view(permutation.shape)
        advantage = _less_baseline(_expected_over_partners(grouped, of_scores).view_as(rewards), baseline)
    else:
        raise ConfigError(f"credit = {credit!r} is unknown; choose shared or marginal")
    if scale == "batch_std":
        return advantage / _guarded(bundle_scores.std())
    if scale != "none":
        raise ConfigError(f"scale = {scale!r} is unknown; choose none or batch_std")
    return advantage


def _expected_over_partners(grouped: Tensor, of_scores: Callable[[Tensor], Tensor]) -> Tensor:
    """Expected advantage of each response's bundle, its partners drawn from the other questions: (N, B, G).

    The partners' score is a sum of independent rewards: its distribution is a convolution of theirs.

    Raises:
        ConfigError: unless the rewards are whole numbers, which have few sums.
    """
    if not torch.equal(grouped, grouped.round().clamp(min=0)):
        raise ConfigError("credit = 'marginal' needs whole rewards of at least 0; use credit: shared for others")
    groups, size, _ = grouped.shape
    largest = int(grouped.max())
    shares = (grouped.unsqueeze(3) == torch.arange(largest + 1)).to(grouped.dtype).mean(2)  # (N, B, L + 1)
    table = of_scores(torch.arange(size * largest + 1, dtype=grouped.dtype))  # advantage of each score
    expected = torch.empty_like(shares)
    for question in range(size):
        partners = grouped.new_ones(groups, 1)  # distribution of the score of those seen so far
        for other in (*range(question), *range(question + 1, size)):
            wider = grouped.new_zeros(groups, partners.shape[1] + largest)
            for reward in range(largest + 1):
                wider[:, reward : reward + partners.shape[1]] += partners * shares[:, other, reward, None]
            partners = wider
        for reward in range(largest + 1):
            expected[:, question, reward] = partners @ table[reward : reward + partners.shape[1]]
    return expected.gather(2, grouped.long())


def _less_baseline(advantage: Tensor, baseline: str) -> Tensor:
    """Subtract the mean over the *other* bundles (leave-one-out, unbiased): (N, G) -> (N, G)."""
    if baseline == "none":
        return advantage
    if baseline == "group":
        return rloo(advantage)
    if baseline == "batch":
        return rloo(advantage.reshape(1, -1)).view_as(advantage)
    raise ConfigError(f"baseline = {baseline!r} is unknown; choose none, batch or group")


def _guarded(spread: Tensor) -> Tensor:
    """`spread`, or 1 where it is zero: dividing a non-zero advantage by std + δ = 1e-6 would explode."""
    return torch.where(spread > 1e-3, spread, torch.ones_like(spread))


def riskpo_released(
    rewards: Tensor,
    bundle_size: int,
    alpha: float,
    beta: float,
    tail_weight: float = 1.5,
    credit: str = "sum-mean",
    natural_baseline: bool = False,
    divide_by_std: bool = True,
    risk_seeking: bool = False,
) -> Tensor:
    """The arithmetic of the authors' released code, not the paper's (docs/paper_vs_released_code.md).

    Bundles pair the j-th responses in order; quantiles are those of the group's own G scores, interpolated;
    the measure is the normalised mixture `(w·CVaR_α + RVaR_{α:β}) / (1+w)`, divided by the group's std.

    Args:
        rewards: (Q, G).
        tail_weight: w_mix of the released scripts; w = 1.5 equals ω = w(β−α)/α − 1 = 3.5 at (0.2, 0.8).
        credit: `uniform` (shared by the bundle), `std` (over the question's std) or `sum-mean` (shared in
            proportion to `r − mean` of the question, which turns the sign of some responses).
        natural_baseline: keep the constant `q_α − q_β` of g (the easy-math script does, the hard-math script
            does not).
        divide_by_std: divide by the std of the group's scores (all scripts do); groups without variance get
            zero.
        risk_seeking: weight the upper tail `(R − q_β)⁺ / (1−β)` instead of the lower one.
    """
    check_group(rewards)
    risk.check_levels(alpha, beta)
    eps = _STD_GUARD
    questions, responses = rewards.shape
    grouped = bundles.gather(rewards, bundles.in_order(questions, responses, bundle_size))  # (N, B, G)
    score = grouped.sum(dim=1)  # (N, G)
    # differs from the paper: per-group, interpolated quantiles instead of tracked global ones
    q_alpha, q_beta = (torch.quantile(score, level, dim=1, keepdim=True) for level in (alpha, beta))

    middle = risk.rvar_g(score, q_alpha, q_beta)
    if not natural_baseline:
        middle = middle - (q_alpha - q_beta)
    if risk_seeking:
        tail = (score - q_beta).clamp(min=0) / (1 - beta + eps)
    else:
        tail = -(q_alpha - score).clamp(min=0) / (alpha + eps)
    # differs from the paper: a normalised mixture, divided by the std of the group's scores
    advantage = (tail_weight * tail + middle / (beta - alpha + eps)) / (tail_weight + 1)
    if divide_by_std:
        spread = score.std(dim=1, keepdim=True)
        advantage = torch.where(spread > 0, advantage / (spread + eps), torch.zeros_like(advantage))
    advantage = advantage.unsqueeze(1)  # (N, 1, G)

    if credit == "uniform":
        shared = advantage.expand_as(grouped)
    elif credit == "std":
        shared = advantage / (_guarded(grouped.std(dim=2, keepdim=True)) + eps)
    elif credit == "sum-mean":
        surplus = grouped - grouped.mean(dim=2, keepdim=True)  # (N, B, G)
        total = surplus.sum(dim=1, keepdim=True)
        even = torch.full_like(surplus, 1 / bundle_size)
        shared = advantage * torch.where(total.abs() > eps, surplus / torch.where(total == 0, 1, total), even)
    else:
        raise ConfigError(f"credit = {credit!r} is unknown; choose uniform, std or sum-mean")
    return shared.reshape(questions, responses)


def overlong_penalty(lengths: Tensor, longest: int, margin: int) -> Tensor:
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13): lengths in tokens -> penalties, same shape.

    0 up to `longest − margin` tokens, then linear to −1 at `longest`; margin > 0.
    """
    return ((longest - margin - lengths) / margin).clamp(-1, 0)
