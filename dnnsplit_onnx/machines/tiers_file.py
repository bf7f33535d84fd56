"""A topology from its file, `tiers.toml`, or from the tables of one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.graph.kinds import HEAD_NBYTES, TIERS_FILE, is_extensions, is_model, kind_of
from dnnsplit_onnx.machines.tables import as_topology_error, plain
from dnnsplit_onnx.machines.toml_text import decoded, syntax_hint
from dnnsplit_onnx.machines.topology import Topology

_LARGEST_NBYTES = 1 << 20
_MOST_DOTS = 1000
_GIVE_TIERS = "the model goes first, the tiers file after --tiers: MODEL.onnx --tiers tiers.toml"


def topology_of(machines: Topology | str | os.PathLike[str] | Mapping[str, Any]) -> Topology:
    """A topology, whichever way it is given: itself, its file, or the tables of one.

    Raises:
        TopologyError: It is none of these, or says something impossible.
    """
    if isinstance(machines, Topology):
        return machines
    if isinstance(machines, str | os.PathLike):
        return load_topology(Path(machines))
    if isinstance(machines, Mapping):
        return parse_topology(dict(machines), "topology")
    raise TopologyError(
        f"an object of type `{type(machines).__name__}` is no topology",
        hint="pass a Topology, the path of a tiers file, or its tables as a dict",
    )


def load_topology(path: str | Path) -> Topology:
    """Reads a tiers file.

    Args:
        path: A TOML file, as section 7 of the design describes.

    Raises:
        TopologyError: The file cannot be read, or says something impossible; the message
            names the key and the value.
    """
    path = Path(path)
    try:
        text = read_bounded(path, most_nbytes=_LARGEST_NBYTES, regular=False)
    except FileNotFoundError:
        raise TopologyError(
            f"no such file: `{path}`",
            hint="start one with `dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100`",
        ) from None
    except (OSError, ValueError) as error:
        raise TopologyError(f"cannot read `{path}`: {getattr(error, 'strerror', error)}") from None
    return read_topology(text, path)


def read_topology(text: bytes, path: Path) -> Topology:
    """A topology from the text of a tiers file.

    Args:
        text: The file's content.
        path: Where it lies, for errors; profiles are named relative to its folder.

    Raises:
        TopologyError: As for `load_topology`.
    """
    # A key of n parts takes tomllib n * n steps and bytes.
    if any(line.count(b".") > _MOST_DOTS for line in text.splitlines()):
        raise TopologyError(f"`{path}`: a line has more than {_MOST_DOTS} dots", hint="break long lists")
    try:
        decoded_text = decoded(text)
        data = tomllib.loads(decoded_text)
        return _parsed(_with_profile_paths(data, path.parent), str(path), decoded_text)
    except ValueError as error:  # broken TOML, and numbers of more digits than Python reads
        kind = kind_of(text[:HEAD_NBYTES])
        if kind not in (None, TIERS_FILE) or is_model(text):
            what = "an ONNX model, and no tiers file" if kind is None else kind.what
            raise TopologyError(f"`{path}` is {what}", hint=_GIVE_TIERS) from None
        hint = syntax_hint(error, text.decode(errors="replace").splitlines())
        raise TopologyError(f"`{path}` is not TOML: {error}", hint=hint) from None
    except RecursionError:
        raise TopologyError(f"`{path}` is not TOML for tiers: it is nested too deep") from None


def parse_topology(data: dict[str, Any], source: str) -> Topology:
    """A topology from the tables of a tiers file.

    Args:
        data: The file as `tomllib` reads it.
        source: Its name, for errors.

    Raises:
        TopologyError: As for `load_topology`.
    """
    return _parsed(data, source)


def _parsed(data: dict[str, Any], source: str, text: str | None = None) -> Topology:
    try:
        topology: Topology = Topology.__pydantic_validator__.validate_python(plain(data))
        return topology
    except ValidationError as error:
        raise as_topology_error(error, source, text=text) from None


def _with_profile_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Profiles are named relative to the file that names them."""
    key = "tier" if "tier" in data else "tiers"  # in a file either is read
    tiers = data.get(key)
    if not isinstance(tiers, list):
        return data
    return data | {key: [_with_profile_path(row, folder) for row in tiers]}


def _library(name: Any, folder: Path) -> Any:
    return str((folder / name).absolute()) if isinstance(name, str) and not is_extensions(name) else name


def _with_profile_path(row: Any, folder: Path) -> Any:
    if not isinstance(row, dict):
        return row
    changed = dict(row)
    if isinstance(row.get("profile"), str):
        changed["profile"] = str(folder / row["profile"])
    if isinstance(libraries := row.get("custom_ops"), list):
        changed["custom_ops"] = [_library(name, folder) for name in libraries]
    if isinstance(row.get("machine"), list):
        changed["machine"] = [_with_profile_path(machine, folder) for machine in row["machine"]]
    return changed
