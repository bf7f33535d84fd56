"""The model that slices were made from: where it lies, and what of it is random."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from dnnsplit_onnx.errors import InputError, ManifestError, ModelError
from dnnsplit_onnx.graph.digests import file_digest
from dnnsplit_onnx.graph.graph import Graph, Node
from dnnsplit_onnx.runtime.inputs import Inputs
from dnnsplit_onnx.slicing.manifest import Manifest

_PASS_MODEL = "pass the model that was split: --model MODEL"


def find_model(folder: Path, manifest: Manifest, model: str | Path | None = None) -> Path:
    """The file of the whole model, held against the manifest's hash.

    Args:
        folder: The folder of the manifest.
        manifest: It names the model, relative to the folder.
        model: Where the model is now, if it was moved.

    Raises:
        ManifestError: It is not there, or it is another file than the one that was split.
    """
    # The recorded path is relative to where the folder really is, through any links to it.
    recorded = os.path.normpath(folder.resolve() / manifest.model.path)
    path = Path(recorded if model is None else model)
    try:
        same = all(file_digest(path, name) == known for name, known in manifest.model.digests.items())
    except ModelError:
        same = False  # it is no ONNX file at all
    except OSError as error:
        raise ManifestError(
            f"cannot read the whole model `{path}`: {error.strerror}", hint=_PASS_MODEL
        ) from None
    if not same:
        raise ManifestError(
            f"`{path}` is not the model that was split: its checksum differs",
            hint=f"{_PASS_MODEL}, or run `split` again",
        )
    return path


def bindings_of(manifest: Manifest) -> dict[str, int]:
    """The sizes of symbolic dimensions that the plan was made for.

    Raises:
        ManifestError: They are not numbers.
    """
    bindings = manifest.plan.get("bindings") or {}
    if not isinstance(bindings, dict) or not all(
        type(size) is int and size > 0 for size in bindings.values()
    ):
        raise ManifestError("the plan in the manifest binds dimensions to what is not a size")
    return dict(bindings)


def assumed_of(manifest: Manifest, inputs: Inputs) -> dict[str, int]:
    """The sizes of made-up inputs that nobody gave; none where the inputs are given."""
    if inputs.source != "generated":
        return {}
    assumed = manifest.plan.get("assumed") or {}
    bindings = bindings_of(manifest)
    kept = {name: bindings[name] for name in assumed if name in bindings} if isinstance(assumed, dict) else {}
    return {**kept, **inputs.assumed}


def random_values(graph: Graph, random: Collection[str] = ()) -> dict[str, str]:
    """Values that differ from run to run, each with the node that makes them so.

    A random node with a seed draws the same numbers in each session, and is not counted.

    Args:
        graph: The whole model.
        random: Names of further nodes known to be random.
    """
    found: dict[str, str] = {}
    for node in graph.nodes:
        cause = next((found[name] for name in node.inputs if name in found), None)
        if cause is None and (node.random or node.name in random) and not _is_seeded(node):
            cause = node.name
        if cause is not None:
            found.update(dict.fromkeys(node.outputs, cause))
    return found


def _is_seeded(node: Node) -> bool:
    return any(attribute.name == "seed" for attribute in node.proto.attribute)


def slices_folder(folder: str | Path) -> Path:
    """The folder of a manifest, given it or the manifest itself.

    Raises:
        InputError: There is no such folder.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    raise InputError(
        f"no such folder: `{path}`", hint="make slices: dnnsplit-onnx split MODEL --tiers tiers.toml -o DIR"
    )
