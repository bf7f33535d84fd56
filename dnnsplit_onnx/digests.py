"""The SHA-256 of a model file, computed while something else goes on.

Hashing a large file takes about as long as copying it, and needs none of what a command
imports and plans before it writes anything. So whoever knows early that a digest will be
needed calls `begin`, and whoever needs it asks for the result. Nothing here is slow to
import.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path

# A thread that hashes lets others run Python code meanwhile, and waits for them between two
# chunks: the chunks are large, so that it seldom waits.
_CHUNK = 1 << 23

Stamp = tuple[int, int]


def stamp(path: Path) -> Stamp:
    """Size and time of a file; a file that changes has another.

    Raises:
        OSError: It is not there.
    """
    info = path.stat()
    return info.st_size, info.st_mtime_ns


def begin(path: Path) -> None:
    """Starts to compute the digest of a file that will be asked for; never fails."""
    try:
        digest(path, stamp(path))
    except OSError:
        return  # whoever opens the file says what is wrong with it


@lru_cache(maxsize=4)
def digest(path: Path, version: Stamp) -> Future[str]:  # noqa: ARG001
    """The SHA-256 of a file in hexadecimal, once it is known.

    Args:
        path: The file.
        version: Its stamp. For one path and stamp the file is read once.

    Returns:
        The digest to come. Its `result` raises OSError if the file cannot be read.
    """
    future: Future[str] = Future()
    threading.Thread(target=_hash, args=(path, future), name="sha256", daemon=True).start()
    return future


def _hash(path: Path, future: Future[str]) -> None:
    found = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(_CHUNK))
            while count := file.readinto(buffer):
                found.update(buffer[:count])
    except OSError as error:
        future.set_exception(error)
    else:
        future.set_result(found.hexdigest())
