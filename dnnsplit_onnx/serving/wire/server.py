"""The server: a thread a connection, and bounds on everything a client can use up.

Threads that block in the kernel cost one wake-up a request, which is as fast as Python can
serve; what makes them safe is that they are few and that none can be held for long:

1. A connection over the bound takes the place of the one that has been idle for longest.
   If none is idle, it is answered 503 and closed.
2. A head has a deadline, and a body and an answer must keep a pace, however the bytes drip.
3. Requests over the bound are answered 503 before their body is read (`Admission`).
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.arena import Blocks
from dnnsplit_onnx.serving.wire.connection import Connection, response_head
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.serving.wire.exchange import error_response
from dnnsplit_onnx.serving.wire.handler import Handler
from dnnsplit_onnx.serving.wire.shared import Budget
from dnnsplit_onnx.serving.wire.stream import Deadline

_log = logging.getLogger(__name__)

_BACKLOG = 128
_PAUSE_S = 0.1
_JOIN_S = 1.0

H = TypeVar("H", bound=Handler)


class Server(Generic[H]):
    """Serves, one tier for example, until it is closed.

    Args:
        service: What answers.
        host: Address to listen on.
        port: Port, 0 for any free one.
        tls: The TLS context; None for plain HTTP.

    Raises:
        InputError: The address cannot be listened on.
    """

    def __init__(
        self, service: H, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.service = service
        self._host, self._tls = host, tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        self._lock = threading.Lock()
        self._blocks, self._budget = Blocks(), Budget(service.limits.bodies_nbytes)
        self._connections: set[Connection] = set()
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="accept", daemon=True)
        service.metrics.gauge("connections", "Open connections.", lambda: len(self._connections))

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> None:
        """Begins to accept connections."""
        self._acceptor.start()

    def close(self) -> None:
        """Stops: refuses new requests, lets those under way finish, closes all connections."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a blocked accept() does not wake up on close
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        self.service.drain()
        with self._lock:
            left = list(self._connections)
        for connection in left:
            connection.abort()
        # What computes ends by itself, and what waits for the next tier when that is closed.
        self.service.close()
        deadline = Deadline(_JOIN_S)
        for connection in left:
            connection.join(max(0.0, deadline.remaining_s))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
                self._take(sock)
            except Exception as error:
                if self._closing.is_set():
                    return
                # Out of file descriptors or threads, most likely: those in use will be given back.
                _log.error("cannot accept a connection: %s", error)
                self._closing.wait(_PAUSE_S)

    def _take(self, sock: socket.socket) -> None:
        """Serves a connection, or turns it away."""
        if not self._make_room():
            self._turn_away(sock)
            return
        connection = Connection(self.service, sock, self._tls, self._forget, self._blocks, self._budget)
        with self._lock:
            self._connections.add(connection)
        try:
            connection.start()
        except BaseException:
            self._forget(connection)
            self._turn_away(sock)
            raise

    def _make_room(self) -> bool:
        """Whether there is room for one more connection, if need be in the place of an idle one."""
        with self._lock:
            if len(self._connections) < self.service.limits.connections:
                return True
            idle = [connection for connection in self._connections if connection.idle_since is not None]
            if not idle:
                return False
            oldest = min(idle, key=lambda connection: connection.idle_since or 0.0)
            # Forgotten now, so that one more fits; its thread ends as soon as it notices.
            self._connections.discard(oldest)
        oldest.abort()
        return True

    def _turn_away(self, sock: socket.socket) -> None:
        """Answers 503 without waiting for anything."""
        self.service.metrics.add("responses_total", label='code="503"')
        response = error_response(ServingError("the server has too many connections", status=503))
        with sock, suppress(OSError):
            sock.setblocking(False)
            if self._tls is None:
                sock.sendall(b"".join([response_head(response, keep_alive=False), *response.buffers]))
                sock.shutdown(socket.SHUT_WR)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
