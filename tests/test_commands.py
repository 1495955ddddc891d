"""The commands `python -m riskpo_study.…`: how they end where something is wrong."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from riskpo_study import config, rehearsal
from riskpo_study.errors import ConfigError, DataError, RunError, exit_code

ROOT = Path(__file__).parents[1]
ARGUMENTS: dict[str, list[list[str]]] = {
    "claims": [], "records": [], "report": [], "scale_out": [], "white_images": [],
    "compare": [[]], "cost_tables": [[]], "profiles": [["quick"]], "rehearsal": [["quick"]],
}  # fmt: skip


@pytest.mark.parametrize("error", [ConfigError, DataError, RunError])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, error: type[Exception]
) -> None:
    def refuse() -> None:
        raise error("the disk:\n  it is full")

    monkeypatch.setattr(config, "root", refuse)
    monkeypatch.setattr(config, "load", refuse)
    assert importlib.import_module(f"riskpo_study.{name}").main(*ARGUMENTS[name]) == 1
    assert capsys.readouterr().err == "the disk: it is full\n"


def test_other_errors_are_no_message() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)
    assert exit_code(lambda: "a result") == 0


def test_what_has_no_stand_ins_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        ConfigError, match=r"profile smoke: .* 'countdown' with base_model.pretrained = none: run it as"
    ):
        rehearsal.rehearse("smoke", tmp_path)
    assert not list(tmp_path.iterdir())
