"""A bare echo between two processes: what a link on this machine costs at least."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time

ECHO = """
import socket, struct
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    with listener.accept()[0] as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := peer.recv(8, socket.MSG_WAITALL):
            sent, received = struct.unpack("<II", head)
            peer.recv(sent, socket.MSG_WAITALL)
            peer.sendall(bytes(received))
"""


class Echo:
    """A process that takes some bytes and sends as many back as it is asked for, over blocking sockets."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.socket = socket.create_connection(("127.0.0.1", int(self.process.stdout.readline())))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def seconds(self, sent: int, received: int) -> float:
        """What it takes to send bytes and to have others back."""
        message, room = struct.pack("<II", sent, received) + bytes(sent), bytearray(received)
        start = time.perf_counter()
        self.socket.sendall(message)
        self.socket.recv_into(room, received, socket.MSG_WAITALL)
        return time.perf_counter() - start

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
