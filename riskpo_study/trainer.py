"""The training step: sample, generate, verify, estimate advantages, update.

Read `Trainer.step` from top to bottom. The trainer knows no algorithm by name.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from riskpo_study import bundles, diagnostics, distributed, seeds, surrogates
from riskpo_study.advantages import overlong_penalty
from riskpo_study.algorithms import Algorithm, RiskSettings
from riskpo_study.config import Train
from riskpo_study.errors import RunError
from riskpo_study.policy import Policy, Responses
from riskpo_study.rollouts import Engine, Generation
from riskpo_study.tasks.protocol import Question, Task, verdicts
from riskpo_study.update import NonFiniteError, Updater

_RESAMPLING_ROUNDS = 10  # dynamic sampling gives up after these; the batch is then filled with uninformative questions


@dataclass(frozen=True)
class Batch:
    """One step's responses: all that were generated, and which of them are learned from."""

    questions: Sequence[Question]
    generation: Generation
    rewards: Tensor  # (questions, G) float64, as verified
    kept: Tensor  # (Q,) indices of the questions that are learned from


@dataclass(frozen=True)
class StepResult:
    """What one step leaves behind."""

    metrics: dict[str, float]
    rollouts: pd.DataFrame
    timings: dict[str, float]


class Trainer:
    """Trains a policy with one algorithm. After k calls of `step` the state depends on (configuration, seed, k) alone.

    Args:
        policy: the policy, updated in place.
        reference: the base model that the KL divergence is measured to; never updated.
        engine: draws the responses; `engine.sync(policy)` is called after every update.
        task: asks the questions and verifies the responses.
        algorithm: from `algorithms.build`.
        train: section of the configuration.
        seed: of all randomness of the run.
        folder: where a batch that produced a non-finite loss or gradient is written.
        shards: equal pieces in which a step's questions are answered, each with randomness of its own, so that the
            responses do not depend on how many processes share them.
        importance_cap: corrects for an engine that is not exact, see `surrogates.truncated_importance`; 0 does not.
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        engine: Engine,
        task: Task,
        algorithm: Algorithm,
        train: Train,
        seed: int,
        folder: Path,
        importance_cap: float = 0.0,
        shards: int = 1,
    ) -> None:
        self.policy, self.engine, self.task, self.algorithm = policy, engine, task, algorithm
        self.train, self.seed, self.folder = train, seed, folder
        self.importance_cap, self.shards = importance_cap, shards
        self.updater = Updater(policy, reference, algorithm, train)
        self.steps_done = 0

    def step(self) -> StepResult:
        """One step: responses to `train.questions` questions, then one update for each mini-batch."""
        clock = _Clock()
        with self.engine.drawing():
            batch = self._collect(clock)
        as_asked = batch.rewards[batch.kept]  # (Q, G)
        order = self.algorithm.estimator.order(as_asked)
        batch = replace(batch, kept=batch.kept[order])
        learned, rewards = batch.generation.select(batch.kept), as_asked[order]
        permutation = self._bundled(rewards, self.algorithm.risk)
        advantages = self.algorithm.estimator(rewards + self._penalty(learned.lengths), permutation)  # (Q, G)
        yardstick = self.algorithm.yardstick
        risk_metrics = diagnostics.risk_metrics(as_asked, self._bundled(as_asked, yardstick), yardstick)
        with clock.phase("update"):
            self.engine.rest()
            old, importance, mismatch = self._reconciled(learned, batch.generation.log_probs[batch.kept])
            # A mini-batch is a random part of the questions, also where they are lined up by accuracy.
            mini_batches = order.argsort().chunk(self.train.mini_batches)
            try:
                update = self.updater.update(
                    learned, old, advantages, diagnostics.is_right(rewards), mini_batches, importance
                )
            except NonFiniteError as error:
                raise self._stopped(error, learned, rewards, advantages) from error
            self.engine.sync(self.policy)
        self.steps_done += 1

        log_probs = batch.generation.log_probs.sum(2).double()  # (questions, G), of whole responses
        metrics = {
            "step": self.steps_done,
            **diagnostics.generation_metrics(
                batch.rewards,
                [question.difficulty for question in batch.questions],
                log_probs,
                batch.generation.lengths,
                batch.generation.finished,
                self.task.difficulties,
            ),
            **diagnostics.bundle_metrics(
                rewards,
                advantages,
                log_probs[batch.kept],
                permutation,
                self.algorithm.estimator.quantiles,
                self.algorithm.risk,
            ),
            **risk_metrics,
            **update,
            **mismatch,
        }
        tokens = int(batch.generation.lengths.sum())
        return StepResult(metrics, self._rollouts(batch, permutation, advantages), {
            "step": self.steps_done, **clock.seconds, "seconds/step": clock.total,
            "tokens_per_second": tokens / clock.total,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        })  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All but the model's weights, for the main process; all call it together.

        Generators are derived from (seed, step), so the step stands for them too.
        """
        return {
            "steps_done": self.steps_done,
            "seed": self.seed,
            "updater": self.updater.state_dict(),
            "estimator": self.algorithm.estimator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; the policy must already hold the weights of that moment."""
        self.steps_done = state["steps_done"]
        self.updater.load_state_dict(state["updater"])
        self.algorithm.estimator.load_state_dict(state["estimator"])

    def _bundled(self, rewards: Tensor, settings: RiskSettings) -> Tensor:
        """The step's permutation (N, B, G) of responses with rewards (Q, G)."""
        questions, responses = rewards.shape
        generator = seeds.generator(self.seed, "bundles", self.steps_done)
        return bundles.permutations(questions, responses, settings.bundle_size, generator)

    def _collect(self, clock: _Clock) -> Batch:
        """Generate until `train.questions` questions can be learned from (all can, without dynamic sampling)."""
        questions: list[Question] = []
        parts: list[Generation] = []
        rewards = torch.empty(0, self.train.responses, dtype=torch.float64)
        wanted = self.train.questions
        for attempt in range(_RESAMPLING_ROUNDS):
            asked = self.task.sample(wanted, seeds.generator(self.seed, "questions", self.steps_done, attempt))
            size = -(-wanted // self.shards)
            pieces = [(start, asked[start : start + size]) for start in range(0, wanted, size)]
            mine = [self._answered(piece, (attempt, start), clock) for start, piece in distributed.share(pieces)]
            for part, verified in distributed.gathered(mine):
                parts.append(part)
                rewards = torch.cat([rewards, verified])
            questions += asked
            right = diagnostics.is_right(rewards)
            informative = right.any(1) & ~right.all(1)  # 0 < correct < G
            if not self.algorithm.dynamic_sampling or informative.sum() >= wanted:
                break
        if self.algorithm.dynamic_sampling:
            kept = torch.cat([informative.nonzero(), (~informative).nonzero()]).squeeze(1)[:wanted]
        else:
            kept = torch.arange(wanted)
        return Batch(questions, _joined(parts), rewards, kept)

    def _answered(
        self, questions: Sequence[Question], piece: tuple[int, int], clock: _Clock
    ) -> tuple[Generation, Tensor]:
        """Responses to some questions, and their rewards (questions, G) float64."""
        attempt, start = piece
        purpose = (attempt, start) if self.shards > 1 else (attempt,)
        with clock.phase("generate"):
            generation = self.engine.generate(
                self.policy.encode([self.task.prompt(question) for question in questions]),
                self.train.responses,
                self.train.temperature,
                self.train.max_new_tokens,
                seeds.generator(self.seed, "rollouts", self.steps_done, *purpose),
            )
        with clock.phase("verify"):
            judged = verdicts(self.task, questions, self.policy.decode(generation))
        rewards = [[verdict.reward for verdict in row] for row in judged]
        return generation, torch.tensor(rewards, dtype=torch.float64)

    def _reconciled(self, learned: Responses, sampled: Tensor) -> tuple[Tensor, Tensor | None, dict[str, float]]:
        """What an engine's log-probabilities mean to the policy.

        Returns:
            Log-probabilities (Q, G, T) under the policy before its update, importance weights (Q, G, T) of the tokens
            or None for 1, and metrics of how far the engine was off. An exact engine was not.
        """
        if self.engine.exact:
            return sampled, None, {}
        old = self.updater.scored(self.policy, learned)
        importance = surrogates.truncated_importance(old, sampled, self.importance_cap) if self.importance_cap else None
        return old, importance, diagnostics.mismatch_metrics(old, sampled, learned.mask)

    def _penalty(self, lengths: Tensor) -> Tensor | float:
        margin = round(self.algorithm.overlong_margin * self.train.max_new_tokens)
        return overlong_penalty(lengths, self.train.max_new_tokens, margin) if margin else 0.0

    def _stopped(self, error: NonFiniteError, learned: Responses, rewards: Tensor, advantages: Tensor) -> RunError:
        """Writes the batch to disk and says where it is."""
        step = self.steps_done + 1
        path = self.folder / f"failed-step-{step:06d}.pt"
        found = {"step": step, "loss": error.loss, "gradient_norm": error.norm}
        if distributed.is_main():
            torch.save(found | {"rewards": rewards, "advantages": advantages} | learned.plain(), path)
        return RunError(
            f"step {step}: the loss is {error.loss} and the gradient's norm {error.norm}; training stopped before the "
            f"update. The batch is in {path}. A smaller learning rate (now {error.rate:g}) is the usual remedy"
        )

    def _rollouts(self, batch: Batch, permutation: Tensor, advantages: Tensor) -> pd.DataFrame:
        """One row a response; bundle is −1 and the advantage NaN where dynamic sampling left the question out."""
        generation = batch.generation
        questions, group, _ = generation.tokens.shape
        bundle = torch.full((questions, group), -1)
        bundle[batch.kept] = bundles.scatter(torch.arange(permutation.shape[0] * group).view(-1, 1, group), permutation)
        advantage = torch.full((questions, group), torch.nan, dtype=torch.float64)
        advantage[batch.kept] = advantages
        return pd.DataFrame({
            "step": self.steps_done,
            "question_id": [question.id for question in batch.questions for _ in range(group)],
            "difficulty": [question.difficulty for question in batch.questions for _ in range(group)],
            "response": torch.arange(group).repeat(questions).numpy(),
            "bundle": bundle.flatten().numpy(),
            "reward": batch.rewards.flatten().numpy(),
            "advantage": advantage.flatten().numpy(),
            "log_prob": generation.log_probs.sum(2).flatten().numpy(),
            "length": generation.lengths.flatten().numpy(),
            "finish_reason": ["stop" if stopped else "length" for stopped in generation.finished.flatten().tolist()],
        })  # fmt: skip


def _joined(parts: Sequence[Generation]) -> Generation:
    """Generations of several rounds as one, padded to the longest."""
    if len(parts) == 1:
        return parts[0]
    longest = max(part.tokens.shape[2] for part in parts)

    def padded(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, longest - tensor.shape[2]))

    return Generation(
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        tokens=torch.cat([padded(part.tokens) for part in parts]),
        lengths=torch.cat([part.lengths for part in parts]),
        log_probs=torch.cat([padded(part.log_probs) for part in parts]),
        finished=torch.cat([part.finished for part in parts]),
    )


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds = {"seconds/generate": 0.0, "seconds/verify": 0.0, "seconds/update": 0.0}
        self._start = time.perf_counter()

    @property
    def total(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{name}"] += time.perf_counter() - start
