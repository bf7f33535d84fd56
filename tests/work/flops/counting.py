"""Counts one node from its shapes alone, without a model around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.work.flops import GraphContext, TensorType, Work, count_node

MS = "com.microsoft"
ML = "ai.onnx.ml"

# An operand: its shape, a constant, "?" for an unknown shape, None for an optional operand not given.
Operand = tuple[int, ...] | np.ndarray | str | None


def context_of(model: onnx.ModelProto, trips: Mapping[str, int] | None = None) -> GraphContext:
    """The context of the nodes of a model's graph, after shape inference."""
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    return GraphContext(model.graph, opsets=opsets, trips=trips)


class Shapes:
    """A context over dictionaries."""

    def __init__(
        self,
        types: Mapping[str, TensorType],
        constants: Mapping[str, np.ndarray] | None = None,
        opsets: Mapping[str, int] | None = None,
        trips: Mapping[str, int] | None = None,
    ) -> None:
        self.types, self.constants = types, constants or {}
        self.opsets, self.trips = opsets or {}, trips or {}

    def type_of(self, name: str) -> TensorType | None:
        return self.types.get(name)

    def constant(self, name: str) -> np.ndarray | None:
        return self.constants.get(name)

    def opset(self, domain: str) -> int:
        return self.opsets.get(domain, 1)


def count(
    op_type: str,
    inputs: Sequence[Operand],
    outputs: Sequence[Operand] = ("?",),
    *,
    domain: str = "",
    opset: int = 21,
    name: str = "node",
    trips: Mapping[str, int] | None = None,
    dtype: int = TensorProto.FLOAT,
    **attributes: Any,
) -> Work | None:
    """The work of one node whose operands have these shapes or values."""
    types, constants, names = {}, {}, []
    for prefix, operands in (("in", inputs), ("out", outputs)):
        given = []
        for index, operand in enumerate(operands):
            label = "" if operand is None else f"{prefix}{index}"
            given.append(label)
            if isinstance(operand, np.ndarray):
                constants[label] = operand
                types[label] = TensorType(dtype, operand.shape)
            elif isinstance(operand, tuple):
                types[label] = TensorType(dtype, operand)
        names.append(given)
    node = helper.make_node(op_type, *names, name=name, domain=domain, **attributes)
    return count_node(node, Shapes(types, constants, {domain: opset}, trips))


def work_of(
    op_type: str, inputs: Sequence[Operand], outputs: Sequence[Operand] = ("?",), **options: Any
) -> Work:
    """As `count`, for a node that must be counted."""
    work = count(op_type, inputs, outputs, **options)
    assert work is not None, f"{op_type} is uncounted"
    return work


def elementwise(
    op_type: str, inputs: Sequence[Operand], outputs: Sequence[Operand] = ("?",), **options: Any
) -> int:
    """The element-wise operations of a node that has no MACs."""
    work = work_of(op_type, inputs, outputs, **options)
    assert work.macs == 0
    return work.elementwise


def inferred(text: str) -> onnx.ModelProto:
    """A model in ONNX's text form, after shape inference."""
    model = onnx.parser.parse_model(text)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)
