"""Sizes that shape inference cannot prove, seen in one real run.

Operators that onnx does not know, and shapes computed from data, leave values without a
size. One run of the model on given or made-up inputs shows them all. Where a size depends on
the data it is that of these inputs, no more; the caller says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import Types, ValueType, value_type
from dnnsplit_onnx.runtime.inputs import input_sets, to_values
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value


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
    # Without optimisations every value of the file exists when the model runs.
    session = open_session(
        graph.file.path,
        SessionOptions(optimize=False),
        label="the model",
        expose=[n for n in unknown if n not in data],
    )
    values = to_values(ports, given.values)
    seen = {**values, **session.run(values)}
    found = {name: known for name in unknown if (known := _type(seen.get(name))) is not None}
    return replace(types, observed={**types.observed, **found})


def _type(value: Value) -> ValueType | None:
    if value is None or not value.is_tensor():
        return None
    return ValueType("tensor", value.element_type(), tuple(value.shape()))


def _port(value: onnx.ValueInfoProto) -> Port:
    known = value_type(value.type)
    return Port(name=value.name, dtype=known.dtype_name, shape=known.shape, kind=known.kind)
