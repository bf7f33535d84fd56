"""Writes docs/cli.md: every command and option, from the program itself.

.venv/bin/python scripts/lib/cli_page.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from dnnsplit_onnx.cli.app import PROGRAM, app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
HIDDEN = {"help", "install_completion", "show_completion"}


def page() -> str:
    """The text of the page."""
    root = typer.main.get_command(app)
    lines = [
        "# The command line",
        "",
        "Made by `scripts/lib/cli_page.py`; a test holds it against the program.",
        "",
    ]
    for words, command in commands((PROGRAM,), root):
        lines += [f"## `{' '.join(words)}`", "", *body(command), ""]
    return "\n".join(lines)


def commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands((*words, name), inner)


def body(command: Any) -> Iterator[str]:
    """What a command does, and its arguments and options."""
    for line in inspect.cleandoc(command.help or "").splitlines():
        yield f"    {line.removeprefix('Example: ')}" if line.startswith("Example: ") else line
    rows = [row(parameter) for parameter in command.params if parameter.name not in HIDDEN]
    if rows:
        yield from ("", "| | |", "|---|---|", *rows)


def row(parameter: Any) -> str:
    """One argument or option as a row of a table."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{plain(parameter.metavar)}`"
    elif parameter.metavar:
        names = f"{names} `{plain(parameter.metavar)}`"
    elif choices := parameter.type_descriptor.choices:
        names = f"{names} {' or '.join(f'`{choice}`' for choice in choices)}"
    default = parameter.default
    if default is True and parameter.secondary_opts:
        default = parameter.opts[0]
    shown = (
        f" Default: `{default}`."
        if default not in (None, False) and parameter.show_default is not False
        else ""
    )
    return f"| {names} | {parameter.help or ''}{shown} |"


def plain(metavar: str) -> str:
    """What an option takes, without the sign that would end the cell of a table."""
    return metavar.replace("|", " or ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
