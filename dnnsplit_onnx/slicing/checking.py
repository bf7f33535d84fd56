"""The files of a slice, held against the digests in the manifest before anyone runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from dnnsplit_onnx.errors import ManifestError, ModelError
from dnnsplit_onnx.graph.digests import Algorithm, file_digest
from dnnsplit_onnx.slicing.manifest import SliceRecord

# A file that was written this recently may be written again within one tick of its clock.
_SETTLED_NS = 2_000_000_000


def check_files(folder: Path, record: SliceRecord) -> None:
    """Holds a slice's files against the checksums of the manifest.

    A file is read once for as long as its size, times and inode stay what they are: the
    slices of one tier share a file of weights that may take seconds to read.

    Raises:
        ManifestError: A file is missing or is not the one that was written.
    """
    if record.file is not None:
        _check_file(folder, record.file, None, record.digests)
    for data in record.data:
        _check_file(folder, data.file, data.nbytes, data.digests)
    for tile in record.tiles:
        check_files(folder, record.of_tile(tile))


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder, which no link may lead out of."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ManifestError(
            f"`{path}` is a link that leaves the folder of the manifest", hint="copy the file in its place"
        )
    return path


def _check_file(folder: Path, name: str, nbytes: int | None, digests: Mapping[Algorithm, str]) -> None:
    if not digests:
        raise ManifestError(f"`{name}` has no checksum in the manifest", hint="run `split` again")
    path = _inside(folder, name)
    try:
        found = path.stat()
        size = found.st_size
        same = nbytes in (None, size) and all(
            _digest(path, found, algorithm) == expected for algorithm, expected in digests.items()
        )
    except OSError as error:
        raise ManifestError(
            f"cannot read slice file `{path}`: {error.strerror}", hint="run `split` again"
        ) from None
    except ModelError:
        same = False  # a part of it is no ONNX file
    if not same:
        what = "its checksum differs" if nbytes in (None, size) else f"{size} bytes in place of {nbytes}"
        raise ManifestError(
            f"`{path}` is not the file that was written: {what}", hint="copy it again, or run `split` again"
        )


def _digest(path: Path, found: os.stat_result, algorithm: Algorithm) -> str:
    changed_ns = max(found.st_mtime_ns, found.st_ctime_ns)
    if time.time_ns() - changed_ns < _SETTLED_NS:
        return file_digest(path, algorithm)
    version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _remembered(path.absolute(), version, algorithm)


@lru_cache(1024)
def _remembered(path: Path, version: tuple[int, ...], algorithm: Algorithm) -> str:  # noqa: ARG001
    return file_digest(path, algorithm)
