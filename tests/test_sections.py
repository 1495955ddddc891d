"""Generated sections of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from riskpo_study import sections
from riskpo_study.errors import ConfigError


def test_a_section_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- costs -->\nold\n<!-- /costs -->\nafter <!-- /costs -->\n")
    assert sections.read(page, "costs") == "old\n"
    table = sections.table(["size", "n"], [["large", "10"]])
    assert table == "| size | n |\n| --- | ---: |\n| large | 10 |\n"
    sections.write(page, "costs", table)
    assert page.read_text() == f"before\n<!-- costs -->\n{table}<!-- /costs -->\nafter <!-- /costs -->\n"
    assert sections.read(page, "costs") == table


@pytest.mark.parametrize("text", ["no marks", "<!-- costs -->\nno end", "no begin <!-- /costs -->"])
def test_a_page_without_the_section_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="page.md lacks the lines <!-- costs --> and <!-- /costs -->"):
        sections.write(page, "costs", "new\n")
    assert page.read_text() == text
