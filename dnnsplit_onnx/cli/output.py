"""What commands print on stdout, and notes on stderr."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Entries of a list that JSON still indents.
_LONG = 1000


class Tabular(Protocol):
    """A result that has rows and a whole."""

    def records(self) -> list[dict[str, Any]]:
        """Its rows."""

    def to_dict(self) -> dict[str, Any]:
        """All of it."""


@dataclass(frozen=True)
class Rows:
    """Rows and a whole that are no result of their own."""

    rows: list[dict[str, Any]]
    whole: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """The rows."""
        return self.rows

    def to_dict(self) -> dict[str, Any]:
        """The whole."""
        return self.whole


def print_as(form: str, result: Tabular, *, json: bool) -> bool:
    """Prints a result as JSON, CSV, Markdown or LaTeX.

    Args:
        form: As `--format` names it.
        result: What to print.
        json: Whether `--json` asks for JSON.

    Returns:
        Whether it was printed: False leaves the table to the caller.
    """
    if json or form == "json":
        print_json(result.to_dict())
    elif form == "csv":
        _print_csv(result.records())
    elif form == "markdown":
        _print_markdown(result.records())
    elif form == "latex":
        _print_latex(result.records())
    else:
        return False
    return True


def _print_csv(records: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, _columns(records), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _cell(value) for key, value in record.items()})


def _print_markdown(records: Sequence[Mapping[str, Any]]) -> None:
    """A table as GitHub and Pandoc read it."""
    columns = _columns(records)
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(record.get(key)) for key in columns] for record in records]
    for line in lines:
        sys.stdout.write(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n")


def _print_latex(records: Sequence[Mapping[str, Any]]) -> None:
    """A `tabular` of the package booktabs, numbers to the right."""
    columns = _columns(records)
    numeric = [all(isinstance(one.get(key), int | float | None) for one in records) for key in columns]
    rows = [columns, *([_cell(record.get(key)) for key in columns] for record in records)]
    head, *body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    kinds = "".join("r" if is_numeric else "l" for is_numeric in numeric)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    sys.stdout.write("\n".join([*lines, r"\end{tabular}"]) + "\n")


def _latex(said: str) -> str:
    """Text in which nothing is a command."""
    return said.translate(_LATEX)


# What means something to LaTeX, and how it is said.
_LATEX = str.maketrans(
    {one: rf"\{one}" for one in "#$%&_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all rows, in the order they come."""
    return list(dict.fromkeys(key for record in records for key in record))


def _cell(value: Any) -> str:
    """A value in one cell: nothing for None, whole precision for numbers."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(_cell, value))
    return " ".join(str(value).splitlines())


def print_json(data: dict[str, Any]) -> None:
    """Prints one JSON object, and nothing else, to stdout.

    It is indented, but for long lists, which have an entry a line: on those of large models
    Python's encoder, which indents, takes ten times as long as C's, and a gigabyte.
    """
    if not any(_is_long(value) for value in data.values()):
        sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
        return
    before = "{"
    for key, value in data.items():
        sys.stdout.write(f"{before}\n  {json.dumps(key)}: ")
        if _is_long(value):
            rows = ",\n    ".join(map(json.JSONEncoder(allow_nan=False).encode, value))
            sys.stdout.write(f"[\n    {rows}\n  ]")
        else:
            sys.stdout.write(json.dumps(value, indent=2, allow_nan=False).replace("\n", "\n  "))
        before = ","
    sys.stdout.write("\n}\n")


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > _LONG


def next_command(*words: str) -> str:
    """The line that says what to run next."""
    return f"next: {shlex.join(['dnnsplit-onnx', *words])}"


def note(text: str) -> None:
    """Says something by the way, on stderr."""
    sys.stderr.write(f"note: {text}\n")
