"""Memory that requests receive tensors into, used again for the next ones.

Fresh memory for each large body would cost a page fault every 4 KiB, more than the copy. What
is kept for that is one pool for a whole server, however many connections it has.
"""

from __future__ import annotations

import threading

import numpy as np

from dnnsplit_onnx.runtime.pinned import LEAST_NBYTES, pinned_block
from dnnsplit_onnx.serving.wire.shared import Budget, Shared

_ALIGNMENT = 64  # onnxruntime's kernels like whole cache lines
# So much a connection keeps for itself: to ask for it would take longer than to fill it.
_SMALL_NBYTES = 1 << 14
#: Memory that is kept between requests, of a whole server.
KEEP_NBYTES = 64 << 20
# A block is not used for less than this share of it: small requests would hold what large ones need.
_LEAST_SHARE = 8


class Blocks:
    """Blocks of memory that nobody uses now; safe to use from several threads.

    Args:
        keep_nbytes: How much is kept at most.
    """

    def __init__(self, keep_nbytes: int = KEEP_NBYTES) -> None:
        self._most = keep_nbytes
        self._lock = threading.Lock()
        self._free: list[tuple[np.ndarray, bool]] = []  # each with whether it is pinned

    @property
    def nbytes(self) -> int:
        """Memory that is kept."""
        with self._lock:
            return sum(block.nbytes for block, _ in self._free)

    def take(self, nbytes: int, *, pinned: bool) -> np.ndarray:
        """The smallest block that is large enough, or a new one."""
        with self._lock:
            fitting = [
                (block.nbytes, at)
                for at, (block, is_pinned) in enumerate(self._free)
                if is_pinned == pinned and nbytes <= block.nbytes <= _LEAST_SHARE * nbytes
            ]
            if fitting:
                return self._free.pop(min(fitting)[1])[0]
        return _aligned(nbytes, pinned=pinned)

    def give(self, block: np.ndarray, *, pinned: bool) -> None:
        """Takes a block back; those given back longest ago make room for it."""
        if block.nbytes > self._most:
            return
        with self._lock:
            self._free.append((block, pinned))
            excess = sum(block.nbytes for block, _ in self._free) - self._most
            while excess > 0:
                excess -= self._free.pop(0)[0].nbytes


class Arena:
    """Arrays cut from one block. They are good until `release`, or the next `reset`.

    Args:
        blocks: Where the block comes from; memory of its own by default.
        shared: What is shared with the client; nothing by default.
    """

    def __init__(self, blocks: Blocks | None = None, shared: Shared | None = None) -> None:
        self._blocks = blocks or Blocks(0)
        self.shared = shared or Shared(None, Budget(0))
        self._block: np.ndarray | None = None
        self._small: np.ndarray | None = None
        self._used = 0
        self._pinned = False

    def reset(self, nbytes: int, count: int, *, pinned: bool = False) -> None:
        """Makes room for `count` arrays of `nbytes` bytes in all; earlier arrays lose their memory.

        Args:
            nbytes: Of all arrays together.
            count: How many there are.
            pinned: Whether they go on to a GPU.
        """
        self.release()
        self._used, need = 0, nbytes + count * _ALIGNMENT
        if need <= _SMALL_NBYTES and not pinned:
            if self._small is None:
                self._small = _aligned(_SMALL_NBYTES, pinned=False)
            self._block = self._small
            return
        need = _rounded(need)
        self._pinned = pinned and need >= LEAST_NBYTES
        self._block = self._blocks.take(need, pinned=self._pinned)

    def release(self) -> None:
        """Gives its memory back."""
        block, self._block = self._block, None
        if block is not None and block is not self._small:
            self._blocks.give(block, pinned=self._pinned)

    def allocate(self, nbytes: int) -> np.ndarray:
        """A one-dimensional array of bytes."""
        assert self._block is not None, "reset first"
        start = self._used
        self._used += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._block[start : start + nbytes]


def _rounded(nbytes: int) -> int:
    """The next of eight sizes an octave, so that requests that grow a little each share blocks."""
    step = 1 << max(0, (nbytes - 1).bit_length() - 4)
    return -(-nbytes // step) * step


def _aligned(nbytes: int, *, pinned: bool) -> np.ndarray:
    """New memory, which the allocator may begin anywhere, from its first whole cache line on."""
    block = pinned_block(nbytes + _ALIGNMENT) if pinned else np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + nbytes]
