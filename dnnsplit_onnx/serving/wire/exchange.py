"""What a server reads and writes for one request: a body, and a response."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.serving.wire.encoding import to_text
from dnnsplit_onnx.serving.wire.errors import BusyError, ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.http import JSON_LENGTH, Head
from dnnsplit_onnx.serving.wire.stream import Deadline, Stream

_log = logging.getLogger(__name__)

_DISCARD = 1 << 16


class Body:
    """The body of a message that is being received.

    Attributes:
        length: Its bytes.
        json_length: Bytes of its JSON part.
        unread: Bytes that are still to come.
        deadline: By when all of it must be here.
        is_broken: Whether reading it failed; what follows on the connection means nothing then.
        on_read: Called once, before the first byte is read; None afterwards.
    """

    def __init__(self, stream: Stream, head: Head, deadline: Deadline) -> None:
        self._stream = stream
        self.length = self.unread = head.length or 0
        self.json_length = self.length if head.json_length is None else head.json_length
        self.deadline = deadline
        self.is_broken = False
        self.on_read: Callable[[], None] | None = None

    def read_into(self, view: memoryview) -> None:
        """Fills a buffer with the next bytes of the body."""
        if len(view) > self.unread:
            raise ProtocolError("the body is shorter than its parts")
        if self.on_read is not None:
            on_read, self.on_read = self.on_read, None
            on_read()
        self.is_broken = True  # until it has gone well: nobody knows how much was read
        self._stream.read_into(view, self.deadline)
        self.unread -= len(view)
        self.is_broken = False

    def read(self, nbytes: int) -> bytes:
        """The next bytes of the body, copied: for its small parts."""
        part = bytearray(nbytes)
        self.read_into(memoryview(part))
        return bytes(part)

    def is_gone(self) -> bool:
        """Whether whoever sent it has closed the connection."""
        return self._stream.is_gone()

    def discard(self) -> None:
        """Reads the rest and drops it."""
        scrap = memoryview(bytearray(min(_DISCARD, self.unread)))
        while self.unread:
            self.read_into(scrap[: min(len(scrap), self.unread)])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: The HTTP status.
        fields: Header fields besides the lengths.
        buffers: The body, in parts.
        chunks: The body, in parts that come with time, in place of buffers.
    """

    status: int
    fields: Mapping[str, str | int] = field(default_factory=dict)
    buffers: Sequence[bytes | memoryview] = ()
    chunks: Iterator[bytes] | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(len(buffer) for buffer in self.buffers)


def json_response(data: Mapping[str, Any], status: int = 200, **fields: str) -> Response:
    """An answer that is one JSON object."""
    return Response(status, {"Content-Type": "application/json", **fields}, [to_text(data)])


def tensor_response(text: bytes, buffers: Sequence[memoryview]) -> Response:
    """An answer of a JSON part and binary data."""
    if not buffers:
        return Response(200, {"Content-Type": "application/json"}, [text])
    fields: dict[str, str | int] = {
        "Content-Type": "application/octet-stream",
        JSON_LENGTH.title(): len(text),
    }
    return Response(200, fields, [text, *buffers])


def as_failure(error: Exception) -> ServingError:
    """What a client is told of anything that went wrong.

    A fault of this program is logged with its trace, which is nobody else's business.
    """
    if isinstance(error, ServingError):
        return error
    if isinstance(error, DnnsplitError):
        return ServingError(error.message)
    _log.error("a fault of this program", exc_info=error)
    return ServingError("a fault of this program keeps the request from its answer; its log says more")


def error_response(error: ServingError) -> Response:
    """An error in the protocol's form, with the link that failed if one did."""
    data: dict[str, Any] = {"error": error.message}
    if error.link is not None:
        data["link"] = error.link
    if isinstance(error, BusyError):
        data["busy"] = True
    fields = {"Retry-After": "1"} if error.status == 503 else {}
    return json_response(data, error.status, **fields)


@dataclass(frozen=True, slots=True)
class ToldError:
    """What an error response says.

    Attributes:
        message: One line.
        link: The link that failed, None if it says none.
        busy: Whether the tier behind that link is there, and has no room now.
    """

    message: str
    link: int | None = None
    busy: bool = False


def read_error(text: bytes, status: int) -> ToldError:
    """Reads the body of an error response."""
    try:
        data = json.loads(text)
        message, link, busy = data["error"], data.get("link"), data.get("busy")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ToldError(f"HTTP status {status}")
    good = isinstance(link, int) and not isinstance(link, bool)
    return ToldError(" ".join(str(message).split())[:500], link if good else None, busy is True)
