"""Host memory that CUDA copies from directly.

What lies in ordinary memory is first copied into a small buffer of the driver's, piece by
piece, since the system may move it. Memory that is pinned stays, and the device fetches it by
itself, at about the bus's full speed. Pinning takes milliseconds, so it is for blocks that
are used again and again: those that a server receives tensors into.

onnxruntime's Python interface makes no such memory for its CUDA provider; CUDA's own library
pins what is there. onnxruntime knows nothing of it, and need not: it copies as ever.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import weakref
from importlib import import_module
from typing import Any

import numpy as np

#: Smaller blocks are not worth it.
LEAST_NBYTES = 1 << 20
_PORTABLE = 1  # for every context of the process


def pinned_block(nbytes: int) -> np.ndarray:
    """A block of bytes, pinned while it or a view of it lives; ordinary memory where that fails.

    Args:
        nbytes: Its size, at least 1.
    """
    if nbytes < LEAST_NBYTES or (cuda := cuda_runtime()) is None:
        return np.empty(nbytes, np.uint8)
    block = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)  # pages of its own
    address = block.ctypes.data
    if cuda.cudaHostRegister(address, nbytes, _PORTABLE) != 0:
        cuda.cudaGetLastError()  # or whoever asks next would take it for an error of theirs
        return block
    # At the end of the process CUDA may be gone before this.
    weakref.finalize(block, cuda.cudaHostUnregister, address).atexit = False
    return block


@functools.cache
def cuda_runtime() -> Any:
    """CUDA's runtime library of the release that onnxruntime is built for; None if there is none."""
    try:
        build = import_module("onnxruntime.capi.build_and_package_info")
        major = int(str(build.cuda_version).partition(".")[0])
        cuda = ctypes.CDLL(f"libcudart.so.{major}")
    except (ImportError, AttributeError, ValueError, OSError):
        return None
    cuda.cudaHostRegister.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
    cuda.cudaHostUnregister.argtypes = [ctypes.c_void_p]
    return cuda
