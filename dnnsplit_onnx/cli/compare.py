"""`compare`: planners side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.conditions import JudgedOptions
from dnnsplit_onnx.cli.options import Force, Format, Model, takes
from dnnsplit_onnx.cli.plotting import Plot, refuse_early


@takes(JudgedOptions)
def compare(
    model: Model,
    options: JudgedOptions,
    planners: Annotated[
        list[str] | None,
        typer.Option(
            "--planners",
            metavar="A,B,...",
            help="Which planners. [default: all]",
            autocompletion=completion.planners,
            show_default=False,
        ),
    ] = None,
    plot: Plot = None,
    force: Force = False,
    form: Format = "table",
) -> None:
    """Run planners side by side: value, gap to the best, effort.

    Every plan is priced by the same rules, with all values that cross a cut, whatever its
    planner believed. Planners of published systems are run as published; those that do not
    know the objective say so. With --tolerance or --agreement, plans whose codes lose more on
    the samples count as breaking a limit; `exact` looks for the best that does not.

    Example: dnnsplit-onnx compare model.onnx --tiers tiers.toml --planners exact,dads
    """
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.planning.comparing import compare
    from dnnsplit_onnx.reporting.progress import progress

    refuse_early(plot, force=force)
    topology, weights = options.topology(), options.weights()
    named = [name.strip() for text in planners or () for name in text.split(",") if name.strip()]
    analysis = load_analysis(model, options)
    with progress("planning") as update:
        found = compare(
            analysis,
            topology,
            named or None,
            objective=options.objective,
            weights=weights,
            accounting=options.cut_size,
            accept=options.judge(analysis),
            progress=update,
        )
    if plot is not None:
        from dnnsplit_onnx.reporting.comparison_plot import plot_comparison

        plot_comparison(plot, found, force=force)
    from dnnsplit_onnx.cli.output import print_as

    if not print_as(form, found, json=options.json):
        from dnnsplit_onnx.reporting.comparison import print_comparison
        from dnnsplit_onnx.reporting.console import stdout_console

        print_comparison(stdout_console(), found)
    if found.best is None:
        from dnnsplit_onnx.errors import InfeasibleError

        raise InfeasibleError(
            "no planner found a plan within the limits", hint="`plan` says which limits conflict"
        )
