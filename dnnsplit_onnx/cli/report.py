"""`report`: one page that shows what was cut, why, and how to make it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import Common, Folder, Force, takes


@takes(Common)
def report(
    folder: Folder,
    options: Common,  # noqa: ARG001
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page to write, `.html`; or `.pdf`, if Chromium is here.",
        ),
    ] = Path("report.html"),
    force: Force = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Where the whole model is now.", show_default=False),
    ] = None,
    tiers: Annotated[
        Path | None,
        typer.Option(
            "--tiers",
            metavar="T.toml",
            help="The tiers, where the plan does not hold them.",
            show_default=False,
        ),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench",
            metavar="bench.json",
            help="What `bench --json` printed, to compare.",
            show_default=False,
        ),
    ] = None,
    sample_input: Annotated[
        Path | None,
        typer.Option("--sample-input", metavar="X.npz", help="As `split` was given it.", show_default=False),
    ] = None,
    trips: Annotated[
        list[str] | None,
        typer.Option(
            "--trips", metavar="NAME=N", help="As `split` was given it. Repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Write one HTML page about a folder of slices, to read and to send.

    It needs no network: the verdict, sliders for every tier and link, the graph by tier, the cuts
    there were, trade-offs, the proof, and how to make the slices again.

    Example: dnnsplit-onnx report slices -o report.html --bench bench.json
    """
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.cli.options import ModelOptions
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.reporting.reports import report as write

    with progress("planning again"):
        write(
            folder,
            output,
            model=None if model is None else model_file(model),
            topology=tiers,
            bench=bench,
            sample_input=sample_input,
            trips=ModelOptions(trips=trips).trip_counts,
            force=force,
        )
    typer.echo(f"wrote {output}")
