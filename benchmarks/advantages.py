"""Time RiskPO's advantages for 510 × 10 rewards against a Python loop of the same mathematics, in turn.

One thread. The loop and `advantages.riskpo` get the same bundles and quantiles, and must agree. A training
step also draws the bundles and tracks the quantiles: the third row. The fourth is the released code's method.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from report import Record, machine, publish, render
from torch import Tensor

from riskpo_study import advantages, algorithms, bundles, seeds
from riskpo_study.config import Risk

QUESTIONS, RESPONSES = 510, 10
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="timed calls of each contender (default: 200)")
    parser.add_argument("--publish", action="store_true", help="write results/advantages.json and README.md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    description = machine()
    contenders = build()
    rounds: dict[str, list[Record]] = {name: [] for name in contenders}
    for number in range(WARM_UP + options.rounds):
        for name, compute in contenders.items():
            start = time.perf_counter()
            compute()
            seconds = time.perf_counter() - start
            if number >= WARM_UP:
                rounds[name].append({"call (ms)": round(1e3 * seconds, 4)})
    result = {
        "machine": description,
        "settings": f"{QUESTIONS} × {RESPONSES} rewards, bundles of {Risk().bundle_size}, one thread.",
        "rounds": rounds,
    }
    print(render(result))
    if options.publish:
        publish("advantages", result)


def build() -> dict[str, Callable[[], object]]:
    """The contenders, on rewards of questions of every difficulty."""
    settings = Risk()
    draws = seeds.generator(0, "benchmark", "advantages")
    accuracy = torch.rand(QUESTIONS, 1, generator=draws, dtype=torch.float64).expand(-1, RESPONSES)
    rewards = torch.bernoulli(accuracy, generator=draws)  # (Q, G)
    permutation = bundles.permutations(QUESTIONS, RESPONSES, settings.bundle_size, draws)  # (N, B, G)
    estimator = algorithms.build("riskpo", {}, settings).estimator
    estimator(rewards, permutation)
    assert estimator.quantiles is not None
    q_alpha, q_beta = estimator.quantiles
    arguments = (q_alpha, q_beta, settings.omega)

    as_lists = rewards.tolist(), permutation.tolist()
    expected = torch.tensor(loop(*as_lists, *arguments), dtype=torch.float64)
    torch.testing.assert_close(advantages.riskpo(rewards, permutation, *arguments), expected)

    def whole_step() -> Tensor:
        return estimator(rewards, bundles.permutations(QUESTIONS, RESPONSES, settings.bundle_size, draws))

    return {
        "Python loop": lambda: loop(*as_lists, *arguments),
        "`advantages.riskpo`": lambda: advantages.riskpo(rewards, permutation, *arguments),
        "with bundles drawn and quantiles tracked": whole_step,
        "`advantages.riskpo_released`": lambda: advantages.riskpo_released(
            rewards, settings.bundle_size, settings.alpha, settings.beta
        ),
    }


def loop(
    rewards: list[list[float]],
    permutation: list[list[list[int]]],
    q_alpha: float,
    q_beta: float,
    omega: float,
) -> list[list[float]]:
    """`advantages.riskpo`, group by group: rewards (Q, G), permutation (N, B, G) → advantages (Q, G)."""
    result: list[list[float]] = []
    for number, orders in enumerate(permutation):
        group = rewards[number * len(orders) : (number + 1) * len(orders)]  # (B, G)
        responses = len(group[0])
        values = []
        for bundle in range(responses):
            score = sum(row[order[bundle]] for row, order in zip(group, orders, strict=True))
            tail = max(q_alpha - score, 0.0)
            middle = max(score - q_alpha, 0.0) - max(score - q_beta, 0.0) + q_alpha - q_beta
            values.append(middle - (1 + omega) * tail)
        total = sum(values)
        shared = [value - (total - value) / (responses - 1) for value in values]  # leave-one-out
        for order in orders:
            row = [0.0] * responses
            for bundle, response in enumerate(order):
                row[response] = shared[bundle]
            result.append(row)
    return result


if __name__ == "__main__":
    main()
