"""The optimiser's updates of one training step: scores, surrogate, gradient, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from riskpo_study import diagnostics, surrogates
from riskpo_study.algorithms import Algorithm
from riskpo_study.config import Train
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
        self.optimizer = torch.optim.AdamW(
            policy.model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, partial(_rate, train))

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return float(self.scheduler.get_last_lr()[0])

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
        mask = learned.mask  # (Q, G, T)
        compared = torch.arange(0, len(old), 1 if self.train.kl_coefficient else _KL_SHARE)
        reference = self.scored(self.reference, learned.select(compared))
        weights, log_probs, entropies = torch.zeros_like(old), torch.zeros_like(old), torch.zeros_like(old)
        ratios, clipped = torch.ones_like(old), torch.zeros_like(old, dtype=torch.int8)
        losses, norms = [], []
        for questions in mini_batches:
            weights[questions] = surrogates.token_weights(
                self.algorithm.aggregation, mask[questions].flatten(0, 1), self.train.max_new_tokens, mask.shape[1]
            ).view_as(mask[questions])
            loss = 0.0
            for rows, teaches in self._passes(questions, learned.lengths, advantages):
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
            norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.train.max_grad_norm).item()
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise NonFiniteError(loss, norm, self.learning_rate)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            losses.append(loss)
            norms.append(norm)

        unseen = mini_batches[-1]
        moved = surrogates.kl_k3(old[unseen], log_probs[unseen])
        return {
            "loss": sum(losses) / len(losses),
            "gradient/norm": sum(norms) / len(norms),
            "learning_rate": self.learning_rate,
            # What the updates before the last one changed, on questions that they have not learned from.
            "kl/step": diagnostics.masked_mean(moved, mask[unseen]) if len(mini_batches) > 1 else math.nan,
            "kl/base": diagnostics.masked_mean(surrogates.kl_k3(old[compared], reference), mask[compared]),
            **diagnostics.update_metrics(entropies, ratios, clipped, mask, right),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    @torch.no_grad()
    def scored(self, policy: Policy, responses: Responses) -> Tensor:
        """(Q, G, T) log-probabilities that a policy gives to responses, a micro-batch at a time."""
        rows = torch.arange(len(responses.prompts)).split(self.train.micro_batch)
        parts = (responses.select(part) for part in rows)
        return torch.cat([policy.score(part, self.train.temperature).log_probs for part in parts])

    def _passes(self, questions: Tensor, lengths: Tensor, advantages: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """The micro-batches of a mini-batch, and whether they have a gradient.

        Questions whose advantages are all zero have none, and are scored for the metrics alone.
        """
        teaches = (advantages[questions] != 0).any(1)
        if self.train.kl_coefficient or not teaches.any():  # without any gradient AdamW would not follow its momentum
            teaches[:] = True
        for chosen in (True, False):
            part = questions[teaches == chosen]
            by_length = lengths[part].sum(1).argsort(stable=True)  # like with like: less padding
            yield from ((rows, chosen) for rows in part[by_length].split(self.train.micro_batch) if len(rows))


def _rate(train: Train, updates: int) -> float:
    """Share of the learning rate for the update after so many: a linear warm-up, then constant or half a cosine."""
    if updates < train.warmup_steps:
        return (updates + 1) / (train.warmup_steps + 1)
    if train.schedule == "constant":
        return 1.0
    done = (updates - train.warmup_steps) / (train.steps * train.mini_batches - train.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
