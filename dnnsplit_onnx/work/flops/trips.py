"""How often a Loop runs, where that can be proven: its condition compares what grows steadily.

Exporters write a `while` over the steps of a sequence with a counter among the carried values,
and a condition such as `counter + 1 < length`. A scalar that is `start + slope * i` in the i-th
iteration is a line; where two lines are compared, the iteration that ends the loop is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from dnnsplit_onnx.work.flops.scope import GraphContext
from dnnsplit_onnx.work.flops.types import Context
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork

# How exporters of `while` loops write "no maximum".
_UNBOUNDED = 2**63 - 1
_SAME = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
# A condition is small; one that is not may double with every node that reads a value twice.
_MOST_VISITS = 500


@dataclass(frozen=True, slots=True)
class _Line:
    """A scalar that is `start + slope * i` in the i-th iteration."""

    start: int
    slope: int


def proven_trips(node: NodeView, body: onnx.GraphProto) -> int:
    """The iterations of a Loop.

    Raises:
        UnknownWork: They cannot be proven.
    """
    first = node.constant_int(1) if node.has_input(1) else 1
    maximum = node.constant_int(0)
    if first == 0 or (maximum is not None and maximum <= 0):
        return 0
    if first is None or len(body.input) < 2 or not body.output:
        raise UnknownWork
    ends = _Body(node, body).trips(body.output[0].name)
    bounds = [bound for bound in (maximum, ends) if bound is not None and bound != _UNBOUNDED]
    # Without a maximum the condition alone has to end it, and with an unknown one it may not.
    if not bounds or (maximum is None and node.has_input(0)):
        raise UnknownWork
    return min(bounds)


class _Body:
    """The scalars of a loop's body."""

    def __init__(self, node: NodeView, body: onnx.GraphProto) -> None:
        self._outer: Context = node.context
        self._context = GraphContext(body, outer=node.context)
        self._producers = {name: inner for inner in body.node for name in inner.output}
        carried = node.node.input[2:]
        self._iteration, self._condition = body.input[0].name, body.input[1].name
        # What a carried value is at first, and what the body makes of it.
        self._visits = 0
        self._carried = {
            value.name: (given, made.name)
            for value, given, made in zip(body.input[2:], carried, body.output[1:], strict=False)
        }

    def trips(self, name: str) -> int:
        """The iterations that a condition allows, `_UNBOUNDED` for one that is always true.

        Raises:
            UnknownWork: They cannot be proven.
        """
        if name == self._condition:
            return _UNBOUNDED
        maker = self._maker(name)
        value = self._context.constant(name)
        if value is not None:
            return _UNBOUNDED if bool(np.all(value)) else 1
        if maker is None:
            raise UnknownWork
        if maker.op_type in ("Identity", "Cast"):
            return self.trips(maker.input[0])
        if maker.op_type == "And":
            return min(self.trips(each) for each in maker.input)
        if maker.op_type in ("Less", "LessOrEqual"):
            low, high = _operands(maker)
        elif maker.op_type in ("Greater", "GreaterOrEqual"):
            high, low = _operands(maker)
        else:
            raise UnknownWork
        a, b = self._line(low), self._line(high)
        return _crossing(a, b, maker.op_type.endswith("OrEqual"))

    def _line(self, name: str) -> _Line:
        if name == self._iteration:
            return _Line(0, 1)
        if name in self._carried:
            given, made = self._carried[name]
            return _Line(self._scalar(self._outer.constant(given)), self._step(made, name))
        maker = self._maker(name)
        if maker is None or self._context.constant(name) is not None:
            return _Line(self._scalar(self._context.constant(name)), 0)
        if maker.op_type in _SAME:
            return self._line(maker.input[0])
        if maker.op_type in ("Add", "Sub"):
            a, b = (self._line(each) for each in _operands(maker))
            sign = 1 if maker.op_type == "Add" else -1
            return _Line(a.start + sign * b.start, a.slope + sign * b.slope)
        raise UnknownWork

    def _step(self, made: str, carried: str) -> int:
        """What one iteration adds to a carried value."""
        if made == carried:
            return 0
        maker = self._maker(made)
        if maker is None:
            raise UnknownWork
        if maker.op_type in _SAME:
            return self._step(maker.input[0], carried)
        if maker.op_type not in ("Add", "Sub"):
            raise UnknownWork
        first, second = _operands(maker)
        if maker.op_type == "Add" and self._is_free_of(first, carried):
            first, second = second, first
        step = self._line(second) if second != carried else None
        if step is None or step.slope:
            raise UnknownWork
        return self._step(first, carried) + (step.start if maker.op_type == "Add" else -step.start)

    def _maker(self, name: str) -> onnx.NodeProto | None:
        self._visits += 1
        if self._visits > _MOST_VISITS:
            raise UnknownWork
        maker = self._producers.get(name)
        return maker if maker is not None and maker.input else None

    def _is_free_of(self, name: str, carried: str) -> bool:
        """Whether a value is a constant, and so not the carried one in other clothes."""
        return name != carried and self._context.constant(name) is not None

    def _scalar(self, value: np.ndarray | None) -> int:
        if value is None or value.size != 1 or value.dtype.kind not in "iu":
            raise UnknownWork
        return int(value.reshape(-1)[0])


def _operands(maker: onnx.NodeProto) -> tuple[str, str]:
    """The two operands of a node.

    Raises:
        UnknownWork: It has not two, as a valid one has.
    """
    if len(maker.input) != 2:
        raise UnknownWork
    return maker.input[0], maker.input[1]


def _crossing(low: _Line, high: _Line, or_equal: bool) -> int:
    """The iterations until one line is no longer below another, that iteration included."""
    gap = high.start - low.start + (1 if or_equal else 0)
    closing = low.slope - high.slope
    if gap <= 0:
        return 1
    if closing <= 0:
        return _UNBOUNDED
    return -(-gap // closing) + 1
