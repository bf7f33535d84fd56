"""Bytes from the source's files into new ones, by the kernel where it can.

A file is copied range by range with `copy_file_range`, so that weights never enter this
process; on file systems that share blocks nothing is copied at all. Where the call is
missing or refused, `sendfile` and then plain reads and writes do the same. Holes of a sparse
file are not copied but left out again.

Digests are taken beside the copy, in other threads, from the same ranges of the source: they are
in the page cache then. `graph.digests` says which; those of large files cost a fifth of the copy.

Weights inside an ONNX file lie at odd places, which no file system shares. They are read and
written, a piece that fits into the processor's cache at a time, and on their way each piece goes
into the digest of what is written and, where that is still to be taken, of what is read.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.files import Hash
from dnnsplit_onnx.graph.digests import (
    Digests,
    graph_digests,
    new_hash,
    settle_digests,
)
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.protobuf import DataRange
from dnnsplit_onnx.slicing.files import Content

# Ranges below this are cheaper to read and write together than to copy one by one.
_SMALL = 1 << 16
_BUFFER = 1 << 20
# A digest that takes a fifth of the time of copying.
_FAST: Final = "xxh3-128"
# Between calls the copy looks for an interrupt and reports progress.
_STEP = 1 << 25
# What `copy_file_range` and `sendfile` answer where they cannot work (not where the disk is full).
_UNSUPPORTED = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


class Copier:
    """Writes files made of byte strings and ranges of a model's files.

    A context manager; leaving it waits for hashes under way, or gives them up after an
    error.

    Args:
        source: The model whose files are read.

    Attributes:
        report: Called with the number of bytes written since it was called last.
    """

    def __init__(self, source: ModelFile) -> None:
        self.report: Callable[[int], None] = _no_report
        self._source = source
        self._files: dict[str, int] = {}
        self._stopped = threading.Event()
        self._own = source.path.name
        self._buffer = memoryview(bytearray(_BUFFER))
        self._passed: _Passed | None = None
        if passes(source) and not source.is_hashed:
            self._passed = _Passed(new_hash(source.stamp[0])[1], self._read_own)
        self._hashers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="digests")

    def __enter__(self) -> Copier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stopped.set()
        self._hashers.shutdown(wait=True, cancel_futures=kind is not None)
        for descriptor in self._files.values():
            os.close(descriptor)

    def put(self, path: Path, content: Content) -> Future[Digests]:
        """Writes a file that does not exist yet, and takes its digests as `digests` does.

        Raises:
            ModelError, OSError: As for `write`.
        """
        own = any(isinstance(piece, DataRange) and piece.location == self._own for piece in content.pieces)
        algorithm, digest = new_hash(content.nbytes)
        if not own or (self._passed is None and algorithm != _FAST):
            digests = self.digests(content)
            self.write(path, content)
            return digests
        self.write(path, content, digest)
        done: Future[Digests] = Future()
        done.set_result({algorithm: digest.hexdigest()})
        return done

    def settle(self) -> None:
        """Completes the digests of the source by what of it has not passed; nothing if they are begun.

        Raises:
            ModelError: It cannot be read, or became shorter.
        """
        if self._passed is None:
            return
        path, version = self._source.path, self._source.stamp
        try:
            digests: Digests = {_FAST: self._passed.finished(version[0]), **graph_digests(path)}
        except OSError as error:
            raise ModelError(f"cannot read `{path}`: {error.strerror}") from None
        settle_digests(path, version, digests)

    def write(self, path: Path, content: Content, digest: Hash | None = None) -> None:
        """Writes a file that does not exist yet.

        Args:
            path: The file.
            content: What it is made of.
            digest: Is given all bytes on their way; without it those of large ranges never enter
                this process.

        Raises:
            ModelError: A file of the source cannot be read, or became shorter.
            OSError: The file cannot be written.
        """
        self._open_all(content)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self._fill(target, content, digest)
        finally:
            os.close(target)

    def digests(self, content: Content) -> Future[Digests]:
        """The digests of a content, once known; that of a graph is taken from the file (`graph_digests`)."""
        self._open_all(content)
        return self._hashers.submit(self._digests, content)

    def _open_all(self, content: Content) -> None:
        """Opens what a content is made of, before threads look for it."""
        for piece in content.pieces:
            if isinstance(piece, DataRange):
                self._open(piece.location)

    def _open(self, location: str) -> None:
        if location in self._files:
            return
        path = self._source.folder / location
        try:
            self._files[location] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ModelError(f"cannot read `{path}`: {error.strerror}") from None

    def _fill(self, target: int, content: Content, digest: Hash | None) -> None:
        waiting = bytearray()
        for piece in content.pieces:
            if isinstance(piece, bytes):
                waiting += piece
            elif piece.length < _SMALL:
                for chunk in self._chunks(piece):
                    waiting += chunk
            else:
                self._flush(target, waiting, digest)
                self._copy_range(target, piece, digest)
            if len(waiting) >= _BUFFER:
                self._flush(target, waiting, digest)
        self._flush(target, waiting, digest)
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))  # a hole at the end has a length too

    def _flush(self, target: int, waiting: bytearray, digest: Hash | None) -> None:
        _write_all(target, waiting)
        if digest is not None:
            digest.update(bytes(waiting))
        self.report(len(waiting))
        waiting.clear()

    def _copy_range(self, target: int, where: DataRange, digest: Hash | None) -> None:
        """Appends a range of the source to the target, holes as holes."""
        descriptor = self._files[where.location]
        for start, stop, is_hole in _extents(descriptor, where.offset, where.offset + where.length):
            part = DataRange(where.location, start, stop - start)
            if is_hole:
                os.lseek(target, stop - start, os.SEEK_CUR)
                self.report(stop - start)
            if digest is not None:
                self._pass(None if is_hole else target, part, digest)
            elif not is_hole:
                self._copy(target, part)

    def _pass(self, target: int | None, where: DataRange, digest: Hash) -> None:
        """Takes a range of the source into a digest, and appends it to the target, if there is one."""
        at = where.offset
        for chunk in self._chunks(where, self._buffer):
            digest.update(chunk)
            if self._passed is not None and where.location == self._own:
                self._passed.take(at, chunk)
            if target is not None:
                _write_all(target, chunk)
                self.report(len(chunk))
            at += len(chunk)

    def _read_own(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes of the source's own file."""
        self._open(self._own)
        return self._chunks(DataRange(self._own, start, stop - start))

    def _copy(self, target: int, where: DataRange) -> None:
        """Appends a range of the source to the target, all of it."""
        descriptor = self._files[where.location]
        at, end = where.offset, where.offset + where.length
        while at < end:
            count = _in_kernel(descriptor, target, at, min(end - at, _STEP))
            if count == 0:
                break
            at += count
            self.report(count)
        # What the kernel does not copy is read and written; that also finds a source cut short.
        for chunk in self._chunks(DataRange(where.location, at, end - at)):
            _write_all(target, chunk)
            self.report(len(chunk))

    def _digests(self, content: Content) -> Digests:
        algorithm, digest = new_hash(content.nbytes)
        for chunk in self._all_chunks(content):
            digest.update(chunk)
        return {algorithm: digest.hexdigest()}

    def _all_chunks(self, content: Content) -> Iterator[bytes | memoryview]:
        for piece in content.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._chunks(piece)

    def _chunks(self, where: DataRange, buffer: memoryview | None = None) -> Iterator[memoryview]:
        """The bytes of a range, in a buffer that is used again for each chunk."""
        descriptor = self._files[where.location]
        if buffer is None:
            buffer = memoryview(bytearray(min(_BUFFER, where.length)))
        at, end = where.offset, where.offset + where.length
        while at < end:
            if self._stopped.is_set():
                return
            count = os.preadv(descriptor, [buffer[: min(_BUFFER, end - at)]], at)
            if count == 0:
                raise ModelError(
                    f"`{self._source.folder / where.location}` became shorter while it was read",
                    hint="something else writes to the model: let it finish, and try again",
                )
            yield buffer[:count]
            at += count


class _Passed:
    """The digest of a file that is read in parts: what comes in its turn is taken when it passes.

    Args:
        digest: Of nothing so far.
        read: Reads the bytes from one place to another.
    """

    def __init__(self, digest: Hash, read: Callable[[int, int], Iterator[memoryview]]) -> None:
        self._digest, self._read, self._at = digest, read, 0

    def take(self, at: int, chunk: memoryview) -> None:
        """Is given what lies at a place; the little between two weights, such as names, is read."""
        if 0 < at - self._at <= _BUFFER:
            self._read_on(at)
        if at == self._at:
            self._digest.update(chunk)
            self._at += len(chunk)

    def finished(self, nbytes: int) -> str:
        """The digest of the file's so many bytes, of which the rest is read now."""
        self._read_on(nbytes)
        return self._digest.hexdigest()

    def _read_on(self, stop: int) -> None:
        for chunk in self._read(self._at, stop):
            self._digest.update(chunk)
        self._at = stop


def passes(source: ModelFile) -> bool:
    """Whether the digest of a model's own file is best taken while its weights are copied."""
    return new_hash(source.stamp[0])[0] == _FAST


def _no_report(nbytes: int) -> None:
    """Tells nobody."""


def _extents(source: int, at: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """A range of a file as parts (start, stop, is a hole).

    Where the system cannot tell, and where the range is past the end of the file, all is data:
    whoever copies it finds out.
    """
    if not hasattr(os, "SEEK_HOLE") or end > os.fstat(source).st_size:
        yield at, end, False
        return
    while at < end:
        data = _seek(source, at, os.SEEK_DATA, end)
        if data > at:
            yield at, data, True
        if data < end:
            at = _seek(source, data, os.SEEK_HOLE, end)
            yield data, at, False
        else:
            at = end


def _seek(source: int, at: int, what: int, end: int) -> int:
    """Where in a range the next data or hole starts; its end if there is none."""
    try:
        return min(os.lseek(source, at, what), end)
    except OSError as error:
        if error.errno != errno.ENXIO and what == os.SEEK_DATA:
            return at  # not a file that can tell
        return end


def _in_kernel(source: int, target: int, at: int, count: int) -> int:
    """Copies some bytes without reading them; 0 where the kernel does not want to."""
    for call in (_copy_file_range, _sendfile):
        try:
            return call(source, target, at, count)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return 0


def _copy_file_range(source: int, target: int, at: int, count: int) -> int:
    if not hasattr(os, "copy_file_range"):  # Linux has it
        raise OSError(errno.ENOSYS, "copy_file_range")
    return os.copy_file_range(source, target, count, offset_src=at)


def _sendfile(source: int, target: int, at: int, count: int) -> int:
    return os.sendfile(target, source, at, count)


def _write_all(target: int, data: bytearray | memoryview) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(target, view) :]
    view.release()
