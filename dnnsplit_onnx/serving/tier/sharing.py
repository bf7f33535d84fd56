"""Which requests are on their way over a link, and how much they share it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_REMEMBERED = 64


@dataclass(slots=True, eq=False)
class Transfer:
    """A request on its way; `end` is None until it is over."""

    nbytes: int
    start: float
    end: float | None = None


class Sharing:
    """The transfers over one link; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[Transfer] = deque(maxlen=_REMEMBERED)
        self._own = threading.local()

    @contextmanager
    def transfer(self, nbytes: int) -> Iterator[None]:
        """Entered while a transfer is on its way."""
        mine = Transfer(nbytes, self._clock())
        with self._lock:
            self._recent.append(mine)
        try:
            yield
        finally:
            mine.end = self._clock()
            self._own.last = mine

    def others(self, busy_s: float) -> float:
        """How many others shared the link with this thread's last transfer, on average.

        Args:
            busy_s: How long that transfer really used the link, from its start.
        """
        mine: Transfer | None = getattr(self._own, "last", None)
        if mine is None or busy_s <= 0:
            return 0.0
        stop, now = mine.start + busy_s, self._clock()
        with self._lock:
            recent = list(self._recent)
        spans = [(t.start, now if t.end is None else t.end) for t in recent if t is not mine]
        shared = sum(max(0.0, min(stop, end) - max(mine.start, start)) for start, end in spans)
        return shared / busy_s

    def under_way(self) -> list[tuple[int, float]]:
        """Bytes and seconds so far of the transfers that are not over."""
        now = self._clock()
        with self._lock:
            return [(t.nbytes, now - t.start) for t in self._recent if t.end is None]
