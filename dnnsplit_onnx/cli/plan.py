"""`plan`: the best cuts for these machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnnsplit_onnx.cli.conditions import PlanOptions
from dnnsplit_onnx.cli.options import Force, Format, Model, takes
from dnnsplit_onnx.errors import InfeasibleError

if TYPE_CHECKING:
    from dnnsplit_onnx.planning.plans import Plan
    from dnnsplit_onnx.work.analysis import Analysis

# Two figures this close are the same one.
_SAME = 1e-6


@takes(PlanOptions)
def plan(
    model: Model,
    options: PlanOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the plan here too.", show_default=False),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            "--annotate",
            metavar="OUT.onnx",
            help="Write the model with the plan in it: tiers as devices, a pipeline stage on each node.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    form: Format = "table",
) -> None:
    """Choose where to cut, and say whether it pays.

    The plan is compared with everything on each single tier. It is exact under all limits,
    unless a heuristic is asked for.

    Example: dnnsplit-onnx plan model.onnx --tiers tiers.toml --deadline-ms 100
    """
    from dnnsplit_onnx.cli.loading import load_analysis, make_plan
    from dnnsplit_onnx.cli.output import print_as

    analysis = load_analysis(model, options)
    made = make_plan(analysis, options)
    data = made.to_dict()
    if output is not None:
        write_plan(data, output, force=force)
    if annotate is not None:
        from dnnsplit_onnx.slicing.annotating import annotate as write_annotated

        write_annotated(analysis, made, annotate, force=force)
    if not print_as(form, made, json=options.json):
        show(made, analysis, next_words(model, options, made))
    refuse_broken(made)


def write_plan(data: dict[str, Any], output: Path, *, force: bool) -> None:
    """Writes a plan to a file that `split --plan` reads."""
    import json

    from dnnsplit_onnx.files import written_whole

    with written_whole(output, force=force) as file:
        file.write((json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def show(made: Plan, analysis: Analysis, following: tuple[str, ...] = ()) -> None:
    """Prints a plan, and the command to run next."""
    from dnnsplit_onnx.cli.output import next_command
    from dnnsplit_onnx.planning.fitting import graph_of
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.plan_view import print_plan

    console = stdout_console()
    print_plan(console, made, graph_of(made, analysis.graph, analysis.model_digest), made.uncounted_ops)
    if following:
        console.print()
        console.print(next_command(*following), style="dim", soft_wrap=True)


def next_words(model: str, options: PlanOptions, made: Plan) -> tuple[str, ...]:
    """The `split` that makes a plan's slices; where it does not pay, the `sweep` that shows when it would.

    Nothing for a plan that breaks its limits, and where there is one tier.
    """
    if made.violations and made.planner != "at":
        return ()
    gain = made.speedup_vs_best_single_tier
    if not made.is_split or (gain is not None and gain <= 1 + _SAME):
        if not made.figures.links:
            return ()
        vary = ("--vary", "link.0.bandwidth_mbps=1:1000:log7")
        return ("sweep", model, *options.words, *options.model_words, *vary)
    words = ["split", model, *options.words, *options.model_words]
    if options.planner != PlanOptions().planner:
        words += ["--planner", options.planner]
    for name in ("samples", "tolerance", "agreement"):
        if options.allowed_codes and (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    if options.at:
        words += ["--at", ",".join(options.cuts)]
    return (*words, "-o", "slices")


def refuse_broken(made: Plan) -> None:
    """Ends a run whose planner found no plan within the limits.

    Cuts given by hand are the user's own business: the report says what they break.

    Raises:
        InfeasibleError: The plan breaks a limit, and a planner chose it.
    """
    if made.violations and made.planner != "at":
        raise InfeasibleError(
            f"planner `{made.planner}` found no plan within the limits: {made.violations[0]}",
            hint="try --planner exact, which finds one if there is one",
        )
