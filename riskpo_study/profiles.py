"""Switch the profile: compose `conf/` into `params.yaml` without running anything.

`python -m riskpo_study.profiles quick train.steps=300` writes the same bytes as
`dvc exp run -S profile=quick -S train.steps=300` does before it runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from riskpo_study import config
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.profiles", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.steps=300")
    options = parser.parse_args(arguments)
    try:
        compose(options.profile, config.root() / "params.yaml", options.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
