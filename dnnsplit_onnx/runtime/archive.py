"""Arrays out of an `.npz` archive that may come from anyone.

An archive of kilobytes can hold terabytes of zeros, and the head of an array can claim any
shape. So what the archive says its members take is added up before anything is unpacked,
and refused if it is far more than the archive's own size; unpacking stops at what was said.
Of an array of objects the strings are read, by a
reader that makes no other object; all else is refused.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

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
        # What begins as no zip file numpy takes for pickled objects, and says so.
        zipped = file.read(2) == b"PK"
        file.seek(0)
        arrays = np.load(file, allow_pickle=False) if zipped else None
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise InputError(f"`{source}` is not an .npz file", hint=_SAVE)
        with arrays:
            _check_growth(arrays, file.seek(0, 2), source)
            return {name: _array(arrays, name) for name in arrays.files}
    except InputError:
        raise
    except Exception as error:
        # Bad heads, unknown or encrypted compression, data that ends early, shapes beyond all
        # memory: numpy, zipfile and the decompressors refuse in a dozen ways.
        what = str(error) or "it is damaged"
        raise InputError(f"cannot read inputs from `{source}`: {what}", hint=_SAVE) from None


def _array(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """An array of an archive; of objects, one that holds strings and nothing else."""
    assert arrays.zip is not None
    with arrays.zip.open(f"{name}.npy" if f"{name}.npy" in arrays.zip.namelist() else name) as member:
        header = read_array_header_1_0 if read_magic(member) == (1, 0) else read_array_header_2_0
        shape, by_column, dtype = header(member)
        if dtype.kind != "O":
            found: np.ndarray = arrays[name]
            return found
        texts = _Strings(member).load().state[-1]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"array `{name}` holds objects that are not all strings")
    return np.array(texts, object).reshape(shape, order="F" if by_column else "C")


class _Inert:
    """Stands for an array or a type in a pickle: it keeps what it is told, and does nothing."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = (None,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Strings(pickle.Unpickler):
    """Reads the list of strings that a pickled array holds; no name in a pickle is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return _Inert
        raise ValueError("object arrays may hold strings only")


def _check_growth(arrays: np.lib.npyio.NpzFile, nbytes: int, source: str) -> None:
    assert arrays.zip is not None
    unpacked = sum(member.file_size for member in arrays.zip.infolist())
    if unpacked > max(_MOST_UNASKED, _MOST_GROWTH * nbytes):
        raise InputError(
            f"`{source}` unpacks from {nbytes} to {unpacked} bytes",
            hint="if it is meant to, save it without compression: numpy.savez",
        )
