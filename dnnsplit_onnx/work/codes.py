"""Codes: how a value is written for a link, and what that takes in bytes.

    code            what crosses                                  promise
    raw             the tensor                                    bitwise
    fp16            the tensor in half precision                  half a unit of fp16
    uint8           bytes, and one scale and least element        half a step of the whole range
    uint8-channel   bytes, and a scale and a least element        half a step of each channel's range
                    for each channel

A channel is an entry of the first two axes (image and channel, sequence and token); of a matrix, a
row. Codes that lose something are for floats alone: whole numbers, bools and strings stay raw, and
half precision has no `fp16`. What a code does is nodes of the slices on both sides (`slicing.coding`).

Any of them may be packed (`fp16+packed`; `packed` alone is raw tensors packed), which is done on the
wire and not in the slices (`runtime.packing`), and loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from onnx import TensorProto

from dnnsplit_onnx.graph.shapes import BITS, ValueType

RAW = "raw"
#: Codes that are nodes in the slices, by how much they lose.
LOSSY = ("fp16", "uint8-channel", "uint8")
#: What is done to bytes on the wire.
PACKED = "packed"
#: Cuts and codes, and the values that are written so there.
Choices = Mapping[tuple[int, str], tuple[str, ...]]
_ON_TOP = f"+{PACKED}"
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_WIDE = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def base(code: str) -> str:
    """What a code is in the slices: the code without `packed`."""
    return RAW if code == PACKED else code.removesuffix(_ON_TOP)


def is_packed(code: str) -> bool:
    """Whether a code's tensors are packed on the wire."""
    return code == PACKED or code.endswith(_ON_TOP)


def packed(code: str) -> str:
    """A code with its tensors packed."""
    return PACKED if code == RAW else code + _ON_TOP


def is_allowed(code: str, names: Collection[str] | None) -> bool:
    """Whether a code may be used where these are allowed; `raw` always may."""
    wanted = [*([] if base(code) == RAW else [base(code)]), *([PACKED] if is_packed(code) else [])]
    return all(name in (names or ()) for name in wanted)


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a coded value.

    Attributes:
        role: `coded`, or `scale` and `least` beside it.
        type: Its type; dimensions that are open stay open.
    """

    role: str
    type: ValueType


def parts(code: str, value: ValueType) -> tuple[Part, ...]:
    """What crosses for a value under a code; nothing where the code does not apply to it.

    Args:
        code: `raw` or one of `LOSSY`.
        value: The value's type.
    """
    if code == RAW:
        return (Part("coded", value),)
    if value.kind != "tensor" or value.dtype not in _FLOATS:
        return ()
    if code == "fp16":
        return (Part("coded", _as(value, TensorProto.FLOAT16)),) if value.dtype in _WIDE else ()
    shape = _range_shape(code, value)
    if shape is None:
        return ()
    limits = ValueType("tensor", range_dtype(value.dtype), shape)
    return Part("coded", _as(value, TensorProto.UINT8)), Part("scale", limits), Part("least", limits)


def coded_nbytes(code: str, value: ValueType) -> int | None:
    """Bytes that cross for a value; None if a size is unknown, or the code does not apply."""
    crossing = [part.type.nbytes for part in parts(code, value)]
    if not crossing or any(nbytes is None for nbytes in crossing):
        return None
    return sum(nbytes for nbytes in crossing if nbytes is not None)


def reduced_axes(code: str, rank: int) -> tuple[int, ...]:
    """The axes over which one range is taken; none stands for all."""
    if code == "uint8":
        return ()
    return tuple(range(2, rank)) if rank > 2 else (1,)


def range_dtype(dtype: int) -> int:
    """The element type of scales: half precision would round them."""
    return TensorProto.DOUBLE if dtype == TensorProto.DOUBLE else TensorProto.FLOAT


def elements_per_range(code: str, value: ValueType) -> int | None:
    """How many elements share a scale, None if unknown."""
    if value.shape is None:
        return None
    axes = reduced_axes(code, len(value.shape)) or range(len(value.shape))
    sizes = [value.shape[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    return prod(known) if len(known) == len(sizes) else None


def _range_shape(code: str, value: ValueType) -> tuple[int | str | None, ...] | None:
    """The shape of scales, None where the code does not apply."""
    if code == "uint8":
        return (1,) if value.shape != () else None
    if code != "uint8-channel" or value.shape is None or len(value.shape) < 2:
        return None
    axes = reduced_axes(code, len(value.shape))
    return tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))


def _as(value: ValueType, dtype: int) -> ValueType:
    assert dtype in BITS
    return ValueType(value.kind, dtype, value.shape)
