"""The zoo as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dnnsplit_onnx.report import units
from dnnsplit_onnx.report.console import NARROW, grid

if TYPE_CHECKING:
    from rich.console import Console

    from dnnsplit_onnx.models import Entry


def print_zoo(console: Console, entries: Iterable[Entry]) -> None:
    """Prints the models of the zoo."""
    wide = console.width >= NARROW
    table = grid("name", ">nodes", ">MACs", ">weights", *(["what"] if wide else []))
    for entry in entries:
        what = entry.summary + (f" (needs {entry.requires})" if entry.requires else "")
        row = [entry.name, f"{entry.nodes:,}", units.flops(entry.macs, ""), units.nbytes(entry.weight_nbytes)]
        table.add_row(*row, *([what] if wide else []))
    console.print(table)
    console.print()
    console.print("Use one as `zoo:NAME`, or write it to a file with `zoo get NAME -o model.onnx`.")
    console.print(
        "Every weight of a `light_*` model is one number: plan with them, verify with the others.",
        style="dim",
    )
