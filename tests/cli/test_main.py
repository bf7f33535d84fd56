"""The way in and the way out: version, usage errors, bugs, interrupts, closed pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnnsplit_onnx import __version__
from dnnsplit_onnx.cli import failures
from dnnsplit_onnx.errors import ModelError
from tests.cli.conftest import Run

COMMAND = [sys.executable, "-m", "dnnsplit_onnx"]


def test_version(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"dnnsplit-onnx {__version__}\n", "")


def test_without_a_command_it_shows_help_and_says_wrong_usage(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert "Usage: dnnsplit-onnx" in ended.out + ended.err


@pytest.mark.parametrize("command", ["inspect", "plan", "split", "verify", "bench", "zoo list", "zoo get"])
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert ended.code == 0
    assert f"Example: dnnsplit-onnx {command}" in ended.out
    assert "--debug" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["pla"], "no such command `pla`", "did you mean `plan`?"),
        (["plan"], "missing argument `MODEL`", "see `dnnsplit-onnx plan --help`"),
        (["plan", "m.onnx", "--tier", "t.toml"], "no such option: --tier", "did you mean `--tiers`?"),
        (
            ["plan", "m.onnx", "--objective", "beauty"],
            "invalid value for `--objective`: `beauty` is not one of `latency`, `cost`, `throughput`,",
            "see `dnnsplit-onnx plan --help`",
        ),
        (["bench", "d", "--runs", "0"], "invalid value for `--runs`", "see `dnnsplit-onnx bench --help`"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(run: Run, arguments: list[str], message: str, hint: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    first, second = ended.err.splitlines()
    assert first.startswith(f"error: {message}")
    assert second == f"hint: {hint}"


def test_an_error_has_its_context_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    code = failures.report(ModelError("it is broken", context="in a.onnx", hint="mend it"), debug=False)
    assert code == 2
    assert capsys.readouterr().err == "error: it is broken\n  in a.onnx\nhint: mend it\n"


def test_names_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(ModelError("node `\x1b[2Jevil\r\nname`"), debug=False)
    assert capsys.readouterr().err == "error: node `\\x1b[2Jevil name`\n"


def test_a_bug_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("dnnsplit_onnx.reporting.zoo_view.print_zoo", explode)
    ended = run("zoo", "list")
    assert ended.code == failures.BUG
    assert ended.err.startswith(
        "error: internal error: ZeroDivisionError: by nought\nhint: this is a bug: run again"
    )


@pytest.mark.parametrize("arguments", [["--debug", "inspect", "no.onnx"], ["inspect", "no.onnx", "--debug"]])
def test_debug_shows_the_traceback(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert "Traceback (most recent call last)" in ended.err
    assert "error: no such file: `no.onnx`" in ended.err.splitlines()


def test_without_debug_there_is_no_traceback(run: Run) -> None:
    lines = run("inspect", "no.onnx").err.splitlines()
    assert lines[0] == "error: no such file: `no.onnx`"
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]


def test_an_interrupt_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dnnsplit_onnx.reporting.zoo_view.print_zoo", interrupt)
    ended = run("zoo", "list")
    assert (ended.code, ended.err) == (130, "error: interrupted\n")


@pytest.mark.parametrize("command", ["zoo list --json", "inspect zoo:light_densenet121 --json"])
def test_a_closed_pipe_is_quiet(command: str) -> None:
    # The reader is gone before anything is written; the second output is larger than any buffer.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *command.split()], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_module_runs_as_the_program_does() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dnnsplit-onnx {__version__}\n"


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    command = [*COMMAND, "inspect", "zoo:light_squeezenet"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b" - 66 nodes - " in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dnnsplit-onnx ", {"plan", "split", "zoo"}),
        ("dnnsplit-onnx plan m.onnx --planner ", {"exact", "dnnsplit", "exhaustive"}),
        ("dnnsplit-onnx inspect zoo:tiny", {"zoo:tiny_residual", "zoo:tiny_transformer"}),
        ("dnnsplit-onnx zoo get light_r", {"light_resnet50"}),
    ],
)
def test_the_shell_completes(words: str, expected: set[str]) -> None:
    environment = {
        **os.environ,
        "_DNNSPLIT_ONNX_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True, env=environment)
    assert expected <= set(done.stdout.split())


def test_completion_of_models_walks_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dnnsplit_onnx.cli.completion import models

    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    for name in ("a.onnx", "b.txt", "inner/c.onnx"):
        (tmp_path / name).touch()
    assert set(models("")) >= {"a.onnx", "inner/", "zoo:tiny_residual"}
    assert "b.txt" not in set(models(""))
    assert list(models("inner/")) == ["inner/c.onnx"]
    assert list(models("nowhere/")) == []


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["inspect", "no-such.onnx"], 2)])
def test_a_process_that_leaves_early_has_its_code_and_all_its_output(words: list[str], code: int) -> None:
    # What other modules do at the end is done: their handlers run before ours.
    script = (
        "import atexit, sys\nfrom dnnsplit_onnx.cli import app\nbefore = app.main\n"
        "def main():\n    atexit.register(print, 'cleared')\n    return before()\n"
        "app.main = main\nsys.exit(app.run())"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "cleared"
    assert ("no-such.onnx" in done.stderr) == (code != 0)
