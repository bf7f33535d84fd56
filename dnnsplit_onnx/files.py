"""Files: small ones read within a bound, all written whole or not at all, and their digests.

A tiers file, a profile, a plan or a manifest is kilobytes, at most a few megabytes. Whoever
reads one without a bound can be handed an endless one: `/dev/zero` under another name, or
gigabytes of JSON, which take ten times their size once parsed.

Nothing here is slow to import.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from dnnsplit_onnx.errors import OutputError

#: No file of these kinds is larger (64 MiB): a profile with the times of a million nodes is not.
LARGEST_NBYTES = 1 << 26
# A thread that hashes lets others run Python code meanwhile, and waits for them between two
# chunks: the chunks are large, so that it seldom waits.
_CHUNK = 1 << 23

Stamp = tuple[int, int]


class Hash(Protocol):
    """A digest that is being taken."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in hexadecimal."""


def read_bounded(path: Path, *, most_nbytes: int = LARGEST_NBYTES, regular: bool = True) -> bytes:
    """The content of a small file.

    Args:
        path: The file.
        most_nbytes: How large it may be.
        regular: Whether it must be a regular file. A pipe that nobody writes to would be
            waited for without end; only a path that the user typed may be one.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    with BufferedReader(open_regular(path)) if regular else path.open("rb") as file:
        data = file.read(most_nbytes + 1)
    if len(data) > most_nbytes:
        raise OSError(errno.EFBIG, f"larger than {most_nbytes >> 10} KiB", str(path))
    return data


def open_regular(path: Path) -> FileIO:
    """Opens a file for reading, unbuffered, if it is one that ends.

    Raises:
        OSError: It cannot be read, or is a folder, a device, a pipe or a socket.
    """
    # Without O_NONBLOCK, opening a pipe alone may wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def written_whole(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Opens a temporary file that takes the place of `path` when the block ends well.

    Args:
        path: Where the file belongs. Its folder is made if need be.
        force: Whether an existing file may be replaced.

    Yields:
        The file, open for writing.

    Raises:
        OutputError: The file exists and may not be replaced, or cannot be written; nothing
            is left behind then, and an existing file is as it was.
    """
    if path.is_dir():
        raise OutputError(f"`{path}` is a folder", hint="name a file")
    if path.exists() and not force:
        raise already_exists(path)
    made: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        made = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
        made.chmod(0o666 & ~_umask())  # mkstemp's own is for secrets
        made.replace(path)
        made = None
    except OSError as error:
        raise OutputError(f"cannot write `{path}`: {error.strerror or error}") from None
    finally:
        if made is not None:
            with suppress(OSError):
                made.unlink()


def already_exists(path: Path) -> OutputError:
    """The error for an output that is there already."""
    return OutputError(f"`{path}` exists already", hint="pass --force to replace it, or choose another name")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; raises as `file_hash` does."""
    return file_hash(path, hashlib.sha256())


def file_hash(path: Path, digest: Hash) -> str:
    """The digest of a file, in hexadecimal.

    Args:
        path: The file.
        digest: What takes it, fresh.

    Raises:
        OSError: It cannot be read, or is a device or a pipe, which may have no end.
    """
    with open_regular(path) as file:
        buffer = memoryview(bytearray(min(_CHUNK, path.stat().st_size + 1)))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def stamp(path: Path) -> Stamp:
    """Size and time of a file; a file that changes has another.

    Raises:
        OSError: It is not there.
    """
    info = path.stat()
    return info.st_size, info.st_mtime_ns
