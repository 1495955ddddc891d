"""The presets: which advantage, ratio and aggregation each name stands for, and which options it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from riskpo_study import advantages, bundles, risk, surrogates
from riskpo_study.algorithms import ALGORITHMS, Algorithm, build
from riskpo_study.config import Risk
from riskpo_study.errors import ConfigError
from riskpo_study.surrogates import Surrogate

RISK = Risk(alpha=0.2, beta=0.8, omega=0.5, bundle_size=5)


def draw(seed: int = 0, questions: int = 10, responses: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 2, (questions, responses), generator=generator).double()
    return rewards, bundles.permutations(questions, responses, 5, generator)


def first_batch(
    advantage: Callable[..., Tensor], alpha: float = 0.2, omega: float = 0.5
) -> Callable[[Tensor, Tensor], Tensor]:
    """An estimator of the RiskPO family on its first batch, whose own quantiles start the tracker."""

    def estimate(rewards: Tensor, permutation: Tensor) -> Tensor:
        scores = bundles.scores(rewards, permutation).flatten()
        q_alpha, q_beta = (risk.quantile(scores, level).item() for level in (alpha, 0.8))
        return advantage(rewards, permutation, q_alpha, q_beta, omega, baseline="group", scale="none")

    return estimate


@dataclass(frozen=True)
class Expected:
    """A row of the table of algorithms in docs/method.md."""

    advantage: Callable[[Tensor, Tensor], Tensor]
    surrogate: Surrogate
    aggregation: str
    dynamic_sampling: bool = False
    overlong_margin: float = 0.0


PPO = surrogates.token_clip(0.2, 0.2)
DAPO = surrogates.token_clip(0.2, 0.28)
REINFORCE = surrogates.reinforce()

TABLE = {
    "grpo": Expected(lambda r, p: advantages.grpo(r), PPO, "sequence_mean"),
    "dr_grpo": Expected(lambda r, p: advantages.dr_grpo(r), PPO, "constant_sum"),
    "dapo": Expected(lambda r, p: advantages.grpo(r), DAPO, "token_mean", True, 0.2),
    "gpg": Expected(lambda r, p: advantages.gpg(r), REINFORCE, "token_mean"),
    "gmpo": Expected(lambda r, p: advantages.grpo(r), surrogates.geometric_clip(0.4, 0.4), "sequence_mean"),
    "gspo": Expected(lambda r, p: advantages.grpo(r), surrogates.sequence_clip(3e-4, 4e-4), "sequence_mean"),
    "rloo": Expected(lambda r, p: advantages.rloo(r), REINFORCE, "sequence_sum"),
    "reinforce_pp": Expected(lambda r, p: advantages.reinforce_pp(r), PPO, "token_mean"),
    "pass_at_k": Expected(lambda r, p: advantages.pass_at_k(r, 4), REINFORCE, "group_sum"),
    "quantile_baseline": Expected(lambda r, p: advantages.quantile_baseline(r, 0.4), DAPO, "token_mean", True, 0.2),
    "max_rl": Expected(lambda r, p: advantages.max_rl(r), PPO, "sequence_mean"),
    "focal": Expected(lambda r, p: advantages.focal(r, 1.0), PPO, "sequence_mean"),
    "entropic": Expected(lambda r, p: advantages.entropic(r, 2.0), PPO, "sequence_mean"),
    "riskpo": Expected(first_batch(advantages.riskpo), surrogates.sequence_clip(0.2, 0.2), "sequence_mean"),
    "riskpo_released": Expected(
        lambda r, p: advantages.riskpo_released(r, 5, 0.2, 0.8, 1.5, "sum-mean", natural_baseline=False),
        surrogates.token_clip(0.2, 0.2, dual=3.0),
        "token_mean",
    ),
    "risk_seeking": Expected(first_batch(advantages.risk_seeking), surrogates.sequence_clip(0.2, 0.2), "sequence_mean"),
    "riskpo_marginal": Expected(
        first_batch(partial(advantages.riskpo, credit="marginal")), surrogates.sequence_clip(0.2, 0.2), "sequence_mean"
    ),
    "riskpo_stratified": Expected(
        first_batch(partial(advantages.riskpo, credit="marginal"), 0.45, 1.0),
        surrogates.sequence_clip(0.2, 0.2),
        "sequence_mean",
    ),
    "mvar_accuracy": Expected(lambda r, p: advantages.mvar_accuracy(r, 0.45, 0.8, 1.0), PPO, "sequence_mean"),
    "mvar_log_accuracy": Expected(
        lambda r, p: advantages.mvar_accuracy(r, 0.45, 0.8, 1.0, "log"), PPO, "sequence_mean"
    ),
}


def objective(surrogate: Surrogate) -> surrogates.Objective:
    """What the surrogate makes of ratios between 0.05 and 20, on both signs of the advantage."""
    generator = torch.Generator().manual_seed(0)
    old = -5 - torch.rand(16, 6, dtype=torch.float64, generator=generator)
    new = old + torch.randn(16, 6, dtype=torch.float64, generator=generator)
    return surrogate(new, old, torch.linspace(-1, 1, 16, dtype=torch.float64), torch.ones(16, 6))


def assert_same_surrogate(one: Surrogate, other: Surrogate) -> None:
    for got, expected in zip(objective(one), objective(other), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_table_is_complete() -> None:
    assert list(TABLE) == list(ALGORITHMS)


@pytest.mark.parametrize("name", TABLE)
def test_preset(name: str) -> None:
    algorithm, expected = build(name, {}, RISK), TABLE[name]
    rewards, permutation = draw()
    torch.testing.assert_close(algorithm.estimator(rewards, permutation), expected.advantage(rewards, permutation))
    assert_same_surrogate(algorithm.surrogate, expected.surrogate)
    assert algorithm.aggregation == expected.aggregation
    assert algorithm.dynamic_sampling is expected.dynamic_sampling
    assert algorithm.overlong_margin == expected.overlong_margin
    assert algorithm.name == name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_source_is_given(name: str) -> None:
    assert re.match(r"arXiv \d{4}\.\d{5}", ALGORITHMS[name].source)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_default_can_be_written_out(name: str) -> None:
    preset = ALGORITHMS[name]
    options = dict(preset.options) | {f"clip_{key}": value for key, value in preset.clip.items()}
    spelt_out = build(name, options | {"learning_rate": 1e-5}, RISK)
    rewards, permutation = draw()
    torch.testing.assert_close(
        spelt_out.estimator(rewards, permutation), build(name, {}, RISK).estimator(rewards, permutation)
    )
    assert_same_surrogate(spelt_out.surrogate, build(name, {}, RISK).surrogate)


@pytest.mark.parametrize(
    ("name", "options", "advantage"),
    [
        ("pass_at_k", {"k": 2}, lambda r, p: advantages.pass_at_k(r, 2)),
        ("quantile_baseline", {"level": 0.7}, lambda r, p: advantages.quantile_baseline(r, 0.7)),
        ("focal", {"gamma": 2}, lambda r, p: advantages.focal(r, 2.0)),
        ("entropic", {"beta": 8}, lambda r, p: advantages.entropic(r, 8.0)),
        (
            "riskpo_released",
            {"tail_weight": 2, "credit": "std", "natural_baseline": True},
            lambda r, p: advantages.riskpo_released(r, 5, 0.2, 0.8, 2.0, "std", natural_baseline=True),
        ),
    ],
)
def test_options_reach_the_advantage(name: str, options: dict[str, Any], advantage) -> None:
    rewards, permutation = draw()
    got = build(name, options, RISK).estimator(rewards, permutation)
    torch.testing.assert_close(got, advantage(rewards, permutation))
    assert not torch.allclose(got, build(name, {}, RISK).estimator(rewards, permutation))


def test_clip_options_reach_the_surrogate() -> None:
    options = {"clip_low": 0.1, "clip_high": 0.4, "clip_dual": 2}
    assert_same_surrogate(build("riskpo_released", options, RISK).surrogate, surrogates.token_clip(0.1, 0.4, 2.0))
    gspo = {"clip_low": 3e-4, "clip_high": 4e-4}
    assert_same_surrogate(build("riskpo", gspo, RISK).surrogate, surrogates.sequence_clip(3e-4, 4e-4))


@pytest.mark.parametrize("name", ["riskpo", "risk_seeking"])
def test_quantiles_are_used_before_they_are_updated(name: str) -> None:
    estimator = build(name, {"baseline": "none", "step": 0.2}, RISK).estimator
    tracker = risk.QuantileTracker((0.2, 0.8), 5, step=1.0)  # 0.2 of the bundle size
    for seed in range(5):
        rewards, permutation = draw(seed)
        scores = bundles.scores(rewards, permutation)
        tracker.start(scores)
        expected = getattr(advantages, name)(rewards, permutation, *tracker.values, 0.5, baseline="none")
        torch.testing.assert_close(estimator(rewards, permutation), expected)
        assert estimator.quantiles == tracker.values
        tracker.update(scores)


@pytest.mark.parametrize(
    ("name", "options"),
    [("grpo", {}), ("risk_seeking", {}), *(("riskpo", {"tracker": tracker}) for tracker in risk.TRACKERS)],
)
def test_a_restored_estimator_goes_on_where_it_stopped(name: str, options: dict[str, Any]) -> None:
    original, restored = (build(name, options, RISK).estimator for _ in range(2))
    for seed in range(4):
        original(*draw(seed))
    restored.load_state_dict(original.state_dict())
    for seed in range(4, 8):
        assert torch.equal(original(*draw(seed)), restored(*draw(seed)))
        assert original.quantiles == restored.quantiles


def test_only_the_riskpo_family_tracks_quantiles() -> None:
    for name in ALGORITHMS:
        estimator = build(name, {}, RISK).estimator
        estimator(*draw())
        assert (estimator.quantiles is not None) == (
            name in ("riskpo", "risk_seeking", "riskpo_marginal", "riskpo_stratified")
        )


def test_trackers_differ() -> None:
    values = set()
    for tracker in risk.TRACKERS:
        estimator = build("riskpo", {"tracker": tracker}, RISK).estimator
        for seed in range(4):
            estimator(*draw(seed, questions=30))
        values.add(estimator.quantiles)
    assert len(values) > 1


def test_unknown_algorithm_lists_the_known() -> None:
    with pytest.raises(ConfigError) as caught:
        build("rispo", {}, RISK)
    assert "algorithm 'rispo' is unknown (did you mean riskpo?); known are grpo, dr_grpo" in str(caught.value)
    assert all(name in str(caught.value) for name in ALGORITHMS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "riskpo",
            {"gamma": 0.1},
            "algorithms.riskpo.gamma is unknown; options of riskpo are baseline, scale",
        ),
        ("rloo", {"clip_low": 0.1}, "algorithms.rloo.clip_low is unknown; options of rloo are none"),
        ("pass_at_k", {"k": 2.5}, "algorithms.pass_at_k.k = 2.5 is not of type int; its default is 4"),
        ("focal", {"gamma": "1e-3"}, "algorithms.focal.gamma = '1e-3' is not of type float"),
        (
            "riskpo_released",
            {"clip_dual": None},
            "algorithms.riskpo_released.clip_dual = None is not of type",
        ),
        ("riskpo_released", {"natural_baseline": 1}, "natural_baseline = 1 is not of type bool"),
        ("entropic", {"beta": True}, "algorithms.entropic.beta = True is not of type float"),
        ("riskpo", {"tracker": "ema"}, "tracker = 'ema' is unknown; choose one of robbins_monro, histogram"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(name, options, RISK)


def test_bad_levels_are_named() -> None:
    @dataclass(frozen=True)
    class Settings:
        alpha: float
        beta: float
        omega: float = 0.5
        bundle_size: int = 5

    with pytest.raises(ConfigError, match=r"alpha = 0\.8 is not below beta = 0\.2"):
        build("riskpo", {}, Settings(0.8, 0.2))
    with pytest.raises(ConfigError, match=r"beta = 1\.5 is not a probability"):
        build("riskpo", {}, Settings(0.2, 1.5))


def test_algorithms_are_values() -> None:
    """A built algorithm can be changed by `replace`, as an ablation would."""
    changed: Algorithm = replace(build("grpo", {}, RISK), aggregation="token_mean")
    assert changed.aggregation == "token_mean"
