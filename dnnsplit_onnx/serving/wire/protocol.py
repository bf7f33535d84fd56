"""The Open Inference Protocol (KServe v2) with its binary tensor extension: bytes and tensors.

The body of an inference request or response is one JSON object, and after it the tensors
that the object says travel as binary data, back to back in the order they are listed:

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3],
                 "parameters": {"binary_data_size": 12}}]}  <12 bytes>

What arrives may come from anyone. The JSON part is bounded before it is parsed; every
name, type, shape and size is checked before memory is set aside; and the tensors are then
received straight into arrays of their own. Nothing is ever unpickled. Between two of our servers
the binary data of a request's tensor may be packed (`packing`): `"dnnsplit_packed": "shuffle-zstd"`
among its parameters, and its own size smaller than what its type and shape take.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np

from dnnsplit_onnx.serving.wire.datatypes import BYTES, DATATYPES, LENGTH, Datatype
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER, unpack
from dnnsplit_onnx.serving.wire.shared import Place, Region

Scalar = str | int | float | bool
#: Fills a buffer with the next bytes of a body.
ReadInto = Callable[[memoryview], None]

# More of any of these is no tensor that a model reads, and costs time to look at.
_MOST_TENSORS = 4096
_MOST_DIMS = 32
_MOST_STRINGS = 1 << 20
_LONGEST_NAME = 1024
_MOST_BESIDES_ZERO = 1 << 20
_SHORT = 4096
_ONLY_SIZE, _ONLY_BINARY = frozenset({"binary_data_size"}), frozenset({"binary_data"})
_SCALARS = frozenset({str, int, float, bool})
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class TensorHead:
    """What the JSON part says of a tensor.

    Attributes:
        nbytes: Bytes of its binary data in the body, None if it is elsewhere.
        data: Its elements in the JSON part, else None.
        is_packed: Whether its binary data is packed (`packing`).
        place: Where it lies in shared memory, else None.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    nbytes: int | None
    data: list[Any] | None
    is_packed: bool = False
    place: Place | None = None

    @property
    def memory_nbytes(self) -> int:
        """Bytes that its elements take once they are here; 0 for those that are here already."""
        if not self.is_packed:
            return self.nbytes or 0
        return math.prod(self.shape) * (self.datatype.itemsize or 0)


@dataclass(frozen=True, slots=True)
class Message:
    """The JSON part of an inference request or response.

    Attributes:
        id: What the client calls the request.
        parameters: The request's or response's own.
        tensors: Its inputs or outputs.
        outputs: The outputs that a request names, and whether each is wanted as binary
            data; None if it names none and so wants all.
        binary_output: Whether outputs not named are wanted as binary data.
        places: Where in shared memory the request has room for outputs.
    """

    id: str | None
    parameters: Mapping[str, Scalar]
    tensors: tuple[TensorHead, ...]
    outputs: Mapping[str, bool] | None = None
    binary_output: bool = False
    places: Mapping[str, Place] = field(default_factory=dict)

    def is_binary(self, name: str) -> bool:
        """Whether the client wants an output as binary data."""
        return self.binary_output if self.outputs is None else self.outputs[name]


def parse(text: bytes, kind: Literal["inputs", "outputs"], binary_nbytes: int) -> Message:
    """Reads the JSON part of a request (`inputs`) or a response (`outputs`).

    Args:
        text: The JSON part; its size is bounded by the caller.
        kind: Which of the two it is.
        binary_nbytes: Bytes that follow it; the tensors must account for each.

    Raises:
        ProtocolError: It is not what the protocol says.
    """
    return (_parse_again if len(text) <= _SHORT else _parse)(text, kind, binary_nbytes)


def read_object(text: bytes) -> dict[str, Any]:
    """The JSON object that a body, or its JSON part, is.

    Raises:
        ProtocolError: It is none.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("the JSON part of the body is not JSON") from None
    if not isinstance(data, dict):
        raise ProtocolError("the JSON part of the body is not an object")
    return data


def _parse(text: bytes, kind: Literal["inputs", "outputs"], binary_nbytes: int) -> Message:
    return message_of(read_object(text), kind, binary_nbytes)


def message_of(data: Mapping[str, Any], kind: Literal["inputs", "outputs"], binary_nbytes: int) -> Message:
    """What a JSON part says, once it is an object; see `parse`."""
    parameters = _parameters(data, "the message")
    tensors = tuple(_tensor(entry, kind) for entry in _entries(data, kind, required=True))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ProtocolError(f"two of the {kind} have one name")
    said = sum(tensor.nbytes or 0 for tensor in tensors)
    if said != binary_nbytes:
        raise ProtocolError(
            f"the tensors take {said} bytes of binary data, and {binary_nbytes} follow the JSON part"
        )
    identity = data.get("id")
    if identity is not None and not isinstance(identity, str):
        raise ProtocolError("`id` is not a string")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise ProtocolError("`binary_data_output` is not a boolean")
    if kind == "outputs":
        return Message(identity, parameters, tensors, None, binary)
    wanted, places = _wanted(data, binary)
    return Message(identity, parameters, tensors, wanted, binary, places)


#: A client's requests are much alike: what their JSON parts say is remembered. Nobody changes
#: a message once it is parsed.
_parse_again = lru_cache(256)(_parse)


def take(
    head: TensorHead,
    read_into: ReadInto,
    allocate: Callable[[int], np.ndarray],
    region: Region | None = None,
) -> np.ndarray | None:
    """The binary data of a tensor as it arrives, one-dimensional; None if it is in the JSON part.

    Args:
        head: What the JSON part says of it.
        read_into: Reads the body on.
        allocate: Gives a one-dimensional array of so many bytes, aligned for any type.
        region: The memory that is shared with the other side, None if none is.

    Raises:
        ProtocolError: There is no such place in shared memory.
    """
    if head.place is not None:
        if region is None:
            raise ProtocolError(f"tensor `{head.name}` lies in shared memory, and none is registered")
        return region.view(head.place)
    if head.nbytes is None:
        return None
    raw = np.empty(head.nbytes, np.uint8) if head.is_packed else allocate(head.nbytes)
    read_into(raw.data)
    return raw


def tensor_of(
    head: TensorHead, taken: np.ndarray | None, allocate: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The tensor of what `take` gave.

    Returns:
        An array of the head's type and shape; of `bytes` objects for BYTES.

    Raises:
        ProtocolError: The data is not what the head says.
    """
    if taken is None:
        return _from_json(head)
    raw = taken
    if head.is_packed:
        raw = allocate(head.memory_nbytes)
        unpack(taken.data, head.datatype.numpy.itemsize, raw)
    if head.datatype.name == BYTES:
        return _shaped(_strings(head, raw.data), head)
    if head.datatype.name == "BOOL" and raw.size and raw.max() > 1:
        raise ProtocolError(f"tensor `{head.name}` has bytes that are neither 0 nor 1 for BOOL")
    return _shaped(raw.view(head.datatype.numpy), head)


def receive(
    head: TensorHead,
    read_into: ReadInto,
    allocate: Callable[[int], np.ndarray],
    region: Region | None = None,
) -> np.ndarray:
    """A tensor, read from the body, taken from the JSON part, or seen in shared memory.

    Arguments, result and errors are those of `take` and `tensor_of`.
    """
    return tensor_of(head, take(head, read_into, allocate, region), allocate)


def _entries(data: Mapping[str, Any], key: str, *, required: bool) -> list[Any]:
    entries = data.get(key)
    if entries is None and not required:
        return []
    if not isinstance(entries, list):
        raise ProtocolError(f"`{key}` is not a list")
    if len(entries) > _MOST_TENSORS:
        raise ProtocolError(f"`{key}` has {len(entries)} entries; at most {_MOST_TENSORS} are read")
    return entries


def _parameters(data: Mapping[str, Any], owner: str, *, may_share: bool = False) -> dict[str, Scalar]:
    found = data.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict) or not _SCALARS.issuperset(map(type, found.values())):
        raise ProtocolError(f"the parameters of {owner} are not an object of strings, numbers and booleans")
    for key in found:
        if key.startswith("shared_memory") and not may_share:
            raise ProtocolError(f"the parameters of {owner} name shared memory, which is for tensors")
    return found


def _place(parameters: Mapping[str, Scalar], owner: str) -> Place | None:
    """Where in shared memory a tensor's parameters have it; None if they do not."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    offset, nbytes = parameters.get("shared_memory_offset", 0), parameters.get("shared_memory_byte_size")
    if not isinstance(region, str) or len(region) > _LONGEST_NAME:
        raise ProtocolError(f"`shared_memory_region` of {owner} is no name")
    if (
        type(offset) is not int
        or type(nbytes) is not int
        or not (0 <= offset < 1 << 48 and 0 <= nbytes < 1 << 48)
    ):
        raise ProtocolError(f"the place of {owner} in shared memory is no offset and size in bytes")
    return Place(region, offset, nbytes)


def _name(entry: Any, kind: str) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise ProtocolError(f"one of the {kind} has no name")
    return name


def _tensor(entry: Any, kind: str) -> TensorHead:
    name = _name(entry, kind)
    parameters, shape = entry.get("parameters"), entry.get("shape")
    if type(parameters) is dict and parameters.keys() == _ONLY_SIZE and type(shape) is list:  # as most are
        datatype, nbytes = entry.get("datatype"), parameters["binary_data_size"]
        if type(datatype) is str and type(nbytes) is int and {int}.issuperset(map(type, shape)):
            return _plain(name, datatype, tuple(shape), nbytes)
    return _read_tensor(name, entry, kind)


@lru_cache(_REMEMBERED)
def _plain(name: str, datatype: str, shape: tuple[int, ...], nbytes: int) -> TensorHead:
    """What is said of a tensor whose bytes follow: from request to request the same of most."""
    parameters = {"binary_data_size": nbytes}
    entry = {"datatype": datatype, "shape": list(shape), "parameters": parameters}
    return _read_tensor(name, entry, "inputs")


def _read_tensor(name: str, entry: Mapping[str, Any], kind: str) -> TensorHead:
    datatype = DATATYPES.get(entry["datatype"]) if isinstance(entry.get("datatype"), str) else None
    if datatype is None:
        raise ProtocolError(f"tensor `{name}` has no datatype that the protocol knows")
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > _MOST_DIMS
        or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    ):
        raise ProtocolError(f"the shape of tensor `{name}` is not a list of sizes")
    # It takes no bytes, and what a model makes of its other dimensions may take any number.
    if 0 in shape and math.prod(filter(None, shape)) > _MOST_BESIDES_ZERO:
        raise ProtocolError(f"tensor `{name}` has a dimension of 0, and others of too many elements")
    parameters = _parameters(entry, f"tensor `{name}`", may_share=True)
    nbytes, place = parameters.get("binary_data_size"), _place(parameters, f"tensor `{name}`")
    if PARAMETER in parameters:
        _check_packed(name, datatype, shape, parameters, kind)
        return TensorHead(name, datatype, tuple(shape), cast(int, nbytes), None, is_packed=True)
    if place is not None:
        _check_size(name, datatype, shape, place.nbytes)
        return TensorHead(name, datatype, tuple(shape), None, None, place=place)
    if nbytes is None:
        data = entry.get("data")
        if not isinstance(data, list):
            raise ProtocolError(f"tensor `{name}` has neither `data` nor `binary_data_size`")
        return TensorHead(name, datatype, tuple(shape), None, data)
    _check_size(name, datatype, shape, nbytes)
    return TensorHead(name, datatype, tuple(shape), int(nbytes), None)


def _check_size(name: str, datatype: Datatype, shape: list[int], nbytes: Scalar) -> None:
    if type(nbytes) is not int or nbytes < 0:
        raise ProtocolError(f"`binary_data_size` of tensor `{name}` is not a number of bytes")
    count = math.prod(shape)
    if datatype.itemsize is not None:
        if count * datatype.itemsize != nbytes:
            need = count * datatype.itemsize
            raise ProtocolError(f"tensor `{name}`: {datatype.name} {shape} takes {need} bytes, not {nbytes}")
    elif count > _MOST_STRINGS or count * LENGTH.size > nbytes:
        raise ProtocolError(f"tensor `{name}`: {nbytes} bytes cannot hold BYTES {shape}, or hold too many")


def _check_packed(
    name: str, datatype: Datatype, shape: list[int], parameters: Mapping[str, Scalar], kind: str
) -> None:
    """What is packed is a request's, of elements of one size, and smaller than they are."""
    if kind != "inputs" or parameters[PARAMETER] != METHOD or datatype.itemsize is None:
        raise ProtocolError(f"tensor `{name}` is packed in a way that is not known here", status=415)
    nbytes, most = parameters.get("binary_data_size"), math.prod(shape) * datatype.itemsize
    if type(nbytes) is not int or not 0 < nbytes < most:
        raise ProtocolError(f"tensor `{name}` is packed and takes no less than the {most} bytes that it has")


def _wanted(data: Mapping[str, Any], binary_output: bool) -> tuple[dict[str, bool] | None, dict[str, Place]]:
    entries = _entries(data, "outputs", required=False)
    wanted: dict[str, bool] = {}
    places: dict[str, Place] = {}
    for entry in entries:
        name = _name(entry, "outputs")
        parameters, place = entry.get("parameters"), None
        if type(parameters) is not dict or parameters.keys() != _ONLY_BINARY:
            parameters = _parameters(entry, f"output `{name}`", may_share=True)
            place = _place(parameters, f"output `{name}`")
        if place is not None:
            places[name] = place
        if "classification" in parameters:
            raise ProtocolError(f"output `{name}`: classification is not supported")
        binary = parameters.get("binary_data", binary_output)
        if not isinstance(binary, bool):
            raise ProtocolError(f"`binary_data` of output `{name}` is not a boolean")
        if name in wanted:
            raise ProtocolError(f"output `{name}` is asked for twice")
        wanted[name] = binary
    return wanted or None, places


def _shaped(flat: np.ndarray, head: TensorHead) -> np.ndarray:
    try:
        return flat.reshape(head.shape)
    except ValueError:
        raise ProtocolError(f"tensor `{head.name}` does not have the shape {list(head.shape)}") from None


def _strings(head: TensorHead, raw: memoryview) -> np.ndarray:
    """Elements of BYTES: each its length in four bytes, and itself."""
    count, at = math.prod(head.shape), 0
    found = np.empty(count, dtype=object)
    for index in range(count):
        start = at + LENGTH.size
        if start > len(raw):
            break
        at = start + LENGTH.unpack_from(raw, at)[0]
        found[index] = bytes(raw[start:at])
    if at != len(raw) or (count and found[-1] is None):
        raise ProtocolError(f"the lengths of the elements of tensor `{head.name}` do not add up")
    _check_text(head.name, found)
    return found


def _check_text(name: str, elements: Collection[bytes]) -> None:
    """The strings of ONNX are UTF-8, and onnxruntime trusts that they are."""
    try:
        for element in elements:
            element.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"tensor `{name}` holds bytes that are not UTF-8") from None


def _from_json(head: TensorHead) -> np.ndarray:
    flat = list(_flatten(head.data or [], head.name))
    if len(flat) != math.prod(head.shape):
        raise ProtocolError(f"tensor `{head.name}` has {len(flat)} elements, not those of {list(head.shape)}")
    if not {type(element) for element in flat} <= head.datatype.json:
        raise ProtocolError(f"tensor `{head.name}` has elements in JSON that are not {head.datatype.name}")
    if head.datatype.name == BYTES:
        found = np.empty(len(flat), dtype=object)
        try:
            found[:] = [element.encode() for element in flat]
        except UnicodeEncodeError:
            raise ProtocolError(f"tensor `{head.name}` holds text that is not Unicode") from None
        return _shaped(found, head)
    try:
        with np.errstate(over="ignore"):  # a number beyond the type's range becomes infinite
            return _shaped(np.array(flat, dtype=head.datatype.numpy), head)
    except (ValueError, OverflowError):
        raise ProtocolError(
            f"tensor `{head.name}` has numbers out of range for {head.datatype.name}"
        ) from None


def _flatten(data: list[Any], name: str) -> Iterator[Any]:
    """Elements in row-major order, however the lists are nested."""
    pending = [iter(data)]
    while pending:
        for element in pending[-1]:
            if isinstance(element, list):
                if len(pending) >= _MOST_DIMS:
                    raise ProtocolError(f"the data of tensor `{name}` is nested too deep")
                pending.append(iter(element))
                break
            yield element
        else:
            pending.pop()
