"""Element types: the protocol's names, onnx's names, and numpy's dtypes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from dnnsplit_onnx.graph.ports import Port

BYTES = "BYTES"
#: The length that stands before each element of BYTES.
LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Datatype:
    """An element type of the protocol.

    Attributes:
        name: As the protocol spells it, `FP32`.
        onnx: As manifests spell it, `float`.
        numpy: Little-endian on the wire; `object` for BYTES, whose elements are `bytes`.
        json: Python types that its elements may have in the JSON form; empty if it has none.
    """

    name: str
    onnx: str
    numpy: np.dtype[Any]
    json: frozenset[type]

    @property
    def itemsize(self) -> int | None:
        """Bytes of an element, None where elements differ."""
        return None if self.name == BYTES else self.numpy.itemsize


_INTEGER, _REAL = frozenset({int}), frozenset({int, float})
_ALL = (
    Datatype("BOOL", "bool", np.dtype(np.bool_), frozenset({bool})),
    *(
        Datatype(f"UINT{bits}", f"uint{bits}", np.dtype(f"<u{bits // 8}"), _INTEGER)
        for bits in (8, 16, 32, 64)
    ),
    *(Datatype(f"INT{bits}", f"int{bits}", np.dtype(f"<i{bits // 8}"), _INTEGER) for bits in (8, 16, 32, 64)),
    Datatype("FP16", "float16", np.dtype("<f2"), _REAL),
    Datatype("FP32", "float", np.dtype("<f4"), _REAL),
    Datatype("FP64", "double", np.dtype("<f8"), _REAL),
    # The protocol has no JSON form of it, and JSON numbers say nothing of how to round.
    Datatype("BF16", "bfloat16", np.dtype(ml_dtypes.bfloat16), frozenset()),
    Datatype(BYTES, "string", np.dtype(object), frozenset({str})),
)
DATATYPES = {datatype.name: datatype for datatype in _ALL}
BY_ONNX = {datatype.onnx: datatype for datatype in _ALL}
_BY_NUMPY = {datatype.numpy: datatype for datatype in _ALL}


def misfit(port: Port, datatype: Datatype | None, shape: Sequence[int]) -> str | None:
    """What is wrong with a tensor that is to be a port's value; None if it fits.

    Args:
        port: The value, as the manifest has it.
        datatype: The tensor's type, None if the protocol has none for it.
        shape: The tensor's shape.
    """
    expected = BY_ONNX[port.dtype or ""]
    if datatype is not expected:
        return f"is {datatype.name if datatype else 'of another type'}; it must be {expected.name}"
    if port.takes(shape) or (port.is_file and len(shape) == 1):
        return None
    return f"has the shape {list(shape)}; it must be {fixed_shape(port)}"


def fixed_shape(port: Port) -> list[int]:
    """A port's shape as the protocol writes it, -1 for what may differ; `[-1]` for any rank, and a file."""
    if port.shape is None or port.is_file:
        return [-1]
    return [size if isinstance(size, int) else -1 for size in port.shape]


def fixed_nbytes(port: Port) -> int | None:
    """The bytes of a port's value, None if they differ from request to request."""
    itemsize = BY_ONNX[port.dtype or ""].itemsize
    if (
        port.shape is None
        or port.is_file
        or itemsize is None
        or not all(isinstance(size, int) for size in port.shape)
    ):
        return None
    return math.prod(fixed_shape(port)) * itemsize


def datatype_of(array: np.ndarray) -> Datatype | None:
    """The type that an array travels as, None if the protocol has none for it."""
    dtype = array.dtype
    if dtype.kind in "OSU":
        return DATATYPES[BYTES]
    return _BY_NUMPY.get(dtype) or _BY_NUMPY.get(dtype.newbyteorder("<"))
