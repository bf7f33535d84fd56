"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dnnsplit_onnx.errors import OutputError


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
