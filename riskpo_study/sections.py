"""Generated sections of hand-written Markdown pages: what stands between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from riskpo_study import files
from riskpo_study.errors import ConfigError

__all__ = ["read", "table", "write"]


def read(page: Path, name: str) -> str:
    """The section `name` of a page, with the line break before its end.

    Raises:
        ConfigError: where the page has no such section.
    """
    return _parts(page, name)[1]


def write(page: Path, name: str, text: str) -> None:
    """Replace the section `name` of a page; `text` ends with a line break.

    Raises:
        ConfigError: where the page has no such section; it is left as it is.
    """
    before, _, after = _parts(page, name)
    with files.atomic(page) as temporary:
        temporary.write_text(before + text + after, encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table: the first column to the left, the others, numbers, to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    """Before, in and after the section, the marks left outside of it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    text, ended, after = rest.partition(end)
    if not ended:
        raise ConfigError(f"{page} lacks the lines {begin.strip()} and {end}: add them where the section belongs.")
    return before + begun, text, ended + after
