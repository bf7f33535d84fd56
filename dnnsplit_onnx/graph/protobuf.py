"""ONNX files as bytes: the protobuf wire format, and weights as ranges of a file.

An ONNX file is a protobuf message whose weights are byte fields somewhere inside it.
Nothing here parses a model. `detach` walks the nesting of length-delimited fields and
replaces every large weight by a reference to the bytes where it already lies, in ONNX's
own notation for external data (location, offset, length). What is left is small and is
parsed by the protobuf library. `attach` is the inverse: it takes a serialized message
with such references and says which byte strings and file ranges, in which order, make up
the file in which the weights are inline again.

Both work on any message below `ModelProto`, at any depth (initializers, sparse
initializers, Constant attributes, bodies of If and Loop, functions), and keep fields they
do not know.

Source of the format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dnnsplit_onnx.errors import ModelError

Buffer = bytes | mmap.mmap

# Message kinds and the fields (by number) through which weights can be reached.
# Numbers are those of onnx.proto and never change.
_REACH: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}

# How an attribute of many numbers or texts ends: with its type (field 20), FLOATS, INTS or STRINGS.
# A tree ensemble holds one field for each of millions of them, and no tensor among them.
_LISTS = (b"\xa0\x01\x06", b"\xa0\x01\x07", b"\xa0\x01\x08")

# TensorProto fields.
_DATA_TYPE = 2
_FLOAT_DATA = 4
_RAW_DATA = 9
_DOUBLE_DATA = 10
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14

# Packed float_data and double_data are little-endian arrays, byte for byte what raw_data
# holds, for these element types only (TensorProto.DataType).
_PACKED_AS_RAW = {_FLOAT_DATA: {1, 14}, _DOUBLE_DATA: {11, 15}}

# upb, the parser under onnx, refuses messages nested deeper than this; so do we, before
# Python's own recursion limit is near.
MAX_DEPTH = 100

# An empty node takes two bytes of a file and a hundred once it is parsed. No graph that anyone
# can work with has so many entries.
MOST_FIELDS = 1 << 22

# Pages are given back wherever a weight crosses a multiple of this many bytes (16 MiB).
_UNMAP_SHIFT = 24


@dataclass(frozen=True, slots=True)
class DataRange:
    """Bytes of a file: where a weight lies.

    Attributes:
        location: The file, relative to the folder of the model.
        offset: First byte.
        length: Number of bytes.
    """

    location: str
    offset: int
    length: int


def detach(buffer: Buffer, location: str, threshold: int) -> bytes:
    """The serialized model without its large weights.

    Args:
        buffer: A serialized ModelProto, usually a memory-mapped file; of a weight only
            the header is touched.
        location: What to write as the location of a weight: the name of this file.
        threshold: Weights of fewer bytes stay inline.

    Returns:
        A serialized ModelProto in which each large weight is external data at its own
        place in this file.

    Raises:
        ModelError: The bytes are not a well-formed protobuf message.
    """
    chunks = _detach(buffer, 0, len(buffer), "model", location.encode(), threshold, 0)
    return bytes(buffer[:]) if chunks is None else b"".join(chunks)


def attach(message: bytes, kind: str, inline: Callable[[DataRange], bool]) -> list[bytes | DataRange]:
    """The pieces of the file in which referenced weights are inline again.

    Args:
        message: A serialized message that may refer to external data.
        kind: What it is: "model", "graph", "node", "tensor".
        inline: Whether the weight in this range is to be made inline; others stay
            references.

    Returns:
        Byte strings and ranges of other files, in file order.

    Raises:
        ModelError: The bytes are not a well-formed message, or a reference is broken.
    """
    pieces, _ = _attach(message, 0, len(message), kind, inline, 0)
    return pieces


def fields(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of the message in `buffer[start:end]`.

    Yields:
        (field number, wire type, first byte of the field, first byte of its payload, end).

    Raises:
        ModelError: The bytes are not a well-formed message.
    """
    at = start
    while at < end:
        first = at
        tag, at = varint(buffer, at, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise _malformed(first, "field number 0")
        if wire_type == 2:
            length, at = varint(buffer, at, end)
            stop = at + length
        elif wire_type == 0:
            _, stop = varint(buffer, at, end)
        elif wire_type == 5:
            stop = at + 4
        elif wire_type == 1:
            stop = at + 8
        elif wire_type == 3:
            stop = _end_of_group(buffer, at, end, number)
        else:
            raise _malformed(first, f"wire type {wire_type}")
        if stop > end:
            raise _malformed(first, f"a field of {stop - at} bytes where {end - at} are left")
        yield number, wire_type, first, at, stop
        at = stop


def varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    """The variable-length integer at `at`, and where it stops."""
    if at < end:
        byte = buffer[at]
        if byte < 0x80:
            return byte, at + 1
    value = shift = 0
    while at < end and shift < 64:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _malformed(at, "an unfinished integer")


def encode_varint(value: int) -> bytes:
    """`value` (not negative) as a variable-length integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_delimited(number: int, length: int) -> bytes:
    """The head of a length-delimited field: its tag and the length of what follows."""
    return encode_varint(number << 3 | 2) + encode_varint(length)


def _detach(
    buffer: Buffer, start: int, end: int, kind: str, location: bytes, threshold: int, depth: int
) -> list[bytes] | None:
    """The chunks of this message without large weights, or None where nothing changes."""
    if depth > MAX_DEPTH:
        raise ModelError("messages are nested more than 100 deep")
    if kind == "tensor":
        return _detach_tensor(buffer, start, end, location, threshold)
    if kind == "attribute" and buffer[end - 3 : end] in _LISTS:
        return None
    reach = _REACH[kind]
    chunks: list[bytes] = []
    kept = start  # everything before it is in `chunks`
    for count, (number, wire_type, first, payload, stop) in enumerate(fields(buffer, start, end)):
        if count == MOST_FIELDS:
            raise ModelError(f"a message has more than {MOST_FIELDS} fields")
        # A message shorter than the threshold holds no large weight: most nodes end here.
        if stop - payload < threshold or wire_type != 2 or number not in reach:
            continue
        inner = _detach(buffer, payload, stop, reach[number], location, threshold, depth + 1)
        if inner is None:
            continue
        chunks.append(buffer[kept:first])
        chunks.append(length_delimited(number, sum(map(len, inner))))
        chunks.extend(inner)
        kept = stop
    if not chunks:
        return None
    chunks.append(buffer[kept:end])
    return chunks


def _detach_tensor(
    buffer: Buffer, start: int, end: int, location: bytes, threshold: int
) -> list[bytes] | None:
    chunks: list[bytes] = []
    kept = start
    data_type = 0
    found: tuple[int, int] | None = None
    for number, wire_type, first, payload, stop in fields(buffer, start, end):
        if number == _DATA_TYPE and wire_type == 0:
            data_type, _ = varint(buffer, payload, stop)
        if wire_type != 2 or stop - payload < threshold:
            continue
        if number != _RAW_DATA and data_type not in _PACKED_AS_RAW.get(number, ()):
            continue
        if found is not None:
            raise _malformed(first, "a tensor with two sets of data")
        found = (payload, stop - payload)
        _unmap(buffer, payload, stop)
        chunks.append(buffer[kept:first])
        kept = stop
    if found is None:
        return None
    chunks.append(buffer[kept:end])
    offset, length = found
    for key, value in (
        (b"location", location),
        (b"offset", str(offset).encode()),
        (b"length", str(length).encode()),
    ):
        entry = length_delimited(1, len(key)) + key + length_delimited(2, len(value)) + value
        chunks.append(length_delimited(_EXTERNAL_DATA, len(entry)) + entry)
    chunks.append(encode_varint(_DATA_LOCATION << 3) + b"\x01")
    return chunks


def _unmap(buffer: Buffer, start: int, stop: int) -> None:
    """Gives back the mapped pages of a file now and then, so that they never add up to it.

    The kernel maps up to 2 MiB around each byte that is touched.
    """
    if start >> _UNMAP_SHIFT != stop >> _UNMAP_SHIFT and hasattr(buffer, "madvise"):
        buffer.madvise(mmap.MADV_DONTNEED)


def _attach(
    message: bytes, start: int, end: int, kind: str, inline: Callable[[DataRange], bool], depth: int
) -> tuple[list[bytes | DataRange], int]:
    """The pieces of this message, and their length in bytes."""
    if depth > MAX_DEPTH:
        raise ModelError("messages are nested more than 100 deep")
    if kind == "tensor":
        return _attach_tensor(message, start, end, inline)
    if kind == "attribute" and message[end - 3 : end] in _LISTS:
        return [message[start:end]], end - start
    reach = _REACH[kind]
    pieces: list[bytes | DataRange] = []
    total = 0
    kept = start
    for number, wire_type, first, payload, stop in fields(message, start, end):
        # Whoever refers to external data spells out the word: a quick test spares the walk.
        if wire_type != 2 or number not in reach or message.find(b"location", payload, stop) < 0:
            continue
        inner, length = _attach(message, payload, stop, reach[number], inline, depth + 1)
        head = message[kept:first] + length_delimited(number, length)
        pieces.append(head)
        pieces.extend(inner)
        total += len(head) + length
        kept = stop
    pieces.append(message[kept:end])
    return pieces, total + end - kept


def _attach_tensor(
    message: bytes, start: int, end: int, inline: Callable[[DataRange], bool]
) -> tuple[list[bytes | DataRange], int]:
    entries: dict[bytes, bytes] = {}
    rest: list[bytes] = []
    for number, wire_type, first, payload, stop in fields(message, start, end):
        if number == _EXTERNAL_DATA and wire_type == 2:
            pair = {n: message[p:s] for n, _, _, p, s in fields(message, payload, stop)}
            entries[pair.get(1, b"")] = pair.get(2, b"")
        elif number != _DATA_LOCATION:
            rest.append(message[first:stop])
    if b"location" in entries:
        where = _range(entries, start)
        if where.length >= 0 and inline(where):
            head = b"".join(rest) + length_delimited(_RAW_DATA, where.length)
            return [head, where], len(head) + where.length
    return [message[start:end]], end - start


def _range(entries: dict[bytes, bytes], at: int) -> DataRange:
    try:
        numbers = [int(entries.get(key, default)) for key, default in ((b"offset", b"0"), (b"length", b"-1"))]
        return DataRange(entries[b"location"].decode(), *numbers)
    except ValueError:
        raise _malformed(at, "a broken reference to external data") from None


def _end_of_group(buffer: Buffer, at: int, end: int, number: int) -> int:
    """Where a group (an obsolete form that unknown fields may still have) stops."""
    open_groups = [number]
    while at < end:
        tag, at = varint(buffer, at, end)
        inner, wire_type = tag >> 3, tag & 7
        if wire_type == 4:
            if inner != open_groups.pop():
                break
            if not open_groups:
                return at
        elif wire_type == 3:
            open_groups.append(inner)
            if len(open_groups) > MAX_DEPTH:
                break
        elif wire_type == 2:
            length, at = varint(buffer, at, end)
            at += length
        elif wire_type == 0:
            _, at = varint(buffer, at, end)
        else:
            at += 4 if wire_type == 5 else 8
    raise _malformed(at, "a group without an end")


def _malformed(at: int, what: str) -> ModelError:
    return ModelError(f"not a well-formed ONNX file: {what} at byte {at}")
