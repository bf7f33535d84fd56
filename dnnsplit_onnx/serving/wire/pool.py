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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.errors import DeadlineError, LinkError
from dnnsplit_onnx.serving.wire.exchange import Body
from dnnsplit_onnx.serving.wire.http import ResponseHead, format_request, parse_response
from dnnsplit_onnx.serving.wire.security import TlsFiles, client_context
from dnnsplit_onnx.serving.wire.stream import Deadline, Stream, TlsStream, watch

T = TypeVar("T")
Buffers = Sequence[bytes | memoryview]
#: Reads the body of an answer.
Consume = Callable[[ResponseHead, Body], T]

_MOST_IDLE = 16
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

    Raises:
        InputError: The URL is none.
    """

    url: str
    token: str | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    connect_s: float = 2.0
    silence_s: float = 2.0
    packs: bool = True

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
    """One connection; requests follow one another on it."""

    def __init__(self, target: Target, context: ssl.SSLContext | None, deadline: Deadline) -> None:
        self._target = target
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
        fields: Mapping[str, str | int],
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
        fields: Mapping[str, str | int] | None = None,
        buffers: Buffers = (),
        repeat: bool = True,
    ) -> tuple[T, float]:
        """Sends a request, once more if a connection that was idle fails and it may be repeated.

        Returns:
            What `consume` made of the answer, and the seconds it took on a connection that
            was there already.

        Raises:
            LinkError: The server cannot be reached, or went away.
            DeadlineError: It did not answer in time.
            ServingError: `consume` does not like the answer.
        """
        for connection, fresh in self._connections(deadline):
            start = time.perf_counter()
            try:
                result, reusable = connection.exchange(method, path, fields or {}, buffers, consume, deadline)
            except OSError as error:
                connection.stream.close()
                if fresh or not repeat:
                    raise LinkError(f"`{self.target.url}` went away: {error.strerror or error}") from None
                continue
            except BaseException:
                # What is left of the answer would be taken for the next one.
                connection.stream.close()
                raise
            seconds = time.perf_counter() - start
            self._keep(connection) if reusable else connection.stream.close()
            return result, seconds
        raise AssertionError("a fresh connection either works or raises")

    def close(self) -> None:
        """Closes all connections; a request that is under way fails."""
        with self._lock:
            self._closed = True
            left, self._idle = [*self._idle, *self._used], []
        for connection in left:
            connection.stream.close()

    def _connections(self, deadline: Deadline) -> Iterator[tuple[Connection, bool]]:
        """A used connection if there is one, then a fresh one; and whether it is fresh."""
        used = self._take()
        if used is not None:
            with self._using(used):
                yield used, False
        if self._closed:
            raise LinkError(f"the way to `{self.target.url}` was closed")
        connection = Connection(self.target, self._context, deadline)
        with self._using(connection):
            self._meet(connection, deadline)
            yield connection, True

    @contextmanager
    def _using(self, connection: Connection) -> Iterator[None]:
        """Knows of a connection while it is in use, so that it can be closed then too."""
        with self._lock:
            self._used.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._used.discard(connection)

    def _meet(self, connection: Connection, deadline: Deadline) -> None:
        """Has a fresh connection looked at before it is used."""
        if self._on_connect is not None:
            try:
                self._on_connect(connection, deadline.sooner(self.target.connect_s))
            except OSError as error:
                connection.stream.close()
                raise LinkError(f"`{self.target.url}` went away: {error.strerror or error}") from None
            except DeadlineError:
                connection.stream.close()
                deadline.need(f"asking `{self.target.url}` what it serves")
                raise LinkError(f"`{self.target.url}` does not say what it serves in time") from None
            except BaseException:
                connection.stream.close()
                raise

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not connection.stream.is_stale():
                return connection
            connection.stream.close()

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE and not self._closed:
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
