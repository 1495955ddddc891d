"""What the notebooks share: refusing a parameter that they do not have (papermill only warns of it) or cannot use."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from riskpo_study.config import Config
from riskpo_study.errors import ConfigError

__all__ = ["check_parameters", "check_steps", "check_task", "chosen_reference"]

_INJECTED = "# Parameters\n"  # how the cell begins that papermill adds


def check_parameters(*known: str, history: Sequence[str] | None = None) -> None:
    """Raise ConfigError where papermill set a parameter that is not `known`, or to a value of another type.

    Nothing happens without papermill.

    Args:
        history: sources of the executed cells; by default those of the running notebook.
    """
    if history is None:
        import __main__

        history = getattr(__main__, "In", [])
    defaults: dict[str, ast.expr] = {}
    for source in history:
        if not source.startswith(_INJECTED):
            defaults = _assigned(source) | defaults
            continue
        for name, value in _assigned(source).items():
            if name not in known:
                raise ConfigError(f"this notebook has no parameter {name}; choose of {', '.join(known)}")
            given, wanted = _kind(value), _kind(defaults.get(name, value))
            if given != wanted and (given, wanted) != ("int", "float"):
                raise ConfigError(
                    f"{name} = {ast.unparse(value)} is of type {given}, its default {ast.unparse(defaults[name])} of "
                    f"type {wanted}; papermill takes lists and tables as -y '{name}: …'"
                )


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


def check_steps(steps: object, recorded: Sequence[int]) -> None:
    """Raise ConfigError unless the parameter `steps` is a list of some of the `recorded` training steps."""
    known = f"choose of [{', '.join(map(str, recorded))}]"
    if not isinstance(steps, list):
        raise ConfigError(f"steps = {steps!r} is no list of training steps; {known}")
    if unknown := [step for step in steps if step not in recorded]:
        raise ConfigError(f"steps = {steps!r}: there are no records of step {unknown[0]!r}; {known}")


def check_task(settings: Config, task: str) -> None:
    """Raise ConfigError unless the parameter `task` is another profile with records."""
    found = {path.parents[1].name for path in settings.results.parent.glob("*/records/counts.parquet")}
    others = ", ".join(sorted(found - {settings.profile})) or "none yet (make repro PROFILE=… makes some)"
    if task == settings.profile:
        raise ConfigError(f"task = {task!r} is the present profile itself; choose another one with records: {others}")
    if task not in found:
        raise ConfigError(f"task = {task!r} has no records; profiles with records are {others}")


def _assigned(source: str) -> dict[str, ast.expr]:
    """Names and values of the assignments of a cell; a cell of magics, which does not parse, has none."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return {}
    assigned = [(one.targets[0], one.value) for one in body if isinstance(one, ast.Assign)]
    return {target.id: value for target, value in assigned if isinstance(target, ast.Name)}


def _kind(value: ast.expr) -> str:
    """The type of a literal; papermill passes what has none, such as NaN, as `float("nan")`."""
    try:
        return type(ast.literal_eval(value)).__name__
    except ValueError:
        return "float"
