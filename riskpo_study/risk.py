"""Risk measures of a reward distribution, their policy-gradient advantages, and quantile tracking.

Notation: `F⁻¹(u) = min{r : F(r) >= u}` is the quantile function (inverted CDF, no interpolation) and
`(x)⁺ = max(x, 0)`. Risk measures work on the last dimension and keep the others. Source: RiskPO
(arXiv 2510.00911); docs/method.md maps each equation to its function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from riskpo_study.errors import ConfigError

_ROUNDING = 1e-9  # n * level is computed in floating point: 5 * 0.2 must count as one whole sample


def _as_samples(scores: Tensor | Sequence[float]) -> Tensor:
    samples = torch.as_tensor(scores)
    if not samples.is_floating_point():
        samples = samples.double()
    if samples.ndim == 0 or samples.shape[-1] == 0:
        raise ConfigError(
            f"scores of shape {tuple(samples.shape)} hold no sample; give at least one in the last dimension"
        )
    return samples


def check_level(level: float, name: str = "level") -> float:
    """Return `level`; raise `ConfigError` unless it lies in [0, 1]."""
    if not 0.0 <= level <= 1.0:
        raise ConfigError(f"{name} = {level} is not a probability; choose a value in [0, 1]")
    return level


def check_levels(alpha: float, beta: float) -> None:
    """Raise `ConfigError` unless 0 <= alpha < beta <= 1."""
    check_level(alpha, "alpha")
    check_level(beta, "beta")
    if alpha >= beta:
        raise ConfigError(f"alpha = {alpha} is not below beta = {beta}; the middle of the distribution would be empty")


def quantile(scores: Tensor | Sequence[float], level: float) -> Tensor:
    """Value-at-Risk `F⁻¹(level)` of the empirical distribution, one of the samples: (..., n) -> (...)."""
    samples = _as_samples(scores)
    n = samples.shape[-1]
    rank = int(torch.tensor(check_level(level) * n - _ROUNDING, dtype=torch.float64).ceil().clamp(1, n))
    return samples.kthvalue(rank, dim=-1).values


def integrated_quantile(scores: Tensor | Sequence[float], lower: float, upper: float) -> Tensor:
    """`∫_lower^upper F⁻¹(u) du`: (..., n) -> (...). The two boundary samples enter with fractional weight."""
    check_level(lower, "lower")
    check_level(upper, "upper")
    ordered = _as_samples(scores).sort(dim=-1).values
    n = ordered.shape[-1]
    edges = torch.arange(n + 1, dtype=torch.float64, device=ordered.device) / n
    weights = (edges[1:].clamp(max=upper) - edges[:-1].clamp(min=lower)).clamp(min=0)
    return ordered @ weights.to(ordered.dtype)


def rvar(scores: Tensor | Sequence[float], lower: float, upper: float) -> Tensor:
    """Range Value-at-Risk, the mean of the distribution between two quantile levels: (..., n) -> (...)."""
    check_levels(lower, upper)
    return integrated_quantile(scores, lower, upper) / (upper - lower)


def cvar(scores: Tensor | Sequence[float], level: float) -> Tensor:
    """Conditional Value-at-Risk, the mean of the worst share `level` > 0: (..., n) -> (...)."""
    return rvar(scores, 0.0, level)


def mvar(scores: Tensor | Sequence[float], alpha: float, beta: float, omega: float) -> Tensor:
    """Mixed Value-at-Risk `(1+ω)·∫_0^α F⁻¹ + ∫_α^β F⁻¹`, un-normalised as in the paper: (..., n) -> (...)."""
    check_levels(alpha, beta)
    return (1 + omega) * integrated_quantile(scores, 0.0, alpha) + integrated_quantile(scores, alpha, beta)


def rvar_g(z: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """`g(z, a, b) = (z−a)⁺ − (z−b)⁺ + a − b`, the advantage of `∫_α^β F⁻¹` for quantiles a, b (Theorem 1)."""
    return (z - a).clamp(min=0) - (z - b).clamp(min=0) + a - b


def mvar_advantage(scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float) -> Tensor:
    """Advantage of MVaR, `−(1+ω)(q_α−R)⁺ + g(R, q_α, q_β)`: shaped as `scores`, never positive."""
    return -(1 + omega) * (q_alpha - scores).clamp(min=0) + rvar_g(scores, q_alpha, q_beta)


def risk_seeking_advantage(scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float) -> Tensor:
    """Advantage that weights the upper tail, `(1+ω)(R−q_β)⁺ + g(R, q_α, q_β)`: shaped as `scores`."""
    return (1 + omega) * (scores - q_beta).clamp(min=0) + rvar_g(scores, q_alpha, q_beta)


class QuantileTracker:
    """Quantiles of a drifting distribution, one Robbins–Monro step a batch (RiskPO, arXiv 2510.00911).

    `q ← clip(q + step·(level − mean 1{R < q}), 0, largest)`. The first batch sets `q` to its own quantiles. A
    quantile moves at most `step·level` upwards and `step·(1−level)` downwards a batch, so `step` must scale
    with the range of the scores: the default is a tenth of it.

    Args:
        levels: quantile levels in ascending order, each in [0, 1].
        largest: the largest possible score (the bundle size B for rewards in [0, 1]).
        step: γ in units of the score; `0.1 * largest` by default.
        initial: starting values, one a level; the first batch's quantiles by default.
    """

    def __init__(
        self,
        levels: Sequence[float],
        largest: float,
        step: float | None = None,
        initial: Sequence[float] | None = None,
    ) -> None:
        self.levels = tuple(check_level(level) for level in levels)
        if sorted(self.levels) != list(self.levels):
            raise ConfigError(f"the levels {self.levels} of a tracker must ascend")
        self.largest = float(largest)
        self.step = 0.1 * self.largest if step is None else float(step)
        self.values: tuple[float, ...] | None = None if initial is None else tuple(initial)

    def start(self, scores: Tensor) -> None:
        """Take the quantiles of `scores` (any shape) as starting values, unless there are values already."""
        if self.values is None:
            self.values = self._of_batch(scores)

    def update(self, scores: Tensor) -> None:
        """Move the quantiles towards those of one batch of scores (any shape)."""
        self.start(scores)
        assert self.values is not None
        below = [(scores < q).double().mean().item() for q in self.values]
        moved = (q + self.step * (s - b) for q, s, b in zip(self.values, self.levels, below, strict=True))
        # Sorted, since separate steps can make two quantiles cross.
        self.values = tuple(sorted(min(max(q, 0.0), self.largest) for q in moved))

    def _of_batch(self, scores: Tensor) -> tuple[float, ...]:
        return tuple(quantile(scores.flatten(), level).item() for level in self.levels)

    def state_dict(self) -> dict[str, Any]:
        return {"levels": self.levels, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if tuple(state["levels"]) != self.levels:
            raise ConfigError(f"a tracker of levels {state['levels']} cannot go on as one of {self.levels}")
        self.values = None if state["values"] is None else tuple(state["values"])


class HistogramTracker(QuantileTracker):
    """Quantiles of an exponential moving average of the score histogram: no step size, faster under drift.

    Scores are whole numbers 0..largest (bundle scores of binary rewards); each batch's histogram enters with
    weight `1 − decay`.
    """

    def __init__(self, levels: Sequence[float], largest: int, decay: float = 0.9) -> None:
        super().__init__(levels, largest)
        self.decay = decay
        self.histogram: Tensor | None = None

    def update(self, scores: Tensor) -> None:
        if not torch.equal(scores, scores.round().clamp(0, self.largest)):
            raise ConfigError(
                f"the histogram tracker needs whole scores in 0..{self.largest:g}; "
                "use tracker: robbins_monro for others"
            )
        counts = torch.bincount(scores.flatten().long(), minlength=int(self.largest) + 1).double()
        share = counts / counts.sum()
        self.histogram = share if self.histogram is None else self.decay * self.histogram + (1 - self.decay) * share
        below = self.histogram.cumsum(0)
        self.values = tuple(float((below >= level - _ROUNDING).int().argmax()) for level in self.levels)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"histogram": self.histogram}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.histogram = state["histogram"]


class BatchQuantiles(QuantileTracker):
    """No memory: the quantiles of the batch at hand (an ablation; biased, since a batch meets its own)."""

    def start(self, scores: Tensor) -> None:
        self.values = self._of_batch(scores)

    def update(self, scores: Tensor) -> None:
        self.start(scores)


TRACKERS = {"robbins_monro": QuantileTracker, "histogram": HistogramTracker, "batch": BatchQuantiles}
