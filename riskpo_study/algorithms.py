"""Algorithms by name: (advantage, surrogate, aggregation) and options. The trainer knows none of them.

To add one, write its advantage in `advantages.py` and a line in `ALGORITHMS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from riskpo_study import advantages, risk
from riskpo_study.bundles import scores as bundle_scores
from riskpo_study.errors import ConfigError
from riskpo_study.surrogates import Surrogate, geometric_clip, reinforce, sequence_clip, token_clip


class RiskSettings(Protocol):
    """Section `risk` of the configuration."""

    @property
    def alpha(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def omega(self) -> float: ...
    @property
    def bundle_size(self) -> int: ...


class Estimator:
    """Advantages of one algorithm, and what it keeps between steps.

    A call takes rewards (Q, G) and the batch's bundle permutation (N, B, G), and gives advantages (Q, G).
    """

    quantiles: tuple[float, ...] | None = None
    """(q_α, q_β) used for the last batch, where the algorithm has them."""

    def __init__(self, advantage: Callable[..., Tensor], **options: Any) -> None:
        self.advantage, self.options = advantage, options

    def __call__(self, rewards: Tensor, permutation: Tensor) -> Tensor:
        return self.advantage(rewards, **self.options)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class BundleEstimator(Estimator):
    """An estimator of the RiskPO family: quantiles of the bundle scores, used before they are updated."""

    def __init__(self, advantage: Callable[..., Tensor], tracker: risk.QuantileTracker, **options: Any) -> None:
        super().__init__(advantage, **options)
        self.tracker = tracker

    def __call__(self, rewards: Tensor, permutation: Tensor) -> Tensor:
        scores = bundle_scores(rewards, permutation)
        self.tracker.start(scores)
        assert self.tracker.values is not None
        self.quantiles = self.tracker.values
        result = self.advantage(rewards, permutation, *self.quantiles, **self.options)
        self.tracker.update(scores)
        return result

    def state_dict(self) -> dict[str, Any]:
        return self.tracker.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tracker.load_state_dict(state)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm, ready to train with."""

    name: str
    estimator: Estimator
    surrogate: Surrogate
    aggregation: str
    dynamic_sampling: bool = False
    overlong_margin: float = 0.0
    """Share of the maximal length over which DAPO's overlong penalty grows to −1; 0 for none."""


@dataclass(frozen=True)
class Preset:
    """How an algorithm is put together, and the options (with defaults) that a configuration may change."""

    estimator: Callable[..., Estimator]  # (risk settings, **advantage options)
    surrogate: Callable[..., Surrogate]
    aggregation: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: Mapping[str, Any] = field(default_factory=dict)
    dynamic_sampling: bool = False
    overlong_margin: float = 0.0


def _group(function: Callable[..., Tensor]) -> Callable[..., Estimator]:
    return lambda settings, **options: Estimator(function, **options)


def _tracked(function: Callable[..., Tensor]) -> Callable[..., Estimator]:
    def build(settings: RiskSettings, tracker: str, step: float, decay: float, baseline: str, scale: str) -> Estimator:
        if tracker not in risk.TRACKERS:
            raise ConfigError(f"tracker = {tracker!r} is unknown; choose one of {', '.join(risk.TRACKERS)}")
        risk.check_levels(settings.alpha, settings.beta)
        own = {"robbins_monro": {"step": step * settings.bundle_size}, "histogram": {"decay": decay}}
        levels = (settings.alpha, settings.beta)
        quantiles = risk.TRACKERS[tracker](levels, settings.bundle_size, **own.get(tracker, {}))
        return BundleEstimator(function, quantiles, omega=settings.omega, baseline=baseline, scale=scale)

    return build


def _released(settings: RiskSettings, **options: Any) -> Estimator:
    scripts = {"bundle_size": settings.bundle_size, "alpha": settings.alpha, "beta": settings.beta}
    return Estimator(advantages.riskpo_released, **scripts, **options)


# `step` (times the bundle size) is robbins_monro's, `decay` the histogram tracker's.
_RISKPO_OPTIONS = {
    "baseline": "group", "scale": "none", "tracker": "robbins_monro", "step": 0.1, "decay": 0.9,
}  # fmt: skip
_PPO_CLIP = {"low": 0.2, "high": 0.2}
_DAPO_CLIP = {"low": 0.2, "high": 0.28}

ALGORITHMS: dict[str, Preset] = {
    "grpo": Preset(_group(advantages.grpo), token_clip, "sequence_mean", "arXiv 2402.03300", clip=_PPO_CLIP),
    "dr_grpo": Preset(
        _group(advantages.dr_grpo), token_clip, "constant_sum", "arXiv 2503.20783", clip=_PPO_CLIP,
    ),
    "dapo": Preset(
        _group(advantages.grpo), token_clip, "token_mean", "arXiv 2503.14476",
        clip=_DAPO_CLIP, dynamic_sampling=True, overlong_margin=0.2,
    ),
    "gpg": Preset(_group(advantages.gpg), reinforce, "token_mean", "arXiv 2504.02546"),
    "gmpo": Preset(
        _group(advantages.grpo), geometric_clip, "sequence_mean", "arXiv 2507.20673",
        clip={"low": 0.4, "high": 0.4},
    ),
    "gspo": Preset(
        _group(advantages.grpo), sequence_clip, "sequence_mean", "arXiv 2507.18071",
        clip={"low": 3e-4, "high": 4e-4},
    ),
    "rloo": Preset(_group(advantages.rloo), reinforce, "sequence_sum", "arXiv 2402.14740"),
    "reinforce_pp": Preset(
        _group(advantages.reinforce_pp), token_clip, "token_mean", "arXiv 2501.03262", clip=_PPO_CLIP,
    ),
    "pass_at_k": Preset(
        _group(advantages.pass_at_k), reinforce, "group_sum", "arXiv 2505.15201", options={"k": 4},
    ),
    "quantile_baseline": Preset(
        _group(advantages.quantile_baseline), token_clip, "token_mean", "arXiv 2509.22611",
        options={"level": 0.4}, clip=_DAPO_CLIP, dynamic_sampling=True, overlong_margin=0.2,
    ),
    "max_rl": Preset(
        _group(advantages.max_rl), token_clip, "sequence_mean", "arXiv 2602.02710", clip=_PPO_CLIP,
    ),
    "focal": Preset(
        _group(advantages.focal), token_clip, "sequence_mean", "arXiv 2602.06717",
        options={"gamma": 1.0}, clip=_PPO_CLIP,
    ),
    "entropic": Preset(
        _group(advantages.entropic), token_clip, "sequence_mean", "arXiv 2509.24261",
        options={"beta": 2.0}, clip=_PPO_CLIP,
    ),
    "riskpo": Preset(
        _tracked(advantages.riskpo), sequence_clip, "sequence_mean", "arXiv 2510.00911, the paper",
        options=_RISKPO_OPTIONS, clip=_PPO_CLIP,
    ),
    "riskpo_released": Preset(
        _released, token_clip, "token_mean", "arXiv 2510.00911, the released code",
        options={
            "tail_weight": 1.5, "credit": "sum-mean", "natural_baseline": False, "divide_by_std": True,
            "risk_seeking": False,
        },
        clip=_PPO_CLIP | {"dual": 3.0},
    ),
    "risk_seeking": Preset(
        _tracked(advantages.risk_seeking), sequence_clip, "sequence_mean", "arXiv 2510.00911, Fig. 6",
        options=_RISKPO_OPTIONS, clip=_PPO_CLIP,
    ),
}  # fmt: skip


def check_known(name: str) -> None:
    """Raise `ConfigError` naming the known algorithms unless `name` is one of them."""
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"algorithm {name!r} is unknown{hint}; known are {', '.join(ALGORITHMS)}")


def _of_type(default: Any, value: Any, key: str) -> Any:
    """`value` as the type of the option's default, an int for a float; `ConfigError` for another type."""
    expected = type(default)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ConfigError(f"{key} = {value!r} is not of type {expected.__name__}; its default is {default!r}")
    return value


def build(name: str, options: Mapping[str, Any], settings: RiskSettings) -> Algorithm:
    """Put an algorithm together from its preset and the options of the configuration.

    Args:
        name: a key of `ALGORITHMS`.
        options: changes of the preset's options and clip bounds (`clip_low`, `clip_high`, `clip_dual`); the
            key `learning_rate` is the trainer's and passed over.
        settings: section `risk` of the configuration.

    Raises:
        ConfigError: for an unknown algorithm or option, or an option's bad value.
    """
    check_known(name)
    preset = ALGORITHMS[name]
    chosen = dict(preset.options) | {f"clip_{key}": value for key, value in preset.clip.items()}
    for key, value in options.items():
        if key == "learning_rate":
            continue
        if key not in chosen:
            raise ConfigError(
                f"algorithms.{name}.{key} is unknown; options of {name} are {', '.join(chosen) or 'none'}"
            )
        chosen[key] = _of_type(chosen[key], value, f"algorithms.{name}.{key}")
    clip = {key: chosen.pop(f"clip_{key}") for key in preset.clip}
    return Algorithm(
        name, preset.estimator(settings, **chosen), preset.surrogate(**clip), preset.aggregation,
        preset.dynamic_sampling, preset.overlong_margin,
    )  # fmt: skip
