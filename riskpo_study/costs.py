"""What a profile takes on GPUs: memory, time, money and disk, worked out from the model's size and token counts.

Nothing here is measured. What the code does (who holds what, what is scored again, what is written) is read from the
code; how fast a GPU does it rests on `gpus`, which names its sources. Written for models of the Qwen2 family trained in
bfloat16 with packed responses and vLLM, as `paper_hard` and `paper_easy` are.

`riskpo_study.cost_tables` prints it. Units: bytes, seconds, flop.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from riskpo_study import checkpoints, log_probs, model_evaluation, model_shapes, sampling, update
from riskpo_study.algorithms import ALGORITHMS, preset_name
from riskpo_study.config import Config
from riskpo_study.datasets import DATASETS
from riskpo_study.errors import ConfigError
from riskpo_study.gpus import ASSUMED, GPUS, UPDATE_TRAFFIC, Assumptions, Engine, Gpu
from riskpo_study.model_shapes import Shape

__all__ = ["Estimate", "Stage", "estimates"]

CHECKED_QUESTIONS, CHECKED_SAMPLES = 40, 64
"""Parameters of notebooks/01_base_model.ipynb: development questions of each difficulty, and responses to each."""


@dataclass(frozen=True)
class Stage:
    """Equal runs of one stage of the pipeline."""

    name: str
    runs: int
    gpus: int
    """That one run keeps busy."""
    seconds: float
    """That one run takes."""

    def hours(self) -> float:
        """GPU hours of all runs."""
        return self.runs * self.gpus * self.seconds / 3600


@dataclass(frozen=True)
class Estimate:
    """The costs of a configuration with a model on a machine of `hardware.processes` GPUs.

    Raises:
        ConfigError: for a configuration that the formulas do not describe.
    """

    config: Config
    shape: Shape
    gpu: Gpu
    assumed: Assumptions

    def __post_init__(self) -> None:
        _refuse_undescribed(self.config)

    @property
    def gpus(self) -> int:
        """Of the machine."""
        return self.config.hardware.processes

    @property
    def response(self) -> float:
        """Mean length of a response, tokens."""
        return self.assumed.response_share * self.config.train.max_new_tokens

    @property
    def scored(self) -> int:
        """Tokens of a mean response, each of which is scored."""
        return round(self.response)

    @property
    def length(self) -> int:
        """Mean length of prompt and response, tokens."""
        return self.assumed.prompt + self.scored

    @property
    def engine(self) -> Engine:
        """The vLLM of one process."""
        share = self.config.rollouts.gpu_memory
        return Engine(self.shape, self.gpu, self.assumed, memory_share=share, sequences=self.gpu.sequences)

    # Memory

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes on one GPU by moment and part.

        Every process holds the whole model and a reference, 2 bytes a parameter each, and, for the optimiser, a float32
        copy (4) and AdamW's two moments (8, and a counter for each tensor). Gradients are added up in bfloat16 (2); for
        the all-reduce and the step `Optimizer.gather` makes them float32 (4). vLLM takes its share of the GPU while it
        is awake, that is, except in the update. The final evaluation loads the model alone.
        """
        n = self.shape.parameters
        optimiser = {"float32 weights": 4.0 * n, "AdamW": 8.0 * n + 4 * self.shape.tensors}
        held = {"bfloat16 weights": 4.0 * n, **optimiser}
        awake = {"vLLM": self.engine.memory_share * self.gpu.memory}
        scoring = {"activations": self.activations(gradient=False), "logits": self.logits(gradient=False)}
        learning = {"activations": self.activations(gradient=True), "logits": self.logits(gradient=True)}
        moments = {
            "generation": {**held, **awake},
            "learning curve": {**held, **scoring, **awake},
            "backward pass": {**held, "gradients": 2.0 * n, **learning},
            "optimiser's step": {**held, "gradients": 6.0 * n},
            "final evaluation": {"bfloat16 weights": 2.0 * n, **scoring, **awake},
        }
        return {name: {**parts, "reserve": self.assumed.reserve} for name, parts in moments.items()}

    def peak(self) -> float:
        """Most bytes at any moment."""
        return max(sum(parts.values()) for parts in self.memory().values())

    def activations(self, gradient: bool) -> float:
        """Bytes of one pass of `hardware.tokens` tokens, the output layer left out."""
        hardware = self.config.hardware
        return self.shape.activations(hardware.tokens, gradient, hardware.gradient_checkpointing)

    def logits(self, gradient: bool) -> float:
        """Bytes of `log_probs.token_scores`: 16 for each logit that is held at a time, and, in the backward pass, the
        gradients of the head (2 a weight) and, in float32, of the hidden states."""
        held = 16.0 * log_probs.LOGITS
        if not gradient:
            return held
        return held + 2 * self.shape.embedding + 4 * self.config.hardware.tokens * self.shape.hidden

    def fits(self) -> bool:
        """Whether no moment takes more than a GPU has, and a longest response has room in vLLM's cache."""
        longest = self.config.rollouts.max_model_len or self.assumed.prompt + self.config.train.max_new_tokens
        return self.peak() <= self.gpu.memory and self.engine.cached_tokens() >= longest

    # Time

    def step(self, dynamic_sampling: bool = False) -> dict[str, float]:
        """Seconds of one training step by phase.

        All questions are answered by vLLM, once, or with dynamic sampling `Assumptions.dynamic_draws` times; the
        responses are judged, scored again by the policy (vLLM is not exact), a tenth of them by the reference (all with
        a KL penalty), and learned from. Every so many steps a checkpoint is written while the others wait.
        """
        train, hardware = self.config.train, self.config.hardware
        answers = train.questions * train.responses
        draws = self.assumed.dynamic_draws if dynamic_sampling else 1.0
        pieces = hardware.shards / self.gpus  # that a process answers one after the other
        compared = answers if train.kl_coefficient else answers / update._KL_SHARE
        per_update = answers / train.mini_batches
        judged = answers / self.gpus / (self.config.math.workers * self.assumed.judged)
        return {
            "generate": draws * pieces * self.generate(answers / hardware.shards),
            "judge": draws * judged,
            "score again": self.score(answers, self.gpus),
            "reference": self.score(compared, self.gpus),
            "learn": train.mini_batches * self.learn(per_update),
            "optimiser": train.mini_batches * self.optimiser(),
            "vLLM's sleep": self.assumed.switch_seconds,
            "checkpoint": 2 * self.checkpoint() / self.assumed.disk / train.checkpoint_every,
        }

    def generate(self, responses: float) -> float:
        """Seconds in which one vLLM answers so many questions at once."""
        return self.engine.generate(responses, self.response, self.config.train.max_new_tokens)

    def score(self, responses: float, gpus: int) -> float:
        """Seconds in which so many GPUs score so many responses."""
        return self._passes(sum(self.shape.forward_flop(self.length, self.scored)), responses, gpus)

    def learn(self, responses: float) -> float:
        """Seconds in which all GPUs learn from so many responses.

        The backward pass computes the logits again, whether it does so with the blocks or not.
        """
        _, _, head = self.shape.forward_flop(self.length, self.scored)
        checkpointing = self.config.hardware.gradient_checkpointing
        flop = self.shape.learning_flop(self.length, self.scored, checkpointing) + head
        return self._passes(flop, responses, self.gpus)

    def _passes(self, flop: float, responses: float, gpus: int) -> float:
        """Seconds of so many flop for each response, in passes of `hardware.tokens` tokens.

        Passes are dealt out one by one, so that the last round may leave GPUs idle.
        """
        passes = ceil(responses * self.length / self.config.hardware.tokens)
        idle = ceil(passes / gpus) * gpus / passes
        return self.gpu.computing(idle * responses * flop / gpus)

    def optimiser(self) -> float:
        """Seconds of one update after its gradients.

        The all-reduce of n GPUs sends 2 (n − 1) / n times the float32 gradients (ring algorithm; NVIDIA's nccl-tests,
        doc/PERFORMANCE.md).
        """
        sent = 2 * (self.gpus - 1) / self.gpus * 4 * self.shape.parameters
        return self.gpu.reading(UPDATE_TRAFFIC * self.shape.parameters) + self.gpu.sending(sent)

    def answering(self, questions: int, samples: int, gpus: int) -> float:
        """Seconds in which policy and vLLM answer, score and judge evaluation questions: `sampling.sample_batches`.

        A batch has about a thousand responses and is one GPU's; every response is scored, for its entropy.
        """
        asked = max(1, sampling._ROWS_AT_A_TIME // samples)
        batch = min(asked, questions) * samples
        judged = batch / (self.config.math.workers * self.assumed.judged)
        return ceil(ceil(questions / asked) / gpus) * (self.generate(batch) + self.score(batch, 1) + judged)

    def run(self, dynamic_sampling: bool = False) -> float:
        """Seconds of a training run: its steps, its learning curve and the start."""
        train = self.config.train
        points = 1 + ceil(train.steps / train.evaluate_every)
        curve = self.answering(
            sum(min(train.curve_questions, n) for n in self.benchmarks()), train.curve_samples, self.gpus
        )
        return self.assumed.start_seconds + train.steps * sum(self.step(dynamic_sampling).values()) + points * curve

    def checking(self) -> float:
        """Seconds in which the notebook of the base model, on one GPU, has it answer development questions."""
        asked = CHECKED_QUESTIONS * len(self.config.math.training)
        return self.assumed.start_seconds + self.answering(asked, CHECKED_SAMPLES, 1)

    def evaluation(self, earlier: int) -> float:
        """Seconds of the final evaluation of a run, on one GPU: its last model, and so many saved before it."""
        samples, questions = self.config.evaluation.samples, sum(self.benchmarks())
        fewer = min(model_evaluation._EARLIER_SAMPLES, samples)
        last, each = self.answering(questions, samples, 1), self.answering(questions, fewer, 1)
        return self.assumed.start_seconds + last + earlier * each

    def stages(self) -> list[Stage]:
        """What runs on GPUs, in the pipeline's order. The rest (records, figures, tables) takes minutes on the CPU."""
        runs = self.config.runs.all
        kinds = Counter(
            ALGORITHMS[preset_name(name, self.config.algorithms[name])].dynamic_sampling for name, _ in runs
        )
        labels = {False: "train", True: "train, dynamic sampling"}
        return [
            Stage("base_model", 1, 1, self.checking()),
            Stage("evaluate_base", 1, 1, self.evaluation(0)),
            *(Stage(labels[kind], kinds[kind], self.gpus, self.run(kind)) for kind in sorted(kinds)),
            Stage("evaluate", len(runs), 1, self.evaluation(self.snapshots() - 1)),
        ]

    # What the configuration comes to

    def benchmarks(self) -> list[int]:
        """How many questions each of them has."""
        return [min(DATASETS[name].questions, self.config.task.questions) for name in self.config.math.evaluation]

    def snapshots(self) -> int:
        """How many models a finished run keeps."""
        return ceil(self.config.train.steps / self.config.train.snapshot_every)

    def checkpoint(self) -> float:
        """Bytes of a checkpoint: the weights in bfloat16, their float32 copies and AdamW's state."""
        return 14.0 * self.shape.parameters + 4 * self.shape.tensors

    def disk(self) -> dict[str, float]:
        """Bytes on disk, and of host memory, by what takes them.

        A finished run keeps its snapshots and the text of every evaluation response; what rollouts.parquet holds, some
        50 bytes a response, is small. A run at work also has its last checkpoints, and one more while that is written.
        What the optimiser needs of it is put together in memory and read once more for its digests, and, when a run
        goes on, read by every process.
        """
        questions, train = sum(self.benchmarks()), self.config.train
        samples = self.config.evaluation.samples
        samples += (self.snapshots() - 1) * min(model_evaluation._EARLIER_SAMPLES, samples)
        text = self.assumed.text * self.response * questions * samples
        rollouts = 50.0 * train.steps * train.questions * train.responses
        run = self.snapshots() * 2.0 * self.shape.parameters + text + rollouts
        return {
            "a finished run": run,
            "a run at work, besides": (checkpoints._KEPT + 1) * self.checkpoint(),
            "all runs": 2.0 * self.shape.parameters + len(self.config.runs.all) * run,
            "host memory to save and to go on": max(2, self.gpus) * 12.0 * self.shape.parameters,
        }


def estimates(settings: Config) -> dict[str, Estimate]:
    """Of a configuration on each of `GPUS`."""
    _refuse_undescribed(settings)
    name = settings.base_model.pretrained
    shape = model_shapes.published(name, settings.base_model.revision)
    return {gpu: Estimate(settings, shape, GPUS[gpu], ASSUMED.get(name, Assumptions())) for gpu in GPUS}


def _refuse_undescribed(settings: Config) -> None:
    found = {
        "task.name": (settings.task.name, "math"),
        "train.layout": (settings.train.layout, "packed"),
        "rollouts.engine": (settings.rollouts.engine, "vllm"),
        "rollouts.dtype": (settings.rollouts.dtype, "bfloat16"),
        "rollouts.tensor_parallel_size": (settings.rollouts.tensor_parallel_size, 1),
        "hardware.dtype": (settings.hardware.dtype, "bfloat16"),
        "hardware.shard_weights": (settings.hardware.shard_weights, False),
        "the number of tuning.candidates": (len(settings.tuning.candidates), 1),
    }
    for key, (value, described) in found.items():
        if value != described:
            raise ConfigError(f"costs are worked out for {key} = {described!r}, as in paper_hard, not {value!r}.")
