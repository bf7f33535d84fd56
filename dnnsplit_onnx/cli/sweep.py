"""`sweep`: what is best as conditions change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.conditions import JudgedOptions
from dnnsplit_onnx.cli.options import Force, Format, Model, takes
from dnnsplit_onnx.cli.plotting import refuse_early
from dnnsplit_onnx.errors import InputError


@takes(JudgedOptions)
def sweep(
    model: Model,
    options: JudgedOptions,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="A key of the tiers file and what it takes: `1,10,100`, `0:200:20` evenly spaced, or "
            "`1:1000:log7`. Repeatable.",
            show_default=False,
        ),
    ] = None,
    planner: Annotated[
        str,
        typer.Option(
            "--planner", metavar="NAME", help="Who chooses the cuts.", autocompletion=completion.planners
        ),
    ] = "exact",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.csv", help="Write every point here too.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw one or two axes, as .png or .svg; may be repeated.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            min=1,
            help="How many processes to plan on. [default: as many as save time]",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    form: Format = "table",
) -> None:
    """Plan over a grid of conditions, and map what is best where.

    A key is written as `link.0.bandwidth_mbps`, `tier.edge.gflops` or `limits.deadline_ms`.

    Example: dnnsplit-onnx sweep model.onnx --tiers tiers.toml --vary link.0.bandwidth_mbps=1:1000:log7
    """
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.planning.sweeping import parse_axis, sweep
    from dnnsplit_onnx.reporting.progress import progress

    if not vary:
        raise InputError("missing option `--vary`", hint="such as --vary link.0.bandwidth_mbps=1,10,100")
    axes = [parse_axis(text) for text in vary]
    _refuse_early(output, plot, len(axes), force=force)
    topology, weights = options.topology(), options.weights()
    analysis = load_analysis(model, options)
    with progress("planning") as update:
        found = sweep(
            analysis,
            topology,
            axes,
            objective=options.objective,
            planner=planner,
            accounting=options.cut_size,
            weights=weights,
            progress=update,
            processes=processes,
            accept=options.judge(analysis),
        )
    if output is not None:
        from dnnsplit_onnx.files import written_whole
        from dnnsplit_onnx.reporting.sweep_view import sweep_csv

        with written_whole(output, force=force) as file:
            file.write(sweep_csv(axes, found.points).encode())
    if plot:
        from dnnsplit_onnx.reporting.sweep_plot import plot_sweep

        for picture in plot:
            plot_sweep(picture, axes, found.points, options.objective, force=force)
    from dnnsplit_onnx.cli.output import print_as

    if print_as(form, found, json=options.json):
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.sweep_view import print_sweep

    print_sweep(stdout_console(), axes, found.points, options.objective)


def _refuse_early(output: Path | None, plot: list[Path] | None, axes: int, *, force: bool) -> None:
    """Finds before the work what would stop its result from being written."""
    from dnnsplit_onnx.files import already_exists

    if output is not None and output.exists() and not force:
        raise already_exists(output)
    refuse_early(plot, force=force)
    if plot and axes > 2:
        raise InputError(
            f"a plot shows one axis or two, not {axes}", hint="leave out --plot, or sweep fewer keys"
        )
