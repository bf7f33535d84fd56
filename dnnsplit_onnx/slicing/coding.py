"""Codes as ONNX nodes: the end of one slice writes a value, the start of the next reads it back.

    fp16            coded = Cast(x)                                x' = Cast(coded)
    uint8[-channel] least = ReduceMin(x)
                    scale = Clip((ReduceMax(x) - least) / 255, tiny) + ReduceSum(x * 0)
                    coded = Cast(Clip(Floor((x - least) / scale + 1/2), 0, 255))
                                                                   x' = Cast(coded) * scale + least

Each x' lies within half a scale of x, but for the rounding of the arithmetic itself. The sum is 0,
unless x holds a NaN or an infinity: then every scale is NaN, and so is every x'. Whoever passes a
coded value on refuses a scale that is not finite (`faults`), so that nothing is clipped in silence.

Elementary operators alone, so that opsets from 7 on have them. Slices with codes are ordinary models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import ValueType
from dnnsplit_onnx.work.codes import parts, range_dtype, reduced_axes

# The smallest normal numbers: a value without a range has a scale of that, and comes back exactly.
_TINY: dict[int, float] = {TensorProto.FLOAT: 2.0**-126, TensorProto.DOUBLE: 2.0**-1022}
_STEPS = 255
#: What to do about what `faults` finds.
NO_CODE = "send this cut as it is: split with --codes raw, or with a code of wider range"
# Half a unit in the last place of a value that is rounded once more when it is read back.
_ROUNDING: dict[int, float] = {TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-8}


@dataclass(frozen=True, slots=True)
class Coded:
    """A value as it crosses a link.

    Attributes:
        value: The value that it stands for.
        code: One of `work.codes.LOSSY`.
        type: The value's type.
        prefix: What the names of its parts begin with.
    """

    value: str
    code: str
    type: ValueType
    prefix: str

    @property
    def names(self) -> dict[str, str]:
        """The names of the parts that cross, by their roles."""
        return {part.role: f"{self.prefix}/{part.role}" for part in parts(self.code, self.type)}

    @property
    def ports(self) -> list[Port]:
        """The parts as a manifest lists them."""
        names = self.names
        return [
            Port(
                name=names[part.role],
                dtype=part.type.dtype_name,
                shape=part.type.shape,
                code=self.code,
                stands_for=self.value,
            )
            for part in parts(self.code, self.type)
        ]

    def outputs(self) -> list[onnx.ValueInfoProto]:
        """The parts, as outputs of the slice below and inputs of the one above."""
        names = self.names
        return [
            helper.make_tensor_value_info(names[part.role], part.type.dtype, part.type.shape)
            for part in parts(self.code, self.type)
        ]


@dataclass
class Nodes:
    """Nodes and small weights to be added to a slice."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op_type: str, reads: list[str], name: str, **attributes: Any) -> str:
        """A node that makes `name`."""
        self.nodes.append(helper.make_node(op_type, reads, [name], name=name, **attributes))
        return name

    def constant(self, name: str, number: np.ndarray) -> str:
        """A small weight."""
        self.weights.append(numpy_helper.from_array(number, name))
        return name

    def reduce(self, op_type: str, reads: str, name: str, axes: tuple[int, ...], *, keep: bool) -> str:
        """A reduction over axes, all of them if there are none; the axes moved among the inputs."""
        since = 13 if op_type == "ReduceSum" else 18
        if not axes:
            return self.add(op_type, [reads], name, keepdims=int(keep))
        if self.opset < since:
            return self.add(op_type, [reads], name, axes=list(axes), keepdims=int(keep))
        where = self.constant(f"{name}/axes", np.array(axes, np.int64))
        return self.add(op_type, [reads, where], name, keepdims=int(keep))

    def clip(self, reads: str, name: str, low: np.ndarray, high: np.ndarray) -> str:
        """A Clip; its limits moved from attributes to inputs in opset 11."""
        if self.opset < 11:
            return self.add("Clip", [reads], name, min=float(low), max=float(high))
        limits = [self.constant(f"{name}/low", low), self.constant(f"{name}/high", high)]
        return self.add("Clip", [reads, *limits], name)


def encode(coded: Coded, opset: int) -> Nodes:
    """The nodes that write a value, at the end of the slice that has it.

    Args:
        coded: The value and its code.
        opset: The slice's version of ONNX's operators, 7 or newer.
    """
    made = Nodes(opset)
    names = coded.names
    if coded.code == "fp16":
        made.add("Cast", [coded.value], names["coded"], to=TensorProto.FLOAT16)
        return made
    wide = range_dtype(coded.type.dtype)
    number = helper.tensor_dtype_to_np_dtype(wide).type
    own = names["coded"]
    x = coded.value
    if coded.type.dtype != wide:
        x = made.add("Cast", [x], f"{own}/wide", to=wide)
    rank = 0 if coded.type.shape is None else len(coded.type.shape)
    axes = reduced_axes(coded.code, rank)
    least, most = (
        made.reduce(f"Reduce{which}", x, f"{own}/{which}", axes, keep=bool(axes)) for which in ("Min", "Max")
    )
    if not axes:  # one element, and never none: not every server of the protocol takes no dimensions
        one = made.constant(f"{own}/one", np.array([1], np.int64))
        least, most = (made.add("Reshape", [name, one], f"{name}/vector") for name in (least, most))
    made.add("Identity", [least], names["least"])
    span = made.add("Sub", [most, least], f"{own}/span")
    steps = made.constant(f"{own}/steps", np.array(_STEPS, number))
    step = made.add("Div", [span, steps], f"{own}/step")
    step = made.clip(step, f"{own}/some", number(_TINY[wide]), number(np.inf))
    zero = made.constant(f"{own}/zero", np.array(0, number))
    poison = made.reduce(
        "ReduceSum", made.add("Mul", [x, zero], f"{own}/zeros"), f"{own}/nan", (), keep=False
    )
    made.add("Add", [step, poison], names["scale"])
    above = made.add("Sub", [x, least], f"{own}/above")
    place = made.add("Div", [above, names["scale"]], f"{own}/place")
    half = made.constant(f"{own}/half", np.array(0.5, number))
    place = made.add("Floor", [made.add("Add", [place, half], f"{own}/upper")], f"{own}/floor")
    place = made.clip(place, f"{own}/clipped", number(0), number(_STEPS))
    made.add("Cast", [place], own, to=TensorProto.UINT8)
    return made


def decode(coded: Coded, opset: int) -> Nodes:
    """The nodes that read a value back, at the start of the slice above."""
    made = Nodes(opset)
    names = coded.names
    if coded.code == "fp16":
        made.add("Cast", [names["coded"]], coded.value, to=coded.type.dtype)
        return made
    wide = range_dtype(coded.type.dtype)
    own = f"{names['coded']}/read"
    number = made.add("Cast", [names["coded"]], f"{own}/number", to=wide)
    scaled = made.add("Mul", [number, names["scale"]], f"{own}/scaled")
    if coded.type.dtype == wide:
        made.add("Add", [scaled, names["least"]], coded.value)
    else:
        whole = made.add("Add", [scaled, names["least"]], f"{own}/wide")
        made.add("Cast", [whole], coded.value, to=coded.type.dtype)
    return made


def faults(ports: Iterable[Port], values: Mapping[str, np.ndarray | None]) -> Iterator[str]:
    """Why coded values may not be passed on, each a sentence; nothing if they may.

    Args:
        ports: What a slice makes; those that stand for no coded value are left alone.
        values: What it made, by name.
    """
    tensors: dict[tuple[str, str], list[np.ndarray]] = {}
    for port in ports:
        array = values.get(port.name)
        if port.code is not None and port.stands_for is not None and array is not None:
            tensors.setdefault((port.stands_for, port.code), []).append(array)
    for (value, code), arrays in tensors.items():
        if any(array.size == 0 for array in arrays):
            continue
        if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
            beyond = "beyond 65504" if code == "fp16" else "too wide a range"
            yield f"value `{value}` holds what {code} cannot: NaN, infinity, or {beyond}"


def bound(coded: Coded, value: np.ndarray) -> np.ndarray:
    """The largest error that each element of a value may have, of the value's shape.

    Half a step, or half a unit in the last place of fp16; and a few units in the last place of the
    arithmetic that reads it back.
    """
    x = value.astype(np.float64)
    if coded.code == "fp16":
        # The spacing of fp16 at x, at least that of its subnormal numbers.
        exponent = np.floor(np.log2(np.maximum(np.abs(x), 2.0**-14)))
        return np.asarray(2.0 ** (exponent - 11))
    axes = reduced_axes(coded.code, x.ndim) or tuple(range(x.ndim))
    least, most = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
    widest = np.maximum(np.abs(least), np.abs(most))
    unit = 2.0**-52 if coded.type.dtype == TensorProto.DOUBLE else 2.0**-23
    own = _ROUNDING.get(coded.type.dtype, 0.0)
    limit = (most - least) / _STEPS / 2 + widest * (8 * unit + own) + 2 * _TINY[TensorProto.FLOAT]
    return np.broadcast_to(limit, x.shape)
