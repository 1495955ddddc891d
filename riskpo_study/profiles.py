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
from riskpo_study.errors import ConfigError, exit_code


def available(conf: Path) -> list[str]:
    """The profiles under `conf`, in alphabetical order."""
    return sorted(file.stem for file in (conf / "profile").glob("*.yaml"))


def compose(profile: str, output: Path, overrides: list[str] | None = None) -> config.Config:
    """Compose `profile` of the project around `output`, check it, and write it to `output`.

    On ConfigError, see `composed`, `output` is left as it was.
    """
    text, checked = composed(profile, output.resolve().parent / "conf", overrides)
    output.write_text(text, encoding="utf-8")
    return checked


def composed(profile: str, conf: Path, overrides: list[str] | None = None) -> tuple[str, config.Config]:
    """The text of a params.yaml with `profile` of the folder `conf`, and what it says.

    `overrides` are Hydra's (`train.steps=300`). Raises ConfigError for an unknown profile, a bad override, a refused
    value.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if profile not in available(conf):
        raise ConfigError(f"Unknown profile {profile!r}; known: {', '.join(available(conf))}.")
    if any(override.startswith("profile=") for override in overrides or []):
        raise ConfigError(f"Two profiles, {profile} and one among {' '.join(overrides or [])}: give one.")
    try:
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            found = hydra_compose("config", overrides=[f"profile={profile}", *(overrides or [])])
        OmegaConf.resolve(found)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"Cannot compose profile {profile!r}: {error}") from error
    text: str = OmegaConf.to_yaml(found)
    try:
        return text, config.from_mapping(yaml.safe_load(text))
    except ConfigError as error:
        raise ConfigError(f"Profile {profile!r}: {error}") from error


def exchange_lock(root: Path, profile: str) -> None:
    """Leave in dvc.lock the entries of `profile` alone; those of others wait in results/<profile>/stages.lock.

    Of an entry that is in both, that of dvc.lock is the newer one. Nothing is lost where this is interrupted: what
    waits is written before dvc.lock, and removed after it.

    Raises:
        ConfigError: for a file that cannot be read or was cut off.
    """
    lock = root / "dvc.lock"
    parked = _parked(root, profile)
    entries = {**_waiting(parked), **_entries(lock)}
    by_profile: dict[str, dict[str, str]] = {profile: {}}
    known = [profile, *available(root / "conf")]
    for name, entry in entries.items():
        by_profile.setdefault(_profile(name, known), {})[name] = entry
    for other, found in by_profile.items():
        if other != profile:
            place = _parked(root, other)
            _write(place, {**_waiting(place), **found}, _END)
    if by_profile[profile]:
        _write(lock, by_profile[profile])
    else:
        lock.unlink(missing_ok=True)  # DVC refuses a lock without entries
    parked.unlink(missing_ok=True)


_END = "# end\n"  # last line of what waits: without it the file was cut off


def _parked(root: Path, profile: str) -> Path:
    return root / "results" / profile / "stages.lock"


def _profile(stage: str, known: list[str]) -> str:
    """The profile in a stage's name, `<stage>@<profile>` or `<stage>@<profile>-<item>-…`."""
    rest = stage.partition("@")[2]
    fitting = [one for one in known if rest == one or rest.startswith(f"{one}-")]
    return max(fitting, key=len, default=rest.partition("-")[0])


def _waiting(parked: Path) -> dict[str, str]:
    """The entries in a profile's own file."""
    entries = _entries(parked)
    if entries and not list(entries.values())[-1].endswith(_END):
        raise ConfigError(f"{parked} has been cut off: restore it (git checkout {parked}).")
    return {name: entry.removesuffix(_END) for name, entry in entries.items()}


def _entries(lock: Path) -> dict[str, str]:
    """The text of each stage of a lock file, in its order."""
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{lock} cannot be read ({error}): restore it (git checkout {lock}).") from error
    head, *blocks = re.split(r"(?m)^(?=  [^\s])", text)
    if head != _HEAD:
        raise ConfigError(f"{lock} does not begin as a lock file of DVC: restore it (git checkout {lock}).")
    return {block.partition(":")[0].strip(): block for block in blocks}


_HEAD = "schema: '2.0'\nstages:\n"


def _write(lock: Path, entries: dict[str, str], end: str = "") -> None:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(lock) as temporary:
        temporary.write_text("".join([_HEAD, *entries.values(), end]), encoding="utf-8")


def _switch(profile: str, overrides: list[str]) -> None:
    root = config.root()
    exchange_lock(root, compose(profile, root / "params.yaml", overrides).profile)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m riskpo_study.profiles", description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as train.steps=300")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _switch(options.profile, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
