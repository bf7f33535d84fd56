"""One request to the next tier, as it is written on a connection, and its answer read.

Where both ends are on one machine, values go through memory that they share (`wire/shared`):
the client makes it for a connection when a request first has values that are worth it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.packing import LEAST_NBYTES
from dnnsplit_onnx.serving.wire.datatypes import datatype_of
from dnnsplit_onnx.serving.wire.encoding import asked_outputs, encode, to_text, with_tensors, without_trace
from dnnsplit_onnx.serving.wire.errors import ProtocolError, RefusedError, ServingError
from dnnsplit_onnx.serving.wire.exchange import Body
from dnnsplit_onnx.serving.wire.http import JSON_LENGTH, ResponseHead
from dnnsplit_onnx.serving.wire.packing import pack
from dnnsplit_onnx.serving.wire.pool import Buffers, Connection, Fields
from dnnsplit_onnx.serving.wire.protocol import Message, Scalar, parse, receive
from dnnsplit_onnx.serving.wire.shared import IS_THERE, LONGEST, Place, Region, ends_of, key_of, make
from dnnsplit_onnx.serving.wire.stream import Deadline

_LONGEST_JSON = 64 << 20
_LONGEST_ANSWER = 4 << 30
_ALIGNMENT = 64
# Fewer bytes than these travel as fast with the text.
_LEAST_NBYTES = 1 << 15


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it was read.

    Attributes:
        arrays: Its tensors by name.
        trace: What it says of its times.
        nbytes: Its bytes.
    """

    arrays: dict[str, np.ndarray]
    trace: Scalar | None
    nbytes: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where a request's tensors lie in the memory of a connection.

    Attributes:
        region: That memory, None if there is none.
        inputs, outputs: The places by name.
    """

    region: Region | None
    inputs: Mapping[str, Place]
    outputs: Mapping[str, Place]


NOWHERE = Places(None, {}, {})


class Lender:
    """Memory for the requests to one server, if that can share it; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_off = not IS_THERE
        self._sizes: dict[str, int] = {}

    def learn(self, sizes: Mapping[str, int]) -> None:
        """Notes how long outputs were, for those whose shapes are not fixed."""
        with self._lock:
            self._sizes |= sizes

    def places(
        self, connection: Connection, values: Mapping[str, np.ndarray], leg: Leg, deadline: Deadline
    ) -> Places:
        """Where the values of a request, and its outputs, may lie; no places if they may not.

        Raises:
            OSError: The connection failed.
            ServingError: The server does not answer.
        """
        if self._is_off or connection.is_private:
            return NOWHERE
        with self._lock:
            sizes = {port.name: self._sizes.get(port.name, 0) for port in leg.answers}
        inputs = tuple((name, a.nbytes) for name, a in values.items() if a.dtype.kind not in "OSU")
        total = sum(nbytes for _, nbytes in inputs) + sum(sizes.values())
        need = total + _ALIGNMENT * (len(inputs) + len(sizes))
        if total < _LEAST_NBYTES or need > LONGEST:
            return NOWHERE
        if connection.region is None or connection.region.nbytes < need:
            self._register(connection, need, deadline)
        region = connection.region
        if region is None:
            return NOWHERE
        return Places(region, *_laid_out(region.name, inputs, tuple(sizes.items())))

    def _register(self, connection: Connection, nbytes: int, deadline: Deadline) -> None:
        """Makes a region for a connection and offers it to the server, which may have none of it."""
        ends, connection.region = ends_of(connection.stream.sock), None
        if not ends:
            self._is_off = True
            return
        try:
            region, descriptor = make(1 << (nbytes - 1).bit_length())
        except OSError:
            connection.is_private = True
            return
        try:
            asked = {
                "key": key_of(descriptor),
                "offset": 0,
                "byte_size": region.nbytes,
                "dnnsplit_ends": ends,
            }
            path = f"/v2/systemsharedmemory/region/{region.name}/register"
            status, is_open = connection.exchange("POST", path, {}, [to_text(asked)], _read_status, deadline)
        finally:
            os.close(descriptor)
        if not is_open:  # something between the two did not like it
            self._is_off = True
            raise ConnectionError("the connection was closed")
        if status == 200:
            connection.region = region
        else:
            connection.is_private = True
            # A server that is full may have room later; one that cannot never can.
            self._is_off = status != 503


class Asking:
    """One request.

    Args:
        leg: What the next tier is to do.
        values: Its tensors.
        said: What else it says, `outputs` apart.
        is_binary: Whether tensors travel as binary data.
        packs: Whether that is packed.
        lender: Where they may lie otherwise; None if the server is not ours.
        refusal: What an answer means that is none.
        url: Of the server, for messages.

    Attributes:
        sent_nbytes: Bytes of its body as it was sent, and of what it has in shared memory.
        saved_nbytes: What packing took off.
        pack_s: Seconds of putting it together.
    """

    def __init__(
        self,
        leg: Leg,
        values: Mapping[str, np.ndarray],
        said: Mapping[str, Any],
        *,
        is_binary: bool,
        packs: bool,
        lender: Lender | None,
        refusal: Callable[[ResponseHead, Body], ServingError],
        url: str,
    ) -> None:
        self._leg, self._values, self._said = leg, values, said
        self._is_binary, self._packs, self._lender = is_binary, packs, lender
        self._refusal, self._url = refusal, url
        self._places = NOWHERE
        self.sent_nbytes = self.saved_nbytes = 0
        self.pack_s = 0.0

    def write(self, connection: Connection, deadline: Deadline) -> tuple[Fields, Buffers]:
        """The request's header fields and its body, as this connection is to carry it."""
        if self._lender is not None:
            self._places = self._lender.places(connection, self._values, self._leg, deadline)
        start, self.saved_nbytes = time.perf_counter(), 0
        places = self._places
        tensors, buffers = encode(
            self._values, lambda _: self._is_binary, self._packed, region=places.region, places=places.inputs
        )
        self.pack_s = time.perf_counter() - start
        names = tuple(port.name for port in self._leg.answers)
        wanted = asked_outputs(names, tuple(map(places.outputs.get, names)), binary=self._is_binary)
        text = with_tensors(self._said, inputs=tensors, outputs=wanted)
        whole = sum(value.nbytes for value in self._values.values())
        self.sent_nbytes = len(text) + whole - self.saved_nbytes
        if not self._is_binary:
            return {"Content-Type": "application/json"}, [text, *buffers]
        fields: Fields = {JSON_LENGTH.title(): len(text), "Content-Type": "application/octet-stream"}
        return fields, [text, *buffers]

    def _packed(self, raw: memoryview, itemsize: int) -> bytes | None:
        if not self._packs or raw.nbytes < LEAST_NBYTES:
            return None
        smaller = pack(raw, itemsize)
        if len(smaller) >= raw.nbytes:
            return None
        self.saved_nbytes += raw.nbytes - len(smaller)
        return smaller

    def read(self, head: ResponseHead, body: Body) -> Reply:
        """Reads the answer.

        Raises:
            ServingError: It is none, or is wrong.
        """
        if head.status != 200:
            raise self._refusal(head, body)
        if body.json_length > _LONGEST_JSON or body.length > _LONGEST_ANSWER:
            raise RefusedError(f"the answer of `{self._url}` is too large")
        try:
            text, trace = without_trace(body.read(body.json_length))
            message = parse(text, "outputs", body.unread)
            arrays = self._receive(message, body)
        except ProtocolError as error:
            raise RefusedError(f"`{self._url}` answers wrongly: {error.message}") from None
        nbytes = body.length + sum(t.place.nbytes for t in message.tensors if t.place is not None)
        return Reply(arrays, trace or message.parameters.get("dnnsplit_trace"), nbytes)

    def _receive(self, message: Message, body: Body) -> dict[str, np.ndarray]:
        arrays = {}
        for tensor in message.tensors:
            array = receive(
                tensor, body.read_into, lambda nbytes: np.empty(nbytes, np.uint8), self._places.region
            )
            # The next request of this connection writes over what is shared.
            arrays[tensor.name] = array if tensor.place is None else array.copy()
        if self._lender is not None:
            told = {name: a.nbytes for name, a in arrays.items() if datatype_of(a) is not None}
            self._lender.learn(told)
        return arrays


@lru_cache(256)
def _laid_out(region: str, *groups: tuple[tuple[str, int], ...]) -> tuple[dict[str, Place], ...]:
    """The places of tensors of such sizes, one after the other, by name; those of each group apart."""
    start, found = 0, []
    for group in groups:
        places = {}
        for name, nbytes in group:
            if nbytes:
                places[name] = Place(region, start, nbytes)
                start += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        found.append(places)
    return tuple(found)


def _read_status(head: ResponseHead, body: Body) -> int:  # noqa: ARG001
    return head.status
