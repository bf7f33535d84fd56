"""`compare`: planners side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.options import Force, Format, Model, takes
from dnnsplit_onnx.cli.plotting import Plot, refuse_early
from dnnsplit_onnx.cli.rivals import RivalOptions


@takes(RivalOptions)
def compare(
    model: Model,
    options: RivalOptions,
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
    """Run planners side by side, or a split beside its rivals.

    Every plan is priced by the same rules, with all values that cross a cut, whatever its
    planner believed. Planners of published systems are run as published; those that do not
    know the objective say so. With --tolerance or --agreement, plans whose codes lose more on
    the samples count as breaking a limit; `exact` looks for the best that does not.

    With --rivals the rows are what could be done in place of a split, each by the same price and
    with what it takes for granted.

    Example: dnnsplit-onnx compare model.onnx --tiers tiers.toml --rivals --small small.onnx
    """
    options.refuse_unused()
    if options.rivals:
        _refuse_planners(planners, plot)
        _compare_rivals(model, options, form)
        return
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
    if plot:
        from dnnsplit_onnx.reporting.comparison_plot import plot_comparison

        for picture in plot:
            plot_comparison(picture, found, force=force)
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


def _refuse_planners(planners: list[str] | None, plot: object) -> None:
    """Refuses what is about planners.

    Raises:
        InputError: It is given beside `--rivals`.
    """
    from dnnsplit_onnx.errors import InputError

    for option, given in (("--planners", planners), ("--plot", plot)):
        if given is not None:
            raise InputError(
                f"`{option}` is about planners, and `--rivals` is not", hint=f"leave {option} out"
            )


def _compare_rivals(model: str, options: RivalOptions, form: str) -> None:
    """Prints the table of rivals."""
    from dnnsplit_onnx.cli.output import print_as
    from dnnsplit_onnx.cli.rivals import rivals_of

    found = rivals_of(model, options)
    if not print_as(form, found, json=options.json):
        from dnnsplit_onnx.reporting.console import stdout_console
        from dnnsplit_onnx.reporting.rivals_view import print_rivals

        print_rivals(stdout_console(), found)
    if found.best() is None:
        from dnnsplit_onnx.errors import InfeasibleError

        raise InfeasibleError("no rival keeps to the limits", hint="`plan` says which limits conflict")
