"""The zoo as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid

if TYPE_CHECKING:
    from rich.console import Console

    from dnnsplit_onnx.models.frameworks import FrameworkEntry
    from dnnsplit_onnx.models.registry import Entry


def print_zoo(console: Console, entries: Iterable[Entry | FrameworkEntry]) -> None:
    """Prints the models of the zoo."""
    table = grid("=name", ">nodes", ">MACs", ">weights", "?what")
    for entry in entries:
        table.add_row(*_row(entry))
    console.print(table)
    console.print()
    console.print("Use one as `zoo:NAME`, or write it to a file with `zoo get NAME -o model.onnx`.")
    console.print("Those marked [keras] and the like need that extra: pip install 'dnnsplit-onnx[keras]'.")
    console.print(
        "Every weight of a `light_*` model is one number: plan with them, verify with the others.",
        style="dim",
    )


def _row(entry: Entry | FrameworkEntry) -> tuple[str, ...]:
    needs = entry.requires.removeprefix("dnnsplit-onnx")
    what = f"{needs} {entry.summary}".lstrip()
    return (
        entry.name,
        f"{entry.nodes:,}",
        units.flops(entry.macs, ""),
        units.nbytes(entry.weight_nbytes),
        what,
    )
