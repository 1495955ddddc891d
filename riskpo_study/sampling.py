"""Responses to evaluation questions, as tidy frames: one row a sample, then one row a question."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from riskpo_study import distributed, seeds
from riskpo_study.evaluation import maj_at_k
from riskpo_study.policy import NOTHING, Policy, Responses, Scores
from riskpo_study.rollouts import Engine
from riskpo_study.tasks.protocol import Question, Task, verdicts

_SCORED_TOGETHER = 64
_ROWS_AT_A_TIME = 1024  # responses generated together: bounds the memory of the cache


def sample_batches(
    policy: Policy,
    engine: Engine,
    task: Task,
    questions: Sequence[Question],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Iterator[pd.DataFrame]:
    """Draw `samples` responses to each question and score them, some questions at a time.

    Yields:
        Frames with the columns question_id, difficulty, sample, response, reward, answer (None where it does not
        parse), log_prob (of the response, nats), entropy (mean over its tokens, nats), length (tokens), finish_reason.
        The samples of a question depend on `seed` and on the questions of its batch. Of several processes each yields
        its share of the batches.
    """
    size = max(1, _ROWS_AT_A_TIME // samples)
    starts = range(0, len(questions), size)
    mine = distributed.share(starts)
    for start in mine:
        part = questions[start : start + size]
        generation = engine.generate(
            policy.encode([task.prompt(question) for question in part]),
            samples,
            temperature,
            max_new_tokens,
            seeds.generator(seed, "evaluation", start),
        )
        scores = _scored(policy, generation, temperature)
        texts = policy.decode(generation)
        log_prob = scores.log_probs.sum(2).tolist()
        entropy = (scores.entropies.sum(2) / generation.lengths).tolist()
        lengths, finished = generation.lengths.tolist(), generation.finished.tolist()
        judged = verdicts(task, part, texts)
        rows = []
        for q, question in enumerate(part):
            for s, (text, verdict) in enumerate(zip(texts[q], judged[q], strict=True)):
                reason = "stop" if finished[q][s] else "length"
                said = question.id, question.difficulty, s, text, verdict.reward, verdict.answer
                rows.append((*said, log_prob[q][s], entropy[q][s], lengths[q][s], reason))
        yield pd.DataFrame(rows, columns=SAMPLE_COLUMNS)
    if len(mine) * distributed.size() < len(starts):  # others have one batch more
        policy.score_passes(NOTHING, temperature, [])


def _scored(policy: Policy, responses: Responses, temperature: float) -> Scores:
    """`policy.score` without gradient, a few responses a row: attention grows with the square of its length."""
    size = 1 if policy.layout == "packed" else math.gcd(responses.tokens.shape[1], _SCORED_TOGETHER)
    parts = responses.regrouped(size)
    passes = policy.passes(parts, torch.arange(len(parts.prompts)), len(parts.prompts))
    return Scores(*(score.view_as(responses.tokens) for score in policy.score_passes(parts, temperature, passes)))


SAMPLE_COLUMNS = [
    "question_id", "difficulty", "sample", "response", "reward", "answer",
    "log_prob", "entropy", "length", "finish_reason",
]  # fmt: skip


def counts(samples: pd.DataFrame) -> pd.DataFrame:
    """One row a question from the samples of one policy, in the order of first appearance.

    Columns: question_id, difficulty, n, correct (reward of 1), distinct_correct (different right answers), majority
    (Maj@n: probability that the most frequent answer is right), unparsed, entropy (mean, nats), log_prob (mean, nats),
    length (mean, tokens).
    """
    rows = []
    for (question, difficulty), group in samples.groupby(["question_id", "difficulty"], sort=False):
        right = group["reward"] >= 1.0
        answers = [answer if isinstance(answer, str) else None for answer in group["answer"]]
        rows.append({
            "question_id": question,
            "difficulty": difficulty,
            "n": len(group),
            "correct": int(right.sum()),
            "distinct_correct": group.loc[right, "answer"].nunique(),
            "majority": maj_at_k(answers, right.tolist(), len(group)),
            "unparsed": answers.count(None),
            "entropy": group["entropy"].mean(),
            "log_prob": group["log_prob"].mean(),
            "length": group["length"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)
