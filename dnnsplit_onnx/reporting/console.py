"""The console that reports are printed on, and the characters it can show."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# What a report is set to where there is no terminal to measure: files and pipes.
_WIDTH_WITHOUT_TERMINAL = 100
#: Below this many columns, views leave out what can be missed.
NARROW = 76


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


def grid(*columns: str, header: bool = True) -> Table:
    """An empty table in the house style.

    Args:
        columns: Headings; one that starts with `>` is of a column of numbers.
        header: Whether to print the headings.
    """
    from rich.table import Table

    table = Table(box=None, show_header=header, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in columns:
        right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=len(heading.removeprefix(">")) if right else None,
        )
    return table
