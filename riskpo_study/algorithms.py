"""Algorithms by name: (advantage, surrogate, aggregation) and options. The trainer knows none of them.

To add one, write its advantage in `advantages.py` and a line in `ALGORITHMS`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from riskpo_study import advantages, bundles, risk
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


@dataclass(frozen=True)
class RiskLevels:
    """`RiskSettings` with an algorithm's own values over those of the configuration."""

    alpha: float
    beta: float
    omega: float
    bundle_size: int

    def __post_init__(self) -> None:
        risk.check_levels(self.alpha, self.beta)
        if not 0 <= self.omega < math.inf:
            raise ConfigError(f"omega = {self.omega} is no extra weight of a tail; choose a finite value of at least 0")


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

    def order(self, rewards: Tensor) -> Tensor:
        """(Q,) how to line up the questions of a batch, of which each B neighbours are bundled: rewards (Q, G)."""
        return torch.arange(len(rewards))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class BundleEstimator(Estimator):
    """An estimator of the RiskPO family: quantiles of the bundle scores, used before they are updated.

    With `stratified` bundles (ours; docs/method.md, section 10) questions of similar accuracy are bundled, in this
    batch, so that a bundle's score tells how hard its questions are.
    """

    def __init__(
        self, advantage: Callable[..., Tensor], tracker: risk.QuantileTracker, stratified: bool, **options: Any
    ) -> None:
        super().__init__(advantage, **options)
        self.tracker, self.stratified = tracker, stratified

    def __call__(self, rewards: Tensor, permutation: Tensor) -> Tensor:
        scores = bundles.scores(rewards, permutation)
        self.tracker.start(scores)
        assert self.tracker.values is not None
        self.quantiles = self.tracker.values
        result = self.advantage(rewards, permutation, *self.quantiles, **self.options)
        self.tracker.update(scores)
        return result

    def order(self, rewards: Tensor) -> Tensor:
        # Equal accuracies keep the order in which the questions were asked, which is random.
        return rewards.mean(1).argsort(stable=True) if self.stratified else super().order(rewards)

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
    risk: RiskSettings
    """The bundles and quantiles that it learns from, or would."""
    yardstick: RiskSettings
    """Section `risk` of the configuration, which the rewards of every algorithm are measured by."""
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
    risk: Mapping[str, float] | None = None  # its values over section `risk`; None for algorithms without the measure
    clip: Mapping[str, Any] = field(default_factory=dict)
    dynamic_sampling: bool = False
    overlong_margin: float = 0.0


def _group(function: Callable[..., Tensor]) -> Callable[..., Estimator]:
    return lambda settings, **options: Estimator(function, **options)


def _tracked(function: Callable[..., Tensor]) -> Callable[..., Estimator]:
    def build(
        settings: RiskSettings, tracker: str, step: float, decay: float, bundling: str, **options: Any
    ) -> Estimator:
        if tracker not in risk.TRACKERS:
            raise ConfigError(f"tracker = {tracker!r} is unknown; choose one of {', '.join(risk.TRACKERS)}")
        if bundling not in ("random", "stratified"):
            raise ConfigError(f"bundling = {bundling!r} is unknown; choose random or stratified")
        if not (0 < step < math.inf and 0 <= decay < 1):
            raise ConfigError(f"step = {step} must be above 0 and decay = {decay} in [0, 1)")
        own = {"robbins_monro": {"step": step * settings.bundle_size}, "histogram": {"decay": decay}}
        levels = (settings.alpha, settings.beta)
        quantiles = risk.TRACKERS[tracker](levels, settings.bundle_size, **own.get(tracker, {}))
        return BundleEstimator(function, quantiles, bundling == "stratified", omega=settings.omega, **options)

    return build


def _ranked(settings: RiskSettings, utility: str) -> Estimator:
    levels = {"alpha": settings.alpha, "beta": settings.beta, "omega": settings.omega}
    return Estimator(advantages.mvar_accuracy, **levels, utility=utility)


def _released(settings: RiskSettings, **options: Any) -> Estimator:
    scripts = {"bundle_size": settings.bundle_size, "alpha": settings.alpha, "beta": settings.beta}
    return Estimator(advantages.riskpo_released, **scripts, **options)


# `step` (times the bundle size) is robbins_monro's, `decay` the histogram tracker's.
_RISKPO_OPTIONS = {
    "baseline": "group", "scale": "none", "credit": "shared", "bundling": "random",
    "tracker": "robbins_monro", "step": 0.1, "decay": 0.9,
}  # fmt: skip
# What a mean of many questions leaves of the lower tail is empty where the policy fails at most of them: hence α = .45.
_OURS = {"alpha": 0.45, "beta": 0.8, "omega": 1.0}
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
        _tracked(advantages.riskpo), sequence_clip, "sequence_mean", "arXiv 2510.00911, the paper", risk={},
        options=_RISKPO_OPTIONS, clip=_PPO_CLIP,
    ),
    "riskpo_released": Preset(
        _released, token_clip, "token_mean", "arXiv 2510.00911, the released code", risk={},
        options={
            "tail_weight": 1.5, "credit": "sum-mean", "natural_baseline": False, "divide_by_std": True,
            "risk_seeking": False,
        },
        clip=_PPO_CLIP | {"dual": 3.0},
    ),
    "risk_seeking": Preset(
        _tracked(advantages.risk_seeking), sequence_clip, "sequence_mean", "arXiv 2510.00911, Fig. 6", risk={},
        options=_RISKPO_OPTIONS, clip=_PPO_CLIP,
    ),
    "riskpo_marginal": Preset(
        _tracked(advantages.riskpo), sequence_clip, "sequence_mean", "arXiv 2510.00911, with marginal credit (ours)",
        risk={},
        options=_RISKPO_OPTIONS | {"credit": "marginal"}, clip=_PPO_CLIP,
    ),
    "riskpo_stratified": Preset(
        _tracked(advantages.riskpo), sequence_clip, "sequence_mean", "arXiv 2510.00911, with stratified bundles (ours)",
        options=_RISKPO_OPTIONS | {"credit": "marginal", "bundling": "stratified"}, risk=_OURS, clip=_PPO_CLIP,
    ),
    "mvar_accuracy": Preset(
        _ranked, token_clip, "sequence_mean", "arXiv 2510.00911, of question accuracies (ours)",
        options={"utility": "linear"}, risk=_OURS, clip=_PPO_CLIP,
    ),
    "mvar_log_accuracy": Preset(
        _ranked, token_clip, "sequence_mean", "arXiv 2510.00911, of log question accuracies (ours)",
        options={"utility": "log"}, risk=_OURS, clip=_PPO_CLIP,
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


@contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    """Errors say which algorithm of the configuration they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"algorithms.{name}: {error}") from error


def preset_name(name: str, options: Mapping[str, Any]) -> str:
    """The preset behind an algorithm of the configuration: itself, or the `preset` that a variant names."""
    preset = str(options.get("preset", name))
    check_known(preset)
    return preset


def build(name: str, options: Mapping[str, Any], settings: RiskSettings) -> Algorithm:
    """Put an algorithm together from its preset and the options of the configuration.

    Args:
        name: a key of `ALGORITHMS`, or any name with the option `preset`, which is such a key.
        options: changes of the preset's options, clip bounds (`clip_low`, `clip_high`, `clip_dual`) and risk measure
            (`alpha`, `beta`, `omega`, `bundle_size`); the keys of `NOT_OPTIONS` are passed over.
        settings: section `risk` of the configuration.

    Raises:
        ConfigError: for an unknown algorithm or option, or an option's bad value.
    """
    with _blamed_on(name):
        preset = ALGORITHMS[preset_name(name, options)]
    levels = {one.name: getattr(settings, one.name) for one in fields(RiskLevels)} | dict(preset.risk or {})
    chosen = dict(preset.options) | {f"clip_{key}": value for key, value in preset.clip.items()}
    if preset.risk is not None:
        chosen |= levels
    for key, value in options.items():
        if key in NOT_OPTIONS:
            continue
        if key == "omega" and "tail_weight" in chosen:
            raise ConfigError(f"algorithms.{name}.omega has no effect: the released code has tail_weight instead")
        if key not in chosen:
            raise ConfigError(
                f"algorithms.{name}.{key} is unknown; options of {name} are {', '.join(chosen) or 'none'}"
            )
        chosen[key] = _of_type(chosen[key], value, f"algorithms.{name}.{key}")
    clip = {key: chosen.pop(f"clip_{key}") for key in preset.clip}
    for key, lowest in {"low": 0.0, "high": 0.0, "dual": 1.0}.items():
        if not lowest <= clip.get(key, lowest) < math.inf:
            raise ConfigError(f"algorithms.{name}.clip_{key} = {clip[key]} is no clip; choose at least {lowest:g}")
    with _blamed_on(name):
        own = RiskLevels(**(levels if preset.risk is None else {key: chosen.pop(key) for key in levels}))
        estimator = preset.estimator(own, **chosen)
    return Algorithm(
        name, estimator, preset.surrogate(**clip), preset.aggregation, own, settings,
        preset.dynamic_sampling, preset.overlong_margin,
    )  # fmt: skip


def check(name: str, options: Mapping[str, Any], settings: RiskSettings, questions: int, responses: int) -> None:
    """Raise `ConfigError` unless the algorithm gives finite advantages to batches of so many questions and responses.

    So a bad option is an error before the first rollouts. Arguments as for `build`.
    """
    built = build(name, options, settings)
    with _blamed_on(name):
        pairing = bundles.in_order(questions, responses, built.risk.bundle_size)
        some_right = (torch.arange(questions)[:, None] % (responses + 1) > torch.arange(responses)).double()
        for rewards in (torch.zeros_like(some_right), some_right, torch.ones_like(some_right)):
            if not built.estimator(rewards, pairing).isfinite().all():
                raise ConfigError(f"the options {dict(options)} make advantages that are not finite")


NOT_OPTIONS = ("preset", "learning_rate", "matched_to")
"""Keys of an algorithm in the configuration that do not change its mathematics."""
