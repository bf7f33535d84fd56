"""`tiers`: tiers files from figures of real devices, and the schema that editors read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.devices import DeviceOptions, write_tiers
from dnnsplit_onnx.cli.options import Common, Force, Format, Reporting, takes

app = typer.Typer(help="Write a tiers file from figures of real devices.", no_args_is_help=True)


@app.command("list")
@takes(Reporting)
def list_devices(options: Reporting, form: Format = "table") -> None:
    """Show the devices and links that `tiers new` knows, with their sources.

    Example: dnnsplit-onnx tiers list
    """
    from dataclasses import asdict

    from dnnsplit_onnx.cli.output import Rows, print_as
    from dnnsplit_onnx.machines.presets import presets

    known = presets()
    devices = [device.to_dict(known.rules) for device in known.devices.values()]
    links = [asdict(link) for link in known.connections.values()]
    rows = [{"kind": kind, **row} for kind, all_ in (("device", devices), ("link", links)) for row in all_]
    whole = {"rules": asdict(known.rules), "devices": devices, "links": links}
    if print_as(form, Rows(rows, whole), json=options.json):
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.tiers_view import print_presets

    print_presets(stdout_console(), known)


@dataclass(frozen=True, kw_only=True)
class NewOptions(DeviceOptions, Common):
    """What `tiers new` takes."""


@app.command("new")
@takes(NewOptions)
def new(
    options: NewOptions,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "tiers.toml"
    ),
    no_schema: Annotated[
        bool, typer.Option("--no-schema", help="Leave out the schema beside it, which editors read.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a tiers file from figures of real devices, with their sources.

    They are estimates, and say so: measure your machines with `profile` before you rely on a
    plan. Beside the file lies its JSON Schema, by which editors complete and check it.

    Example: dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100 -o tiers.toml
    """
    from dnnsplit_onnx.machines.presets import SCHEMA_FILE

    schema = None if no_schema else output.parent / SCHEMA_FILE
    write_tiers(output, options.tiers_text(schema=not no_schema), schema, force=force)
    typer.echo(f"wrote {output}" + (f" and {schema}" if schema else ""), err=True)


@app.command("schema")
@takes(Common)
def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="`tiers`, `plan`, `manifest`, `profile` or `predictor`.",
            autocompletion=completion.schemas,
        ),
    ] = "tiers",
    *,
    options: Common,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of a tiers file, or of another file of this program.

    Example: dnnsplit-onnx tiers schema > tiers.schema.json
    """
    from dnnsplit_onnx.schemas import schema_text

    sys.stdout.write(schema_text(name))
