"""`init`: from a model to a tiers file and a first plan, by names of devices alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.conditions import PlanOptions
from dnnsplit_onnx.cli.devices import DeviceOptions, write_tiers
from dnnsplit_onnx.cli.options import Force, Model, ModelOptions, takes


@dataclass(frozen=True, kw_only=True)
class InitOptions(DeviceOptions, ModelOptions):
    """What `init` takes."""


@takes(InitOptions)
def init(
    model: Model,
    options: InitOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The tiers file to write.")
    ] = Path("tiers.toml"),
    force: Force = False,
) -> None:
    """Start with a model: write a tiers file for it, and plan.

    Devices and links that no option names are asked for. Open dimensions of the model get
    sizes at which it runs. What is written are estimates, for you to change.

    Example: dnnsplit-onnx init model.onnx --edge raspberry-pi-4 --cloud l4 --link 4g
    """
    from dnnsplit_onnx.cli.loading import load_analysis, make_plan
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.cli.plan import next_words, show
    from dnnsplit_onnx.files import already_exists
    from dnnsplit_onnx.machines.presets import SCHEMA_FILE

    if output.exists() and not force:
        raise already_exists(output)
    options = _asked(options)
    text = options.tiers_text()
    analysis = load_analysis(model, options)
    schema = output.parent / SCHEMA_FILE
    write_tiers(output, text, schema, force=force)
    typer.echo(f"wrote {output} and {schema}", err=True)
    planning = PlanOptions(
        tiers=output,
        bind=options.bind,
        trips=options.trips,
        state=options.state,
        sample_input=options.sample_input,
        cut_size=options.cut_size,
        order=options.order,
    )
    made = make_plan(analysis, planning)
    if options.json:
        print_json(made.to_dict())
    else:
        show(made, analysis, next_words(model, planning, made))


def _asked(options: InitOptions) -> InitOptions:
    """The options, and answers where none names a machine and somebody is there to ask."""
    if options.device_words or not sys.stdin.isatty():
        return options
    from dnnsplit_onnx.machines.presets import presets

    known = presets()
    edge = _choose("Where is the data born", known.devices, "raspberry-pi-4")
    cloud = _choose("Which machine stands above it", known.devices, "l4")
    link = _choose("What joins the two", known.connections, "4g")
    return replace(options, edge=edge, cloud=cloud, link=[link])


def _choose(question: str, known: Iterable[str], default: str) -> str:
    """One of the known names, asked for on stderr so that stdout stays a report."""
    typer.echo(f"known: {', '.join(known)}", err=True)
    return str(typer.prompt(f"{question}?", default=default, err=True))
