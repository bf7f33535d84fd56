"""Memory that a client and a server on one machine both see, so that values cross no socket.

It is the protocol's own extension, as Triton has it: a region is registered
(`POST /v2/systemsharedmemory/region/NAME/register`), and tensors then say where in it they lie
(`shared_memory_region`, `shared_memory_offset`, `shared_memory_byte_size`). What differs is
what a region is, since Triton opens any file in /dev/shm that a client names:

1. The client makes it, as a file that lies in no folder (`memfd_create`): it is gone with the
   last process that has it, however that ends, so nothing is ever left to clean up.
2. It is sealed and cannot shrink, so that no access to it can kill a process.
3. The server finds it among the open files of the client's process, where the kernel lets
   nobody look but the same user, and under a name that nobody can guess. A client of another
   machine, container or user has no such file here, whatever address it comes from.
4. A region belongs to one connection and ends with it. A connection that passes through
   anything, such as a relay that stands for a slow link, is none between the two, and has none.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md
"""

from __future__ import annotations

import ipaddress
import mmap
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.serving.wire.errors import BusyError, ProtocolError

#: Whether this system has such memory.
IS_THERE = sys.platform == "linux" and hasattr(os, "memfd_create")

#: The longest region, in bytes.
LONGEST = 1 << 28
_KEY = re.compile(r"/proc/([1-9][0-9]{0,9})/fd/([0-9]{1,9})")
_NAME = re.compile(r"dnnsplit-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a region.

    Attributes:
        region: The region's name.
        offset: Of its first byte.
        nbytes: Its bytes; for an output that is asked for, the most that it may take.
    """

    region: str
    offset: int
    nbytes: int

    def parameters(self) -> dict[str, Any]:
        """As a tensor carries it."""
        return {
            "shared_memory_region": self.region,
            "shared_memory_offset": self.offset,
            "shared_memory_byte_size": self.nbytes,
        }


class Region:
    """A region, as one of its two processes sees it.

    Args:
        name: Its name.
        descriptor: An open file of it, which may be closed afterwards.
        nbytes: Its size.
    """

    def __init__(self, name: str, descriptor: int, nbytes: int) -> None:
        self.name, self.nbytes = name, nbytes
        # It is given back when nothing refers to it any more, and not while an array does.
        self._memory: np.ndarray = np.frombuffer(mmap.mmap(descriptor, nbytes), np.uint8)

    def view(self, place: Place) -> np.ndarray:
        """The bytes at a place.

        Raises:
            ProtocolError: There is no such place.
        """
        if place.region != self.name or place.offset + place.nbytes > self.nbytes:
            raise ProtocolError("there is no such place in shared memory", hint="register a region first")
        return self._memory[place.offset : place.offset + place.nbytes]


def make(nbytes: int) -> tuple[Region, int]:
    """A new region, and an open file of it, by which the server finds it.

    Raises:
        OSError: The system has no memory, or no open files left.
    """
    import fcntl

    name = f"dnnsplit-{secrets.token_hex(16)}"
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, nbytes)
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        return Region(name, descriptor, nbytes), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def key_of(descriptor: int) -> str:
    """How a server finds an open file of this process."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def attach(name: str, key: object, nbytes: object) -> Region:
    """A client's region, as the server sees it.

    Args:
        name: Its name.
        key: Where it is, as `key_of` says it.
        nbytes: Its size.

    Raises:
        ProtocolError: It is no region of a client of this user on this machine.
    """
    place = _KEY.fullmatch(key) if isinstance(key, str) else None
    if not IS_THERE or place is None or _NAME.fullmatch(name) is None:
        raise ProtocolError("that is no region of shared memory", status=404)
    if type(nbytes) is not int or not 0 < nbytes <= LONGEST:
        raise ProtocolError(f"a region of shared memory has 1 to {LONGEST} bytes")
    path, link = place.group(0), f"/memfd:{name} (deleted)"
    try:
        # Looked at before it is opened: to open some files does something.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC) if str(Path(path).readlink()) == link else None
    except OSError:
        descriptor = None
    if descriptor is None:
        raise ProtocolError("there is no such shared memory on this machine", status=404)
    try:
        if not _is_safe(descriptor, link, nbytes):
            raise ProtocolError("the shared memory is another's, too small, or may shrink", status=403)
        return Region(name, descriptor, nbytes)
    except OSError as error:
        raise BusyError(f"the shared memory cannot be used: {error.strerror or error}") from None
    finally:
        os.close(descriptor)


def _is_safe(descriptor: int, link: str, nbytes: int) -> bool:
    import fcntl

    found = os.fstat(descriptor)
    return (
        str(Path(f"/proc/self/fd/{descriptor}").readlink()) == link
        and found.st_uid == os.geteuid()
        and found.st_size >= nbytes
        and bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    )


class Budget:
    """How much memory all clients of a server may share with it; safe to use from several threads.

    Args:
        nbytes: So much.
    """

    def __init__(self, nbytes: int) -> None:
        self._lock = threading.Lock()
        self.left = nbytes

    def take(self, nbytes: int) -> None:
        """Takes some.

        Raises:
            BusyError: There is not so much left.
        """
        with self._lock:
            if nbytes > self.left:
                raise BusyError("as much memory is shared as may be")
            self.left -= nbytes

    def give(self, nbytes: int) -> None:
        """Gives some back."""
        with self._lock:
            self.left += nbytes


class Shared:
    """What one connection of a server shares with its client.

    Args:
        sock: The connection; None where nothing is ever shared.
        budget: Of the server.
    """

    def __init__(self, sock: socket.socket | None, budget: Budget) -> None:
        self._sock, self._budget = sock, budget
        self.region: Region | None = None

    def register(self, name: str, asked: Mapping[str, Any]) -> None:
        """Opens the client's region in place of the one before.

        Args:
            name: The region's name.
            asked: Its `key` and `byte_size`, and the two ends of the connection as the client
                sees them (`dnnsplit_ends`).

        Raises:
            ProtocolError: There is no such region, or the client does not sit at the other end.
            BusyError: There is no room for it.
        """
        if self._sock is None or asked.get("dnnsplit_ends") != list(reversed(ends_of(self._sock))):
            raise ProtocolError("memory is shared with clients of this machine alone", status=403)
        region = attach(name, asked.get("key"), asked.get("byte_size"))
        self._budget.take(region.nbytes)
        self.close()
        self.region = region

    def close(self) -> None:
        """Gives the region up."""
        region, self.region = self.region, None
        if region is not None:
            self._budget.give(region.nbytes)


def ends_of(sock: socket.socket) -> list[str]:
    """The two ends of a connection, this one first; empty if it is not of this machine alone."""
    try:
        ends = [sock.getsockname(), sock.getpeername()]
    except OSError:
        return []
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return []
    if not all(ipaddress.ip_address(end[0].partition("%")[0]).is_loopback for end in ends):
        return []
    return [f"{end[0]} {end[1]}" for end in ends]
