"""Tables of what a profile takes on GPUs: the estimates of `costs` as Markdown.

`python -m riskpo_study.cost_tables` prints those of params.yaml, whose overrides can so be tried before anything is
rented; with `--write` it puts those of the paper's two profiles into docs/paper_scale.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from riskpo_study import config, profiles, sections
from riskpo_study.config import Config
from riskpo_study.costs import Estimate, estimates
from riskpo_study.errors import exit_code
from riskpo_study.gpus import GIB

__all__ = ["report", "reports"]

PROFILES = ("paper_hard", "paper_easy")
SECTION = "costs"
"""Of docs/paper_scale.md."""
_PARTS = (
    "bfloat16 weights", "float32 weights", "AdamW", "gradients", "activations", "logits", "vLLM", "reserve",
)  # fmt: skip


def report(settings: Config) -> str:
    """Markdown of a configuration's estimates."""
    on = estimates(settings)
    first = next(iter(on.values()))
    peak, room = first.peak() / GIB, first.gpu.memory / GIB
    fit = "" if first.fits() else ", which is too much: lower rollouts.gpu_memory or hardware.tokens"
    intro = (
        f"`{settings.profile}`: {settings.base_model.pretrained} of {first.shape.parameters / 1e9:.2f} billion "
        f"parameters on {first.gpus} GPUs, responses of {round(first.response):,} tokens on average and "
        f"{settings.train.max_new_tokens:,} at most. A GPU holds up to {peak:.1f} of {room:.1f} GiB{fit}; vLLM's cache "
        f"has room for {first.engine.cached_tokens() / 1e6:.1f} million tokens.\n"
    )
    disk = ", ".join(f"{what} {_number(size / 1e9)} GB" for what, size in first.disk().items())
    return "\n".join([intro, _memory_table(first), _step_table(on), _stage_table(on), f"Disk: {disk}.\n"])


def _memory_table(estimate: Estimate) -> str:
    rows = []
    for name, parts in estimate.memory().items():
        sizes = [f"{parts[part] / GIB:.1f}" if part in parts else "–" for part in _PARTS]
        rows.append([name, *sizes, f"{sum(parts.values()) / GIB:.1f}"])
    return sections.table([f"GiB of {estimate.gpu.memory / GIB:.1f}", *_PARTS, "in all"], rows)


def _step_table(on: Mapping[str, Estimate]) -> str:
    rows = []
    for gpu, estimate in on.items():
        step = estimate.step()
        rows.append([gpu, *map(_number, step.values()), _number(sum(step.values()))])
    return sections.table(["seconds of a step", *next(iter(on.values())).step(), "in all"], rows)


def _stage_table(on: Mapping[str, Estimate]) -> str:
    stages = {gpu: estimate.stages() for gpu, estimate in on.items()}
    header = ["stage", "runs", "GPUs"]
    for gpu in on:
        header += [f"{gpu}: hours a run", "GPU hours", "USD"]
    rows = []
    for index, stage in enumerate(next(iter(stages.values()))):
        row = [stage.name, str(stage.runs), str(stage.gpus)]
        for gpu, found in stages.items():
            hours = found[index].hours()
            row += [_number(found[index].seconds / 3600), _number(hours), _number(hours * on[gpu].gpu.price)]
        rows.append(row)
    total = ["in all", "", ""]
    for gpu, found in stages.items():
        hours = sum(stage.hours() for stage in found)
        total += ["", _number(hours), _number(hours * on[gpu].gpu.price)]
    return sections.table(header, [*rows, total])


def _number(value: float) -> str:
    """Two significant digits, without a decimal point from 10 on: the estimates are no better."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 9.95 else f"{value:#.2g}"


def reports(conf: Path) -> str:
    """The reports of `PROFILES`, composed from the folder `conf`."""
    return "\n".join(report(profiles.composed(profile, conf)[1]) for profile in PROFILES)


def _show(*, write: bool) -> None:
    if write:
        root = config.root()
        sections.write(root / "docs" / "paper_scale.md", SECTION, reports(root / "conf"))
    else:
        print(report(config.load()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.cost_tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="the tables of docs/paper_scale.md")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _show(write=options.write))


if __name__ == "__main__":
    sys.exit(main())
