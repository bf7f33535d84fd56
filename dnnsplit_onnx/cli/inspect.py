"""`inspect`: what a model computes, and where it may be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import Force, Format, Model, ModelOptions, takes
from dnnsplit_onnx.cli.plotting import Plot, refuse_early

GraphFile = Annotated[
    Path | None,
    typer.Option(
        "--graph",
        metavar="FILE",
        help="Write the graph with work and sizes too, as .graphml or node-link .json.",
        show_default=False,
    ),
]


@takes(ModelOptions)
def inspect(
    model: Model,
    options: ModelOptions,
    plot: Plot = None,
    graph: GraphFile = None,
    force: Force = False,
    form: Format = "table",
) -> None:
    """Show a model's work, weights, and cuts.

    The candidate cuts are those that a best plan can use, whatever the speeds of machines
    and links: every other cut sends no less than one before it.

    Example: dnnsplit-onnx inspect model.onnx --bind batch=1
    """
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.graph.dag import refuse_name, write_dag
    from dnnsplit_onnx.work.inspection import Inspection

    refuse_early(plot, force=force)
    if graph is not None:
        refuse_name(graph, force=force)
    found = Inspection(load_analysis(model, options), options.cut_size)
    if plot:
        from dnnsplit_onnx.reporting.inspect_plot import plot_inspection

        for picture in plot:
            plot_inspection(picture, found, force=force)
    if graph is not None:
        write_dag(found.analysis.dag, graph, force=force)
    from dnnsplit_onnx.cli.output import next_command, print_as

    if print_as(form, found, json=options.json):
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.inspect_view import print_inspection

    console = stdout_console()
    print_inspection(console, found)
    machines = ("--edge", "raspberry-pi-4", "--cloud", "l4", "--link", "4g")
    following = next_command("plan", model, *machines, *options.model_words)
    console.print(following, style="dim", soft_wrap=True)
