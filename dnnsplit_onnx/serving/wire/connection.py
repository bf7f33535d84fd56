"""One connection of a server, on a thread of its own: requests in, answers out, in turn."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from dnnsplit_onnx.serving.wire.arena import Arena, Blocks
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.exchange import Body, Response, as_failure, error_response
from dnnsplit_onnx.serving.wire.handler import Handler, Send
from dnnsplit_onnx.serving.wire.http import RequestHead, format_response, parse_request
from dnnsplit_onnx.serving.wire.shared import Budget, Shared
from dnnsplit_onnx.serving.wire.stream import Deadline, Stream, TlsStream, watch

_log = logging.getLogger(__name__)

# A body that was refused unread is read and dropped if it is shorter than this, so that the
# connection can go on.
_WORTH_READING = 8 << 20
_LINGER_S = 2.0
_HANDSHAKE_S = 5.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection:
    """A client's connection.

    Args:
        service: What answers its requests.
        sock: The accepted socket; it is owned from here on.
        tls: The TLS context, None for plain HTTP.
        on_end: Called when the connection has ended.
        blocks: Where its requests take memory.
        budget: How much memory the clients of the server may share with it.

    Attributes:
        idle_since: Since when it has waited for a request; None while one is under way.
    """

    def __init__(
        self,
        service: Handler,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        on_end: Callable[[Connection], None],
        blocks: Blocks,
        budget: Budget,
    ) -> None:
        self._service, self._limits = service, service.limits
        self._socket, self._tls = sock, tls
        self._on_end = on_end
        # Whoever asks for encryption wants values nowhere else.
        self._arena = Arena(blocks, Shared(sock if tls is None else None, budget))
        self._thread = threading.Thread(target=self._run, name="connection", daemon=True)
        self.idle_since: float | None = None

    def start(self) -> None:
        """Begins to serve it."""
        self._thread.start()

    def abort(self) -> None:
        """Ends it; a request that is under way on it is not answered."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def join(self, seconds: float) -> None:
        """Waits until its thread has ended."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            stream = self._open()
            while self._serve_one(stream):
                pass
            stream.close()
        except (OSError, ServingError) as error:
            # The client went away, or was too slow: there is nobody to tell.
            _log.debug("a connection ended: %s", error)
        except Exception:
            # A fault of ours ends this connection, and no other.
            _log.exception("a connection failed")
        finally:
            self._socket.close()
            self._arena.shared.close()
            self._on_end(self)

    def _open(self) -> Stream:
        watch(self._socket, self._limits.silence_s)
        if self._tls is None:
            return Stream(self._socket)
        self._socket.settimeout(_HANDSHAKE_S)
        self._socket = self._tls.wrap_socket(self._socket, server_side=True)
        return TlsStream(self._socket)

    def _serve_one(self, stream: Stream) -> bool:
        """Serves one request; whether another may follow."""
        self.idle_since = time.monotonic()
        if not stream.wait(Deadline(self._limits.idle_s)):
            return False
        self.idle_since = None
        try:
            head = parse_request(stream.head(Deadline(self._limits.head_s)))
        except ProtocolError as error:
            # Where its body would end is anyone's guess.
            self._send(stream, error_response(error), keep_alive=False)
            self._linger(stream)
            return False
        body = Body(stream, head, self._limits.pace())
        if head.fields.get("expect", "").lower() == "100-continue":
            body.on_read = lambda: stream.write([_CONTINUE], body.deadline)
        keep_alive = False

        def send(response: Response) -> None:
            nonlocal keep_alive
            # A client that still waits for leave to send its body must not be waited for.
            can_go_on = not body.is_broken and body.on_read is None and body.unread <= _WORTH_READING
            keep_alive = head.keep_alive and can_go_on
            self._send(stream, response, keep_alive=keep_alive, bodiless=head.method == "HEAD")

        try:
            self._answer(head, body, send)
        finally:
            self._arena.release()
        if keep_alive:
            body.discard()
        elif body.unread:
            self._linger(stream)
        return keep_alive

    def _answer(self, head: RequestHead, body: Body, send: Send) -> None:
        """Has a request answered; whatever goes wrong before the answer is one too.

        Raises:
            OSError: The client went away.
            ServingError: The client does not take the answer in time.
        """
        answered = False
        shared: Mapping[str, str] = {}

        def once(response: Response) -> None:
            nonlocal answered
            answered = True
            send(replace(response, fields={**response.fields, **shared}) if shared else response)

        try:
            shared = self._service.admit(head)
            self._service.answer(head, body, self._arena, once)
        except Exception as error:
            if answered or (isinstance(error, OSError) and body.is_broken):
                raise
            failure = as_failure(error)
            level = logging.INFO if failure.status < 500 else logging.WARNING
            _log.log(level, "%s %s: %d, %s", head.method, head.path, failure.status, failure.message)
            if failure.status == 405:
                shared = {**shared, "Allow": self._service.methods}
            once(error_response(failure))

    def _send(self, stream: Stream, response: Response, *, keep_alive: bool, bodiless: bool = False) -> None:
        self._service.metrics.add("responses_total", label=f'code="{response.status}"')
        head = response_head(response, keep_alive=keep_alive)
        stream.write([head] if bodiless else [head, *response.buffers], self._limits.pace())
        if response.chunks is None or bodiless:
            return
        for chunk in response.chunks:
            if chunk:  # one without bytes would end the body
                stream.write([f"{len(chunk):x}\r\n".encode(), chunk, b"\r\n"], self._limits.pace())
        stream.write([b"0\r\n\r\n"], self._limits.pace())

    def _linger(self, stream: Stream) -> None:
        """Reads on for a moment: closing now would reset the connection, and the answer with it."""
        stream.stop_writing()
        deadline = Deadline(_LINGER_S)
        scrap = memoryview(bytearray(1 << 16))
        with suppress(OSError, ServingError):
            while stream.read_some(scrap, deadline):
                pass


def response_head(response: Response, *, keep_alive: bool) -> bytes:
    """The head of a response, with the lengths and what becomes of the connection."""
    fields: dict[str, str | int] = dict(response.fields)
    if response.chunks is None:
        fields["Content-Length"] = response.length
    else:
        fields["Transfer-Encoding"] = "chunked"
    if not keep_alive:
        fields["Connection"] = "close"
    return format_response(response.status, fields)
