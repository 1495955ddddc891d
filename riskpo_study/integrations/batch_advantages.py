"""What both integrations share: rewards of a whole batch in, advantages out, and the state that lasts between batches.

The mathematics is `riskpo_study.algorithms`' own; here are only the choice of the questions that are bundled, the
random numbers, and the state's file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riskpo_study import algorithms, bundles, diagnostics, files, runs, seeds
from riskpo_study.algorithms import ALGORITHMS, NOT_OPTIONS, RiskLevels
from riskpo_study.errors import ConfigError, DataError

__all__ = ["FAMILY", "PAPER", "STATE_FILE", "BatchAdvantages"]

FAMILY = tuple(name for name, preset in ALGORITHMS.items() if preset.risk is not None)
"""The algorithms with a risk measure: other trainers have the others themselves."""

PAPER = RiskLevels(alpha=0.2, beta=0.8, omega=0.5, bundle_size=5)
"""The paper's measure, unless the options say otherwise."""

STATE_FILE = "riskpo.pt"
"""What the state is called in a checkpoint of another trainer."""


class BatchAdvantages:
    """Advantages of an algorithm of the RiskPO family, one batch after the other.

    Bundles are drawn from (seed, number of batches before). Every process that gets the same batches therefore gives
    the same advantages and holds the same quantiles: nothing needs to be sent between ranks.

    Args:
        name: one of `FAMILY`.
        options: of the algorithm and its measure, as in the section `algorithms` of the configuration; but none of the
            surrogate's, which is the other trainer's.
        seed: of the bundles, a whole number.

    Raises:
        ConfigError: for an unknown algorithm or option, or a bad value.
    """

    def __init__(self, name: str, options: Mapping[str, Any], seed: int) -> None:
        if name not in FAMILY:
            raise ConfigError(f"algorithm {name!r} has no risk measure; choose one of {', '.join(FAMILY)}")
        for key in options:
            if key.startswith("clip_") or key in NOT_OPTIONS:
                raise ConfigError(
                    f"{key} = {options[key]!r} is no option of the advantage: set it in the trainer itself"
                )
        if type(seed) is not int:
            raise ConfigError(f"seed = {seed!r} is no whole number; choose one, for example 0")
        self.algorithm = algorithms.build(name, options, PAPER)
        self.options = dict(options)
        self.check(2 * self.algorithm.risk.bundle_size, 2)  # some values are only looked at where they are used
        levels = {of.name: getattr(self.algorithm.risk, of.name) for of in fields(RiskLevels)}
        if "tail_weight" in ALGORITHMS[name].options:
            del levels["omega"]  # the released code has the other instead
        self.settings = {"algorithm": name, **ALGORITHMS[name].options, **options, **levels, "seed": seed}
        """All that decides the advantages of a sequence of batches."""
        self._fewest = 2 if "utility" in ALGORITHMS[name].options else 1  # those rank a question among others
        self.seed, self.batches = seed, 0
        self.metrics: dict[str, float] = {}
        """Of the last batch: `quantile/…`, `region/…`, `share/…`, see docs/method.md."""

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.settings.items())

    def check(self, questions: int, responses: int) -> None:
        """Raise `ConfigError` unless batches of so many questions and responses a question have advantages.

        They must fill whole bundles, and the options must suit them.
        """
        bundles.check_bundle_size(questions, self.algorithm.risk.bundle_size)
        if responses < 2:
            raise ConfigError(f"{responses} response a question cannot be compared; choose at least 2")
        algorithms.check(self.algorithm.name, self.options, PAPER, questions, responses)

    def __call__(self, rewards: Tensor) -> Tensor:
        """Advantages (Q, G) float64 of rewards (Q, G) in [0, 1], NaN where a response has none.

        Neighbours are bundled: the order of the questions must be random, or what the caller wants bundled. A question
        that lacks a reward is left out, as are the last of the others where they do not fill a bundle: their advantages
        are 0. So are all where nothing is left to compare: one response a question, or one question to rank.

        Raises:
            DataError: for rewards outside [0, 1].
        """
        rewards = rewards.detach().double().cpu()
        known = rewards[~rewards.isnan()]
        if len(known) and not -1e-6 <= known.min() <= known.max() <= 1 + 1e-6:
            raise DataError(
                f"rewards reach from {known.min():g} to {known.max():g}, but bundles count rewards from 0 to 1: give 1 "
                "for a right and 0 for a wrong response, without a penalty"
            )
        used = (~rewards.isnan()).all(1).nonzero().squeeze(1)
        used = used[: len(used) - len(used) % self.algorithm.risk.bundle_size]
        if rewards.shape[1] < 2 or len(used) < self._fewest:
            used = used[:0]
        advantages = torch.zeros_like(rewards)
        self.metrics = {"share/left_out": 1 - len(used) / len(rewards) if len(rewards) else math.nan}
        if len(used):
            advantages[used] = self._of_bundles(rewards[used])
        self.batches += 1
        return advantages

    def _of_bundles(self, rewards: Tensor) -> Tensor:
        """Advantages (Q, G) of questions that fill whole bundles."""
        estimator, measure = self.algorithm.estimator, self.algorithm.risk
        order = estimator.order(rewards)
        rewards = rewards[order]
        questions, responses = rewards.shape
        permutation = bundles.permutations(questions, responses, measure.bundle_size, self.generator("bundles"))
        found = estimator(rewards, permutation)
        unknown = torch.full_like(rewards, math.nan)  # log-probabilities, for covariances
        metrics = diagnostics.bundle_metrics(rewards, found, unknown, permutation, estimator.quantiles, measure)
        self.metrics |= {name: value for name, value in metrics.items() if not name.startswith("covariance/")}
        return found[order.argsort()]

    def generator(self, purpose: str) -> torch.Generator:
        """Of the next batch's random choices."""
        return seeds.generator(self.seed, purpose, self.batches)

    def save(self, path: Path) -> None:
        """Write the state: the number of batches and the quantiles."""
        estimator = self.algorithm.estimator.state_dict()
        state = {"settings": self.settings, "batches": self.batches, "estimator": estimator}
        with files.atomic(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> str:
        """Continue from what `save` wrote; returns what it found, for the log.

        Raises:
            DataError: where the file cannot be read, or was written with other settings.
        """
        remedy = "remove it to start with the quantiles of the next batch"
        try:
            state = torch.load(path, weights_only=True)
            settings, batches, estimator = state["settings"], state["batches"], state["estimator"]
            other = list(runs.differences(self.settings, settings))
            if not other:
                self.algorithm.estimator.load_state_dict(estimator)
            values = tuple(estimator.get("values") or ())
            said = ", ".join(f"{value:g}" for value in values) or "none"
        except Exception as error:  # torch.load has none of its own
            raise DataError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from error
        if other:
            raise DataError(f"{path} is the state of another run: {'; '.join(other)}. Set it back, or {remedy}")
        largest = self.algorithm.risk.bundle_size
        if not all(0 <= value <= largest for value in values):
            raise DataError(f"{path} holds the quantiles {said}, but scores lie in 0 to {largest}: {remedy}")
        self.batches = batches
        return f"restored from {path}: {batches} batches seen, quantiles {said}"
