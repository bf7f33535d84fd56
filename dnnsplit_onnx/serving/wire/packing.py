"""Packed tensors on the wire: how they are offered and named, and what is said of bad ones.

A server offers the method in its metadata, and whoever does not know it sends and gets the tensor as
it is. What packing is stands in `runtime.packing`.
"""

from __future__ import annotations

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime import packing
from dnnsplit_onnx.runtime.packing import can_pack, pack
from dnnsplit_onnx.serving.wire.errors import ProtocolError

__all__ = ["METHOD", "PARAMETER", "can_pack", "pack", "unpack"]

#: What the method is called, in a server's metadata and in a tensor's parameters.
METHOD = "shuffle-zstd"
#: The parameter of a server's metadata and of a tensor.
PARAMETER = "dnnsplit_packed"


def unpack(packed: memoryview, itemsize: int, into: np.ndarray) -> None:
    """Fills an array of bytes with what was packed; see `runtime.packing.unpack`.

    Raises:
        ProtocolError: It is not packed, or holds more or less than that.
    """
    if not can_pack():
        raise ProtocolError("packed tensors are not known here: send them as they are", status=415)
    try:
        packing.unpack(packed, itemsize, into)
    except InputError as error:
        raise ProtocolError(error.message) from None
