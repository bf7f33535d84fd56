"""What files are held against: digests, each under the name of its algorithm.

| file | digests |
|---|---|
| up to 16 MiB | `sha256` |
| larger, of weights | `xxh3-128` |
| larger, ONNX | `xxh3-128`, and `graph-sha256` |

SHA-256 is an identity that nobody can forge, and takes two to three times as long as copying.
XXH3 finds what is damaged or mixed up, and takes a fifth of it; whoever can change gigabytes of
weights on purpose can make others that have the same. `graph-sha256` is the SHA-256 of an ONNX
file without its large weights: all of the program that somebody will run, and where each weight
lies. Manifests of schema version 1 hold `crc32` for weights.

Without the package xxhash all is `sha256`. Hashing a large file needs none of what a command
imports and plans before it writes anything: whoever knows early that digests will be needed calls
`begin_digests`. Nothing here is slow to import.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Literal

from dnnsplit_onnx.errors import MissingExtraError, ModelError
from dnnsplit_onnx.files import Hash, Stamp, file_hash, stamp
from dnnsplit_onnx.graph.protobuf import detach

Algorithm = Literal["sha256", "xxh3-128", "graph-sha256", "crc32"]
Digests = dict[Algorithm, str]

#: Files up to this size have a SHA-256 of all their bytes (16 MiB, 10 ms).
LARGE_NBYTES = 1 << 24
# Weights of fewer bytes are part of the graph; other than in `modelfile`, it never changes.
_GRAPH_BELOW = 1024
# Digests of files, computed or under way, the latest last.
_MOST_KEPT = 4
_kept: dict[tuple[Path, Stamp], Future[Digests]] = {}
_lock = threading.Lock()


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview | bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def new_hash(nbytes: int) -> tuple[Algorithm, Hash]:
    """What takes the digest of so many bytes, and its algorithm."""
    if nbytes > LARGE_NBYTES:
        try:
            return "xxh3-128", _hash_of("xxh3-128")
        except MissingExtraError:
            pass  # what can be had instead promises more, and is slower
    return "sha256", _hash_of("sha256")


def file_digests(path: Path, *, is_model: bool = False) -> Digests:
    """The digests of a file, by the table above.

    Args:
        path: The file.
        is_model: Whether it is an ONNX file.

    Raises:
        OSError: It cannot be read, or is no regular file.
        ModelError: It is large and not ONNX, and should be.
    """
    algorithm, digest = new_hash(path.stat().st_size)
    digests: Digests = {algorithm: file_hash(path, digest)}
    return digests | graph_digests(path) if is_model else digests


def graph_digests(path: Path) -> Digests:
    """The digest of an ONNX file without its large weights; none if the file is small.

    Raises:
        OSError, ModelError: As for `file_digests`.
    """
    if path.stat().st_size <= LARGE_NBYTES:
        return {}
    return {"graph-sha256": _graph_sha256(path)}


def file_digest(path: Path, algorithm: Algorithm) -> str:
    """A file's digest by one algorithm; raises as `file_digests` does.

    Raises:
        MissingExtraError: The package that computes it is not installed.
    """
    return _graph_sha256(path) if algorithm == "graph-sha256" else file_hash(path, _hash_of(algorithm))


def identity(digests: Mapping[Algorithm, str]) -> str:
    """The SHA-256 that tells a model from others: of its graph, where the file is large."""
    return digests.get("graph-sha256") or digests.get("sha256") or ""


def begin_digests(path: Path) -> None:
    """Starts to compute the digests of a model that will be asked for; never fails."""
    try:
        pending_digests(path, stamp(path))
    except OSError:
        return  # whoever opens the file says what is wrong with it


def are_begun(path: Path, version: Stamp) -> bool:
    """Whether a file's digests are known, or under way."""
    return (path, version) in _kept


def settle_digests(path: Path, version: Stamp, digests: Digests) -> None:
    """Takes the digests of a file from whoever has read all of it anyway."""
    future: Future[Digests] = Future()
    future.set_result(digests)
    with _lock:
        _keep(path, version, future)


def pending_digests(path: Path, version: Stamp) -> Future[Digests]:
    """The digests of a model's file, once they are known.

    Args:
        path: The file.
        version: Its stamp. For one path and stamp the file is read once.

    Returns:
        The digests to come. Its `result` raises as `file_digests` does.
    """
    with _lock:
        if (known := _kept.get((path, version))) is not None:
            return known
        future: Future[Digests] = Future()
        _keep(path, version, future)
    threading.Thread(target=_compute, args=(path, future), name="digests", daemon=True).start()
    return future


def _keep(path: Path, version: Stamp, future: Future[Digests]) -> None:
    _kept.pop((path, version), None)
    _kept[path, version] = future
    while len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]


def _compute(path: Path, future: Future[Digests]) -> None:
    try:
        future.set_result(file_digests(path, is_model=True))
    except (OSError, ModelError) as error:
        future.set_exception(error)


def _graph_sha256(path: Path) -> str:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        # No name is in it: a model that is moved is the same.
        return hashlib.sha256(detach(buffer, "", _GRAPH_BELOW)).hexdigest()


def _hash_of(algorithm: Algorithm) -> Hash:
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm == "crc32":
        return _Crc32()
    try:
        xxh3: Callable[[], Hash] = import_module("xxhash").xxh3_128
    except ImportError:
        raise MissingExtraError("XXH3 digests need the package xxhash", hint="pip install xxhash") from None
    return xxh3()
