"""`zoo`: models to try things with, none of which is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.options import Common, Force, Format, Reporting, takes

app = typer.Typer(
    help="Models to try things with: built or already installed, never downloaded.", no_args_is_help=True
)


@app.command("list")
@takes(Reporting)
def list_models(options: Reporting, form: Format = "table") -> None:
    """Show the models of the zoo.

    Example: dnnsplit-onnx zoo list
    """
    from dnnsplit_onnx.cli.output import Rows, print_as
    from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES, FrameworkEntry
    from dnnsplit_onnx.models.registry import ENTRIES, Entry

    entries: tuple[Entry | FrameworkEntry, ...] = (*ENTRIES.values(), *FRAMEWORK_ENTRIES.values())
    keys = ("name", "summary", "source", "requires", "nodes", "macs", "weight_nbytes")
    extra = ("layers", "parameters")
    rows = [
        {key: getattr(entry, key) for key in keys} | {key: getattr(entry, key, None) for key in extra}
        for entry in entries
    ]
    if print_as(form, Rows(rows, {"models": rows}), json=options.json):
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.zoo_view import print_zoo

    print_zoo(stdout_console(), entries)


@app.command("get")
@takes(Common)
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As `zoo list` shows it.", autocompletion=completion.zoo, show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "model.onnx"
    ),
    force: Force = False,
    *,
    options: Common,  # noqa: ARG001
) -> None:
    """Write a model of the zoo to a file.

    Example: dnnsplit-onnx zoo get random_resnet50 -o resnet50.onnx
    """
    from dnnsplit_onnx.converters.zoo import write_zoo_model
    from dnnsplit_onnx.reporting.progress import progress

    with progress("building the model"):
        write_zoo_model(name, output, force=force)
    typer.echo(f"wrote {output}", err=True)
