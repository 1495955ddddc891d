"""Records of runs that never were, in the form that `records.collect` gives them, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from riskpo_study import bundles, diagnostics
from riskpo_study.config import Config
from riskpo_study.quantile_curve import quantile_curve
from riskpo_study.records import BASE

STEPS = (0, 10, 20)


def counts(
    correct: Sequence[int], n: int, algorithm: str = "grpo", seed: int = 0, step: int = 20, difficulty: int | str = 3
) -> pd.DataFrame:
    """One row a question, as `sampling.counts`, from the numbers of right answers; entropy falls with them."""
    right = np.asarray(correct)
    return pd.DataFrame({
        "algorithm": algorithm, "seed": seed, "step": step,
        "question_id": [f"{difficulty}-{i}" for i in range(len(right))], "difficulty": difficulty,
        "n": n, "correct": right, "distinct_correct": np.minimum(right, 3), "majority": (right > n / 2).astype(float),
        "unparsed": 0, "entropy": 1.0 - right / n, "log_prob": -5.0, "length": 9.0,
    })  # fmt: skip


def records(config: Config) -> dict[str, pd.DataFrame]:
    """All four records of the configured runs: policies that get better and less varied, each at a speed of its own."""
    draws = np.random.default_rng(0)
    frames: dict[str, list[pd.DataFrame]] = {"metrics": [], "evaluations": [], "counts": [], "quantile_logprob": []}
    base = {d: draws.uniform(0.1, 0.4, config.task.questions) for d in config.task.numbers}

    def answered(algorithm: str, seed: int, step: int, n: int, gain: float) -> pd.DataFrame:
        parts = (
            counts(draws.binomial(n, share + gain), n, algorithm, seed, step, difficulty)
            for difficulty, share in base.items()
        )
        return pd.concat(parts, ignore_index=True)

    runs = [(BASE, -1), *((a, s) for a in config.runs.algorithms for s in config.runs.seeds)]
    for position, (algorithm, seed) in enumerate(runs):
        speed = 0.02 + 0.001 * (position % 8)
        steps = (0,) if algorithm == BASE else STEPS[1:]
        for step in steps:
            n = config.evaluation.samples if step == steps[-1] else 4
            frames["counts"].append(answered(algorithm, seed, step, n, speed * step))
            curve = _curve(config, algorithm, seed, step, draws)
            frames["quantile_logprob"].append(curve)
        if algorithm != BASE:
            samples = config.train.curve_samples
            frames["evaluations"] += [answered(algorithm, seed, step, samples, speed * step) for step in STEPS]
            frames["metrics"].append(_metrics(config, algorithm, seed, draws))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}


def _curve(config: Config, algorithm: str, seed: int, step: int, draws: np.random.Generator) -> pd.DataFrame:
    questions, samples = 4 * config.risk.bundle_size, 6
    rewards = draws.binomial(1, 0.4, (questions, samples))
    frame = pd.DataFrame({
        "question_id": np.repeat([f"q{i}" for i in range(questions)], samples),
        "sample": np.tile(np.arange(samples), questions),
        "reward": rewards.ravel().astype(float),
        "log_prob": draws.normal(-5, 1, questions * samples) + rewards.ravel(),
        "length": 9,
    })  # fmt: skip
    levels = config.evaluation.quantile_levels
    curve = quantile_curve(frame, config.risk.bundle_size, levels, 50, config.evaluation.confidence, seed=max(seed, 0))
    return curve.assign(algorithm=algorithm, seed=seed, step=step)


def _metrics(config: Config, algorithm: str, seed: int, draws: np.random.Generator) -> pd.DataFrame:
    """Every metric that a training step records, by the functions that record them."""
    import torch

    generator = torch.Generator().manual_seed(int(draws.integers(2**31)))
    rows = []
    tracked = algorithm in {"riskpo", "risk_seeking", "riskpo_marginal", "riskpo_stratified"}
    questions, group = 2 * config.risk.bundle_size, 4
    for step in range(1, STEPS[-1] + 1):
        rewards = (torch.rand(questions, group, generator=generator) < 0.2 + 0.02 * step).double()
        log_probs = torch.randn(questions, group, generator=generator).double() - 5
        pairing = bundles.permutations(questions, group, config.risk.bundle_size, generator)
        difficulties = torch.tensor([config.task.numbers[i % len(config.task.numbers)] for i in range(questions)])
        lengths, finished = torch.full((questions, group), 9), torch.ones(questions, group, dtype=torch.bool)
        quantiles = (1.0 + 0.1 * step / 20, 3.0) if tracked else None
        tokens = torch.rand(questions, group, 3, generator=generator) * (1 - 0.02 * step)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        rows.append({
            "algorithm": algorithm, "seed": seed, "step": step,
            "kl/step": 1e-4 * (1 + step % 3), "learning_rate": config.train.learning_rate,
            **diagnostics.generation_metrics(rewards, difficulties, log_probs, lengths, finished, config.task.numbers),
            **diagnostics.bundle_metrics(rewards, rewards - rewards.mean(), log_probs, pairing, quantiles, config.risk),
            **diagnostics.risk_metrics(rewards, pairing, config.risk),
            **diagnostics.update_metrics(tokens, torch.ones_like(tokens), torch.zeros_like(tokens), mask, rewards >= 1),
        })  # fmt: skip
    return pd.DataFrame(rows)
