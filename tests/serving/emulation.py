"""Slow and broken links: a relay that needs no privileges, and network namespaces that do.

`Relay` stands between a client and a server on loopback and releases each piece of data at
`max(now, free) + 8 bytes / rate + delay`, `free` being when the link has sent what came
before. All connections share the link, each way its own. It can be cut and mended.

`Namespaces` joins two network namespaces by a veth pair with a token bucket (`tc tbf`) each
way, which is the kernel's own idea of a slow link.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_PIECE = 1 << 14
_MOST_PIECES = 64  # what the link holds; more waits in the sender's socket


@dataclass
class Way:
    """One direction of a link."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    free: float = 0.0

    def release_at(self, nbytes: int, mbps: float, delay_ms: float) -> float:
        with self.lock:
            self.free = max(time.monotonic(), self.free) + 8 * nbytes / (mbps * 1e6)
            return self.free + delay_ms / 1e3


class Relay:
    """A link to a server on loopback.

    Attributes:
        mbps, delay_ms: Of each way; may be changed at any time.
        port: What clients connect to.
    """

    def __init__(self, target: int, mbps: float, delay_ms: float = 0.0) -> None:
        self.target, self.mbps, self.delay_ms = target, mbps, delay_ms
        self._ways = (Way(), Way())
        self._open = threading.Event()
        self._open.set()
        self._is_silent = False
        self._losing = threading.Semaphore(0)
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        # Small buffers: what they hold would not be on the link.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _PIECE)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self, *, silently: bool = False) -> None:
        """Breaks the link: with a reset, or so that data just stops coming."""
        self._is_silent = silently
        self._open.clear()
        if not silently:
            self._drop()

    def lose_answer(self) -> None:
        """Breaks the connection that the next answer comes on, in place of passing it on."""
        self._losing.release()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self._drop()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        with self._lock:
            found = list(self._sockets)
        for sock in found:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set() and not self._is_silent:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            done = threading.Semaphore(0)
            for source, sink, way in ((client, server, self._ways[0]), (server, client, self._ways[1])):
                held: queue.Queue[tuple[float, bytes]] = queue.Queue(_MOST_PIECES)
                threading.Thread(target=self._take, args=(source, held, way), daemon=True).start()
                threading.Thread(target=self._give, args=(sink, held, done), daemon=True).start()
            threading.Thread(target=self._finish, args=(client, server, done), daemon=True).start()

    def _take(self, source: socket.socket, held: queue.Queue[tuple[float, bytes]], way: Way) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_PIECE)
            except OSError:
                data = b""
            self._open.wait()
            if data and way is self._ways[1] and self._losing.acquire(blocking=False):
                self._drop()
                data = b""
            held.put((way.release_at(len(data), self.mbps, self.delay_ms), data))
            # No faster than the link, so that the sender notices.
            time.sleep(max(0.0, way.free - time.monotonic() - 0.03))

    def _give(
        self, sink: socket.socket, held: queue.Queue[tuple[float, bytes]], done: threading.Semaphore
    ) -> None:
        broken = False
        while True:
            release, data = held.get()
            time.sleep(max(0.0, release - time.monotonic()))
            self._open.wait()
            if not data:
                break
            if not broken:
                try:
                    sink.sendall(data)
                except OSError:
                    broken = True
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        done.release()

    def _finish(self, client: socket.socket, server: socket.socket, done: threading.Semaphore) -> None:
        for _ in range(2):
            done.acquire()
        client.close()
        server.close()
        with self._lock:
            self._sockets -= {client, server}


def missing() -> str | None:
    """What this machine lacks for `Namespaces`, None if nothing."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"needs the program `{program}` (iproute2)"
    tried = subprocess.run(["ip", "netns", "add", "dnnsplit-try"], capture_output=True, check=False)
    if tried.returncode:
        return f"cannot make network namespaces: {tried.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", "dnnsplit-try"], check=False)
    return None


@dataclass(frozen=True)
class Namespaces:
    """Two hosts and a link between them."""

    lower: str
    upper: str
    address: str

    def shape(self, mbps: float) -> None:
        """Sets the link's rate, both ways."""
        for name in (self.lower, self.upper):
            _run(
                *("ip", "netns", "exec", name, "tc", "qdisc", "replace", "dev", f"v{name[-6:]}", "root"),
                *("tbf", "rate", f"{mbps}mbit", "burst", "32kbit", "latency", "400ms"),
            )

    def command(self, host: str) -> list[str]:
        """What to put in front of a command to run it on a host."""
        return ["ip", "netns", "exec", host]


@contextlib.contextmanager
def namespaces(tag: str, mbps: float) -> Iterator[Namespaces]:
    """Makes two namespaces, and takes them down."""
    lower, upper = f"dns{tag}a", f"dns{tag}b"
    low, up = f"v{lower[-6:]}", f"v{upper[-6:]}"
    made = Namespaces(lower, upper, "10.77.0.2")
    try:
        for name in (lower, upper):
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", low, "netns", lower, "type", "veth", "peer", "name", up, "netns", upper)
        for name, device, address in ((lower, low, "10.77.0.1/24"), (upper, up, "10.77.0.2/24")):
            _run("ip", "-n", name, "addr", "add", address, "dev", device)
            for one in ("lo", device):
                _run("ip", "-n", name, "link", "set", one, "up")
        made.shape(mbps)
        yield made
    finally:
        for name in (lower, upper):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
