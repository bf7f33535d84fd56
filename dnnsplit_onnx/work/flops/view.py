"""A node as its formula sees it: shapes, attributes and constants, or `UnknownWork`."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from dnnsplit_onnx.work.flops.types import Context

Shape = tuple[int, ...]


class UnknownWork(Exception):  # noqa: N818 - a signal between a formula and count_node, not an error
    """The work of a node cannot be known: a shape, attribute or value that it depends on is missing.

    Formulas raise it, mostly through `NodeView`; `count_node` turns it into None. No user sees it.
    """


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of operands under multidirectional (NumPy) broadcasting.

    Raises:
        UnknownWork: The shapes do not broadcast, so the node is not valid.
    """
    rank = max(map(len, shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for position, dim in enumerate(shape, start=rank - len(shape)):
            if dim != 1:
                if result[position] not in (1, dim):
                    raise UnknownWork
                result[position] = dim
    return tuple(result)


class NodeView:
    """One node and what is known around it.

    Every accessor answers, or raises `UnknownWork`: a formula states what it needs and never guesses.

    Args:
        node: The node.
        context: Its surroundings.
    """

    __slots__ = ("context", "node")

    def __init__(self, node: onnx.NodeProto, context: Context) -> None:
        self.node = node
        self.context = context

    @property
    def opset(self) -> int:
        """The version of the node's own operator set."""
        return self.context.opset(self.node.domain)

    # -- values --------------------------------------------------------------------------------------

    def has_input(self, index: int) -> bool:
        """Whether an (optional) input is given."""
        inputs = self.node.input
        return index < len(inputs) and inputs[index] != ""

    def has_output(self, index: int) -> bool:
        """Whether an (optional) output is asked for."""
        outputs = self.node.output
        return index < len(outputs) and outputs[index] != ""

    def input_shape(self, index: int, *ranks: int) -> Shape:
        """The shape of an input.

        Args:
            index: Which input.
            ranks: The ranks that the formula can read; any if none is named.

        Raises:
            UnknownWork: The input is absent, its shape is unknown, or it has another rank.
        """
        if not self.has_input(index):
            raise UnknownWork
        return self._shape(self.node.input[index], ranks)

    def output_shape(self, index: int = 0, *ranks: int) -> Shape:
        """The shape of an output; the arguments and errors are those of `input_shape`."""
        if not self.has_output(index):
            raise UnknownWork
        return self._shape(self.node.output[index], ranks)

    def _shape(self, name: str, ranks: tuple[int, ...]) -> Shape:
        known = self.context.type_of(name)
        if known is None or known.shape is None or (ranks and len(known.shape) not in ranks):
            raise UnknownWork
        return known.shape

    def known_output_shape(self, index: int = 0) -> Shape | None:
        """The shape of an output, or None where `output_shape` would raise."""
        known = self.context.type_of(self.node.output[index]) if self.has_output(index) else None
        return None if known is None else known.shape

    def input_dtype(self, index: int) -> int | None:
        """The element type of an input, an `onnx.TensorProto.DataType`; None if it is unknown."""
        known = self.context.type_of(self.node.input[index]) if self.has_input(index) else None
        return None if known is None else known.dtype

    def input_size(self, index: int) -> int:
        """The number of elements of an input."""
        return prod(self.input_shape(index))

    def output_size(self, index: int = 0) -> int:
        """The number of elements of an output."""
        return prod(self.output_shape(index))

    def elements(self) -> int:
        """The number of elements that an element-wise node writes.

        Inference knows nothing about the outputs of com.microsoft operators, so where the output is
        unknown the inputs are broadcast instead.
        """
        shape = self.known_output_shape()
        if shape is not None:
            return prod(shape)
        given = [index for index, name in enumerate(self.node.input) if name]
        if not given:
            raise UnknownWork
        return prod(broadcast(*(self.input_shape(index) for index in given)))

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an input, if it is a known constant."""
        return self.context.constant(self.node.input[index]) if self.has_input(index) else None

    def constant_int(self, index: int) -> int | None:
        """The value of an input that holds one number, if it is a known constant."""
        value = self.constant(index)
        return int(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def constant_flag(self, index: int) -> bool:
        """An optional boolean input that is False by default.

        Raises:
            UnknownWork: It is given, and not a known constant.
        """
        if not self.has_input(index):
            return False
        value = self.constant_int(index)
        if value is None:
            raise UnknownWork
        return bool(value)

    # -- attributes ----------------------------------------------------------------------------------

    def attribute(self, name: str) -> onnx.AttributeProto | None:
        """An attribute, or None if it is not set."""
        # A linear scan: nodes have a handful of attributes, most formulas read one or none.
        found: onnx.AttributeProto
        for found in self.node.attribute:
            if found.name == name:
                return found
        return None

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute, or its default."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.i

    def positive(self, name: str) -> int:
        """An integer attribute that a valid node has and that is positive, such as a number of heads."""
        value = self.int_attribute(name, 0)
        if value <= 0:
            raise UnknownWork
        return value

    def float_attribute(self, name: str, default: float) -> float:
        """A float attribute, or its default."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.f

    def text_attribute(self, name: str, default: str) -> str:
        """A string attribute, or its default."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.s.decode(errors="replace")

    def ints_attribute(self, name: str) -> tuple[int, ...]:
        """A list-of-integers attribute; empty if it is not set."""
        attribute = self.attribute(name)
        return () if attribute is None else tuple(attribute.ints)

    def texts_attribute(self, name: str) -> tuple[str, ...]:
        """A list-of-strings attribute; empty if it is not set."""
        attribute = self.attribute(name)
        return () if attribute is None else tuple(text.decode(errors="replace") for text in attribute.strings)

    def graph_attribute(self, name: str) -> onnx.GraphProto:
        """A subgraph.

        Raises:
            UnknownWork: The node has no such subgraph.
        """
        attribute = self.attribute(name)
        if attribute is None:
            raise UnknownWork
        return attribute.g


def axis_of(shape: Shape, axis: int) -> int:
    """An axis counted from the front.

    Raises:
        UnknownWork: The shape has no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise UnknownWork
    return axis % len(shape)


def exact_division(dividend: int, divisor: int) -> int:
    """`dividend / divisor` of sizes that divide in a valid node.

    Raises:
        UnknownWork: They do not.
    """
    if divisor <= 0 or dividend % divisor:
        raise UnknownWork
    return dividend // divisor


def log2_ceil(n: int) -> int:
    """The least k with 2**k >= n: the levels of a balanced binary tree over n leaves."""
    return max(n - 1, 0).bit_length()
