"""What RiskPO takes with verl on 8 to 256 GPUs: memory, seconds of a step, throughput, from the model's size.

Nothing here is measured. The run is `hard` of examples/verl/run.sh; how fast a GPU is rests on `costs.Gpu` and
`costs.Assumptions`, which name their sources, and on `Cluster`. Every GPU trains (FSDP over all of them, gradient
checkpointing) and draws (vLLM), in turns; `ScaleOut.apart` gives some to the one and some to the other.

`python -m riskpo_study.scale_out` puts the table into docs/scale_out.md. Units: bytes, seconds, flop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from riskpo_study import config, files
from riskpo_study.costs import ASSUMED, GIB, GPUS, MODELS, Assumptions, Gpu, Shape

__all__ = ["GPU_COUNTS", "SIZES", "Cluster", "Run", "ScaleOut", "table"]

_DISTILLED = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"

SIZES: dict[str, tuple[Shape, int]] = {
    # config.json of DeepSeek-R1-Distill-Qwen-1.5B, -7B and -32B, and how many GPUs share a model in vLLM.
    "1.5B": (MODELS[_DISTILLED], 1),
    "7B": (Shape(28, 3584, 28, 4, 128, 18944, 152_064, tied=False), 1),
    "32B": (Shape(64, 5120, 40, 8, 128, 27648, 152_064, tied=False), 4),
}

GPU_COUNTS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Run:
    """The settings of examples/verl/run.sh that decide the costs, of the run `hard`."""

    questions: int = 480
    responses: int = 10
    updates: int = 4
    longest: int = 3072
    """Tokens of a response."""
    steps: int = 500
    micro: int = 16_384
    """Tokens of a forward and backward pass on one GPU: verl's default."""
    engine: float = 0.6
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
    latency: float = 15e-6
    """Seconds of an all-reduce of few bytes over NVLink: NCCL's order of magnitude."""
    logit: float = 6.0
    """Bytes a logit at the peak, when verl scores a micro-batch: bfloat16 logits, their softmax, the product of both
    (`entropy_from_logits` in verl/utils/torch_functional.py)."""
    apart: float = 0.85
    """Share of a GPU's memory that vLLM has where it is alone."""


@dataclass(frozen=True)
class ScaleOut:
    """One model on so many GPUs."""

    shape: Shape
    tensor_parallel: int
    gpus: int
    run: Run = Run()
    cluster: Cluster = Cluster()
    gpu: Gpu = GPUS["H100 80 GB"]
    assumed: Assumptions = ASSUMED[_DISTILLED]

    @property
    def answers(self) -> int:
        """Responses of a step."""
        return self.run.questions * self.run.responses

    @property
    def response(self) -> float:
        """Mean length of a response, tokens."""
        return self.assumed.response * self.run.longest

    @property
    def length(self) -> int:
        """Mean length of prompt and response, tokens."""
        return self.assumed.prompt + round(self.response)

    @property
    def tokens(self) -> float:
        """Of prompts and responses of a step."""
        return float(self.answers * self.length)

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
        return {"generation": {**held, "vLLM": self.run.engine * self.gpu.memory}, "update": {**held, **passing}}

    def peak(self, moment: str) -> float:
        """Bytes at one moment."""
        return sum(self.memory()[moment].values())

    def cached_tokens(self) -> int:
        """Tokens that the cache of one vLLM has room for, on all of its GPUs together."""
        weights = 2 * self.shape.parameters / self.tensor_parallel
        free = self.run.engine * self.gpu.memory - weights - self.assumed.engine
        return int(max(0.0, free) * self.tensor_parallel / (4 * self.shape.layers * self.shape.kv_width))

    def fits(self) -> bool:
        """Whether no moment takes more than a GPU has, and a longest response has room in vLLM's cache."""
        room = self.cached_tokens() >= 1024 + self.run.longest
        return room and max(self.peak("generation"), self.peak("update")) <= self.gpu.memory

    # Time

    def step(self) -> dict[str, float]:
        """Seconds of a step by phase."""
        sending = 2 * self.shape.parameters / self._link()
        return {
            "generate": self.generate(),
            "score": self.score(),
            "learn": self.learn(),
            "weights to vLLM": sending + self.assumed.switch,
        }

    def generate(self) -> float:
        """Seconds in which all engines answer, each its share of the questions.

        Steps, weights and cache as in `costs.Estimate.generate`, split over the GPUs of an engine, which add up their
        parts twice in every block: one number of the hidden state a response, sent 2 (t − 1) / t times.
        """
        t, layers, run = self.tensor_parallel, self.shape.layers, self.run
        responses = self.answers * t / self.gpus
        context = self.assumed.prompt + self.response / 2
        together = min(responses, run.sequences, max(1.0, self.cached_tokens() / context))
        tokens = responses * self.response
        steps = max(float(run.longest), tokens / together)
        weights = (layers * self.shape.linear + self.shape.embedding) / t
        reading = self.gpu.bandwidth * self.assumed.bandwidth
        multiply = max(steps * 2 * weights / reading, tokens * 2 * weights / (self.gpu.flops * self.gpu.share))
        attend = tokens * context * 4 * layers * self.shape.kv_width / t / reading
        add = 0.0
        if t > 1:
            sent = 2 * (t - 1) / t * 2 * self.shape.hidden * tokens / (self.gpu.link * self.assumed.link)
            add = 2 * layers * (steps * self.cluster.latency + sent)
        return multiply + attend + add + steps * self.assumed.tick + tokens * self.assumed.token

    def score(self) -> float:
        """Seconds in which all GPUs score the responses: log-probabilities under the policy before its update.

        Each micro-batch gathers the weights in bfloat16 while the one before is computed: the slower of the two counts.
        """
        flop = self.answers * sum(self.shape.forward_flop(self.length, round(self.response)))
        return self._passes(flop, self.tokens, 2.0)

    def learn(self) -> float:
        """Seconds of the step's updates: passes that gather the weights twice, forward and backward, and send float32
        gradients; then AdamW, 52 bytes a parameter as in `costs.Estimate.optimiser`."""
        flop = self.answers * self.shape.learning_flop(self.length, round(self.response), checkpointing=True)
        passes = self._passes(flop / self.run.updates, self.tokens / self.run.updates, 2.0 + 2.0 + 4.0)
        adam = 52 * self.shape.parameters / self.gpus / (self.gpu.bandwidth * self.assumed.bandwidth)
        return self.run.updates * (passes + adam)

    def _passes(self, flop: float, tokens: float, sent: float) -> float:
        """Seconds of so many flop on so many tokens, `sent` bytes of each parameter going around in every pass."""
        passes = ceil(tokens / self.gpus / self.run.micro)
        compute = flop / (self.gpus * self.gpu.flops * self.gpu.share)
        others = (self.gpus - 1) / self.gpus
        return max(compute, passes * sent * self.shape.parameters * others / self._link())

    def _link(self) -> float:
        """Bytes/s that collectives reach."""
        raw = self.gpu.link if self.gpus <= self.cluster.node else self.cluster.network
        return raw * self.assumed.link

    def apart(self) -> tuple[int, float]:
        """How many GPUs should only draw, and the seconds of a step where these and the others work at the same time.

        The responses are then one step old, or more. Zero and infinity where no division has room for the model.
        """
        best = (0, float("inf"))
        for drawing in range(self.tensor_parallel, self.gpus, self.tensor_parallel):
            alone = replace(self.run, engine=self.cluster.apart)
            engines = replace(self, gpus=drawing, run=alone)
            trainers = replace(self, gpus=self.gpus - drawing)
            if trainers.peak("update") > self.gpu.memory:
                continue
            seconds = (
                max(engines.generate(), trainers.score() + trainers.learn()) + 2 * self.shape.parameters / self._link()
            )
            if seconds < best[1]:
                best = (drawing, seconds)
        return best


_HEADER = [
    "model", "GPUs", "generation, GiB", "update, GiB", "generate, s", "score, s", "learn, s", "rest, s", "step, s",
    "tokens/s", "500 steps, h", "GPU hours", "apart: GPUs that draw", "apart: step, s",
]  # fmt: skip


def table() -> str:
    """Markdown of all `SIZES` on all `GPU_COUNTS`."""
    rows = []
    for size, (shape, tensor_parallel) in SIZES.items():
        for gpus in GPU_COUNTS:
            found = ScaleOut(shape, tensor_parallel, gpus)
            memory = [f"{found.peak(moment) / GIB:.0f}" for moment in ("generation", "update")]
            if not found.fits():
                rows.append([size, f"{gpus}", *memory, *["too much"], *["–"] * (len(_HEADER) - 5)])
                continue
            step = found.step()
            seconds = sum(step.values())
            hours = found.run.steps * seconds / 3600
            throughput = f"{found.tokens / seconds:,.0f}".replace(",", " ")
            drawing, apart = found.apart()
            separate = [f"{drawing}", f"{apart:.0f}"] if drawing else ["–", "–"]
            parts = [f"{value:.0f}" for value in step.values()]
            rows.append([
                size, f"{gpus}", *memory, *parts, f"{seconds:.0f}", throughput, f"{hours:.1f}",
                f"{hours * gpus:.0f}", *separate,
            ])  # fmt: skip
    lines = [_HEADER, ["---", *["---:"] * (len(_HEADER) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


BEGIN, END = "<!-- scale_out -->\n", "<!-- /scale_out -->"


def main() -> None:
    page = config.root() / "docs" / "scale_out.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    with files.atomic(page) as temporary:
        temporary.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
