"""What the notebooks share: refusing a parameter that they do not have; papermill itself only warns of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from riskpo_study.errors import ConfigError

__all__ = ["check_parameters"]

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


def _assigned(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
