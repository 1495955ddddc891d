"""The optimiser's updates of one training step: scores, surrogate, gradient, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from riskpo_study import diagnostics, distributed, surrogates
from riskpo_study.algorithms import Algorithm
from riskpo_study.config import Train
from riskpo_study.optimizer import Optimizer
from riskpo_study.policy import Policy, Responses

# One question in so many measures the divergence from the base model; a penalty on it needs them all. They are evenly
# spaced, for stratified bundling lines the questions up by accuracy, and dynamic sampling puts informative ones first.
_KL_SHARE = 10


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is not finite; the policy is as it was before."""

    def __init__(self, loss: float, norm: float, rate: float) -> None:
        super().__init__(loss, norm, rate)
        self.loss, self.norm, self.rate = loss, norm, rate


class Updater:
    """Improves a policy on responses with advantages, and tells how.

    Args:
        policy: updated in place.
        reference: the base model that the KL divergence is measured to; never updated.
        algorithm: of which the surrogate and the aggregation are used.
        train: section of the configuration.
    """

    def __init__(self, policy: Policy, reference: Policy, algorithm: Algorithm, train: Train) -> None:
        self.policy, self.reference, self.algorithm, self.train = policy, reference, algorithm, train
        self.optimizer = Optimizer(policy.model.parameters(), train)

    def update(
        self,
        learned: Responses,
        old: Tensor,
        advantages: Tensor,
        right: Tensor,
        mini_batches: Sequence[Tensor],
        importance: Tensor | None = None,
    ) -> dict[str, float]:
        """One optimiser step for each mini-batch; gradients add up over its micro-batches.

        Args:
            learned: G responses to each of Q questions.
            old: (Q, G, T) log-probabilities under the policy before its update.
            advantages: (Q, G).
            right: (Q, G) bool, for the metrics.
            mini_batches: indices of questions.
            importance: (Q, G, T) factors of the tokens' objectives; None for 1.

        Returns:
            Metrics, see `diagnostics.update_metrics`.

        Raises:
            NonFiniteError: before the optimiser's step.
        """
        group = learned.tokens.shape[1]
        if self.policy.layout == "packed":  # a pass takes responses, not questions, as many as fit
            learned = learned.regrouped(1)
            old, right, advantages = old.flatten(0, 1)[:, None], right.view(-1, 1), advantages.reshape(-1, 1)
            importance = None if importance is None else importance.flatten(0, 1)[:, None]
            mini_batches = [(part[:, None] * group + torch.arange(group)).flatten() for part in mini_batches]
        mask = learned.mask  # (Q, G, T), packed (Q·G, 1, T)
        compared = torch.arange(0, len(old), 1 if self.train.kl_coefficient else _KL_SHARE)
        reference = self.scored(self.reference, learned.select(compared))
        weights, log_probs, entropies = torch.zeros_like(old), torch.zeros_like(old), torch.zeros_like(old)
        ratios, clipped = torch.zeros_like(old), torch.zeros_like(old, dtype=torch.int8)
        losses, norms = [], []
        for questions in mini_batches:
            weights[questions] = surrogates.token_weights(
                self.algorithm.aggregation, mask[questions].flatten(0, 1), self.train.max_new_tokens, group
            ).view_as(mask[questions])
            loss = torch.zeros((), dtype=torch.float64)
            for rows, teaches in distributed.share(self._passes(questions, learned, advantages)):
                with torch.set_grad_enabled(teaches):
                    scores = self.policy.score(learned.select(rows), self.train.temperature)
                    objective = self.algorithm.surrogate(
                        scores.log_probs.flatten(0, 1),
                        old[rows].flatten(0, 1),
                        advantages[rows].flatten().to(old.dtype),
                        mask[rows].flatten(0, 1),
                    )
                    value = objective.value.view_as(mask[rows])
                    if importance is not None:
                        value = value * importance[rows]
                    if self.train.kl_coefficient:
                        penalty = surrogates.kl_k3(scores.log_probs, reference[rows])
                        value = value - self.train.kl_coefficient * penalty
                    part_loss = -(weights[rows] * value).sum()
                if teaches:
                    part_loss.backward()
                loss += part_loss.item()
                log_probs[rows], entropies[rows] = scores.log_probs.detach(), scores.entropies
                ratios[rows] = objective.ratio.detach().view_as(mask[rows]).to(ratios.dtype)
                clipped[rows] = objective.clipped.view_as(mask[rows])
            norm = self.optimizer.gather()
            distributed.add_up(loss)
            if not loss.isfinite() or not math.isfinite(norm):
                raise NonFiniteError(loss.item(), norm, self.optimizer.learning_rate)
            self.optimizer.step()
            losses.append(loss.item())
            norms.append(norm)

        distributed.add_up(log_probs, entropies, ratios, clipped)
        unseen = mini_batches[-1]
        moved = surrogates.kl_k3(old[unseen], log_probs[unseen])
        return {
            "loss": sum(losses) / len(losses),
            "gradient/norm": sum(norms) / len(norms),
            "learning_rate": self.optimizer.learning_rate,
            # What the updates before the last one changed, on questions that they have not learned from.
            "kl/step": diagnostics.masked_mean(moved, mask[unseen]) if len(mini_batches) > 1 else math.nan,
            "kl/base": diagnostics.masked_mean(surrogates.kl_k3(old[compared], reference), mask[compared]),
            **diagnostics.update_metrics(entropies, ratios, clipped, mask, right),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def scored(self, policy: Policy, responses: Responses) -> Tensor:
        """(Q, G, T) log-probabilities that a policy gives to responses, a micro-batch at a time."""
        parts = responses.regrouped(1) if policy.layout == "packed" else responses
        passes = policy.passes(parts, torch.arange(len(parts.prompts)), self.train.micro_batch)
        log_probs = policy.score_passes(parts, self.train.temperature, distributed.share(passes)).log_probs
        distributed.add_up(log_probs)
        return log_probs.view_as(responses.tokens)

    def _passes(self, questions: Tensor, learned: Responses, advantages: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """The micro-batches of a mini-batch, and whether they have a gradient.

        Questions whose advantages are all zero have none, and are scored for the metrics alone.
        """
        teaches = (advantages[questions] != 0).any(1)
        if self.train.kl_coefficient or not teaches.any():  # without any gradient AdamW would not follow its momentum
            teaches[:] = True
        for chosen in (True, False):
            part = questions[teaches == chosen]
            by_length = learned.lengths[part].sum(1).argsort(stable=True)  # like with like: less padding
            passes = self.policy.passes(learned, part[by_length], self.train.micro_batch)
            passes = [rows for rows in passes if len(rows)]
            if self.policy.sharded:  # empty ones, so that all processes do the same at the same time
                passes += [part[:0]] * (-len(passes) % distributed.size())
            yield from ((rows, chosen) for rows in passes)
