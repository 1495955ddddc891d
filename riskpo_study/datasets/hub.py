"""Files of datasets in the Hugging Face cache, downloaded where they are not there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from riskpo_study.errors import DataError

__all__ = ["download_command", "snapshot"]

PATIENCE = 10.0  # seconds to wait for an answer of the hub


def snapshot(name: str, repository: str, revision: str, patterns: Sequence[str]) -> tuple[Path, str]:
    """The folder in the cache with the files of a dataset that match, some for every pattern, and their commit.

    What the cache holds of a commit is used without asking the hub; of a branch or tag, when the hub cannot be reached.

    Raises:
        DataError: where they are not to be had: with the command that downloads them.
    """
    if re.fullmatch("[0-9a-f]{40}", revision):  # what a commit holds never changes
        with suppress(OSError):
            return _snapshot(repository, revision, patterns, cached=True)
    try:
        return _snapshot(repository, revision, patterns, cached=False)
    except Exception as error:  # of HTTP clients, which differ from version to version of huggingface_hub
        with suppress(OSError):
            return _snapshot(repository, revision, patterns, cached=True)
        reason = str(error).strip().partition("\n")[0].rstrip(". ")
        raise DataError(
            f"{name}: {repository} at revision {revision} is not in the Hugging Face cache and cannot be downloaded "
            f"({type(error).__name__}: {reason}). Where the hub can be reached: "
            f"{download_command(repository, revision, patterns)}; or name a folder with a local copy."
        ) from error


def download_command(repository: str, revision: str, patterns: Sequence[str]) -> str:
    """For a shell: it downloads the files that match, and no others."""
    included = [word for pattern in patterns for word in ("--include", pattern)]
    return shlex.join(["hf", "download", "--repo-type", "dataset", repository, "--revision", revision, *included])


def _snapshot(repository: str, revision: str, patterns: Sequence[str], *, cached: bool) -> tuple[Path, str]:
    from huggingface_hub import HfApi, snapshot_download

    if not cached:  # without a network this fails within PATIENCE, where snapshot_download tries again and again
        HfApi().dataset_info(repository, revision=revision, timeout=PATIENCE)
    folder = Path(
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=list(patterns),
            local_files_only=cached,
        )
    )
    for pattern in patterns:
        found = [file.name for file in folder.glob(pattern)]
        shards = [int(match[1]) for file in found if (match := re.search(r"-of-(\d+)\b", file))]
        if not found or any(of != len(shards) for of in shards):  # a download may have been interrupted
            raise FileNotFoundError(f"{len(found) or 'no'} files {pattern} in {repository}")
    return folder, folder.name
