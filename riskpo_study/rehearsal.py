"""Whole profiles run on small stand-ins, of the same classes and schemas, for the model and the data they download.

`python -m riskpo_study.rehearsal paper_easy` runs every stage of the profile in a copy of the working tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from riskpo_study import config, profiles, stand_ins
from riskpo_study.datasets import DATASETS
from riskpo_study.errors import ConfigError, RunError, exit_code

__all__ = ["rehearse"]

OVERRIDES = (
    "runs.algorithms=[grpo,riskpo]", "runs.seeds=[0]", "task.questions=6", "math.development=20", "math.workers=1",
    "train.steps=2", "train.questions=20", "train.responses=4", "train.mini_batches=2", "train.max_new_tokens=12",
    "train.learning_rate=1.0e-3", "tuning.candidates=[{learning_rate: 0.001}]",
    "train.checkpoint_every=1", "train.evaluate_every=2", "train.snapshot_every=1", "train.curve_questions=2",
    "train.curve_samples=4", "train.threads=1", "hardware.attention=sdpa", "hardware.processes=2", "hardware.shards=2",
    "hardware.tokens=1024", "rollouts.max_model_len=256", "evaluation.samples=8", "evaluation.ks=[1,2,4,8]",
    "evaluation.resamples=200", "theory.batches=10",
)  # fmt: skip
"""What makes a profile of the paper fit two cores; everything else is as in the profile."""

OF_CODE = ("code.development=20", "code.workers=1", "train.max_new_tokens=24", "rollouts.max_model_len=384")
"""Further ones of a profile of code, whose prompts and responses are longer."""

OF_FIGURES = ("rollouts.engine=transformers",)
"""Further ones of a profile of Geometry3K: vLLM reads images with torchvision, which a CPU's torch has not got."""


def rehearse(profile: str, folder: Path, overrides: Iterable[str] = ()) -> None:
    """Run every stage of a profile on stand-ins, in a copy of the working tree under `folder`.

    Raises:
        ConfigError: where the profile downloads nothing that stand-ins could replace.
        RunError: where a stage fails; what it said is above.
    """
    root, copy = config.root(), folder / "study"
    given = profiles.composed(profile, root / "conf")[1]
    if given.task.name not in ("math", "code"):
        raise ConfigError(
            f"profile {profile}: there are stand-ins for task.name = math and code, which need a published model and "
            f"data, not for {given.task.name!r} with base_model.pretrained = {given.base_model.pretrained}: run it as "
            f"it is (make repro PROFILE={profile})."
        )
    _copy_tree(root, copy)
    further: tuple[str, ...] = ()
    if given.task.name == "code":
        write, further = stand_ins.write_code, OF_CODE
    elif any(DATASETS[name].images for name in given.math.training):
        write, further = stand_ins.write_figures, OF_FIGURES
    else:
        write = stand_ins.write
    write(folder)
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    own = [f"base_model.pretrained={folder / 'model'}", f"{given.task.name}.folder={folder / 'data'}", *further]
    commands = [
        ["git", "init", "--quiet"],  # DVC wants one
        [sys.executable, "-m", "riskpo_study.profiles", profile, *OVERRIDES, *own, *overrides],
        ["make", "--old-file=.venv/.installed", "repro", f"PROFILE={profile}"],
    ]
    for command in commands:
        if subprocess.run(command, cwd=copy, env=environment, check=False).returncode:
            raise RunError(f"the rehearsal of {profile} failed: see above, or keep everything with --keep FOLDER")


def _copy_tree(root: Path, copy: Path) -> None:
    """Everything that git tracks or would, as it is in the working tree, but for the results."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, check=True).stdout.decode().rstrip("\0").split("\0")
    for name in names:
        if (root / name).is_file() and not name.startswith("results/"):  # deleted files are still listed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def _rehearse(profile: str, keep: Path | None, overrides: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        rehearse(profile, (keep or Path(temporary)).resolve(), overrides)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.rehearsal", description=__doc__)
    parser.add_argument("profile", help="profile to rehearse")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as rollouts.engine=transformers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="rehearse there, and leave everything behind")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _rehearse(given.profile, given.keep, given.overrides))


if __name__ == "__main__":
    sys.exit(main())
