"""`packed`: a tensor's bytes, shuffled and compressed, as they travel between two of our servers.

    packed = zstd(the first bytes of all elements, then their second bytes, ...)

The bytes of one place are alike where the elements are: signs and exponents pack well, the ends
of mantissas not at all. Nothing is lost.

What arrives may come from anyone: it must say how long it is, that must be what the tensor's type
and shape take, and it is unpacked into memory of that size and no more.

Source: the shuffle filter of HDF5 and Blosc.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np

from dnnsplit_onnx.errors import InputError

INSTALL = "pip install 'dnnsplit-onnx[packed]'"

_LEVEL = 1
# A frame whose header asks for a window is given one of at most this size: our own need none that
# is larger, and what is longer was made to take memory.
_LARGEST_WINDOW = 8 << 20


@cache
def _zstandard() -> ModuleType | None:
    try:
        return import_module("zstandard")
    except ImportError:
        return None


def can_pack() -> bool:
    """Whether this installation packs and unpacks: the extra `packed` is installed."""
    return _zstandard() is not None


def pack(raw: memoryview, itemsize: int) -> bytes:
    """A tensor's bytes, packed.

    Args:
        raw: The bytes of whole elements.
        itemsize: Bytes of an element.
    """
    library = _zstandard()
    assert library is not None, "`can_pack` says so"
    flat = np.frombuffer(raw, np.uint8)
    if itemsize > 1:
        flat = np.ascontiguousarray(flat.reshape(-1, itemsize).T)
    packed: bytes = library.ZstdCompressor(level=_LEVEL).compress(flat.data)
    return packed


def unpack(packed: memoryview, itemsize: int, into: np.ndarray) -> None:
    """Fills an array of bytes with what was packed.

    Args:
        packed: What arrived.
        itemsize: Bytes of an element.
        into: As many bytes as the tensor has.

    Raises:
        InputError: It is not packed, or holds more or less than that.
    """
    library = _zstandard()
    assert library is not None, "`can_pack` says so"
    try:
        frame = library.get_frame_parameters(packed)
        if frame.content_size != into.nbytes or frame.dict_id:
            raise InputError(f"a packed tensor does not hold {into.nbytes} bytes")
        if frame.window_size > max(into.nbytes, _LARGEST_WINDOW):
            raise InputError("a packed tensor asks for more memory than it needs")
        planes = library.ZstdDecompressor().decompress(packed, into.nbytes, allow_extra_data=False)
    except library.ZstdError:
        raise InputError("a packed tensor is damaged") from None
    if len(planes) != into.nbytes:
        raise InputError(f"a packed tensor does not hold {into.nbytes} bytes")
    elements, shuffled = into.reshape(-1, itemsize), np.frombuffer(planes, np.uint8).reshape(itemsize, -1)
    for place in range(itemsize):  # ten times faster than to assign the transpose
        elements[:, place] = shuffled[place]
