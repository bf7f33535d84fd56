"""The campaign: counts what was executed, keeps what was found, goes on after a find."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fuzz import campaign


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, str]]:
    """Exit codes and messages of the processes to come; each takes ten seconds of a clock of ours."""
    left: list[tuple[int, str]] = []
    clock = [0.0]

    def run(command: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        clock[0] += 10
        code, said = left.pop(0)
        return subprocess.CompletedProcess(list(map(str, command)), code, "", said)

    monkeypatch.setattr(campaign, "_WORK", tmp_path)
    monkeypatch.setattr(campaign.subprocess, "run", run)
    monkeypatch.setattr(campaign.time, "monotonic", lambda: clock[0])
    return left


def test_a_target_goes_on_after_a_find(runs: list[tuple[int, str]], tmp_path: Path) -> None:
    find = tmp_path / "finds" / "wire-crash-1234"
    runs += [
        (77, f"Test unit written to {find}\nstat::number_of_executed_units: 100\n"),
        (0, "stat::number_of_executed_units: 2000\n"),
    ]
    outcome = campaign.fuzz("wire", 20)
    assert (outcome.executed, outcome.finds, outcome.seconds) == (2100, [find], 20.0)
    assert runs == []


def test_a_process_that_dies_without_a_word_is_a_find(runs: list[tuple[int, str]]) -> None:
    runs += [(-11, "#1 pulse")]
    (log,) = campaign.fuzz("wire", 10).finds
    assert log.read_text().startswith("exit code -11\n")


def test_a_slow_input_alone_is_none(runs: list[tuple[int, str]]) -> None:
    runs += [(0, "Test unit written to /x/wire-slow-unit-12\nstat::number_of_executed_units: 5\n")]
    assert campaign.fuzz("wire", 10).finds == []


def test_the_report_adds_up(runs: list[tuple[int, str]], capsys: pytest.CaptureFixture[str]) -> None:
    runs += [(0, "stat::number_of_executed_units: 1500\n"), (1, "no atheris")]
    assert campaign.main(["--minutes", "0.33", "--target", "wire", "--target", "head"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["wire", "1,500", "10", "0"]
    assert lines[3].split() == ["all", "1,500"]
    assert "head-died-0.log" in lines[4]
