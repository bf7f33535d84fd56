"""Arrays out of an `.npz` archive that may come from anyone.

An archive of kilobytes can hold terabytes of zeros, and the head of an array can claim any
shape. So what the archive says its members take is added up before anything is unpacked,
and refused if it is far more than the archive's own size; unpacking stops at what was said.
Nothing is ever unpickled.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from dnnsplit_onnx.errors import InputError

_SAVE = "write one with numpy.savez(path, NAME=array)"
# Samples compress ten times at best. Below a size that any machine has to spare, a mask of
# zeros may compress as it likes.
_MOST_GROWTH = 100
_MOST_UNASKED = 1 << 30


def read_arrays(file: BinaryIO, source: str) -> dict[str, Any]:
    """All arrays of an archive, by name.

    Args:
        file: The archive, as `numpy.savez` writes it; read from its beginning.
        source: Its name, for errors.

    Raises:
        InputError: It is no such archive, is damaged, or unpacks to far more than its size.
    """
    try:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise InputError(f"`{source}` is not an .npz file", hint=_SAVE)
        with arrays:
            _check_growth(arrays, file.seek(0, 2), source)
            return {name: arrays[name] for name in arrays.files}
    except InputError:
        raise
    except Exception as error:
        # Bad heads, unknown or encrypted compression, data that ends early, shapes beyond all
        # memory: numpy, zipfile and the decompressors refuse in a dozen ways.
        what = str(error) or "it is damaged"
        raise InputError(f"cannot read inputs from `{source}`: {what}", hint=_SAVE) from None


def _check_growth(arrays: np.lib.npyio.NpzFile, nbytes: int, source: str) -> None:
    assert arrays.zip is not None
    unpacked = sum(member.file_size for member in arrays.zip.infolist())
    if unpacked > max(_MOST_UNASKED, _MOST_GROWTH * nbytes):
        raise InputError(
            f"`{source}` unpacks from {nbytes} to {unpacked} bytes",
            hint="if it is meant to, save it without compression: numpy.savez",
        )
