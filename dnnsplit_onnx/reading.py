"""Small files that may come from anyone, read within a bound.

A tiers file, a profile, a plan or a manifest is kilobytes, at most a few megabytes. Whoever
reads one without a bound can be handed an endless one: `/dev/zero` under another name, or
gigabytes of JSON, which take ten times their size once parsed.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path

#: No file of these kinds is larger (64 MiB): a profile with the times of a million nodes is not.
LARGEST_NBYTES = 1 << 26


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
