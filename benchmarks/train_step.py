"""Time one training step of this package and of TRL's GRPOTrainer, in turn, in one run.

Both train the same base model with GRPO on the same questions: 40 questions × 8 responses of at most 16
tokens, one update, two threads, float32. A step is all that lies between two updates: questions, generation,
verification by the same verifier, advantages, update, and what either trainer measures along the way. TRL
lives in an environment of its own, .venv-trl, which the first run makes; trl_peer.py has its settings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from report import HERE, Record, machine, publish, render

from riskpo_study import algorithms, config, seeds, tasks
from riskpo_study.base_model import pretrain
from riskpo_study.config import Config
from riskpo_study.policy import Policy
from riskpo_study.rollouts import TransformersEngine
from riskpo_study.tasks.countdown import Countdown
from riskpo_study.trainer import Trainer

ROOT = HERE.parent
CACHE = HERE / ".cache"
SEED, WARM_UP = 0, 3

Step = Callable[[], dict[str, Any]]  # takes a step and returns its seconds, response tokens and mean reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of model and tokenizer (default: quick's base model)")
    parser.add_argument("--rounds", type=int, default=30, help="timed steps of each trainer (default: 30)")
    parser.add_argument("--publish", action="store_true", help="write results/train_step.json and README.md")
    options = parser.parse_args()

    CACHE.mkdir(exist_ok=True)
    settings = configuration()
    torch.set_num_threads(settings.train.threads)
    model = options.model or base_model(settings)
    description = machine()
    theirs, versions = trl(settings, model, WARM_UP + options.rounds)
    contenders = {f"TRL {versions['trl']}": theirs, "riskpo_study": ours(settings, model)}
    rounds: dict[str, list[Record]] = {name: [] for name in contenders}
    for number in range(WARM_UP + options.rounds):
        for name, step in contenders.items():
            record = columns(step())
            if number >= WARM_UP:
                rounds[name].append(record)
    result = {
        "machine": description,
        "settings": "GRPO, {questions} questions × {responses} responses of at most {max_new_tokens} tokens, "
        "one update, {threads} threads, float32.".format(**asdict(settings.train)),
        "rounds": rounds,
    }
    print(render(result))
    if options.publish:
        publish("train_step", result)


def configuration() -> Config:
    """Profile `quick` with the numbers of this benchmark."""
    overrides = {
        "questions": 40, "responses": 8, "mini_batches": 1, "max_new_tokens": 16, "temperature": 1.0,
        "kl_coefficient": 0.0, "threads": 2, "schedule": "constant", "warmup_steps": 0,
        "learning_rate": 1e-6,  # so small that both go on drawing responses of the same lengths
    }  # fmt: skip
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        composed = compose("config", [f"train.{key}={value}" for key, value in overrides.items()])
    return config.from_mapping(OmegaConf.to_container(composed, resolve=True))


def base_model(settings: Config) -> Path:
    """The base model of `quick`: of its results where they are, else trained once for the benchmarks."""
    for folder in (ROOT / "results/quick/base_model", CACHE / "base_model"):
        if (folder / "config.json").exists():
            return folder
    pretrain(Countdown(settings.task), settings.base_model, folder)
    return folder


def ours(settings: Config, model: Path) -> Step:
    """Steps of this package's trainer."""
    policy = Policy.load(model, settings.train.layout)
    trainer = Trainer(
        policy=policy,
        reference=Policy.load(model, settings.train.layout),
        engine=TransformersEngine(policy),
        task=tasks.build(settings),
        algorithm=algorithms.build("grpo", settings.algorithms["grpo"], settings.risk),
        train=settings.train,
        seed=SEED,
        folder=CACHE,
    )

    def step() -> dict[str, Any]:
        start = time.perf_counter()
        result = trainer.step()
        return {
            "step": time.perf_counter() - start,
            "generate": result.timings["seconds/generate"],
            "verify": result.timings["seconds/verify"],
            "tokens": int(result.rollouts["length"].sum()),
            "reward": result.metrics["reward/mean"],
        }

    return step


def trl(settings: Config, model: Path, steps: int) -> tuple[Step, dict[str, str]]:
    """Steps of TRL's trainer in a process of its own, on the questions that ours asks; and its versions."""
    task, questions = tasks.build(settings), settings.train.questions
    setup = {
        "model": str(model.resolve()),
        "task": asdict(settings.task),
        "train": asdict(settings.train),
        "questions": [
            [asdict(question) for question in task.sample(questions, seeds.generator(SEED, "questions", k, 0))]
            for k in range(steps + 1)  # the worker answers for a step when it stands before the next
        ],
    }
    log = CACHE / "trl.log"
    worker = subprocess.Popen(
        [trl_python(), HERE / "trl_peer.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(settings.train.threads)},
        text=True,
    )
    to, replies = worker.stdin, worker.stdout
    assert to is not None and replies is not None

    def ask(line: str) -> dict[str, Any]:
        print(line, file=to, flush=True)
        reply = replies.readline()
        if not reply:
            raise RuntimeError(f"TRL's trainer stopped; {log} says why")
        answer: dict[str, Any] = json.loads(reply)
        return answer

    return lambda: ask("step"), ask(json.dumps(setup))


def trl_python() -> Path:
    """The interpreter of TRL's environment, made anew whenever the requirements change."""
    folder, requirements = HERE / ".venv-trl", HERE / "requirements-trl.txt"
    python, installed = folder / "bin/python", folder / "installed.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        print(f"Installing {requirements.name}; once, a minute or two.", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        installed.write_text(requirements.read_text())
    return python


def columns(step: dict[str, Any]) -> Record:
    """What the table shows of a step."""
    return {
        "step (s)": step["step"],
        "generation (s)": step["generate"],
        "verification (s)": step["verify"],
        "update and rest (s)": step["step"] - step["generate"] - step["verify"],
        "response tokens": step["tokens"],
        "reward": step["reward"],
    }


if __name__ == "__main__":
    main()
