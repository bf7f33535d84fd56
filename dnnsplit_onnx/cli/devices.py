"""Machines named on the command line, from the figures of real devices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.presets import Connection, Device, Presets


def _device(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="DEVICE", help=what, autocompletion=completion.devices, show_default=False
    )
    return option


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Devices and links by name. Shared by all that can do without a tiers file."""

    edge: Annotated[
        str | None, _device("--edge", "Where the input data is born, by its name in `tiers list`.")
    ] = None
    near_edge: Annotated[str | None, _device("--near-edge", "A machine between the two.")] = None
    cloud: Annotated[str | None, _device("--cloud", "The top.")] = None
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
    ] = None
    bandwidth_mbps: Annotated[
        list[float] | None,
        typer.Option(
            "--bandwidth-mbps",
            metavar="MBPS",
            help="What you know of a link's bandwidth, from the edge up. Once a link.",
            show_default=False,
        ),
    ] = None

    @property
    def device_words(self) -> list[str]:
        """The options as they were given."""
        named = (("--edge", self.edge), ("--near-edge", self.near_edge), ("--cloud", self.cloud))
        words = [word for option, device in named if device is not None for word in (option, device)]
        words += [word for name in self.link or () for word in ("--link", name)]
        return words + [
            word for mbps in self.bandwidth_mbps or () for word in ("--bandwidth-mbps", f"{mbps:g}")
        ]

    def tiers_text(self, *, schema: bool = True) -> str:
        """A tiers file over these devices.

        Args:
            schema: Whether editors are referred to the schema beside the file.

        Raises:
            InputError: No edge is named, a name is unknown, or the links are not as many as needed.
        """
        from dnnsplit_onnx.machines.presets import presets, tiers_text

        if self.edge is None:
            raise InputError(
                "missing option `--edge`", hint="name a device: --edge raspberry-pi-4 --cloud l4 --link 4g"
            )
        known = presets()
        named = (("edge", self.edge), ("near-edge", self.near_edge), ("cloud", self.cloud))
        tiers = [(name, known.device(device)) for name, device in named if device is not None]
        links = _links(known, tiers, self.link or [], self.bandwidth_mbps or [])
        return tiers_text(tiers, links, known.rules, schema=schema)


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
        source = f"{links[at].source}; bandwidth as given"
        links[at] = replace(links[at], bandwidth_mbps=bandwidth, down_mbps=None, source=source)
    return links


def _one_a_link(option: str, given: int, need: int) -> None:
    if given not in (0, need):
        tiers = f"{need + 1} tier{'s' if need else ''}"
        raise InputError(
            f"`{option}` is given {given} time{'s' if given != 1 else ''} for {tiers}",
            hint=f"give {need}: one for each link, from the edge up" if need else "one tier has no link",
        )


def write_tiers(output: Path, text: str, schema: Path | None, *, force: bool) -> None:
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
