"""Sockets that are read and written by a deadline.

A timeout per call would not do: a client that sends one byte just before each runs out
could hold a thread for ever. Every read and write here is given the moment by which it must
be done, and the kernel is told what is left of it.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from dnnsplit_onnx.serving.wire.errors import DeadlineError, ProtocolError

_TIMEVAL = struct.Struct("@ll")
# How long the kernel may be told to wait: one of a few spans, so that it seldom has to be
# told anything new. A wait that ends early is taken up again until the deadline. (It takes
# 0 for "for ever".)
_SPANS_S = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT) if hasattr(socket, "MSG_DONTWAIT") else 0
_WHOLE = int(getattr(socket, "MSG_WAITALL", 0))
_MOST_BUFFERS = 512  # the kernel takes 1024 at once
# So old may be what is known of whether the other side is still there.
_LOOK_S = 0.001
_TLS_CHUNK = 1 << 18
#: Heads of HTTP messages may be this long.
LONGEST_HEAD = 1 << 14


class Deadline:
    """A moment by which something must be done.

    Args:
        seconds: From now.
    """

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds left, below 0 if it has passed."""
        return self._end - time.monotonic()

    def need(self, what: str) -> float:
        """Seconds left.

        Raises:
            DeadlineError: None are; `what` says what took too long.
        """
        left = self.remaining_s
        if left <= 0:
            raise DeadlineError(f"{what} took too long")
        return left

    def moved(self, nbytes: int) -> None:
        """Notes that so many bytes have come or gone, which makes no difference to a moment."""

    def sooner(self, seconds: float) -> Deadline:
        """This moment, or one so many seconds from now if that is sooner."""
        other = Deadline(seconds)
        return other if other._end < self._end else self


class Pace(Deadline):
    """A moment that moves on with the bytes: whoever keeps the pace may take as long as it takes.

    Args:
        slack_s: How far it may fall behind, in seconds; so long, too, may nothing come at all.
        bytes_per_s: The pace.
    """

    __slots__ = ("_rate", "_slack_s")

    def __init__(self, slack_s: float, bytes_per_s: float) -> None:
        super().__init__(slack_s)
        self._slack_s, self._rate = slack_s, bytes_per_s

    def moved(self, nbytes: int) -> None:
        """Notes that so many bytes have come or gone."""
        self._end = min(self._end + nbytes / self._rate, time.monotonic() + self._slack_s)


class Wanted(Deadline):
    """A moment that has passed as soon as nobody waits for the answer any more.

    Args:
        seconds: From now.
        is_gone: Whether whoever asked has gone.
    """

    __slots__ = ("_is_gone", "_look_at")

    def __init__(self, seconds: float, is_gone: Callable[[], bool]) -> None:
        super().__init__(seconds)
        self._is_gone = is_gone
        self._look_at = 0.0

    @property
    def remaining_s(self) -> float:
        """Seconds left, below 0 if it has passed or nobody waits."""
        now = time.monotonic()
        if now >= self._look_at:  # the kernel is asked, which takes longer than all else here
            if self._is_gone():
                return -1.0
            self._look_at = now + _LOOK_S
        return self._end - now


class Stream:
    """A connected TCP socket.

    Args:
        sock: It is owned from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(LONGEST_HEAD))
        self._start = self._end = 0
        self._spans: dict[int, float] = {}

    @property
    def sock(self) -> socket.socket:
        """The socket, to ask about its ends."""
        return self._socket

    def wait(self, deadline: Deadline) -> bool:
        """Waits for bytes to read; False if the other side closed the connection."""
        if self._start < self._end:
            return True
        self._start, self._end = 0, self._receive(self._buffer, deadline, whole=False)
        return self._end > 0

    def head(self, deadline: Deadline) -> bytes:
        """The head of an HTTP message, up to and with its empty line.

        Raises:
            ProtocolError: It is too long.
            ConnectionError: The other side went away within it.
            DeadlineError: It did not arrive in time.
        """
        searched = self._start
        while (at := bytes(self._buffer[searched : self._end]).find(b"\r\n\r\n")) < 0:
            searched = max(self._start, self._end - 3)
            if self._end == LONGEST_HEAD:
                if self._start == 0:
                    raise ProtocolError("the head of the message is too long", status=431)
                searched -= self._start
                self._move_to_front()
            count = self._receive(self._buffer[self._end :], deadline, whole=False)
            if not count:
                raise ConnectionError("the connection was closed within the head of a message")
            self._end += count
        stop = searched + at + 4
        head = bytes(self._buffer[self._start : stop])
        self._start = stop
        return head

    def read_into(self, view: memoryview, deadline: Deadline) -> None:
        """Fills a buffer of bytes.

        Raises:
            ConnectionError: The other side went away before it was full.
            DeadlineError: The bytes did not arrive in time.
        """
        count = min(len(view), self._end - self._start)
        view[:count] = self._buffer[self._start : self._start + count]
        self._start += count
        while count < len(view):
            got = self._receive(view[count:], deadline, whole=True)
            if not got:
                raise ConnectionError("the connection was closed within a message")
            deadline.moved(got)
            count += got

    def read_some(self, view: memoryview, deadline: Deadline) -> int:
        """Reads what there is into a buffer; 0 if the other side closed the connection."""
        count = min(len(view), self._end - self._start)
        if count:
            self.read_into(view[:count], deadline)
            return count
        return self._receive(view, deadline, whole=False)

    def write(self, buffers: Sequence[bytes | memoryview], deadline: Deadline) -> None:
        """Sends buffers one after the other, without joining them.

        Raises:
            OSError: The other side went away.
            DeadlineError: It does not take them in time.
        """
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        while left:
            self._set_timeout(socket.SO_SNDTIMEO, deadline, "sending")
            try:
                sent = self._socket.sendmsg(left[:_MOST_BUFFERS])
            except BlockingIOError:
                continue  # until the deadline
            deadline.moved(sent)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def is_stale(self) -> bool:
        """Whether a connection that should be silent is closed, or has said something."""
        if self._start < self._end:
            return True
        try:
            return self._socket.recv(1, _PEEK) is not None
        except BlockingIOError:
            return False
        except OSError:
            return True

    def is_gone(self) -> bool:
        """Whether the other side has closed the connection while it is waited for."""
        try:
            return self._start == self._end and not self._socket.recv(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def stop_writing(self) -> None:
        """Tells the other side that nothing more will come."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection; a thread that uses it meanwhile sees it end."""
        with suppress(OSError):  # the other side may have been faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _move_to_front(self) -> None:
        count = self._end - self._start
        self._buffer[:count] = bytes(self._buffer[self._start : self._end])
        self._start, self._end = 0, count

    def _receive(self, view: memoryview, deadline: Deadline, *, whole: bool) -> int:
        """Some bytes, all that fit if `whole`, fewer at the end; 0 if the connection ended."""
        while True:
            self._set_timeout(socket.SO_RCVTIMEO, deadline, "receiving")
            try:
                return self._socket.recv_into(view, len(view), _WHOLE if whole else 0)
            except BlockingIOError:
                continue  # until the deadline

    def _set_timeout(self, option: int, deadline: Deadline, what: str) -> None:
        left = deadline.need(what)
        span = next((span for span in _SPANS_S if span <= left), _SPANS_S[-1])
        if self._spans.get(option) != span:
            self._spans[option] = span
            self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(span), int(span % 1 * 1e6)))


class TlsStream(Stream):
    """The same over TLS, where the kernel cannot wait or gather for us."""

    _socket: ssl.SSLSocket

    def write(self, buffers: Sequence[bytes | memoryview], deadline: Deadline) -> None:
        """Sends buffers; see `Stream.write`."""
        try:
            # Small buffers travel in one record with what follows them.
            for part in _joined(buffers):
                for at in range(0, len(part), _TLS_CHUNK):
                    self._socket.settimeout(deadline.need("sending"))
                    chunk = part[at : at + _TLS_CHUNK]
                    self._socket.sendall(chunk)
                    deadline.moved(len(chunk))
        except TimeoutError:
            raise DeadlineError("sending took too long") from None

    def is_gone(self) -> bool:
        """Never known: the kernel's bytes are not the connection's here, and to read would take them."""
        return False

    def is_stale(self) -> bool:
        """Whether a connection that should be silent is closed, or has said something."""
        if self._start < self._end:
            return True
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1) is not None
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True

    def _receive(self, view: memoryview, deadline: Deadline, *, whole: bool) -> int:  # noqa: ARG002
        self._socket.settimeout(deadline.need("receiving"))
        try:
            return self._socket.recv_into(view)
        except TimeoutError:
            raise DeadlineError("receiving took too long") from None
        except ssl.SSLEOFError:
            return 0


def watch(sock: socket.socket, silence_s: float) -> None:
    """Asks the kernel to notice a peer that is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(silence_s / 2)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(silence_s / 8)))


def _joined(buffers: Sequence[bytes | memoryview]) -> list[memoryview]:
    """Buffers with runs of small ones joined."""
    parts: list[memoryview] = []
    small = bytearray()
    for buffer in buffers:
        if len(buffer) <= LONGEST_HEAD:
            small += buffer
            continue
        if small:
            parts.append(memoryview(bytes(small)))
            small.clear()
        parts.append(memoryview(buffer))
    return [*parts, memoryview(bytes(small))] if small else parts
