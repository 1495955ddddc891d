"""What the notebooks share: refusing a parameter that they do not have (papermill only warns of it) or cannot use."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from riskpo_study.config import Config
from riskpo_study.errors import ConfigError

__all__ = ["check_parameters", "chosen_reference"]

_INJECTED = "# Parameters\n"  # how the cell begins that papermill adds


def check_parameters(*known: str, history: Sequence[str] | None = None) -> None:
    """Raise ConfigError where papermill set a parameter that is not `known`; nothing happens without it.

    Args:
        history: sources of the executed cells; by default those of the running notebook.
    """
    if history is None:
        import __main__

        history = getattr(__main__, "In", [])
    for name in (name for source in history if source.startswith(_INJECTED) for name in _assigned(source)):
        if name not in known:
            raise ConfigError(f"this notebook has no parameter {name}; choose of {', '.join(known)}")


def chosen_reference(settings: Config, reference: str, preferred: str) -> str:
    """The parameter `reference`; where it is empty `preferred`, or the first algorithm where that has no runs.

    Raises:
        ConfigError: for a reference without runs.
    """
    trained = settings.runs.names
    if reference and reference not in trained:
        raise ConfigError(
            f"reference = {reference!r} has no runs in profile {settings.profile}; choose of {', '.join(trained)}"
        )
    return reference or (preferred if preferred in trained else trained[0])


def _assigned(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
