"""torch's exporter, for PyTorch models and for Keras on its torch backend."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import onnx

from dnnsplit_onnx.converters.adapter import Feeds, InputSpec
from dnnsplit_onnx.converters.reasons import refusal

_SCOPES = "pkg.torch.onnx.name_scopes"


def export(
    module: Any,
    inputs: Sequence[InputSpec],
    outputs: Sequence[str],
    path: Path,
    feeds: Feeds,
    opset: int | None = None,
) -> None:
    """Exports a module whose `forward` takes its inputs one by one, with the current exporter.

    Args:
        module: An `nn.Module` in evaluation mode.
        inputs: Its inputs; named dimensions stay open.
        outputs: Names for its outputs.
        path: Where to write; weights go to a file beside it.
        feeds: Inputs to trace it with.
        opset: The version of ONNX's operators, None for torch's own choice.

    Raises:
        InputError: The model cannot be exported; the message is torch's own summary.
    """
    import torch

    dims: dict[str, Any] = {}
    shapes = tuple(_dynamic_dims(spec.shape, dims) for spec in inputs)
    run_exporter(
        path,
        module,
        tuple(torch.from_numpy(feeds[spec.name]) for spec in inputs),
        [spec.name for spec in inputs],
        outputs,
        # One more level: `forward(*inputs)` is one parameter to torch.
        dynamic_shapes=(shapes,) if dims else None,
        opset_version=opset,
    )


def run_exporter(
    path: Path,
    model: Any,
    arguments: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str] | None,
    **options: Any,
) -> None:
    """Calls `torch.onnx.export` and writes what it makes, its inputs and outputs named.

    Raises:
        InputError: The model cannot be exported.
    """
    import torch

    try:
        with torch.no_grad(), _open_pooling():
            program = torch.onnx.export(model, arguments, dynamo=True, verbose=False, **options)
            if program is None:
                raise RuntimeError("torch.onnx.export made no program")
            _name(program.model.graph, inputs, outputs)
            # Outside the file, weights are written one by one and are in memory once only.
            program.save(str(path), external_data=True)
    except Exception as error:  # whatever torch meets in the model
        raise refusal(error, options.get("dynamic_shapes") is not None) from error


@contextmanager
def _open_pooling() -> Iterator[None]:
    """Pools over time by pooling over an image one pixel high: torch's own fixes the length."""
    import torch

    own = torch.nn.functional.max_pool1d

    def pool(
        values: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        *rest: Any,
        **more: Any,
    ) -> Any:
        if rest or any(more.values()):  # ceil_mode, return_indices
            return own(values, kernel_size, stride, padding, dilation, *rest, **more)
        step = _single(kernel_size if stride is None else stride)
        pooled = torch.nn.functional.max_pool2d(
            values.unsqueeze(-2),
            (1, _single(kernel_size)),
            (1, step),
            (0, _single(padding)),
            (1, _single(dilation)),
        )
        return pooled.squeeze(-2)

    with mock.patch.object(torch.nn.functional, "max_pool1d", pool):
        yield


def _single(value: Any) -> Any:
    return value if isinstance(value, int) else value[0]


def _name(graph: Any, inputs: Sequence[str], outputs: Sequence[str] | None) -> None:
    """Names inputs and outputs, and gives inner values of these names others.

    torch names inner values by modules and operators, and an output that is called like a
    layer would be a second definition of that name.

    Args:
        graph: The graph, as `onnx_ir` has it.
        inputs: Names for its inputs.
        outputs: Names for its outputs, None to keep those that it has.
    """
    import onnx_ir

    # An input, or a weight, that is an output too would lose its name.
    fixed = {id(value) for value in (*graph.inputs, *graph.initializers.values())}
    for at, value in enumerate(graph.outputs):
        if id(value) in fixed or any(value is other for other in graph.outputs[:at]):
            copy = onnx_ir.node("Identity", [value])
            graph.append(copy)
            copy.outputs[0].name = f"{value.name}_out"
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.outputs[at] = copy.outputs[0]
    ports = dict(zip(map(id, graph.inputs), inputs, strict=True))
    wanted = outputs or [value.name for value in graph.outputs]
    # A value has one name: what is called like an input cannot be an output.
    named = [f"{name}_out" if name in inputs else name for name in wanted]
    ports.update(zip(map(id, graph.outputs), named, strict=True))
    taken = set(ports.values())
    seen = set(taken)
    for value in _values(graph):
        if id(value) in ports:
            value.name = ports[id(value)]
            continue
        name, number = value.name, 1
        while name in seen:
            name, number = f"{value.name}_{number}", number + 1
        seen.add(name)
        if name != value.name:
            value.name = name


def _values(graph: Any) -> Iterator[Any]:
    """All values of a graph, those of its nodes' subgraphs included."""
    import onnx_ir

    for part in (graph, *graph.subgraphs()):
        yield from part.inputs
        yield from list(part.initializers.values())
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
        yield from (value for value in node.outputs if value.name)


def precision(tensors: Iterable[Any]) -> str:
    """The coarsest floating-point type among tensors, as numpy calls it."""
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    return next((kind for kind in ("bfloat16", "float16") if kind in kinds), "float32")


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
                # A sum of other names is a size of its own to torch.
                dims[dim] = torch.export.Dim(dim) if dim.isidentifier() else torch.export.Dim.DYNAMIC
            found[at] = dims[dim]
    return found or None
