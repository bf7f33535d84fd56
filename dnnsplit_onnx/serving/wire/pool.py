"""Connections to one server, kept open and used again.

A connection that was idle may have been closed meanwhile, and the one who sends on it
learns that too late. Inference can be repeated safely, so a request that fails on a used
connection is tried once more on a fresh one; a failure there is final.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.errors import DeadlineError, LinkError
from dnnsplit_onnx.serving.wire.exchange import Body
from dnnsplit_onnx.serving.wire.http import ResponseHead, format_request, parse_response
from dnnsplit_onnx.serving.wire.security import TlsFiles, client_context
from dnnsplit_onnx.serving.wire.shared import Region
from dnnsplit_onnx.serving.wire.stream import Deadline, Stream, TlsStream, watch

T = TypeVar("T")
Buffers = Sequence[bytes | memoryview]
Fields = Mapping[str, str | int]
#: Reads the body of an answer.
Consume = Callable[[ResponseHead, Body], T]

_MOST_IDLE = 16
# So long after an answer a connection is not looked at before the next request goes on it.
_FRESH_S = 0.05
_CONTINUE = 100


@dataclass(frozen=True)
class Target:
    """A server, and how to be let in.

    Attributes:
        url: `http://HOST:PORT` or `https://...`, with a path in front of `/v2` if need be.
        token: The bearer token to show.
        tls: Files for TLS.
        connect_s: How long a connection may take to be made.
        silence_s: After so long without a sign of life from the network, a connection is
            given up, whatever the deadlines of its requests.
        packs: Whether what is sent may be packed, if the server offers that and it is quicker.
        shares: Whether values may go through shared memory, if the server is on this machine.

    Raises:
        InputError: The URL is none.
    """

    url: str
    token: str | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    connect_s: float = 2.0
    silence_s: float = 2.0
    packs: bool = True
    shares: bool = True

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise InputError(f"`{self.url}` is not the URL of a server", hint="write http://HOST:PORT")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        object.__setattr__(self, "host", parts.hostname)
        object.__setattr__(self, "port", port or (443 if parts.scheme == "https" else 80))
        object.__setattr__(self, "path", parts.path.rstrip("/"))
        object.__setattr__(self, "is_tls", parts.scheme == "https")
        object.__setattr__(self, "authority", f"{host}:{port}" if port else host)

    host: str = field(init=False)
    port: int = field(init=False)
    path: str = field(init=False)
    is_tls: bool = field(init=False)
    authority: str = field(init=False)


class Connection:
    """One connection; requests follow one another on it.

    Attributes:
        region: Memory that is shared with the server, None if none is.
        is_private: Whether none ever will be.
        used_at: When the last request on it had its answer, by the clock `time.monotonic`.
    """

    def __init__(self, target: Target, context: ssl.SSLContext | None, deadline: Deadline) -> None:
        self._target = target
        self.region: Region | None = None
        self.used_at = 0.0
        self.is_private = context is not None or not target.shares
        limit = min(target.connect_s, deadline.need("connecting"))
        try:
            sock = socket.create_connection((target.host, target.port), timeout=limit)
            watch(sock, target.silence_s)
            self.stream = Stream(sock) if context is None else _secured(sock, context, target)
        except TimeoutError:
            deadline.need(f"connecting to `{target.url}`")  # in a hurry: that tells nothing of the link
            raise LinkError(f"`{target.url}` does not answer within {limit:.2g} s") from None
        except OSError as error:
            raise LinkError(f"cannot reach `{target.url}`: {error.strerror or error}") from None

    def exchange(
        self,
        method: str,
        path: str,
        fields: Fields,
        buffers: Buffers,
        consume: Consume[T],
        deadline: Deadline,
    ) -> tuple[T, bool]:
        """Sends a request and reads its answer.

        Returns:
            What `consume` made of it, and whether the connection can be used again.

        Raises:
            OSError: The connection failed.
            ServingError: The answer is wrong, or late.
        """
        own: dict[str, str | int] = {"Host": self._target.authority}
        if self._target.token is not None:
            own["Authorization"] = f"Bearer {self._target.token}"
        if buffers:
            own["Content-Length"] = sum(len(buffer) for buffer in buffers)
        request = format_request(method, self._target.path + path, {**own, **fields})
        broken: OSError | None = None
        try:
            self.stream.write([request, *buffers], deadline)
        except OSError as error:
            broken = error  # it may have answered before it stopped reading: busy, too large
        try:
            head = parse_response(self.stream.head(deadline))
            while head.status == _CONTINUE:
                head = parse_response(self.stream.head(deadline))
        except OSError as error:
            raise broken or error from None
        if head.length is None:
            raise LinkError(f"`{self._target.url}` answers without `Content-Length`")
        body = Body(self.stream, head, deadline)
        result = consume(head, body)
        body.discard()
        return result, head.keep_alive and broken is None


#: Makes header fields and the body of a request, as a connection is to carry them by a deadline.
Write = Callable[[Connection, Deadline], tuple[Fields, Buffers]]


class Pool:
    """Connections to one server.

    Args:
        target: The server.
        on_connect: Called with each fresh connection before it is used.
    """

    def __init__(
        self, target: Target, on_connect: Callable[[Connection, Deadline], None] | None = None
    ) -> None:
        self.target = target
        self._context = client_context(target.tls) if target.is_tls else None
        self._on_connect = on_connect
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._closed = False

    def request(
        self,
        method: str,
        path: str,
        consume: Consume[T],
        deadline: Deadline,
        *,
        buffers: Buffers = (),
        write: Write | None = None,
        repeat: bool = True,
    ) -> tuple[T, float]:
        """Sends a request, once more if a connection that was idle fails and it may be repeated.

        Args:
            method: Of the request.
            path: Of the request.
            consume: Reads its answer.
            deadline: By when that must be here.
            buffers: Its body.
            write: Makes its header fields and body for a connection, in place of `buffers`.
            repeat: Whether it may be repeated.

        Returns:
            What `consume` made of the answer, and the seconds it took on a connection that
            was there already.

        Raises:
            LinkError: The server cannot be reached, or went away.
            DeadlineError: It did not answer in time.
            ServingError: `consume` does not like the answer.
        """
        write = write or (lambda _connection, _deadline: ({}, buffers))
        connection = self._take(repeat=repeat)
        if connection is not None:
            try:
                return self._exchange(connection, method, path, write, consume, deadline)
            except OSError as error:
                if not repeat:
                    raise self._went_away(error) from None
        try:
            fresh = self._connect(deadline)
            return self._exchange(fresh, method, path, write, consume, deadline)
        except OSError as error:
            raise self._went_away(error) from None

    def _exchange(
        self,
        connection: Connection,
        method: str,
        path: str,
        write: Write,
        consume: Consume[T],
        deadline: Deadline,
    ) -> tuple[T, float]:
        start, reusable = time.perf_counter(), False
        try:
            fields, buffers = write(connection, deadline)
            # After any error, what is left of the answer would be taken for the next one.
            result, reusable = connection.exchange(method, path, fields, buffers, consume, deadline)
            return result, time.perf_counter() - start
        finally:
            self._give_back(connection, reusable=reusable)

    def _went_away(self, error: OSError) -> LinkError:
        return LinkError(f"`{self.target.url}` went away: {error.strerror or error}")

    def close(self) -> None:
        """Closes all connections; a request that is under way fails."""
        with self._lock:
            self._closed = True
            left, self._idle = [*self._idle, *self._used], []
        for connection in left:
            connection.stream.close()

    def _take(self, *, repeat: bool) -> Connection | None:
        """A connection that was idle, and is not closed on the other side; None if there is none."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
                self._used.add(connection)
            # To ask the kernel takes as long as to send a short request, and a connection that is closed
            # meanwhile fails all the same: the request is then repeated, if it may be.
            is_fresh = repeat and time.monotonic() - connection.used_at < _FRESH_S
            if is_fresh or not connection.stream.is_stale():
                return connection
            self._give_back(connection, reusable=False)

    def _connect(self, deadline: Deadline) -> Connection:
        """A fresh connection, which was looked at.

        Raises:
            OSError: It was closed on the other side.
            ServingError: There is none, or it leads elsewhere.
        """
        if self._closed:
            raise LinkError(f"the way to `{self.target.url}` was closed")
        connection = Connection(self.target, self._context, deadline)
        with self._lock:
            self._used.add(connection)
        try:
            if self._on_connect is not None:
                self._on_connect(connection, deadline.sooner(self.target.connect_s))
        except DeadlineError:
            self._give_back(connection, reusable=False)
            deadline.need(f"asking `{self.target.url}` what it serves")
            raise LinkError(f"`{self.target.url}` does not say what it serves in time") from None
        except BaseException:
            self._give_back(connection, reusable=False)
            raise
        return connection

    def _give_back(self, connection: Connection, *, reusable: bool) -> None:
        """Keeps a connection for the next request, or closes it."""
        with self._lock:
            # Until now it was known, so that it could be closed while it was in use.
            self._used.discard(connection)
            connection.used_at = time.monotonic()
            if reusable and len(self._idle) < _MOST_IDLE and not self._closed:
                self._idle.append(connection)
                return
        connection.stream.close()


def _secured(sock: socket.socket, context: ssl.SSLContext, target: Target) -> TlsStream:
    try:
        return TlsStream(context.wrap_socket(sock, server_hostname=target.host))
    except TimeoutError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        raise LinkError(f"no TLS with `{target.url}`: {reason}") from None
