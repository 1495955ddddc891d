"""What a profile takes on GPUs: memory, time, money and disk, worked out from the model's size and token counts.

Nothing here is measured. What the code does (who holds what, what is scored again, what is written) is read from the
code; how fast a GPU does it rests on `Gpu` and `Assumptions`, which name their sources. Written for models of the Qwen2
family trained in bfloat16 with packed responses and vLLM, as `paper_hard` and `paper_easy` are.

`riskpo_study.cost_tables` prints it. Units: bytes, seconds, flop.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from riskpo_study import checkpoints, log_probs, model_evaluation, sampling, update
from riskpo_study.algorithms import ALGORITHMS, preset_name
from riskpo_study.config import Config
from riskpo_study.datasets import DATASETS
from riskpo_study.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["ASSUMED", "GPUS", "MODELS", "Assumptions", "Estimate", "Gpu", "Shape", "Stage", "estimates"]

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model: what its number of parameters, its memory and its flop follow from."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    vocabulary: int
    tied: bool
    """Whether the output embedding is the input embedding."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> Shape:
        """Of a configuration of transformers. Raises ConfigError for another architecture than Qwen2."""
        if config.model_type != "qwen2":
            raise ConfigError(f"costs are worked out for models of type qwen2, not {config.model_type!r}.")
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=config.hidden_size // config.num_attention_heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )

    @property
    def kv_width(self) -> int:
        """Of the keys of a token in a block, and of its values."""
        return self.kv_heads * self.head_size

    @property
    def linear(self) -> int:
        """Weights of a block's matrices: query, key, value, output; gate, up, down."""
        attention = 2 * self.heads * self.head_size + 2 * self.kv_width
        return self.hidden * (attention + 3 * self.mlp)

    @property
    def embedding(self) -> int:
        """Weights of the input or of the output embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All: the blocks with biases of query, key and value and two norms each, the last norm, the embeddings.

        Source: `Qwen2ForCausalLM` of transformers.
        """
        biases_and_norms = self.heads * self.head_size + 2 * self.kv_width + 2 * self.hidden
        embeddings = self.embedding * (1 if self.tied else 2)
        return self.layers * (self.linear + biases_and_norms) + self.hidden + embeddings

    @property
    def tensors(self) -> int:
        """How many tensors these parameters are: twelve in a block."""
        return 12 * self.layers + (2 if self.tied else 3)

    def forward_flop(self, length: int, scored: int) -> tuple[float, float, float]:
        """Flop of one sequence of `length` tokens, of which `scored` are predicted: blocks, attention, output layer.

        A weight multiplies and adds once a token: 2 flop. Causal attention multiplies queries with half of the keys,
        and weights as many values: 2 × 2 × length / 2 flop for each channel and token. Sources: arXiv 2001.08361, table
        1; FlashAttention-2 (arXiv 2307.08691), section 4.1.
        """
        blocks = 2.0 * self.layers * self.linear * length
        attention = 2.0 * self.layers * self.heads * self.head_size * length**2
        return blocks, attention, 2.0 * self.embedding * scored

    def activations(self, tokens: int, gradient: bool, checkpointing: bool) -> float:
        """Bytes of one pass of so many tokens, the output layer left out.

        Counted from the operations of a Qwen2 block of hidden size D, MLP width F and key width K, 2 bytes a number
        and 4 within a norm, with flash attention. A block keeps for its backward pass 16 D of its two norms, 2 D each
        of queries and output of the attention, 4 K of keys and values, and 8 F of the MLP; the backward pass itself
        needs 4 F + 8 D more. With checkpointing only a block's input is kept, 2 D, and the rest of one block at a time.
        Without gradient there are 6 F and 9 D. tests/test_costs.py compares this with a real model's tensors.
        """
        d, f, k = self.hidden, self.mlp, self.kv_width
        block = 20 * d + 4 * k + 8 * f
        if not gradient:
            each = 6 * f + 9 * d
        elif checkpointing:
            each = self.layers * 2 * d + block + 4 * f + 8 * d
        else:
            each = self.layers * block + 4 * f + 8 * d
        return float(tokens * each)

    def learning_flop(self, length: int, scored: int, checkpointing: bool) -> float:
        """Flop of a forward and a backward pass of one sequence, and of what checkpointing computes again.

        The backward pass has twice the flop of the forward pass (arXiv 2001.08361), in flash attention 2.5 times (arXiv
        2307.08691, section 4.1). Checkpointing computes the blocks again, but for the last product of each, whose
        result nobody asks for.
        """
        blocks, attention, head = self.forward_flop(length, scored)
        again = blocks + attention - 2 * self.layers * self.mlp * self.hidden * length if checkpointing else 0.0
        return 3 * blocks + 3.5 * attention + 3 * head + again


MODELS = {
    # config.json of the two repositories.
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151_936, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 12, 2, 128, 8960, 151_936, tied=True),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU of a machine that connects its GPUs with NVLink."""

    memory: float
    """Bytes that CUDA offers of it."""
    flops: float
    """Peak of dense bfloat16 matrix products, flop/s."""
    share: float
    """Of that peak which training and scoring reach, recomputation counted."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """To the other GPUs in one direction, bytes/s."""
    sequences: int
    """How many vLLM answers at a time."""
    price: float
    """USD an hour."""


# Peaks, bandwidths and links: NVIDIA's data sheets of the SXM cards. Memory: what torch.cuda reports. Share: three
# quarters of the 40 % (H100) and 59 % (A100) that the tuned trainer of llm-foundry reaches with a model of 1.3 B
# parameters at 4096 tokens on eight of them (scripts/train/benchmarking/README.md). Sequences: the defaults of
# vllm/engine/arg_utils.py (0.32.0) for its class LLM. Price: middle of the on-demand prices of early 2026 in
# pricegpu.pages.dev/blog/h100-vs-a100-cloud-price.
GPUS = {
    "H100 80 GB": Gpu(79.1 * GIB, 989e12, 0.30, 3.35e12, 450e9, sequences=1024, price=3.2),
    "A100 80 GB": Gpu(79.1 * GIB, 312e12, 0.44, 2.04e12, 300e9, sequences=256, price=2.0),
}


@dataclass(frozen=True)
class Assumptions:
    """What neither the model nor the data sheet of a GPU says."""

    response: float = 1.0
    """Mean length of a response as a share of train.max_new_tokens; 1 is the upper bound."""
    prompt: int = 150
    """Mean length of a prompt in its chat template, tokens."""
    bandwidth: float = 0.6
    """Share of the memory's bandwidth that vLLM reaches when it reads weights and cache, and the optimiser."""
    link: float = 0.7
    """Share of the link's bandwidth that an all-reduce reaches."""
    token: float = 15e-6
    """Seconds of the CPU for a token that vLLM draws: scheduling, its own generator, its log-probability in Python."""
    tick: float = 3e-3
    """Seconds of the CPU and of small kernels for a step of vLLM, whatever its number of sequences."""
    draws: float = 2.5
    """How many times dynamic sampling asks a step's number of questions: about 40 % of them are informative."""
    answers: float = 150.0
    """Answers that a worker judges in a second: the aim of riskpo_study.verify is 300 with two."""
    switch: float = 3.0
    """Seconds to put vLLM to sleep, wake it and give it the weights."""
    start: float = 240.0
    """Seconds until a stage works: imports, datasets, models, vLLM's CUDA graphs."""
    disk: float = 1e9
    """Bytes a second at which a checkpoint is put together and written, and read again for its digests."""
    text: float = 2.0
    """Bytes of a token's text in a compressed parquet file."""
    engine: float = 3.0 * GIB
    """Bytes that vLLM uses besides weights and cache."""
    reserve: float = 3.0 * GIB
    """Bytes for CUDA, NCCL, fragments, and what vLLM keeps while it sleeps."""


ASSUMED = {
    # DeepScaleR saw means of 5 500 tokens, falling to 3 500, with a limit of 8 192: most responses reach one of 3 072.
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Assumptions(response=0.85),
    # On GSM8K such models take some 300 tokens (github.com/verl-project/verl/issues/1208), on MATH more.
    "Qwen/Qwen2.5-1.5B-Instruct": Assumptions(response=0.4),
}


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
        return self.assumed.response * self.config.train.max_new_tokens

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes on one GPU by moment and part.

        Every process holds the whole model and a reference, 2 bytes a parameter each, and, for the optimiser, a float32
        copy (4) and AdamW's two moments (8, and a counter for each tensor). Gradients are added up in bfloat16 (2); for
        the all-reduce and the step `Optimizer.gather` makes them float32 (4). vLLM takes its share of the GPU while it
        is awake, that is, except in the update. The final evaluation loads the model alone.
        """
        n, share = self.shape.parameters, self.config.rollouts.gpu_memory
        optimiser = {"float32 weights": 4.0 * n, "AdamW": 8.0 * n + 4 * self.shape.tensors}
        held = {"bfloat16 weights": 4.0 * n, **optimiser}
        awake = {"vLLM": share * self.gpu.memory}
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
        held = 16.0 * log_probs._LOGITS
        if not gradient:
            return held
        return held + 2 * self.shape.embedding + 4 * self.config.hardware.tokens * self.shape.hidden

    def cached_tokens(self) -> int:
        """Tokens that vLLM's cache has room for: keys and values in every block, 2 bytes each (arXiv 2309.06180)."""
        free = self.config.rollouts.gpu_memory * self.gpu.memory - 2 * self.shape.parameters - self.assumed.engine
        return int(max(0.0, free) / (4 * self.shape.layers * self.shape.kv_width))

    def fits(self) -> bool:
        """Whether no moment takes more than a GPU has, and a longest response has room in vLLM's cache."""
        longest = self.config.rollouts.max_model_len or self.assumed.prompt + self.config.train.max_new_tokens
        return self.peak() <= self.gpu.memory and self.cached_tokens() >= longest

    def step(self, dynamic_sampling: bool = False) -> dict[str, float]:
        """Seconds of one training step by phase.

        All questions are answered by vLLM, once, or with dynamic sampling `Assumptions.draws` times; the responses are
        judged, scored again by the policy (vLLM is not exact), a tenth of them by the reference (all with a KL
        penalty), and learned from. Every so many steps a checkpoint is written while the others wait.
        """
        train, hardware = self.config.train, self.config.hardware
        answers = train.questions * train.responses
        draws = self.assumed.draws if dynamic_sampling else 1.0
        pieces = hardware.shards / self.gpus  # that a process answers one after the other
        compared = answers if train.kl_coefficient else answers / update._KL_SHARE
        per_update = answers / train.mini_batches
        judged = answers / self.gpus / (self.config.math.workers * self.assumed.answers)
        return {
            "generate": draws * pieces * self.generate(answers / hardware.shards),
            "judge": draws * judged,
            "score again": self.compute(answers, self.gpus),
            "reference": self.compute(compared, self.gpus),
            "learn": train.mini_batches * self.compute(per_update, self.gpus, gradient=True),
            "optimiser": train.mini_batches * self.optimiser(),
            "vLLM's sleep": self.assumed.switch,
            "checkpoint": 2 * self.checkpoint() / self.assumed.disk / train.checkpoint_every,
        }

    def generate(self, responses: float) -> float:
        """Seconds in which one vLLM answers so many questions at once.

        In every step of vLLM the responses at work grow by a token. There are as many steps as the longest response has
        tokens (the limit), or more where not all responses find room at a time: `Gpu.sequences`, and the cache at their
        mean length. A step reads the weights or multiplies with them, whichever takes longer, and every token reads the
        cache of those before it: the roofline of decoding (arXiv 2402.16363). The CPU's time comes on top. Prompts,
        computed once a question, are left out.
        """
        context = self.assumed.prompt + self.response / 2
        together = min(responses, self.gpu.sequences, max(1.0, self.cached_tokens() / context))
        tokens = responses * self.response
        steps = max(self.config.train.max_new_tokens, tokens / together)
        weights = self.shape.layers * self.shape.linear + self.shape.embedding
        reading = self.gpu.bandwidth * self.assumed.bandwidth
        multiply = max(steps * 2 * weights / reading, tokens * 2 * weights / (self.gpu.flops * self.gpu.share))
        attend = tokens * context * 4 * self.shape.layers * self.shape.kv_width / reading
        return multiply + attend + steps * self.assumed.tick + tokens * self.assumed.token

    def compute(self, responses: float, gpus: int, gradient: bool = False) -> float:
        """Seconds in which so many GPUs score so many responses, or learn from them.

        Passes are dealt out one by one, so that the last round may leave GPUs idle. In the backward pass the output
        layer always computes its logits again.
        """
        length = self.assumed.prompt + round(self.response)
        scored = length - self.assumed.prompt
        forward = self.shape.forward_flop(length, scored)
        flop = sum(forward)
        if gradient:
            flop = self.shape.learning_flop(length, scored, self.config.hardware.gradient_checkpointing) + forward[2]
        tokens = responses * length
        passes = ceil(tokens / self.config.hardware.tokens)
        idle = ceil(passes / gpus) * gpus / passes
        return idle * responses * flop / (gpus * self.gpu.flops * self.gpu.share)

    def optimiser(self) -> float:
        """Seconds of one update after its gradients.

        Memory traffic of 52 bytes a parameter: gradients to float32 (6), their norm and clipping (12), AdamW (reads 16,
        writes 12), weights to bfloat16 (6). The all-reduce of n GPUs sends 2 (n − 1) / n times the float32 gradients
        (ring algorithm; NVIDIA's nccl-tests, doc/PERFORMANCE.md).
        """
        n, gpus = self.shape.parameters, self.gpus
        sent = 2 * (gpus - 1) / gpus * 4 * n
        return 52 * n / (self.gpu.bandwidth * self.assumed.bandwidth) + sent / (self.gpu.link * self.assumed.link)

    def answering(self, questions: int, samples: int, gpus: int) -> float:
        """Seconds in which policy and vLLM answer, score and judge evaluation questions: `sampling.sample_batches`.

        A batch has about a thousand responses and is one GPU's; every response is scored, for its entropy.
        """
        asked = max(1, sampling._ROWS_AT_A_TIME // samples)
        batch = min(asked, questions) * samples
        judged = batch / (self.config.math.workers * self.assumed.answers)
        return ceil(ceil(questions / asked) / gpus) * (self.generate(batch) + self.compute(batch, 1) + judged)

    def run(self, dynamic_sampling: bool = False) -> float:
        """Seconds of a training run: its steps, its learning curve and the start."""
        train = self.config.train
        points = 1 + ceil(train.steps / train.evaluate_every)
        curve = self.answering(
            sum(min(train.curve_questions, n) for n in self.benchmarks()), train.curve_samples, self.gpus
        )
        return self.assumed.start + train.steps * sum(self.step(dynamic_sampling).values()) + points * curve

    def evaluation(self, earlier: int) -> float:
        """Seconds of the final evaluation of a run, on one GPU: its last model, and so many saved before it."""
        samples, questions = self.config.evaluation.samples, sum(self.benchmarks())
        fewer = min(model_evaluation._EARLIER_SAMPLES, samples)
        last, each = self.answering(questions, samples, 1), self.answering(questions, fewer, 1)
        return self.assumed.start + last + earlier * each

    def stages(self) -> list[Stage]:
        """What runs on GPUs, in the pipeline's order. The rest (records, figures, tables) takes minutes on the CPU."""
        runs = self.config.runs.all
        kinds = Counter(
            ALGORITHMS[preset_name(name, self.config.algorithms[name])].dynamic_sampling for name, _ in runs
        )
        labels = {False: "train", True: "train, dynamic sampling"}
        return [
            # The notebook of the base model asks 40 development questions of each training dataset 64 times.
            Stage("base_model", 1, 1, self.assumed.start + self.answering(40 * len(self.config.math.training), 64, 1)),
            Stage("evaluate_base", 1, 1, self.evaluation(0)),
            *(Stage(labels[kind], kinds[kind], self.gpus, self.run(kind)) for kind in sorted(kinds)),
            Stage("evaluate", len(runs), 1, self.evaluation(self.snapshots() - 1)),
        ]

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
    shape = MODELS.get(name) or _looked_up(name, settings.base_model.revision)
    return {gpu: Estimate(settings, shape, GPUS[gpu], ASSUMED.get(name, Assumptions())) for gpu in GPUS}


def _refuse_undescribed(settings: Config) -> None:
    found = {
        "task.name": (settings.task.name, "math"),
        "train.layout": (settings.train.layout, "packed"),
        "rollouts.engine": (settings.rollouts.engine, "vllm"),
        "rollouts.dtype": (settings.rollouts.dtype, "bfloat16"),
        "rollouts.tensor_parallel_size": (settings.rollouts.tensor_parallel_size, 1),
        "hardware.dtype": (settings.hardware.dtype, "bfloat16"),
        "the number of tuning.candidates": (len(settings.tuning.candidates), 1),
    }
    for key, (value, described) in found.items():
        if value != described:
            raise ConfigError(f"costs are worked out for {key} = {described!r}, as in paper_hard, not {value!r}.")


def _looked_up(name: str, revision: str) -> Shape:
    from transformers import AutoConfig

    try:
        return Shape.of(AutoConfig.from_pretrained(name, revision=revision))
    except OSError as error:
        raise ConfigError(
            f"base_model.pretrained = {name!r} cannot be had ({str(error).splitlines()[0]}): hf download {name}."
        ) from error
