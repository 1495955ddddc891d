"""GPUs and vLLM on them, for `costs` and `scale_out`: data sheets, what software reaches of them, time to generate.

Nothing here is measured: it has a named source, or is an assumption. Units: bytes, seconds, flop.
"""

from __future__ import annotations

from dataclasses import dataclass

from riskpo_study.model_shapes import Shape

__all__ = ["ASSUMED", "GIB", "GPUS", "UPDATE_TRAFFIC", "Assumptions", "Engine", "Gpu"]

GIB = 2**30

UPDATE_TRAFFIC = 52
"""Bytes a parameter that an update moves through memory: gradients to float32 (6), their norm and clipping (12), AdamW
(reads 16, writes 12), weights to bfloat16 (6)."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of a machine that connects its GPUs with NVLink: its data sheet, and the shares that software reaches."""

    memory: float
    """Bytes that CUDA offers of it."""
    flops: float
    """Peak of dense bfloat16 matrix products, flop/s."""
    flops_share: float
    """Of that peak, in training and scoring, recomputation counted."""
    bandwidth: float
    """Of its memory, bytes/s."""
    link: float
    """To the other GPUs in one direction, bytes/s."""
    sequences: int
    """How many vLLM answers at a time."""
    price: float
    """USD an hour."""
    bandwidth_share: float = 0.6
    """Of the memory's bandwidth, when vLLM reads weights and cache, and the optimiser its state."""
    link_share: float = 0.7
    """Of the link's bandwidth, in an all-reduce."""

    def computing(self, flop: float) -> float:
        """Seconds of so many flop."""
        return flop / (self.flops * self.flops_share)

    def reading(self, size: float) -> float:
        """Seconds in which so many bytes go through its memory."""
        return size / (self.bandwidth * self.bandwidth_share)

    def sending(self, size: float) -> float:
        """Seconds in which so many bytes go to the other GPUs."""
        return size / (self.link * self.link_share)


# Peaks, bandwidths and links: NVIDIA's data sheets of the SXM cards. Memory: what torch.cuda reports. Share of the
# peak: three quarters of the 40 % (H100) and 59 % (A100) that the tuned trainer of llm-foundry reaches with a model of
# 1.3 B parameters at 4096 tokens on eight of them (scripts/train/benchmarking/README.md). Sequences: the defaults of
# vllm/engine/arg_utils.py (0.32.0) for its class LLM. Price: middle of the on-demand prices of early 2026 in
# pricegpu.pages.dev/blog/h100-vs-a100-cloud-price.
GPUS = {
    "H100 80 GB": Gpu(
        79.1 * GIB, flops=989e12, flops_share=0.30, bandwidth=3.35e12, link=450e9, sequences=1024, price=3.2
    ),
    "A100 80 GB": Gpu(
        79.1 * GIB, flops=312e12, flops_share=0.44, bandwidth=2.04e12, link=300e9, sequences=256, price=2.0
    ),
}


@dataclass(frozen=True)
class Assumptions:
    """What neither the model nor the data sheet of a GPU says."""

    response_share: float = 1.0
    """Mean length of a response as a share of the longest; 1 is the upper bound."""
    prompt: int = 150
    """Mean length of a prompt in its chat template, tokens."""
    token_seconds: float = 15e-6
    """Of the CPU for a token that vLLM draws: scheduling, its own generator, its log-probability in Python."""
    step_seconds: float = 3e-3
    """Of the CPU and of small kernels for a step of vLLM, whatever its number of sequences."""
    latency: float = 15e-6
    """Seconds of an all-reduce of few bytes over NVLink: NCCL's order of magnitude."""
    switch_seconds: float = 3.0
    """To put vLLM to sleep, wake it and give it the weights."""
    start_seconds: float = 240.0
    """Until a stage works: imports, datasets, models, vLLM's CUDA graphs."""
    dynamic_draws: float = 2.5
    """How many times dynamic sampling asks a step's number of questions: about 40 % of them are informative."""
    judged: float = 150.0
    """Answers that a worker judges in a second: the aim of riskpo_study.verify is 300 with two."""
    disk: float = 1e9
    """Bytes a second at which a checkpoint is put together and written, and read again for its digests."""
    text: float = 2.0
    """Bytes of a token's text in a compressed parquet file."""
    engine_memory: float = 3.0 * GIB
    """Bytes that vLLM uses besides weights and cache."""
    reserve: float = 3.0 * GIB
    """Bytes for CUDA, NCCL, fragments, and what vLLM keeps while it sleeps."""


ASSUMED = {
    # DeepScaleR saw means of 5 500 tokens, falling to 3 500, with a limit of 8 192: most responses reach one of 3 072.
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Assumptions(response_share=0.85),
    # On GSM8K such models take some 300 tokens (github.com/verl-project/verl/issues/1208), on MATH more.
    "Qwen/Qwen2.5-1.5B-Instruct": Assumptions(response_share=0.4),
}


@dataclass(frozen=True)
class Engine:
    """vLLM with a model on one GPU, or on several that share it (tensor parallelism)."""

    shape: Shape
    gpu: Gpu
    assumed: Assumptions
    memory_share: float
    """Of the memory of each of its GPUs."""
    sequences: int
    """How many responses at a time, at most."""
    gpus: int = 1

    def cached_tokens(self) -> int:
        """Tokens that the cache has room for: keys and values in every block, 2 bytes each (arXiv 2309.06180)."""
        weights = 2 * self.shape.parameters / self.gpus
        free = self.memory_share * self.gpu.memory - weights - self.assumed.engine_memory
        return int(max(0.0, free) * self.gpus / (4 * self.shape.layers * self.shape.kv_width))

    def generate(self, responses: float, mean: float, longest: float) -> float:
        """Seconds for so many responses, asked for at once, of so many tokens on average and at most.

        In every step of vLLM the responses at work grow by a token. There are as many steps as the longest response has
        tokens, or more where not all responses find room at a time: `sequences`, and the cache at their mean length. A
        step reads the weights or multiplies with them, whichever takes longer, and every token reads the cache of those
        before it: the roofline of decoding (arXiv 2402.16363). GPUs that share a model do their part of this, and add
        the parts up twice in every block: one hidden state a response, sent 2 (n − 1) / n times by each of n. The CPU's
        time comes on top. Prompts, computed once a question, are left out.
        """
        context = self.assumed.prompt + mean / 2
        together = min(responses, self.sequences, max(1.0, self.cached_tokens() / context))
        tokens = responses * mean
        steps = max(longest, tokens / together)
        weights = (self.shape.layers * self.shape.linear + self.shape.embedding) / self.gpus
        multiply = max(self.gpu.reading(steps * 2 * weights), self.gpu.computing(tokens * 2 * weights))
        attend = self.gpu.reading(tokens * context * 4 * self.shape.layers * self.shape.kv_width / self.gpus)
        cpu = steps * self.assumed.step_seconds + tokens * self.assumed.token_seconds
        return multiply + attend + self._add_up(steps, tokens) + cpu

    def _add_up(self, steps: float, tokens: float) -> float:
        """Seconds of the all-reduces: two a block and step, 2 bytes for each channel of each token's hidden state."""
        if self.gpus == 1:
            return 0.0
        sent = 2 * (self.gpus - 1) / self.gpus * 2 * self.shape.hidden * tokens
        return 2 * self.shape.layers * (steps * self.assumed.latency + self.gpu.sending(sent))
