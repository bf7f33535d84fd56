"""Tensors as they travel: the JSON part that an answer or a request begins with, and what follows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from dnnsplit_onnx.serving.wire.datatypes import BYTES, LENGTH, Datatype, datatype_of
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER
from dnnsplit_onnx.serving.wire.shared import Place, Region

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_TRACE = b',"parameters":{"dnnsplit_trace":'


def encode(
    arrays: Mapping[str, np.ndarray],
    is_binary: Callable[[str], bool],
    packed: Callable[[memoryview, int], bytes | None] = lambda _raw, _itemsize: None,
    region: Region | None = None,
    places: Mapping[str, Place] = MappingProxyType({}),
) -> tuple[str, list[memoryview]]:
    """Tensors as the list of the JSON part, and the buffers that follow it.

    Numbers are not copied: the buffers are views of the arrays.

    Args:
        arrays: The tensors by name.
        is_binary: Whether a tensor travels as binary data.
        packed: Packs the bytes of a tensor whose elements take so many each; None to send them as
            they are.
        region: The memory that is shared with the other side, None if none is.
        places: Where tensors go in it; those that are longer than that follow all the same.

    Raises:
        ProtocolError: The protocol has no type for an array, or no JSON form of it.
    """
    entries, buffers = [], []
    for name, array in arrays.items():
        datatype = datatype_of(array)
        if datatype is None:
            raise ProtocolError(
                f"value `{name}` is of type {array.dtype}, which the protocol lacks", status=501
            )
        place = places.get(name)
        if place is not None and region is not None and fits(array, place, region):
            place = replace(place, nbytes=array.nbytes)
            room = region.view(place).view(datatype.numpy).reshape(array.shape)
            np.copyto(room, array)
            entries.append(_entry(name, datatype.name, array.shape, place))
        elif is_binary(name):
            raw = raw_of(array, datatype)
            smaller = None if datatype.itemsize is None else packed(raw, datatype.itemsize)
            follows = raw if smaller is None else memoryview(smaller)
            is_packed = smaller is not None
            entries.append(_entry(name, datatype.name, array.shape, follows.nbytes, is_packed=is_packed))
            buffers.append(follows)
        else:
            entry = {"name": name, "datatype": datatype.name, "shape": list(array.shape)}
            entries.append(_ENCODER.encode({**entry, "data": _to_json(name, array, datatype)}))
    return f"[{','.join(entries)}]", buffers


def fits(array: np.ndarray, place: Place | None, region: Region | None) -> bool:
    """Whether a tensor goes to a place in shared memory."""
    if place is None or region is None or array.dtype.kind in "OSU":
        return False
    return array.nbytes <= place.nbytes


@lru_cache(1024)
def _entry(
    name: str, datatype: str, shape: tuple[int, ...], where: int | Place, *, is_packed: bool = False
) -> str:
    """What the JSON part says of a tensor that is elsewhere: from request to request the same."""
    parameters: dict[str, Any] = {"binary_data_size": where}
    if isinstance(where, Place):
        parameters = where.parameters()
    if is_packed:
        parameters[PARAMETER] = METHOD
    return _ENCODER.encode(
        {"name": name, "datatype": datatype, "shape": list(shape), "parameters": parameters}
    )


def to_text(message: Mapping[str, Any]) -> bytes:
    """A JSON part as bytes, nothing in it that is not needed."""
    return _ENCODER.encode(message).encode()


@lru_cache(1024)
def asked_outputs(names: tuple[str, ...], places: tuple[Place | None, ...], *, binary: bool) -> str:
    """The list of outputs that a request asks for: from request to request the same.

    Args:
        names: Of the outputs.
        places: Where in shared memory each may go.
        binary: Whether they are wanted as binary data.
    """
    own: dict[str, Any] = {"binary_data": True} if binary else {}
    listed = []
    for name, place in zip(names, places, strict=True):
        parameters = own if place is None else own | place.parameters()
        listed.append({"name": name, **({"parameters": parameters} if parameters else {})})
    return _ENCODER.encode(listed)


def with_tensors(message: Mapping[str, Any], *, outputs: str, inputs: str | None = None) -> bytes:
    """A JSON part of lists that are text already; what else it says comes after them."""
    first = "" if inputs is None else f'"inputs":{inputs},'
    rest = _ENCODER.encode(message)
    return f'{{{first}"outputs":{outputs}{"," if message else ""}{rest[1:]}'.encode()


def without_trace(text: bytes) -> tuple[bytes, str | None]:
    """The JSON part of an answer without its trace, and the trace.

    Answers are much alike but for it. It is found where `with_tensors` puts it, at the very end;
    wherever else it is, it stays, and the answer is only slower to read.
    """
    rest, found, end = text.rpartition(_TRACE)
    if not found or not end.endswith(b"}}"):
        return text, None
    try:
        trace = json.loads(end[:-2])
    except (ValueError, RecursionError):
        return text, None
    return (rest + b"}", trace) if isinstance(trace, str) else (text, None)


def raw_of(array: np.ndarray, datatype: Datatype) -> memoryview:
    """An array's elements as they travel; a view of the array where that is possible."""
    if datatype.name == BYTES:
        elements = [_as_bytes(element) for element in array.reshape(-1)]
        return memoryview(b"".join(part for e in elements for part in (LENGTH.pack(len(e)), e)))
    if array.dtype == datatype.numpy and array.flags.c_contiguous:  # as most are
        return array.reshape(-1).view(np.uint8).data
    little = np.ascontiguousarray(array).reshape(-1).astype(datatype.numpy, copy=False)
    return little.view(np.uint8).data


def _to_json(name: str, array: np.ndarray, datatype: Datatype) -> list[Any]:
    if not datatype.json:
        raise ProtocolError(f"value `{name}` is {datatype.name}: ask for it as binary data")
    if datatype.name == BYTES:
        return [_as_bytes(element).decode("utf-8", "replace") for element in array.reshape(-1)]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(
            f"value `{name}` has numbers that are not finite, which JSON lacks: ask for it as binary data",
            status=422,
        )
    elements: list[Any] = array.reshape(-1).tolist()
    return elements


def _as_bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
