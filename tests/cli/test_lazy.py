"""Commands are imported when they run, and the overview says of each what it says itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from dnnsplit_onnx.cli.app import app
from dnnsplit_onnx.cli.lazy import COMMANDS
from tests.cli.conftest import Run


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.name == name
    assert " ".join((command.help or "").split("\n\n")[0].split()) == COMMANDS[name][2]


def test_the_overview_imports_no_command() -> None:
    code = (
        "import sys\nfrom dnnsplit_onnx.cli import main\nmain(['--help'])\n"
        "print('dnnsplit_onnx.cli.plan' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    ended = run("pln")
    assert ended.code == 2
    assert "pln" in ended.err


@pytest.mark.parametrize("name", COMMANDS)
def test_short_help_of_every_command(run: Run, name: str) -> None:
    ended = run(name, "-h")
    assert ended.code == 0
    assert "--install-completion" not in ended.out
