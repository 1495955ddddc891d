"""Bundles: B questions whose j-th permuted responses are scored together (RiskPO, arXiv 2510.00911).

The Q questions of a batch form N = Q / B groups of B consecutive questions. Inside a group every question
permutes its G responses independently; bundle j takes the j-th of each, so that each response is used once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from riskpo_study.errors import ConfigError


def check_bundle_size(questions: int, bundle_size: int) -> None:
    """Raise `ConfigError` unless the questions of a batch fill whole bundles."""
    if bundle_size < 1:
        raise ConfigError(f"bundle_size = {bundle_size} is not a number of questions; choose at least 1")
    if questions % bundle_size:
        above = -(-questions // bundle_size) * bundle_size
        raise ConfigError(
            f"{questions} questions do not fill bundles of {bundle_size}; choose a multiple of the bundle "
            f"size, for example {above}"
        )


def permutations(questions: int, responses: int, bundle_size: int, generator: torch.Generator) -> Tensor:
    """Independent uniform permutations (N, B, G): [n, b, j] is question n·B + b's response in bundle j."""
    check_bundle_size(questions, bundle_size)
    keys = torch.rand(questions, responses, generator=generator, dtype=torch.float64)
    return keys.argsort(dim=-1).view(questions // bundle_size, bundle_size, responses)


def in_order(questions: int, responses: int, bundle_size: int) -> Tensor:
    """The pairing of the released code, (N, B, G): bundle j takes the j-th response of each question."""
    check_bundle_size(questions, bundle_size)
    return torch.arange(responses).expand(questions // bundle_size, bundle_size, responses)


def gather(values: Tensor, permutation: Tensor) -> Tensor:
    """Per-response values (Q, G) in bundle order (N, B, G)."""
    groups, size, responses = permutation.shape
    if values.shape != (groups * size, responses):
        raise ConfigError(
            f"values of shape {tuple(values.shape)} do not fit a permutation of shape {tuple(permutation.shape)}; "
            f"give ({groups * size}, {responses})"
        )
    return values.reshape(permutation.shape).gather(-1, permutation.to(values.device))


def scores(rewards: Tensor, permutation: Tensor) -> Tensor:
    """Bundle scores: rewards (Q, G) -> (N, G), the sum over the B responses of each bundle."""
    return gather(rewards, permutation).sum(dim=1)


def scatter(values: Tensor, permutation: Tensor) -> Tensor:
    """The inverse of `gather`: values in bundle order (N, B, G), or (N, 1, G) for all B alike, -> (Q, G)."""
    full = values.expand(permutation.shape)
    return torch.empty_like(full).scatter_(-1, permutation.to(values.device), full).flatten(0, 1)
