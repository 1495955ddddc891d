"""The weight that an algorithm gives to a question of accuracy p (docs/method.md, section 10): exact and measured.

The *weight* under an advantage A is

    w(p) = Cov(A, r) / (p(1−p)),

by how much a right response to the question has the larger expected advantage than a wrong one; r is the reward, 0 or
1. With ∇p = E[r ∇log π] the expected update is Σ w(p)·∇p over the questions: one number a question says what an
algorithm does. Q questions a batch, G responses a question, B questions a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from riskpo_study import advantages, algorithms, bundles, explain, risk, seeds
from riskpo_study.algorithms import Algorithm, BundleEstimator, RiskSettings
from riskpo_study.config import Config
from riskpo_study.errors import ConfigError, DataError
from riskpo_study.records import BASE
from riskpo_study.theory import as_double, draw, mvar, population_quantiles


def objective_of_mean(mean: float, settings: RiskSettings) -> float:
    """φ(p̄), MVaR of Binomial(B, p̄): all that the objective is of bundles drawn at random."""
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    return mvar(scores, explain.binomial(settings.bundle_size, mean), settings).item()


def step_lengths(settings: RiskSettings, means: Sequence[float] | Tensor) -> pd.DataFrame:
    """The weight that every question has in bundles drawn at random, φ′(p̄)/B: columns `mean` and `weight`.

    φ′ jumps where a quantile does; there, the value to the left, of the smaller quantile, is given.
    """
    rows = []
    scores = torch.arange(settings.bundle_size + 1, dtype=torch.float64)
    for mean in as_double(means):
        low, high = population_quantiles(mean.view(1), settings)
        table = risk.mvar_advantage(scores, low, high, settings.omega)
        others = explain.binomial(settings.bundle_size - 1, mean)
        rows.append((mean.item(), bundle_weights(table, others).item()))
    return pd.DataFrame(rows, columns=["mean", "weight"])


def poisson_binomial(accuracy: Tensor) -> Tensor:
    """Probabilities of 0..n right among n independent questions: (..., n) -> (..., n + 1)."""
    law = torch.ones(*accuracy.shape[:-1], 1, dtype=torch.float64)
    for p in accuracy.unsqueeze(-1).unbind(-2):  # (..., 1)
        none = torch.zeros_like(p)
        law = torch.cat([law * (1 - p), none], -1) + torch.cat([none, law * p], -1)
    return law


def partners(population: Tensor, count: int, draws: int, generator: torch.Generator) -> Tensor:
    """Accuracies of the other questions of bundles, drawn from a population (P,): (1, draws, count)."""
    return population[torch.randint(len(population), (1, draws, count), generator=generator)]


def enumerated_weights(
    advantage: Callable[[Tensor], Tensor], accuracy: Tensor, others: Tensor, responses: int
) -> Tensor:
    """w(p) of any estimator that sees a question beside the *scores* of its bundle partners, over all outcomes.

    In each of its G bundles the question is right or not, and 0..B−1 of the others are: an outcome is the number of
    bundles of each of these 2B kinds. Their order does not matter to an estimator that treats responses alike, and
    neither does which of the others are right, so each outcome is computed once and counts as often as it has orders.

    Args:
        advantage: rewards (N·B, G), bundles paired in order, to advantages of the same shape.
        accuracy: (P,) in (0, 1), of the question.
        others: (P or 1, M, B−1), accuracies of M equally likely sets of partners, for each accuracy or for all.
        responses: G.

    Returns:
        (P,).

    Raises:
        ConfigError: for more than half a million outcomes.
    """
    size = others.shape[-1] + 1
    outcomes = math.comb(responses + 2 * size - 1, responses)
    if outcomes > 500_000:
        raise ConfigError(
            f"bundles of {size} questions with {responses} responses have {outcomes} outcomes, too many to enumerate; "
            "choose a smaller bundle_size or fewer responses"
        )
    counts = torch.tensor(list(_compositions(responses, 2 * size)))  # (outcomes, 2B): kind 2s + r
    kinds = torch.arange(2 * size).repeat(len(counts)).repeat_interleave(counts.flatten()).view(-1, responses)
    right, score = kinds % 2, kinds // 2  # (outcomes, G)
    member = torch.arange(1, size).view(-1, 1)
    rewards = torch.cat([right.unsqueeze(1), (score.unsqueeze(1) >= member).long()], 1).double()  # (outcomes, B, G)
    own = advantage(rewards.flatten(0, 1)).view_as(rewards)[:, 0]

    scores, which = counts.view(-1, size, 2).sum(2).unique(dim=0, return_inverse=True)  # (patterns, B)
    law = poisson_binomial(others)  # (P or 1, M, B)
    chance = torch.xlogy(scores.double(), law.unsqueeze(2)).sum(-1).exp().mean(1)  # (P or 1, patterns)
    orders = (math.lgamma(responses + 1) - torch.lgamma(counts.double() + 1).sum(1)).exp()
    successes = right.sum(1).double()
    p = accuracy.unsqueeze(1)  # (P, 1)
    mass = chance[:, which] * orders * p**successes * (1 - p) ** (responses - successes)  # (P, outcomes)
    covariance = (mass * ((own * right).sum(1) - p * own.sum(1))).sum(1) / responses
    return covariance / (accuracy * (1 - accuracy))


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of `parts` numbers of at least 0."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def bundle_weights(table: Tensor, others: Tensor) -> Tensor:
    """w of an advantage of the bundle's score alone, `Σ_s P(S = s)·[A(s+1) − A(s)]`.

    Args:
        table: (B + 1,), the advantage of each score.
        others: (..., B), the distribution of the score of the other B − 1 questions.

    Returns:
        (...).
    """
    return others @ table.diff()


def group_weights(advantage: Callable[[Tensor], Tensor], accuracy: Tensor, responses: int) -> Tensor:
    """w(p) of an estimator that compares a question's own G responses, over their 0..G successes: (P,) -> (P,).

    An estimator that multiplies all questions of a batch by one number (GPG, REINFORCE++) comes out with another
    number, which the normalisation of weights removes.
    """
    right = torch.arange(responses + 1, dtype=torch.float64).unsqueeze(1)
    rewards = (torch.arange(responses) < right).double()  # (G + 1, G)
    found = advantage(rewards)
    p = accuracy.view(-1, 1)
    covariance = (found * rewards).mean(1) - p * found.mean(1)  # (P, G + 1), given the number of successes
    return (explain.binomial(responses, accuracy) * covariance).sum(1) / (accuracy * (1 - accuracy))


def of_own_group(rewards: Tensor, settings: RiskSettings) -> Tensor:
    """MVaR's advantage with the quantiles of each bundle group's own G scores: (Q, G), paired in order, -> (Q, G)."""
    questions, responses = rewards.shape
    pairing = bundles.in_order(questions, responses, settings.bundle_size)
    scores = bundles.scores(rewards, pairing)
    quantiles = [risk.quantile(scores, level).unsqueeze(1) for level in (settings.alpha, settings.beta)]
    advantage = risk.mvar_advantage(scores, quantiles[0], quantiles[1], settings.omega)
    return bundles.scatter(advantage.unsqueeze(1), pairing)


RELEASED = {
    "hard math: G 10, sum-mean": (10, {"beta": 0.8, "credit": "sum-mean", "natural_baseline": False}),
    "easy math: G 5, std, β 0.9": (5, {"beta": 0.9, "credit": "std", "natural_baseline": True}),
    "default: G 10, uniform": (10, {"beta": 0.8, "credit": "uniform", "natural_baseline": False}),
}
"""Responses a question, and options, of the released scripts; the last has the released function's default credit."""

FIVE = (0.05, 0.2, 0.5, 0.8, 0.95)
"""Accuracies of the questions, and of their partners, in the tables of docs/paper_vs_released_code.md."""


def released_table() -> pd.DataFrame:
    """The exact weights that the released function gives to questions of `FIVE` accuracies: a row a setting."""
    every = torch.cartesian_prod(*[as_double(FIVE)] * 4).unsqueeze(0)  # all equally likely partners
    rows = {name: released_weights(name, as_double(FIVE), every).tolist() for name in RELEASED}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"{p:g}" for p in FIVE])


def released_weights(name: str, accuracy: Tensor, others: Tensor) -> Tensor:
    """w(p) of the released function in one of the settings `RELEASED`: (P,); arguments as `enumerated_weights`'s."""
    responses, options = RELEASED[name]

    def advantage(rewards: Tensor) -> Tensor:
        return advantages.riskpo_released(rewards, others.shape[-1] + 1, alpha=0.2, **options)  # type: ignore[arg-type]

    return enumerated_weights(advantage, accuracy, others, responses)


def riskpo_weights(
    accuracy: Tensor, population: Tensor, settings: RiskSettings, responses: int, generator: torch.Generator
) -> pd.DataFrame:
    """w(p) of the estimators of the RiskPO family, not normalised: bundles and origin of the quantiles.

    Args:
        accuracy: (P,) in (0, 1), where to compute it.
        population: (K,), accuracies that the other questions are drawn from.
        responses: G, which only per-group quantiles depend on.

    Returns:
        A row a `panel`, `estimator` and `accuracy`: `weight`.
    """
    size = settings.bundle_size
    random = partners(population, size - 1, 400, generator)
    alike = accuracy.view(-1, 1, 1).expand(-1, 1, size - 1)
    ours = algorithms.build("riskpo_stratified", {}, settings).risk

    def tracked(levels: RiskSettings, bundled_alike: bool) -> Tensor:
        quantiles = population_quantiles(population, levels, bundled_alike)
        law = explain.binomial(size - 1, accuracy if bundled_alike else population.mean())
        scores = torch.arange(size + 1, dtype=torch.float64)
        return bundle_weights(risk.mvar_advantage(scores, *quantiles, levels.omega), law).expand(len(accuracy))

    def own(rewards: Tensor) -> Tensor:
        return of_own_group(rewards, settings)

    paper = f"α {settings.alpha:g}, ω {settings.omega:g}"
    found = {
        ("Random bundles", "global quantiles (paper)"): tracked(settings, False),
        ("Random bundles", "quantiles of the group"): enumerated_weights(own, accuracy, random, responses),
        **{("Released code, random bundles", name): released_weights(name, accuracy, random) for name in RELEASED},
        ("Stratified bundles", f"global quantiles, {paper}"): tracked(settings, True),
        ("Stratified bundles", f"global quantiles, α {ours.alpha:g}, ω {ours.omega:g}"): tracked(ours, True),
        ("Stratified bundles", f"quantiles of the group, {paper}"): enumerated_weights(own, accuracy, alike, responses),
    }
    frames = [
        pd.DataFrame({"panel": panel, "estimator": name, "accuracy": accuracy.numpy(), "weight": weight.numpy()})
        for (panel, name), weight in found.items()
    ]
    return pd.concat(frames, ignore_index=True)


# Every algorithm

FAMILIES = {
    "Mean objective": ("dr_grpo", "rloo", "gpg", "reinforce_pp"),
    "Divided by the spread": ("grpo", "dapo", "gmpo", "gspo"),
    "Other weights in a group": ("max_rl", "focal", "pass_at_k", "entropic", "quantile_baseline"),
    "Bundles drawn at random": ("riskpo", "riskpo_marginal", "risk_seeking", "riskpo_released"),
    "Stratified bundles (ours)": ("riskpo_stratified",),
    "Rank of the accuracy (ours)": ("mvar_accuracy", "mvar_log_accuracy"),
}
"""Every algorithm of `algorithms.ALGORITHMS`, by what decides its weights."""


def accuracies_of(counts: pd.DataFrame) -> Tensor:
    """The accuracy of each question under the base model, ascending, (P,): from the record `counts`.

    Raises:
        DataError: where the base model has none, or no question is answered both right and wrong.
    """
    base = counts[counts["algorithm"] == BASE].groupby("question_id")[["correct", "n"]].sum()
    found = as_double((base["correct"] / base["n"]).sort_values().to_numpy(copy=True))
    if not ((found > 0) & (found < 1)).any():
        raise DataError("counts.parquet has no question that the base model answers now right, now wrong: evaluate it.")
    return found


def normalised(weight: Tensor, accuracy: Tensor) -> Tensor:
    """Weights (P,) over their mean over the questions, each counted p(1−p): only shapes compare."""
    variance = accuracy * (1 - accuracy)
    return weight * (variance.sum() / (weight * variance).sum())


def expected_weights(
    algorithm: Algorithm, accuracy: Tensor, population: Tensor, responses: int, others: Tensor
) -> Tensor:
    """w(p) of an algorithm on policy, up to a factor, from its mathematics: (P,).

    Exact for G responses in batches of very many questions, in which quantiles of scores and ranks of accuracies are
    those of the population.

    Args:
        accuracy: (P,) in (0, 1), where to compute it.
        population: (K,) ascending, accuracies that a batch's questions are drawn from.
        others: (1, M, B−1) from `partners`, for the released code.
    """
    estimator = algorithm.estimator
    if isinstance(estimator, BundleEstimator):
        if not estimator.stratified:
            return _tracked_weights(algorithm, population, population.mean()).expand(len(accuracy))

        # Neighbours by accuracy in the batch have the question's own, p̂; a weight for each number of successes.
        found = torch.arange(responses + 1, dtype=torch.float64) / responses
        share = explain.binomial(responses, population).mean(0)
        weights = _tracked_weights(algorithm, found, found, share)
        return group_weights(
            lambda rewards: advantages.rloo(rewards) * weights.unsqueeze(1), accuracy, responses
        )  # fmt: skip
    if estimator.advantage is advantages.mvar_accuracy:
        return group_weights(lambda rewards: _ranked(rewards, population, algorithm), accuracy, responses)

    def advantage(rewards: Tensor) -> Tensor:
        return estimator.advantage(rewards, **estimator.options)

    if estimator.advantage is advantages.riskpo_released:
        return enumerated_weights(advantage, accuracy, others, responses)
    return group_weights(advantage, accuracy, responses)


def _tracked_weights(algorithm: Algorithm, population: Tensor, partner: Tensor, share: Tensor | None = None) -> Tensor:
    """`bundle_weights` of an estimator with tracked quantiles, where all partners have accuracy `partner` (...)."""
    estimator, measure = algorithm.estimator, algorithm.risk
    stratified = isinstance(estimator, BundleEstimator) and estimator.stratified
    low, high = population_quantiles(population, measure, stratified, share)
    of_scores = {
        advantages.riskpo: risk.mvar_advantage,
        advantages.risk_seeking: risk.risk_seeking_advantage,
    }[estimator.advantage]
    table = of_scores(torch.arange(measure.bundle_size + 1, dtype=torch.float64), low, high, measure.omega)
    return bundle_weights(table, explain.binomial(measure.bundle_size - 1, partner))


def _ranked(rewards: Tensor, population: Tensor, algorithm: Algorithm) -> Tensor:
    """`advantages.mvar_accuracy` where the ranks are those among infinitely many questions: (…, G) -> (…, G)."""
    responses = rewards.shape[1]
    reached = explain.binomial(responses, population).mean(0).cumsum(0)  # P(a rival has at most c right)
    reached = torch.cat([reached.new_zeros(1), reached])
    rivals = torch.arange(responses + 1, dtype=torch.float64) / responses
    others = (rewards.sum(1, keepdim=True) - rewards) / (responses - 1)
    first, last = (reached[torch.searchsorted(rivals, others, right=right)] for right in (False, True))
    base = {"linear": advantages.rloo, "log": advantages.max_rl}[algorithm.estimator.options["utility"]]
    return base(rewards) * _rank_weight(first, last, algorithm.risk)


def _rank_weight(first: Tensor, last: Tensor, settings: RiskSettings) -> Tensor:
    """1 + ω for ranks from `first` to `last` in [0, 1] below the level α, 1 up to β, 0 above, averaged over them."""
    share = [
        torch.where(
            last > first,
            (last.clamp(max=level) - first.clamp(max=level)) / (last - first).clamp(min=1e-12),
            (first < level).to(first.dtype),
        )
        for level in (settings.alpha, settings.beta)
    ]
    return settings.omega * share[0] + share[1]


def limit_weights(algorithm: Algorithm, accuracy: Tensor, population: Tensor) -> Tensor | None:
    """w(p) with infinitely many responses and questions, the formula of the paper; None for the released code.

    Arguments as `expected_weights`'s.
    """
    estimator, options = algorithm.estimator, algorithm.estimator.options
    if isinstance(estimator, BundleEstimator):
        partner = accuracy if estimator.stratified else population.mean()
        return _tracked_weights(algorithm, population, partner).expand(len(accuracy))
    p = accuracy
    spread = (p * (1 - p)).sqrt()
    if estimator.advantage is advantages.mvar_accuracy:
        first, last = (
            torch.searchsorted(population, p, right=right).double() / len(population) for right in (False, True)
        )
        return _rank_weight(first, last, algorithm.risk) / (p if options["utility"] == "log" else 1)
    formulas: dict[Callable[..., Tensor], Callable[[], Tensor]] = {
        advantages.dr_grpo: lambda: torch.ones_like(p),
        advantages.rloo: lambda: torch.ones_like(p),
        advantages.gpg: lambda: torch.ones_like(p),
        advantages.reinforce_pp: lambda: torch.ones_like(p),
        advantages.quantile_baseline: lambda: torch.ones_like(p),
        advantages.grpo: lambda: 1 / spread,
        advantages.max_rl: lambda: 1 / p,
        advantages.focal: lambda: (1 - p) ** options["gamma"] / spread,
        advantages.pass_at_k: lambda: options["k"] * (1 - p) ** (options["k"] - 1),
        advantages.entropic: lambda: 1 / (options["beta"] * (1 / math.expm1(options["beta"]) + p)),
    }
    formula = formulas.get(estimator.advantage)
    return None if formula is None else formula()


def measured_weights(
    algorithm: Algorithm,
    population: Tensor,
    questions: int,
    responses: int,
    batches: int,
    warm_up: int,
    generator: torch.Generator,
) -> pd.DataFrame:
    """w(p) of an algorithm's own estimator on batches of sampled rewards, as a training step would call it.

    Dynamic sampling is left out: the questions it drops, all right or all wrong, have no advantage in the algorithms
    that use it, and a question's advantage does not depend on the others, so a question that is asked learns the same.

    Args:
        population: (K,), accuracies of the questions.
        warm_up: batches before those that count, for the tracked quantiles.

    Returns:
        A row a question of 0 < p < 1 that was drawn: `accuracy`, `draws`, `weight` and its standard error `error`.

    Raises:
        ConfigError: with fewer than 2 batches.
    """
    if batches < 2:
        raise ConfigError(f"batches = {batches} have no standard error; measure with at least 2")
    moments = torch.zeros(3, len(population), dtype=torch.float64)  # draws, sum and sum of squares
    for step in range(warm_up + batches):
        chosen, rewards = draw(population, questions, responses, generator)
        order = algorithm.estimator.order(rewards)
        update = _update(algorithm, population[chosen], rewards, order, generator)
        if step >= warm_up:
            moments.index_add_(1, chosen, torch.stack([torch.ones_like(update), update, update.square()]))
    return _weights_of(moments, population)


def _update(
    algorithm: Algorithm, accuracy: Tensor, rewards: Tensor, order: Tensor, generator: torch.Generator
) -> Tensor:
    """(Q,) mean_j A_j(r_j − p) of each question, lined up as `order` says for its bundles; expectation Cov(A, r)."""
    questions, responses = rewards.shape
    pairing = bundles.permutations(questions, responses, algorithm.risk.bundle_size, generator)
    advantage = algorithm.estimator(rewards[order], pairing)
    update = torch.empty_like(accuracy)
    update[order] = (advantage * (rewards - accuracy[:, None])[order]).mean(1)
    return update


def _weights_of(moments: Tensor, population: Tensor) -> pd.DataFrame:
    """Weights and their errors from draws, sum and sum of squares (3, K) of the questions' updates."""
    draws, total, squares = moments
    variance = population * (1 - population)
    kept = (draws > 1) & (variance > 0)
    mean = total / draws.clamp(min=1)
    error = ((squares / draws.clamp(min=1) - mean.square()).clamp(min=0) / (draws - 1).clamp(min=1)).sqrt()
    columns = {"accuracy": population, "draws": draws, "weight": mean / variance, "error": error / variance}
    return pd.DataFrame({name: column[kept].numpy() for name, column in columns.items()})


def pooled(weights: pd.DataFrame, parts: int) -> pd.DataFrame:
    """`measured_weights` with a column `expected`, in about `parts` parts of equal reward variance; all normalised.

    A question counts with its p(1−p) and draws, which makes the pooled weight that of the sum of the updates.

    Returns:
        A row a part, hard to easy: `accuracy`, `weight`, its standard error `error`, `expected`.
    """
    accuracy = weights["accuracy"]
    mass = weights["draws"] * accuracy * (1 - accuracy)
    reached = mass.groupby(accuracy).sum().cumsum() / mass.sum()  # by accuracy: equals stay in one part
    part = np.ceil(accuracy.map(reached) * parts - 1e-9)
    masses = mass.groupby(part).sum()
    means = weights[["accuracy", "weight", "expected"]].mul(mass, axis=0).groupby(part).sum().div(masses, axis=0)
    share = masses / masses.sum()
    variance = (mass * weights["error"]).pow(2).groupby(part).sum() / masses**2
    scale = 1 / (share * means["weight"]).sum()
    relative = scale * means["weight"]
    # The scale is measured too: the delta method for a part's weight over the mean of all.
    spread = variance * (1 - 2 * relative * share) + relative**2 * (share**2 * variance).sum()
    return pd.DataFrame(
        {
            "accuracy": means["accuracy"],
            "weight": relative,
            "error": abs(scale) * np.sqrt(spread),
            "expected": means["expected"] / (share * means["expected"]).sum(),
        }
    ).reset_index(drop=True)


def expected_curves(settings: Config, population: Tensor, generator: torch.Generator) -> pd.DataFrame:
    """Normalised `expected_weights` and `limit_weights` of every algorithm, at the population's accuracies.

    Args:
        population: (K,) ascending, from `accuracies_of`.

    Returns:
        A row an `algorithm` and `accuracy` in (0, 1): `weight`, and `limit`, NaN where there is none.
    """
    inside = population[(population > 0) & (population < 1)]
    accuracy = inside.unique()
    frames = []
    for name in algorithms.ALGORITHMS:
        algorithm = algorithms.build(name, settings.algorithms.get(name, {}), settings.risk)
        others = partners(population, algorithm.risk.bundle_size - 1, 400, generator)
        curves = {"weight": expected_weights(algorithm, accuracy, population, settings.train.responses, others)}
        limit = limit_weights(algorithm, accuracy, population)
        curves["limit"] = torch.full_like(accuracy, math.nan) if limit is None else limit
        place = torch.searchsorted(accuracy, inside)
        columns = {key: normalised(curve[place], inside) for key, curve in curves.items()}
        frame = pd.DataFrame({"accuracy": inside.numpy()} | {key: column.numpy() for key, column in columns.items()})
        frames.append(frame.drop_duplicates().assign(algorithm=name))
    return pd.concat(frames, ignore_index=True)


def measured_curves(
    settings: Config, population: Tensor, expected: pd.DataFrame, batches: int, parts: int, seed: int
) -> pd.DataFrame:
    """Normalised `measured_weights` of every algorithm in batches of the configuration's size, pooled.

    Returns:
        A row an `algorithm` and part of the questions: as `pooled`'s.
    """
    frames = []
    for name in algorithms.ALGORITHMS:
        algorithm = algorithms.build(name, settings.algorithms.get(name, {}), settings.risk)
        draws = seeds.generator(seed, "theory", "weights", name)
        shape = settings.train.questions, settings.train.responses
        weights = measured_weights(algorithm, population, *shape, batches, batches // 10, draws)
        curve = expected[expected["algorithm"] == name].set_index("accuracy")["weight"]
        frames.append(pooled(weights.assign(expected=weights["accuracy"].map(curve)), parts).assign(algorithm=name))
    return pd.concat(frames, ignore_index=True)


def deviations(measured: pd.DataFrame) -> pd.DataFrame:
    """`measured_curves` in a row an algorithm: weights of the hardest and easiest part, and the largest deviation.

    Returns:
        Columns `algorithm`, `hard`, `expected_hard`, `easy`, `expected_easy`, and `largest`, the largest distance of a
        measured weight from the expected one in standard errors.
    """
    rows = []
    for name, part in measured.groupby("algorithm", sort=False):
        distance = ((part["weight"] - part["expected"]) / part["error"]).abs().max()
        ends = (float(part[column].iloc[at]) for at in (0, -1) for column in ("weight", "expected"))
        rows.append((name, *ends, distance))
    return pd.DataFrame(rows, columns=["algorithm", "hard", "expected_hard", "easy", "expected_easy", "largest"])


# What stratifying by the batch's own accuracies costs

ORDERS = ("this batch", "another batch", "the true accuracy")
"""What lines the questions up: the rewards to be learned from, other rewards of as many responses, or an oracle."""


def ordering_bias(
    settings: Config, population: Tensor, batches: int, parts: int, generator: torch.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Weights of `riskpo_stratified` where three `ORDERS` line up the same questions with the same rewards.

    The quantiles are the same as well: known, those of bundles by true accuracy.

    "Another batch" is as noisy as "this batch", but a response has no part in choosing its own partners: the
    difference between these two is the bias of learning from the batch that one sorts by. The difference between
    "another batch" and "the true accuracy" is blur.

    Returns:
        A row an order and part of the questions: `order`, `accuracy`, `weight` and `error`, not normalised; and a row
        a part, and one for all (`part` is "all"), with these two differences of weights and their standard errors.
    """
    algorithm = algorithms.build("riskpo_stratified", settings.algorithms.get("riskpo_stratified", {}), settings.risk)
    assert isinstance(algorithm.estimator, BundleEstimator)
    measure = algorithm.risk
    # The exact quantiles of bundles by true accuracy, for all orders: a tracker that does not move.
    algorithm.estimator.tracker = risk.QuantileTracker(
        (measure.alpha, measure.beta), measure.bundle_size, 0.0, population_quantiles(population, measure, alike=True)
    )
    questions, responses = settings.train.questions, settings.train.responses
    variance = population * (1 - population)
    reached = variance.cumsum(0) / variance.sum()
    part = (reached * parts - 1e-9).ceil().long().clamp(1, parts) - 1  # (K,)
    mass, centre = (
        torch.zeros(parts, dtype=torch.float64).index_add(0, part, of) for of in (variance, variance * population)
    )
    updates = torch.zeros(batches, len(ORDERS), parts, dtype=torch.float64)
    for batch in range(batches):
        chosen, rewards = draw(population, questions, responses, generator)
        p = population[chosen]
        again = (torch.rand(questions, responses, generator=generator, dtype=torch.float64) < p[:, None]).double()
        for position, line in enumerate((rewards, again, p[:, None])):  # as in ORDERS
            update = _update(algorithm, p, rewards, algorithm.estimator.order(line), generator)
            updates[batch, position].index_add_(0, part[chosen], update)
    # Expected number of draws of a question in a batch: questions / K.
    each = updates / (mass * questions / len(population))  # (batches, orders, parts), unbiased for the weight
    whole = updates.sum(2, keepdim=True) / (variance.mean() * questions)
    each = torch.cat([each, whole], 2)
    accuracy = [*(centre / mass).tolist(), float("nan")]
    names = [*map(str, range(1, parts + 1)), "all"]
    value, error = _mean_and_error(each)
    weights = pd.concat(
        [
            pd.DataFrame({"order": order, "part": names, "accuracy": accuracy, "weight": value[i], "error": error[i]})
            for i, order in enumerate(ORDERS)
        ],
        ignore_index=True,
    )
    bias, bias_error = _mean_and_error(each[:, 0] - each[:, 1])
    blur, blur_error = _mean_and_error(each[:, 1] - each[:, 2])
    gaps = {"bias": bias, "bias_error": bias_error, "blur": blur, "blur_error": blur_error}
    return weights, pd.DataFrame({"part": names, "accuracy": accuracy} | gaps)


def _mean_and_error(batches: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first dimension."""
    return batches.mean(0).numpy(), (batches.std(0) / math.sqrt(len(batches))).numpy()
