"""Tables of what a profile takes on GPUs: the estimates of `costs` as Markdown.

`python -m riskpo_study.cost_tables` prints those of params.yaml, whose overrides can so be tried before anything is
rented; with `--write` it puts those of the paper's two profiles into docs/paper_scale.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from riskpo_study import config, profiles
from riskpo_study.config import Config
from riskpo_study.costs import GIB, Estimate, estimates
from riskpo_study.errors import ConfigError

__all__ = ["report", "tables", "write"]

PROFILES = ("paper_hard", "paper_easy")
BEGIN, END = "<!-- costs -->\n", "<!-- /costs -->"
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
        f"has room for {first.cached_tokens() / 1e6:.1f} million tokens.\n"
    )
    disk = ", ".join(f"{what} {_number(size / 1e9)} GB" for what, size in first.disk().items())
    return "\n".join([intro, _memory_table(first), _step_table(on), _stage_table(on), f"Disk: {disk}.\n"])


def _memory_table(estimate: Estimate) -> str:
    rows = []
    for name, parts in estimate.memory().items():
        sizes = [f"{parts[part] / GIB:.1f}" if part in parts else "–" for part in _PARTS]
        rows.append([name, *sizes, f"{sum(parts.values()) / GIB:.1f}"])
    return _table([f"GiB of {estimate.gpu.memory / GIB:.1f}", *_PARTS, "in all"], rows)


def _step_table(on: Mapping[str, Estimate]) -> str:
    rows = []
    for gpu, estimate in on.items():
        step = estimate.step()
        rows.append([gpu, *map(_number, step.values()), _number(sum(step.values()))])
    return _table(["seconds of a step", *next(iter(on.values())).step(), "in all"], rows)


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
    return _table(header, [*rows, total])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float) -> str:
    """Two significant digits, without a decimal point from 10 on: the estimates are no better."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 9.95 else f"{value:#.2g}"


def write(document: Path, conf: Path) -> None:
    """Replace what stands between the marks in `document` by the reports of `PROFILES`, composed from `conf`."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ConfigError(f"{document} lacks the lines {BEGIN.strip()} and {END}: add them where the tables belong.")
    document.write_text(f"{before}{BEGIN}{tables(conf)}{END}{after}", encoding="utf-8")


def tables(conf: Path) -> str:
    """The reports of `PROFILES`, composed from the folder `conf`."""
    return "\n".join(report(profiles.composed(profile, conf)[1]) for profile in PROFILES)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.cost_tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="the tables of docs/paper_scale.md")
    options = parser.parse_args(arguments)
    try:
        if options.write:
            write(config.root() / "docs" / "paper_scale.md", config.root() / "conf")
        else:
            print(report(config.load()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
