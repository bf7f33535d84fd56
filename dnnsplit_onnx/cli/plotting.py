"""`--plot`: what the commands that draw share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Plot = Annotated[
    list[Path] | None,
    typer.Option(
        "--plot", metavar="FILE", help="Draw it too, as .png or .svg; may be repeated.", show_default=False
    ),
]


def refuse_early(plots: list[Path] | None, *, force: bool) -> None:
    """Finds before the work what would stop its picture from being written.

    Raises:
        InputError: The name asks for a format that cannot be drawn.
        MissingExtraError: matplotlib is not installed.
        OutputError: The file exists.
    """
    if not plots:
        return
    from dnnsplit_onnx.files import already_exists
    from dnnsplit_onnx.reporting.figure import need_matplotlib, picture_format

    for plot in plots:
        if plot.exists() and not force:
            raise already_exists(plot)
        picture_format(plot)
    need_matplotlib()
