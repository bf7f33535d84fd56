"""The text of a tiers file: how it is decoded, where a value stands, and what broke its TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

# Beyond these a line is not worth the time that finding it takes.
_MOST_LINES = 500
_MOST_CHARACTERS = 1 << 14

_KEY = r"^\s*([A-Za-z_][A-Za-z0-9_-]*)\s*"
#: What people write that TOML does not know: a line, and how to write it instead.
_HABITS = (
    (
        rf"{_KEY}=\s*[\"']?(\d{{1,3}}),(\d{{3}})[\"']?\s*(?:#.*)?$",
        r"write no comma: \1 = \2\3, or \1 = \2.\3 if it is a decimal one",
    ),
    (rf"{_KEY}=\s*[\"']?(\d+),(\d+)[\"']?\s*(?:#.*)?$", r"write a decimal point: \1 = \2.\3"),
    (rf"{_KEY}=\s*\.(\d+)\s*(?:#.*)?$", r"write the zero: \1 = 0.\2"),
    (rf"{_KEY}=\s*[Tt]rue\s*(?:#.*)?$", r"write it in small letters: \1 = true"),
    (rf"{_KEY}=\s*[Ff]alse\s*(?:#.*)?$", r"write it in small letters: \1 = false"),
    (rf"{_KEY}=\s*(?i:yes|on)\s*(?:#.*)?$", r"write true or false: \1 = true"),
    (rf"{_KEY}=\s*(?i:no|off)\s*(?:#.*)?$", r"write true or false: \1 = false"),
    (rf"{_KEY}=\s*(?:\"([^\"'#]*?)|'([^\"'#]*?))\s*(?:#.*)?$", r'close the quotes: \1 = "\2\3"'),
    (rf"{_KEY}=\s*([^\s\"'#]+)[\"']\s*(?:#.*)?$", r'open the quotes: \1 = "\2"'),
    (rf"{_KEY}=\s*[\u2018-\u201f\u00ab](.*?)[\u2018-\u201f\u00bb]\s*$", r'use straight quotes: \1 = "\2"'),
    (
        rf"{_KEY}=\s*([+-]?[0-9][0-9.eE+-]*)\s*[A-Za-z%µ$€/].*$",
        r"give the number alone, without its unit: \1 = \2",
    ),
    (rf"{_KEY}=\s*([A-Za-z][\w. -]*?)\s*(?:#.*)?$", r'put text in quotes: \1 = "\2"'),
    (rf"{_KEY}:\s*(\S.*?)\s*$", r"write `=` for the colon: \1 = \2"),
    (r"^\s*([A-Za-z_][A-Za-z0-9_-]*)\s+([^=\s].*?)\s*$", r"write `=` between them: \1 = \2"),
)


def decoded(text: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        UnicodeDecodeError: It is not in UTF-8.
    """
    return text.decode("utf-8-sig")


def syntax_hint(error: ValueError, lines: Sequence[str]) -> str | None:
    """What to write instead of what broke a file; None where no habit is recognised.

    Args:
        error: As `tomllib` raised it.
        lines: Of the file.
    """
    if isinstance(error, UnicodeDecodeError):
        return "save the file as UTF-8"
    said = str(error)
    if twice := re.search(r"Cannot declare \('(tier|link)',\) twice", said):
        return f"write [[{twice[1]}]], in two pairs of brackets, before each of them"
    if "Cannot overwrite a value" in said:
        return "one key stands twice in its table: before each further tier or link goes [[tier]] or [[link]]"
    place = re.search(r"at line (\d+)", said)
    if place is None or int(place[1]) > len(lines):
        return None
    line = lines[int(place[1]) - 1]
    for pattern, instead in _HABITS:
        if (habit := re.match(pattern, line)) is not None and len(line) < 200:
            return habit.expand(instead)
    return None


def line_of(text: str, keys: Sequence[str | int]) -> int | None:
    """The line, from 1, where a value or its table begins.

    A prefix of a file that ends with a statement is a file, too: the shortest that has the
    value ends with it.

    Args:
        text: A whole file, which `tomllib` reads.
        keys: Of the value, from the outermost; those that the file lacks are passed over.
    """
    lines = text.split("\n")
    if len(lines) > _MOST_LINES or len(text) > _MOST_CHARACTERS:
        return None
    known = tuple(keys)
    whole = _read(lines)
    while known and not _has(whole, known):
        known = known[:-1]
    before = 0
    for count in range(1, len(lines) + 1 if known else 0):
        data = _read(lines[:count])
        if _has(data, known):
            return _first_code(lines, before)
        before = before if data is None else count
    return None


def _first_code(lines: Sequence[str], after: int) -> int:
    """The first line after so many that is not empty and no comment."""
    for number, line in enumerate(lines[after:], start=after + 1):
        if line.strip() and not line.lstrip().startswith("#"):
            return number
    return after + 1


def _read(lines: Sequence[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _has(data: Any, keys: Sequence[str | int]) -> bool:
    for key in keys:
        in_list = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if not in_list and not (isinstance(data, dict) and key in data):
            return False
        data = data[key]
    return True
