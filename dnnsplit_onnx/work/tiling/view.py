"""A node as its tiling rule sees it: symbolic dimensions stay what they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from dnnsplit_onnx.graph.shapes import Dim, Types
from dnnsplit_onnx.work.flops.types import TensorType
from dnnsplit_onnx.work.flops.view import NodeView

Dims = tuple[Dim, ...]


class RowView(NodeView):
    """One node, its attributes and constants, and shapes that may hold symbols."""

    __slots__ = ("_types",)

    def __init__(self, node: onnx.NodeProto, types: Types) -> None:
        super().__init__(node, _Surroundings(types))
        self._types = types

    def dims(self, index: int) -> Dims | None:
        """The shape of an input, None if its rank is unknown."""
        return self.dims_of(self.node.input[index]) if self.has_input(index) else None

    def result_dims(self, index: int = 0) -> Dims | None:
        """The shape of an output, None if its rank is unknown."""
        return self.dims_of(self.node.output[index]) if self.has_output(index) else None

    def dims_of(self, name: str) -> Dims | None:
        """The shape of a value, None if its rank is unknown or it is no tensor."""
        known = self._types[name]
        if known.shape is None and known.kind == "unknown":
            constant = self._types.constant(name)
            return None if constant is None else tuple(constant.shape)
        return known.shape if known.kind == "tensor" else None

    def numbers(self, index: int) -> tuple[int, ...] | None:
        """The elements of an input that is a known constant of whole numbers."""
        value = self.constant(index)
        return None if value is None else tuple(int(number) for number in value.reshape(-1))

    def axes(self, index: int, rank: int) -> tuple[int, ...] | None:
        """Axes from the attribute `axes` or from an input, counted from the front.

        Empty if they are not given, None if they are not known.
        """
        found: tuple[int, ...] | None = self.ints_attribute("axes")
        if not found and self.has_input(index):
            found = self.numbers(index)
        return None if found is None else tuple(axis % rank for axis in found)


class _Surroundings:
    """What a `NodeView` asks of the values around it."""

    trips: Mapping[str, int] = {}

    def __init__(self, types: Types) -> None:
        self._types = types

    def type_of(self, name: str) -> TensorType | None:
        known = self._types[name]
        numbers = tuple(dim for dim in known.shape or () if isinstance(dim, int))
        complete = known.shape is not None and len(numbers) == len(known.shape)
        return TensorType(known.dtype, numbers if complete else None)

    def constant(self, name: str) -> np.ndarray | None:
        return self._types.constant(name)

    def opset(self, domain: str) -> int:
        for entry in self._types.graph.proto.opset_import:
            if entry.domain == domain or (not domain and entry.domain == "ai.onnx"):
                return int(entry.version)
        return onnx.defs.onnx_opset_version()
