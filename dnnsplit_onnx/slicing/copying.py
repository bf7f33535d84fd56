"""Bytes from the source's files into new ones, by the kernel where it can.

A file is copied range by range with `copy_file_range`, so that weights never enter this
process; on file systems that share blocks nothing is copied at all. Where the call is
missing or refused, `sendfile` and then plain reads and writes do the same. Holes of a sparse
file are not copied but left out again.

Digests are taken beside the copy, in other threads, from the same ranges of the source: they are
in the page cache then. `graph.digests` says which; those of large files cost a fifth of the copy.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.digests import Digests, new_hash
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.protobuf import DataRange
from dnnsplit_onnx.slicing.files import Content

# Ranges below this are cheaper to read and write together than to copy one by one.
_SMALL = 1 << 16
_BUFFER = 1 << 20
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

    def write(self, path: Path, content: Content) -> None:
        """Writes a file that does not exist yet.

        Raises:
            ModelError: A file of the source cannot be read, or became shorter.
            OSError: The file cannot be written.
        """
        self._open_all(content)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self._fill(target, content)
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

    def _fill(self, target: int, content: Content) -> None:
        waiting = bytearray()
        for piece in content.pieces:
            if isinstance(piece, bytes):
                waiting += piece
            elif piece.length < _SMALL:
                for chunk in self._chunks(piece):
                    waiting += chunk
            else:
                self._flush(target, waiting)
                self._copy_range(target, piece)
            if len(waiting) >= _BUFFER:
                self._flush(target, waiting)
        self._flush(target, waiting)
        os.ftruncate(target, os.lseek(target, 0, os.SEEK_CUR))  # a hole at the end has a length too

    def _flush(self, target: int, waiting: bytearray) -> None:
        _write_all(target, waiting)
        self.report(len(waiting))
        waiting.clear()

    def _copy_range(self, target: int, where: DataRange) -> None:
        """Appends a range of the source to the target, holes as holes."""
        descriptor = self._files[where.location]
        for start, stop, is_hole in _extents(descriptor, where.offset, where.offset + where.length):
            if is_hole:
                os.lseek(target, stop - start, os.SEEK_CUR)
                self.report(stop - start)
            else:
                self._copy(target, DataRange(where.location, start, stop - start))

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

    def _chunks(self, where: DataRange) -> Iterator[memoryview]:
        """The bytes of a range, in a buffer that is used again for each chunk."""
        descriptor = self._files[where.location]
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
