"""Switch the profile: compose `conf/` into `params.yaml` without running anything.

`python -m riskpo_study.profiles quick train.steps=300` writes the same bytes as
`dvc exp run -S profile=quick -S train.steps=300` does before it runs. It also exchanges the entries of dvc.lock for
those of the profile: after every stage DVC writes the whole file, which with those of the study takes it ten seconds.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import yaml

from riskpo_study import config, files
from riskpo_study.errors import ConfigError


def available(conf: Path) -> list[str]:
    """The profiles under `conf`, in alphabetical order."""
    return sorted(file.stem for file in (conf / "profile").glob("*.yaml"))


def compose(profile: str, output: Path, overrides: list[str] | None = None) -> config.Config:
    """Compose `profile` of the project around `output`, check it, and write it to `output`.

    `overrides` are Hydra's (`train.steps=300`). On ConfigError (unknown profile, bad override, refused
    value) `output` is left as it was.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    conf = output.resolve().parent / "conf"
    if profile not in available(conf):
        raise ConfigError(f"Unknown profile {profile!r}; known: {', '.join(available(conf))}.")
    if any(override.startswith("profile=") for override in overrides or []):
        raise ConfigError(f"Two profiles, {profile} and one among {' '.join(overrides or [])}: give one.")
    try:
        with initialize_config_dir(str(conf), version_base=None):
            composed = hydra_compose("config", overrides=[f"profile={profile}", *(overrides or [])])
        OmegaConf.resolve(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"Cannot compose profile {profile!r}: {error}") from error
    text: str = OmegaConf.to_yaml(composed)
    try:
        checked = config.from_mapping(yaml.safe_load(text))
    except ConfigError as error:
        raise ConfigError(f"Profile {profile!r}: {error}") from error
    output.write_text(text, encoding="utf-8")
    return checked


def exchange_lock(root: Path, profile: str) -> None:
    """Leave in dvc.lock the entries of `profile` alone; those of others wait in results/<profile>/stages.lock."""
    lock = root / "dvc.lock"
    parked = root / "results" / profile / "stages.lock"
    entries = {**_entries(lock), **_entries(parked)}
    by_profile: dict[str, dict[str, str]] = {profile: {}}
    for name, entry in entries.items():
        by_profile.setdefault(name.partition("@")[2].partition("-")[0], {})[name] = entry
    for other, found in by_profile.items():
        if other != profile:
            _write(
                root / "results" / other / "stages.lock",
                {**_entries(root / "results" / other / "stages.lock"), **found},
            )
    if entries:
        _write(lock, by_profile[profile])
    parked.unlink(missing_ok=True)


def _entries(lock: Path) -> dict[str, str]:
    """The text of each stage of a lock file, in its order."""
    if not lock.is_file():
        return {}
    blocks = re.split(r"(?m)^(?=  [^\s])", lock.read_text(encoding="utf-8"))[1:]
    return {block.partition(":")[0].strip(): block for block in blocks}


def _write(lock: Path, entries: dict[str, str]) -> None:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(lock) as temporary:
        temporary.write_text("".join(["schema: '2.0'\nstages:\n", *entries.values()]), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.profiles", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.steps=300")
    options = parser.parse_args(arguments)
    try:
        compose(options.profile, config.root() / "params.yaml", options.overrides)
        exchange_lock(config.root(), options.profile)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
