"""`inspect`: what a model computes, and where it may be cut."""

from __future__ import annotations

from dnnsplit_onnx.cli.options import Force, Model, ModelOptions, takes
from dnnsplit_onnx.cli.plotting import Plot, refuse_early


@takes(ModelOptions)
def inspect(model: Model, options: ModelOptions, plot: Plot = None, force: Force = False) -> None:
    """Show a model's work, weights, and cuts.

    The candidate cuts are those that a best plan can use, whatever the speeds of machines
    and links: every other cut sends no less than one before it.

    Example: dnnsplit-onnx inspect model.onnx --bind batch=1
    """
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.work.inspection import Inspection

    refuse_early(plot, force=force)
    found = Inspection(load_analysis(model, options), options.cut_size)
    if plot is not None:
        from dnnsplit_onnx.reporting.inspect_plot import plot_inspection

        plot_inspection(plot, found, force=force)
    if options.json:
        from dnnsplit_onnx.cli.output import print_json

        print_json(found.to_dict())
        return
    from dnnsplit_onnx.cli.output import next_command
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.inspect_view import print_inspection

    console = stdout_console()
    print_inspection(console, found)
    console.print(next_command("plan", model, "--tiers", "tiers.toml"), style="dim", soft_wrap=True)
