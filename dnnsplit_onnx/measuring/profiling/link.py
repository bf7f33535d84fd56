"""Bandwidth and delay of a link, measured against a listening peer.

One machine listens (`dnnsplit-onnx profile --listen PORT`), the other measures
(`dnnsplit-onnx profile --link HOST:PORT`). The delay is half of the smallest round trip of an
empty message; bandwidth is the slope between a short and a long message in each direction,
so that neither the delay nor TCP's slow start on a fresh connection is taken for bandwidth.

A message on the wire is `LNK1`, a direction byte (`u` up, `d` down), and a 64-bit length,
big-endian. Upwards the bytes follow and the peer answers with one byte; downwards the peer
answers with that many bytes.
"""

from __future__ import annotations

import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from dnnsplit_onnx.errors import InputError

_MAGIC = b"LNK1"
_HEAD = struct.Struct(">4scQ")
_CHUNK = 1 << 18
#: A peer refuses longer messages and more clients, and drops a silent one: it is a probe.
LONGEST = 1 << 28
MOST_CLIENTS = 4
_TIMEOUT_S = 20.0
_WARM_UP = 1 << 18
_ENOUGH_S = 0.5


@dataclass(frozen=True, slots=True)
class LinkMeasurement:
    """What a link was measured to do.

    Attributes:
        bandwidth_mbps: 10^6 bit/s from this machine to the peer.
        down_mbps: 10^6 bit/s from the peer to this machine.
        delay_ms: One-way delay, half of the smallest round trip.
        delay_spread_ms: Half the distance between the quartiles of the round trips.
        nbytes: Bytes of the longest message.
    """

    bandwidth_mbps: float
    down_mbps: float
    delay_ms: float
    delay_spread_ms: float
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """The measurement as JSON-ready data."""
        return asdict(self)


class LinkPeer:
    """The listening side.

    Args:
        host: Address to listen on.
        port: Port, 0 for any free one.

    Raises:
        InputError: The address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = socket.create_server((host, port), backlog=MOST_CLIENTS)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def serve(self) -> None:
        """Answers measurements until `close` is called."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        # A blocked accept() wakes up on shutdown, not on close.
        with suppress(OSError):  # a listening socket is "not connected" on some systems
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _answer(self, connection: socket.socket) -> None:
        buffer = bytearray(_CHUNK)
        try:
            with connection:
                _prepare(connection)
                while head := _receive_head(connection):
                    direction, length = head
                    if direction == b"u":
                        _swallow(connection, length, buffer)
                        connection.sendall(b"\1")
                    else:
                        _pour(connection, length, buffer)
        except (OSError, ValueError):
            return  # a client that went away or does not speak the protocol: drop it
        finally:
            self._slots.release()


def measure_link(
    host: str, port: int, *, rounds: int = 15, clock: Callable[[], float] = time.perf_counter
) -> LinkMeasurement:
    """Measures the link to a listening peer.

    Args:
        host: The peer's address.
        port: The peer's port.
        rounds: How many empty round trips to take.
        clock: A clock in seconds.

    Raises:
        InputError: The peer cannot be reached, or is not one.
    """
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            _prepare(connection)
            trips = sorted(_timed(connection, b"u", 0, clock) for _ in range(rounds))
            up, nbytes = _bandwidth(connection, b"u", clock)
            down, _ = _bandwidth(connection, b"d", clock)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot measure the link to {host}:{port}: {error}",
            hint="start the peer there with `dnnsplit-onnx profile --listen PORT`",
        ) from None
    quartiles = statistics.quantiles(trips, n=4)
    return LinkMeasurement(
        up / 1e6, down / 1e6, trips[0] / 2 * 1e3, (quartiles[2] - quartiles[0]) / 4 * 1e3, nbytes
    )


def _bandwidth(connection: socket.socket, direction: bytes, clock: Callable[[], float]) -> tuple[float, int]:
    """Bits per second, and the length of the message that showed it."""
    _timed(connection, direction, _WARM_UP, clock)  # opens TCP's window
    short = min(_timed(connection, direction, 1, clock) for _ in range(3))
    length = _WARM_UP
    while True:
        took = _timed(connection, direction, length, clock)
        if took - short >= _ENOUGH_S or length * 2 > LONGEST:
            return 8 * (length - 1) / max(took - short, 1e-9), length
        # Aim past the goal; at most eightfold, since a first guess may be far off.
        factor = 1.3 * _ENOUGH_S / max(took - short, 1e-9)
        length = min(int(length * min(max(factor, 2.0), 8.0)), LONGEST)


def _timed(connection: socket.socket, direction: bytes, length: int, clock: Callable[[], float]) -> float:
    buffer = bytearray(_CHUNK)
    start = clock()
    connection.sendall(_HEAD.pack(_MAGIC, direction, length))
    if direction == b"u":
        _pour(connection, length, buffer)
        _swallow(connection, 1, buffer)
    else:
        _swallow(connection, length, buffer)
    return clock() - start


def _prepare(connection: socket.socket) -> None:
    connection.settimeout(_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _receive_head(connection: socket.socket) -> tuple[bytes, int] | None:
    head = b""
    while len(head) < _HEAD.size:
        part = connection.recv(_HEAD.size - len(head))
        if not part:
            return None
        head += part
    magic, direction, length = _HEAD.unpack(head)
    if magic != _MAGIC or direction not in (b"u", b"d") or length > LONGEST:
        raise ValueError("not a link measurement")
    return direction, length


def _swallow(connection: socket.socket, length: int, buffer: bytearray) -> None:
    view = memoryview(buffer)
    while length:
        count = connection.recv_into(view[: min(length, len(view))])
        if not count:
            raise ConnectionError("the peer closed the connection")
        length -= count


def _pour(connection: socket.socket, length: int, buffer: bytearray) -> None:
    view = memoryview(buffer)
    while length:
        part = view[: min(length, len(view))]
        connection.sendall(part)
        length -= len(part)
