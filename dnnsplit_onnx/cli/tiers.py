"""`tiers`: tiers files from figures of real devices, and the schema that editors read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.options import Common, Force, Reporting, takes
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.presets import Connection, Device, Presets

app = typer.Typer(help="Write a tiers file from figures of real devices.", no_args_is_help=True)


@app.command("list")
@takes(Reporting)
def list_devices(options: Reporting) -> None:
    """Show the devices and links that `tiers new` knows, with their sources.

    Example: dnnsplit-onnx tiers list
    """
    from dataclasses import asdict

    from dnnsplit_onnx.machines.presets import presets

    known = presets()
    if options.json:
        from dnnsplit_onnx.cli.output import print_json

        devices = [device.to_dict(known.rules) for device in known.devices.values()]
        links = [asdict(link) for link in known.connections.values()]
        print_json({"rules": asdict(known.rules), "devices": devices, "links": links})
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.tiers_view import print_presets

    print_presets(stdout_console(), known)


def _device(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="DEVICE", help=what, autocompletion=completion.devices, show_default=False
    )
    return option


@app.command("new")
@takes(Common)
def new(
    edge: Annotated[str, _device("--edge", "Where the input data is born.")],
    near_edge: Annotated[str | None, _device("--near-edge", "A machine between the two.")] = None,
    cloud: Annotated[str | None, _device("--cloud", "The top.")] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            "--link",
            metavar="LINK",
            help="What joins one tier to the next, from the edge up; Wi-Fi to a near edge and a fixed line "
            "to the cloud otherwise. Once a link.",
            autocompletion=completion.links,
            show_default=False,
        ),
    ] = None,
    bandwidth_mbps: Annotated[
        list[float] | None,
        typer.Option(
            "--bandwidth-mbps",
            metavar="MBPS",
            help="What you know of a link's bandwidth, from the edge up. Once a link.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "tiers.toml"
    ),
    no_schema: Annotated[
        bool, typer.Option("--no-schema", help="Leave out the schema beside it, which editors read.")
    ] = False,
    force: Force = False,
    *,
    options: Common,  # noqa: ARG001
) -> None:
    """Write a tiers file from figures of real devices, with their sources.

    They are estimates, and say so: measure your machines with `profile` before you rely on a
    plan. Beside the file lies its JSON Schema, by which editors complete and check it.

    Example: dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100 -o tiers.toml
    """
    from dnnsplit_onnx.machines.presets import SCHEMA_FILE, presets, tiers_text

    known = presets()
    named = (("edge", edge), ("near-edge", near_edge), ("cloud", cloud))
    tiers = [(name, known.device(device)) for name, device in named if device is not None]
    links = _links(known, tiers, link or [], bandwidth_mbps or [])
    text = tiers_text(tiers, links, known.rules, schema=not no_schema)
    schema = None if no_schema else output.parent / SCHEMA_FILE
    _write(output, text, schema, force=force)
    typer.echo(f"wrote {output}" + (f" and {schema}" if schema else ""), err=True)


@app.command("schema")
@takes(Common)
def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="`tiers`, `plan`, `manifest` or `profile`.",
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


def _links(
    known: Presets, tiers: list[tuple[str, Device]], names: list[str], bandwidths: list[float]
) -> list[Connection]:
    """What joins the tiers.

    Raises:
        InputError: There are not as many as the tiers need, or a bandwidth is none.
    """
    from dataclasses import replace

    need = len(tiers) - 1
    _one_a_link("--link", len(names), need)
    _one_a_link("--bandwidth-mbps", len(bandwidths), need)
    names = names or ["broadband" if name == "cloud" else "wifi" for name, _ in tiers[1:]]
    links = [known.connection(name) for name in names]
    for at, bandwidth in enumerate(bandwidths):
        if not 0 < bandwidth < float("inf"):
            raise InputError(
                f"`--bandwidth-mbps {bandwidth:g}` is no bandwidth", hint="give a number above 0"
            )
        source = f"{links[at].source}; bandwidth as given to `tiers new`"
        links[at] = replace(links[at], bandwidth_mbps=bandwidth, down_mbps=None, source=source)
    return links


def _one_a_link(option: str, given: int, need: int) -> None:
    if given not in (0, need):
        tiers = f"{need + 1} tier{'s' if need else ''}"
        raise InputError(
            f"`{option}` is given {given} time{'s' if given != 1 else ''} for {tiers}",
            hint=f"give {need}: one for each link, from the edge up" if need else "one tier has no link",
        )


def _write(output: Path, text: str, schema: Path | None, *, force: bool) -> None:
    """Writes the file, and the schema beside it.

    A schema that this program wrote before gives way to the present one.

    Raises:
        OutputError: There is such a file already, or one cannot be written.
    """
    from dnnsplit_onnx.files import already_exists, written_whole
    from dnnsplit_onnx.schemas import schema_text

    if output.exists() and not force:
        raise already_exists(output)
    if schema is not None:
        ours = schema_text("tiers")
        replaces = force or _title(schema) == json.loads(ours)["title"]
        with written_whole(schema, force=replaces) as file:
            file.write(ours.encode())
    with written_whole(output, force=force) as file:
        file.write(text.encode())


def _title(schema: Path) -> object:
    """The title of a schema, None if it is no schema."""
    try:
        data = json.loads(schema.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data.get("title") if isinstance(data, dict) else None
