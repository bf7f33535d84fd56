"""torch's exporter, for PyTorch models and for Keras on its torch backend."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from dnnsplit_onnx.converters.adapter import InputSpec
from dnnsplit_onnx.converters.reasons import innermost
from dnnsplit_onnx.converters.samples import sample_inputs
from dnnsplit_onnx.errors import InputError

_SCOPES = "pkg.torch.onnx.name_scopes"


def export(module: Any, inputs: Sequence[InputSpec], outputs: Sequence[str], path: Path) -> None:
    """Exports a module whose `forward` takes its inputs one by one, with the current exporter.

    Args:
        module: An `nn.Module` in evaluation mode.
        inputs: Its inputs; named dimensions stay open.
        outputs: Names for its outputs.
        path: Where to write; weights go to a file beside it.

    Raises:
        InputError: The model cannot be exported; the message is torch's own summary.
    """
    import torch

    samples = sample_inputs(inputs)
    dims: dict[str, Any] = {}
    shapes = tuple(_dynamic_dims(spec.shape, dims) for spec in inputs)
    run_exporter(
        path,
        module,
        tuple(torch.from_numpy(samples[spec.name]) for spec in inputs),
        # One more level: `forward(*inputs)` is one parameter to torch.
        dynamic_shapes=(shapes,) if dims else None,
        input_names=[spec.name for spec in inputs],
        output_names=list(outputs),
    )


def run_exporter(path: Path, model: Any, arguments: tuple[Any, ...] = (), **options: Any) -> None:
    """Calls `torch.onnx.export` and writes what it makes.

    Raises:
        InputError: The model cannot be exported.
    """
    import torch

    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(model, arguments, dynamo=True, verbose=False, **options)
            if program is None:
                raise RuntimeError("torch.onnx.export made no program")
            # Outside the file, weights are written one by one and are in memory once only.
            program.save(str(path), external_data=True)
    except Exception as error:  # whatever torch meets in the model
        raise InputError(f"torch cannot export the model: {innermost(error)}", hint=_hint(options)) from error


def module_path(node: onnx.NodeProto) -> str | None:
    """The path of the module that a node came from, as the exporter recorded it."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (SyntaxError, ValueError):
                return None
            # The outermost scope is the model itself, "", the last one the operation.
            paths = [scope for scope in scopes[:-1] if scope]
            return paths[-1] if paths else None
    return None


def _hint(options: Mapping[str, Any]) -> str:
    if options.get("dynamic_shapes") is None:
        return "--debug shows where in the model"
    return "if a size must be fixed, pass --batch 1 (or --bind DIM=N); --debug shows where in the model"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's own chatter off the terminal while exporting."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _dynamic_dims(shape: Sequence[int | str], dims: dict[str, Any]) -> dict[int, Any] | None:
    """The form torch has for the open dimensions of one input, None if it has none.

    Args:
        shape: A number or a name for each dimension.
        dims: The `torch.export.Dim` of each name so far; new names are added, since inputs
            that share a name must share the object.
    """
    import torch

    found = {}
    for at, dim in enumerate(shape):
        if isinstance(dim, str):
            if dim not in dims:
                dims[dim] = torch.export.Dim(dim)
            found[at] = dims[dim]
    return found or None
