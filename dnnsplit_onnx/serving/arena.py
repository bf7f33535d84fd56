"""Memory that a connection receives tensors into, used again for each request.

Fresh memory for each large body would cost a page fault every 4 KiB, more than the copy.
"""

from __future__ import annotations

import numpy as np

_ALIGNMENT = 64  # onnxruntime's kernels like whole cache lines
#: Memory that is kept between requests; a larger block is given back.
KEEP_NBYTES = 32 << 20


class Arena:
    """Arrays cut from one block. They are good until the next `reset`."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = 0

    def reset(self, nbytes: int, count: int) -> None:
        """Makes room for `count` arrays of `nbytes` bytes in all; earlier arrays lose their memory."""
        need = nbytes + count * _ALIGNMENT
        if need > self._block.nbytes or self._block.nbytes > max(need, KEEP_NBYTES):
            self._block = np.empty(need, np.uint8)
        # The block itself begins wherever the allocator put it.
        self._used = -self._block.ctypes.data % _ALIGNMENT

    def release(self) -> None:
        """Gives a large block back."""
        if self._block.nbytes > KEEP_NBYTES:
            self._block = np.empty(0, np.uint8)

    def allocate(self, nbytes: int) -> np.ndarray:
        """A one-dimensional array of bytes."""
        start = self._used
        self._used += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._block[start : start + nbytes]
