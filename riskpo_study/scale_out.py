"""What RiskPO takes with verl on 8 to 256 GPUs: memory, seconds of a step, throughput, from the model's size.

Nothing here is measured. The run is `hard` of examples/verl/run.sh; how fast a GPU is rests on `gpus`, which names its
sources, and on `Cluster`. Every GPU trains (FSDP over all of them, gradient checkpointing) and draws (vLLM), in turns;
`ScaleOut.apart` gives some to the one and some to the other.

`python -m riskpo_study.scale_out` puts the table into docs/scale_out.md. Units: bytes, seconds, flop.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import ceil

from riskpo_study import config, sections
from riskpo_study.errors import exit_code
from riskpo_study.gpus import ASSUMED, GIB, GPUS, UPDATE_TRAFFIC, Assumptions, Engine, Gpu
from riskpo_study.model_shapes import MODELS, Shape

__all__ = ["GPU_COUNTS", "SIZES", "Cluster", "Run", "ScaleOut", "table"]

_DISTILLED = "deepseek-ai/DeepSeek-R1-Distill-Qwen"

SIZES: dict[str, tuple[Shape, int]] = {
    "1.5B": (MODELS[f"{_DISTILLED}-1.5B"], 1),
    "7B": (MODELS[f"{_DISTILLED}-7B"], 1),
    "32B": (MODELS[f"{_DISTILLED}-32B"], 4),
}
"""Size → the model, and how many GPUs share it in vLLM."""

GPU_COUNTS = (8, 16, 32, 64, 128, 256)

SECTION = "scale_out"
"""Of docs/scale_out.md."""


@dataclass(frozen=True)
class Run:
    """The settings of examples/verl/run.sh that decide the costs, of the run `hard`."""

    questions: int = 480
    responses: int = 10
    updates: int = 4
    longest_prompt: int = 1024
    """Tokens."""
    longest: int = 3072
    """Tokens of a response."""
    steps: int = 500
    micro: int = 16_384
    """Tokens of a forward and backward pass on one GPU: verl's default."""
    engine_memory: float = 0.6
    """Share of a GPU's memory that vLLM has."""
    sequences: int = 1024
    """That vLLM answers at a time."""


@dataclass(frozen=True)
class Cluster:
    """What lies between the GPUs, and what verl and vLLM do with one."""

    node: int = 8
    """GPUs that NVLink connects."""
    network: float = 50e9
    """Bytes/s of a GPU to other nodes: 400 Gbit/s InfiniBand each, as in NVIDIA's DGX H100."""
    logit: float = 6.0
    """Bytes a logit at the peak, when verl scores a micro-batch: bfloat16 logits, their softmax, the product of both
    (`entropy_from_logits` in verl/utils/torch_functional.py)."""
    engine_alone: float = 0.85
    """Share of a GPU's memory that vLLM has where it is alone."""


@dataclass(frozen=True)
class ScaleOut:
    """One model on so many GPUs."""

    shape: Shape
    tensor_parallel: int
    """GPUs that share the model in vLLM."""
    gpus: int
    run: Run = Run()
    cluster: Cluster = Cluster()
    gpu: Gpu = GPUS["H100 80 GB"]
    assumed: Assumptions = ASSUMED[f"{_DISTILLED}-1.5B"]

    @property
    def answers(self) -> int:
        """Responses of a step."""
        return self.run.questions * self.run.responses

    @property
    def response(self) -> float:
        """Mean length of a response, tokens."""
        return self.assumed.response_share * self.run.longest

    @property
    def length(self) -> int:
        """Mean length of prompt and response, tokens."""
        return self.assumed.prompt + round(self.response)

    @property
    def tokens(self) -> float:
        """Of prompts and responses of a step."""
        return float(self.answers * self.length)

    @property
    def engine(self) -> Engine:
        """One of the vLLMs."""
        share, sequences = self.run.engine_memory, self.run.sequences
        return Engine(self.shape, self.gpu, self.assumed, share, sequences, self.tensor_parallel)

    # Memory

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes on one GPU by moment and part.

        FSDP splits float32 weights and gradients (4 + 4 a parameter) and AdamW's moments (8) over all GPUs. A pass
        gathers what it needs in bfloat16: the embeddings, and the blocks at work and next. vLLM holds its share while
        it draws and nothing during the update.
        """
        n = self.shape.parameters
        held = {"weights, moments": 12.0 * n / self.gpus, "reserve": self.assumed.reserve}
        passing = {
            "gradients": 4.0 * n / self.gpus,
            "gathered": 2.0 * (2 * self.shape.embedding + 2 * self.shape.linear),
            "activations": self.shape.activations(self.run.micro, gradient=True, checkpointing=True),
            "logits": self.cluster.logit * self.run.micro * self.shape.vocabulary,
        }
        return {"generation": {**held, "vLLM": self.run.engine_memory * self.gpu.memory}, "update": {**held, **passing}}

    def peak(self, moment: str) -> float:
        """Bytes at one moment."""
        return sum(self.memory()[moment].values())

    def draws(self) -> bool:
        """Whether a longest prompt and response have room in vLLM's cache."""
        return self.engine.cached_tokens() >= self.run.longest_prompt + self.run.longest

    def fits(self) -> bool:
        """Whether, besides, no moment takes more than a GPU has."""
        return self.draws() and max(self.peak("generation"), self.peak("update")) <= self.gpu.memory

    # Time

    def step(self) -> dict[str, float]:
        """Seconds of a step by phase."""
        return {
            "generate": self.generate(),
            "score": self.score(),
            "learn": self.learn(),
            "weights to vLLM": self._sending(2 * self.shape.parameters) + self.assumed.switch_seconds,
        }

    def generate(self) -> float:
        """Seconds in which all engines answer, each its share of the questions."""
        share = self.answers * self.tensor_parallel / self.gpus
        return self.engine.generate(share, self.response, self.run.longest)

    def score(self) -> float:
        """Seconds in which all GPUs score the responses: log-probabilities under the policy before its update.

        Each micro-batch gathers the weights in bfloat16 while the one before is computed: the slower of the two counts.
        """
        flop = self.answers * sum(self.shape.forward_flop(self.length, round(self.response)))
        return self._passes(flop, self.tokens, 2.0)

    def learn(self) -> float:
        """Seconds of the step's updates: passes that gather the weights twice, forward and backward, and send float32
        gradients; then AdamW, split over the GPUs."""
        flop = self.answers * self.shape.learning_flop(self.length, round(self.response), checkpointing=True)
        passes = self._passes(flop / self.run.updates, self.tokens / self.run.updates, 2.0 + 2.0 + 4.0)
        adam = self.gpu.reading(UPDATE_TRAFFIC * self.shape.parameters / self.gpus)
        return self.run.updates * (passes + adam)

    def _passes(self, flop: float, tokens: float, sent: float) -> float:
        """Seconds of so many flop on so many tokens, `sent` bytes of each parameter going around in every pass."""
        passes = ceil(tokens / self.gpus / self.run.micro)
        others = (self.gpus - 1) / self.gpus
        sending = self._sending(passes * sent * self.shape.parameters * others)
        return max(self.gpu.computing(flop / self.gpus), sending)

    def _sending(self, size: float) -> float:
        """Seconds in which each GPU sends so many bytes in collectives: over NVLink within a node, else the network."""
        link = self.gpu.link if self.gpus <= self.cluster.node else self.cluster.network
        return replace(self.gpu, link=link).sending(size)

    def apart(self) -> tuple[int, float] | None:
        """How many GPUs should only draw, and the seconds of a step where these and the others work at the same time.

        The responses are then one step old, or more. None where no division has room for the model.
        """
        fitting = [
            (drawing, self.divided(drawing))
            for drawing in range(self.tensor_parallel, self.gpus, self.tensor_parallel)
            if self._drawing(drawing).draws() and self._training(drawing).peak("update") <= self.gpu.memory
        ]
        return min(fitting, key=lambda division: division[1], default=None)

    def divided(self, drawing: int) -> float:
        """Seconds of a step where `drawing` GPUs only draw and the others only train, at the same time."""
        trainers = self._training(drawing)
        training = trainers.score() + trainers.learn()
        return max(self._drawing(drawing).generate(), training) + self._sending(2 * self.shape.parameters)

    def _drawing(self, gpus: int) -> ScaleOut:
        return replace(self, gpus=gpus, run=replace(self.run, engine_memory=self.cluster.engine_alone))

    def _training(self, drawing: int) -> ScaleOut:
        return replace(self, gpus=self.gpus - drawing)


_HEADER = [
    "model", "GPUs", "generation, GiB", "update, GiB", "generate, s", "score, s", "learn, s", "rest, s", "step, s",
    "tokens/s", f"{Run.steps} steps, h", "GPU hours", "apart: GPUs that draw", "apart: step, s",
]  # fmt: skip


def table() -> str:
    """Markdown of all `SIZES` on all `GPU_COUNTS`."""
    rows = [
        [size, f"{gpus}", *_cells(ScaleOut(shape, tensor_parallel, gpus))]
        for size, (shape, tensor_parallel) in SIZES.items()
        for gpus in GPU_COUNTS
    ]
    return sections.table(_HEADER, [row + ["–"] * (len(_HEADER) - len(row)) for row in rows])


def _cells(found: ScaleOut) -> list[str]:
    """A row of the table, behind size and GPUs; cut short where the model does not fit."""
    memory = [f"{found.peak(moment) / GIB:.0f}" for moment in ("generation", "update")]
    if not found.fits():
        return [*memory, "too much"]
    step = found.step()
    seconds = sum(step.values())
    hours = found.run.steps * seconds / 3600
    throughput = f"{found.tokens / seconds:,.0f}".replace(",", " ")
    cells = [*memory, *(f"{part:.0f}" for part in step.values()), f"{seconds:.0f}", throughput]
    cells += [f"{hours:.1f}", f"{hours * found.gpus:.0f}"]
    if division := found.apart():
        drawing, apart = division
        cells += [f"{drawing}", f"{apart:.0f}"]
    return cells


def main() -> int:
    return exit_code(lambda: sections.write(config.root() / "docs" / "scale_out.md", SECTION, table()))


if __name__ == "__main__":
    sys.exit(main())
