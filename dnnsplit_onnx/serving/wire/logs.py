"""Log lines of servers and clients, of which no flood fills a disk.

Of lines of one kind (the same message but for its figures and names) a few are written as they
come. What comes beyond that in an interval is counted, and said in one line when it is over.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

#: So many lines of one kind are written in an interval.
MOST_LINES = 20
INTERVAL_S = 10.0
_MOST_KINDS = 256
_LONGEST = 300


@dataclass(slots=True)
class _Kind:
    """Lines of one kind.

    Attributes:
        since: When the interval began.
        written: Lines that were written in it.
        left_out: How many were not.
        last: The last of these.
    """

    since: float
    written: int = 0
    left_out: int = 0
    last: logging.LogRecord | None = None


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, stderr by default, so many lines of a kind at most.

    Args:
        stream: Where to write.
        clock: Seconds that only grow.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def handle(self, record: logging.LogRecord) -> bool:
        """Writes a record, unless there were too many of its kind."""
        self.acquire()
        try:
            now = self._clock()
            self._sum_up(lambda kind: now - kind.since >= INTERVAL_S)
            key = record.name, record.levelno, str(record.msg)
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = _Kind(now)
            if kind.written >= MOST_LINES:
                kind.left_out, kind.last = kind.left_out + 1, record
                return False
            kind.written += 1
            if len(self._kinds) > _MOST_KINDS:
                _, oldest = self._kinds.popitem(last=False)
                self._say(oldest)
            return bool(super().handle(record))
        finally:
            self.release()

    def close(self) -> None:
        """Sums up what is left, and closes."""
        self._sum_up(lambda _: True)
        super().close()

    def _sum_up(self, is_over: Callable[[_Kind], bool]) -> None:
        for key in [key for key, kind in self._kinds.items() if is_over(kind)]:
            self._say(self._kinds.pop(key))

    def _say(self, kind: _Kind) -> None:
        if kind.last is None:
            return
        text, seconds = kind.last.getMessage()[:_LONGEST], self._clock() - kind.since
        args = (kind.left_out, seconds, text)
        last = kind.last
        record = logging.LogRecord(
            last.name, last.levelno, last.pathname, last.lineno, "%d more within %.0f s like: %s", args, None
        )
        super().handle(record)
