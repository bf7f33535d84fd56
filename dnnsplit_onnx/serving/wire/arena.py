"""Memory that a connection receives tensors into, used again for each request.

Fresh memory for each large body would cost a page fault every 4 KiB, more than the copy.
"""

from __future__ import annotations

import numpy as np

from dnnsplit_onnx.runtime.pinned import LEAST_NBYTES, pinned_block

_ALIGNMENT = 64  # onnxruntime's kernels like whole cache lines
#: Memory that is kept between requests; a larger block is given back.
KEEP_NBYTES = 32 << 20


class Arena:
    """Arrays cut from one block. They are good until the next `reset`."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = 0
        self._pinned = False

    def reset(self, nbytes: int, count: int, *, pinned: bool = False) -> None:
        """Makes room for `count` arrays of `nbytes` bytes in all; earlier arrays lose their memory.

        Args:
            nbytes: Of all arrays together.
            count: How many there are.
            pinned: Whether they go on to a GPU.
        """
        need = nbytes + count * _ALIGNMENT
        pinned = pinned and need >= LEAST_NBYTES
        too_large = self._block.nbytes > max(need, KEEP_NBYTES)
        if need > self._block.nbytes or too_large or (pinned and not self._pinned):
            self._block = pinned_block(need) if pinned else np.empty(need, np.uint8)
            self._pinned = pinned
        # The block itself begins wherever the allocator put it.
        self._used = -self._block.ctypes.data % _ALIGNMENT

    def release(self) -> None:
        """Gives a large block back."""
        if self._block.nbytes > KEEP_NBYTES:
            self._block = np.empty(0, np.uint8)
            self._pinned = False

    def allocate(self, nbytes: int) -> np.ndarray:
        """A one-dimensional array of bytes."""
        start = self._used
        self._used += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._block[start : start + nbytes]
