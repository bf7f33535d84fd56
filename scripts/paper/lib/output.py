"""Tables and figures of the scripts, in the results folder, which git ignores.

`$DNNSPLIT_PAPER_RESULTS` names another folder.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.reporting.colours import COLOURS
from dnnsplit_onnx.reporting.figure import HATCHES, need_matplotlib

__all__ = ["COLOURS", "HATCHES", "figures", "parser", "print_table", "results", "write_csv"]

#: A figure of one column of a page, inches.
WIDTH, HEIGHT = 7.0, 4.5


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def results() -> Path:
    """The folder that everything is written to, made if it is not there."""
    given = os.environ.get("DNNSPLIT_PAPER_RESULTS")
    folder = Path(given) if given else Path(__file__).resolve().parents[1] / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_csv(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Writes `name`.csv, in full precision.

    Raises:
        ValueError: A row is longer or shorter than the header.
    """
    path = results() / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"{name}.csv: a row of {len(row)} under a header of {len(header)}")
            writer.writerow(row)
    print(f"wrote {path.name}", file=sys.stderr)
    return path


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows in columns: the first to the left, all others to the right, numbers in short."""
    lines = [[_shown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    for line in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([f"{line[0]:<{widths[0]}}", *cells]).rstrip())


@contextmanager
def figures(
    name: str, rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = HEIGHT, **shared: Any
) -> Iterator[Any]:
    """A grid of axes, written to `name`.png and `name`.svg when the block ends well.

    Args:
        name: The files' name without an ending.
        rows: Of the grid.
        columns: Of the grid.
        width: Inches.
        height: Inches.
        shared: `sharex` and `sharey`, as matplotlib's `subplots` takes them.

    Yields:
        matplotlib's `Axes`; an array of them, as `subplots` gives it, if there are several.
    """
    matplotlib = need_matplotlib()
    # The same picture is the same file: no dates, no random names inside.
    with matplotlib.rc_context({"svg.hashsalt": "dnnsplit-onnx", "svg.fonttype": "none", "font.size": 9}):
        figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, **shared)
        for kind in ("png", "svg"):
            with written_whole(results() / f"{name}.{kind}", force=True) as file:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(file, format=kind, dpi=150, metadata=metadata)
    print(f"wrote {name}.png and {name}.svg", file=sys.stderr)


def _shown(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
