"""What is said when something goes wrong, and the exit code of each kind of wrong."""

from __future__ import annotations

import io
import sys

import pytest

from dnnsplit_onnx.cli import failures
from dnnsplit_onnx.errors import InfeasibleError, ModelError


def said(error: BaseException, capsys: pytest.CaptureFixture[str], *, debug: bool = False) -> tuple[int, str]:
    code = failures.report(error, debug=debug)
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def test_errors_of_the_tool(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModelError("no such node", context="in m.onnx\nused by `a`", hint="look again")
    assert said(error, capsys) == (2, "error: no such node\n  in m.onnx\n  used by `a`\nhint: look again\n")
    assert said(InfeasibleError("too slow"), capsys) == (1, "error: too slow\n")


def test_what_no_program_foresees(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(MemoryError(), capsys) == (
        1,
        "error: out of memory\nhint: close other programs, or use a machine with more\n",
    )
    assert said(KeyboardInterrupt(), capsys) == (failures.INTERRUPTED, "error: interrupted\n")
    code, text = said(ZeroDivisionError("by zero"), capsys)
    assert code == failures.BUG
    assert text == (
        "error: internal error: ZeroDivisionError: by zero\n"
        "hint: this is a bug: run again with --debug, and report it with the traceback\n"
    )


def test_the_traceback_is_there_for_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(ZeroDivisionError("by zero"), capsys, debug=True)
    assert code == failures.BUG
    assert text.startswith("ZeroDivisionError: by zero\n")
    assert text.endswith("hint: this is a bug: report it with the traceback\n")


def test_a_reader_that_went_away_is_told_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # without a descriptor there is nothing to point away
    code = failures.report(BrokenPipeError(), debug=False)
    assert code == failures.BROKEN_PIPE
    assert capsys.readouterr().err == ""


class Narrow(io.StringIO):
    """A terminal of ASCII."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, *_: object) -> int:
        raise OSError("gone")


def test_terminals_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", narrow := Narrow())
    failures.complain("a café\nis \x1b[31mred")
    assert narrow.getvalue() == "\x1b[1;31merror:\x1b[0m a caf\\xe9 is \\x1b[31mred\n"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", narrow := Narrow())
    failures.complain("x" * 100_000)
    assert narrow.getvalue() == f"error: {'x' * failures._LONGEST_LINE}...\n"
    monkeypatch.setattr(sys, "stderr", Gone())
    failures.complain("nobody hears")
