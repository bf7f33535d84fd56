"""Sizes that shape inference cannot prove, seen in one real run.

Operators that onnx does not know, and shapes computed from data, leave values without a
size. One run of the model on given or made-up inputs shows them all. Where a size depends on
the data it is that of these inputs, no more; the caller says so.

The run returns the shapes and not the values, and reads each as soon as its value is made, so
that it needs about the memory of a plain run. Only strings, which have no fixed size, are
returned themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import Types, ValueType, value_type
from dnnsplit_onnx.runtime.inputs import input_sets, to_values
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value

_PREFIX = "dnnsplit_onnx/shape/"
# Any release of Shape does.
_OPSET = 13
_LABEL = "the model"
_STRING = onnx.TensorProto.STRING
# Nodes as the file has them, each when its inputs are there: values are freed early.
_PLAIN = SessionOptions(optimize=False, by_priority=True)


def observe(types: Types, inputs: Mapping[str, Any] | str | Path | None = None, *, seed: int = 0) -> Types:
    """Fills in the sizes that are unknown from one run of the model.

    Args:
        types: What inference found, symbolic dimensions bound.
        inputs: Arrays by name, or an `.npz` file; random by default.
        seed: Of made-up inputs.

    Returns:
        The types with what was seen; where nothing is unknown, the same ones.

    Raises:
        InputError: The inputs do not fit, or none can be made up.
        ModelError: onnxruntime cannot load or run the model.
        MissingExtraError: onnxruntime is not installed.
    """
    unknown = types.unsized
    if not unknown:
        return types
    graph = types.graph
    data = set(graph.inputs)
    ports = [_port(value) for value in graph.proto.graph.input if value.name in data]
    given = input_sets(ports, inputs, types.bindings, seed=seed, runs=1)[0]
    values = to_values(ports, given.values)
    dtypes = _dtypes(types, [name for name in unknown if name not in data])
    sized = [name for name, dtype in dtypes.items() if dtype != _STRING]
    texts = [name for name, dtype in dtypes.items() if dtype == _STRING]
    session = open_session(
        graph.file.path,
        _PLAIN,
        label=_LABEL,
        expose=texts,
        rewrite=lambda model: _return_shapes(model, sized),
    )
    seen = session.run(values)
    found = {name: _type(values.get(name)) for name in unknown if name in data}
    found |= {name: _type(seen.get(name)) for name in texts}
    for at, name in enumerate(sized):
        shape = tuple(int(size) for size in seen[f"{_PREFIX}{at}"].numpy())
        found[name] = ValueType("tensor", dtypes[name], shape)
    known = {name: kind for name, kind in found.items() if kind is not None}
    return replace(types, observed={**types.observed, **known})


def _dtypes(types: Types, names: Sequence[str]) -> dict[str, int]:
    """The element types of those values that are tensors; the runtime tells what onnx does not know."""
    known = {name: types[name] for name in names}
    untold = [name for name, kind in known.items() if kind.kind == "unknown" or not kind.dtype]
    told: Mapping[str, str] = {}
    if untold:
        told = open_session(types.graph.file.path, _PLAIN, label=_LABEL, expose=untold).output_types
    dtypes = {name: kind.dtype for name, kind in known.items() if kind.kind == "tensor" and kind.dtype}
    for name in untold:
        kind, _, element = told.get(name, "").rstrip(")").partition("(")
        if kind == "tensor":
            dtypes[name] = onnx.TensorProto.DataType.Value(element.upper())
    return {name: dtypes[name] for name in names if name in dtypes}


def _return_shapes(model: onnx.ModelProto, names: Iterable[str]) -> None:
    """Makes the shapes of values outputs of a model."""
    if not any(opset.domain in ("", "ai.onnx") for opset in model.opset_import):
        model.opset_import.add(domain="", version=_OPSET)
    for at, name in enumerate(names):
        model.graph.node.append(helper.make_node("Shape", [name], [f"{_PREFIX}{at}"]))
        model.graph.output.append(
            helper.make_tensor_value_info(f"{_PREFIX}{at}", onnx.TensorProto.INT64, [None])
        )


def _type(value: Value) -> ValueType | None:
    if value is None or not value.is_tensor():
        return None
    dtype = value.element_type()
    texts = strings_nbytes(value.numpy()) if dtype == _STRING else None
    return ValueType("tensor", dtype, tuple(value.shape()), texts)


def strings_nbytes(array: np.ndarray) -> int:
    """Bytes of strings as the wire has them: each after its length in four bytes."""
    return sum(4 + len(str(text).encode()) for text in array.reshape(-1))


def _port(value: onnx.ValueInfoProto) -> Port:
    known = value_type(value.type)
    return Port(name=value.name, dtype=known.dtype_name, shape=known.shape, kind=known.kind)
