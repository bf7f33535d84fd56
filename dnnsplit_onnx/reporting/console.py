"""The console that reports are printed on, and the characters it can show."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dnnsplit_onnx.reporting.grid import Grid

# What a report is set to where there is no terminal to measure: files and pipes.
_WIDTH_WITHOUT_TERMINAL = 100
#: Below this many columns, views leave out what can be missed.
NARROW = 76
# The name of the way in which characters are written that an encoding has not, and the characters.
_PLAIN_CHARACTERS = "dnnsplit_onnx.plain"
_PLAIN = {"µ": "u", "μ": "u", "→": ">", "█": "#", "░": ".", "·": "-", "…": "."}


class Glyphs(NamedTuple):
    """Characters of bars and arrows."""

    compute: str
    transfer: str
    arrow: str
    dot: str


_UNICODE = Glyphs("█", "░", "→", "·")
_ASCII = Glyphs("#", ".", "->", "-")


def stdout_console(width: int | None = None) -> Console:
    """A console on stdout: colour only on a terminal, and not where `NO_COLOR` is set."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_PLAIN_CHARACTERS)
    if width is None and "COLUMNS" not in os.environ and not sys.stdout.isatty():
        width = _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False, markup=False, emoji=False, legacy_windows=False)


def glyphs(console: Console) -> Glyphs:
    """The characters that the console's encoding has."""
    try:
        "".join(_UNICODE).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _UNICODE


def grid(*columns: str, header: bool = True) -> Grid:
    """An empty table in the house style, which never shortens a figure.

    Args:
        columns: Headings; one that starts with `>` is of figures, with `=` of figures that are
            set left, with `?` of what may be missed.
        header: Whether to print the headings.
    """
    from dnnsplit_onnx.reporting.grid import Grid

    return Grid(*columns, header=header)


def with_note(table: Grid, note: str) -> RenderableType:
    """A table with a line below it, if there is anything to say."""
    from rich.console import Group
    from rich.text import Text

    return Group(table, Text(note, style="dim")) if note else table


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that the output's encoding has not, as many columns wide."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("unicode_escape").decode() for c in lacking), error.end


codecs.register_error(_PLAIN_CHARACTERS, _in_plain_characters)
