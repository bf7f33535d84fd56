"""Who may come in, and who may compute: two bounds, and what is refused over them.

`Admission` counts requests that are anywhere between their head and their answer; over its
bound the answer is 503 at once. `Slots` counts those that compute; a request that has come
in waits for one until its time is up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from dnnsplit_onnx.serving.wire.errors import BusyError, DeadlineError
from dnnsplit_onnx.serving.wire.stream import Deadline

#: Asks for so many bytes more, of a request that is in; raises `BusyError` if they are not to be had.
Grow = Callable[[int], None]


class Admission:
    """At most so many requests at a time.

    Args:
        limit: How many.
        nbytes: Most bytes that their bodies may take together.
    """

    def __init__(self, limit: int, nbytes: int) -> None:
        self._limit, self._nbytes = limit, nbytes
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._held = 0
        self.count = 0

    def enter(self, nbytes: int) -> AbstractContextManager[Grow]:
        """Lets a request in until the context ends, or refuses it without waiting.

        Returns:
            A context, which gives what is called if the request needs more bytes; entering it raises
            `BusyError` if there are as many requests, or bytes, as there may be.
        """
        return _Entry(self, nbytes)

    def take(self) -> None:
        """Counts one more request.

        Raises:
            BusyError: There are as many as there may be.
        """
        with self._lock:
            if self.count >= self._limit:
                raise BusyError("the server is busy: its queue is full")
            self.count += 1

    def hold(self, more: int) -> None:
        """Counts so many more bytes.

        Raises:
            BusyError: There are as many as there may be.
        """
        with self._lock:
            # One request alone may always come in: its size has a bound of its own.
            if self.count > 1 and self._held + more > self._nbytes:
                raise BusyError("the server is busy: its queue is full")
            self._held += more

    def leave(self, nbytes: int) -> None:
        """Takes a request out again, that held so many bytes."""
        with self._lock:
            self.count -= 1
            self._held -= nbytes
            self._idle.notify_all()

    @property
    def is_full(self) -> bool:
        """Whether the next request would be refused, however small it is."""
        return self.count >= self._limit or self._held >= self._nbytes

    def wait_idle(self, seconds: float) -> bool:
        """Waits until no request is inside; False if some still are after so long."""
        with self._lock:
            return self._idle.wait_for(lambda: self.count == 0, seconds)


class _Entry(AbstractContextManager[Grow]):
    """A request that is let in: a class, since a generator would take twice as long."""

    __slots__ = ("_admission", "_held", "_nbytes")

    def __init__(self, admission: Admission, nbytes: int) -> None:
        self._admission, self._nbytes, self._held = admission, nbytes, 0

    def __enter__(self) -> Grow:
        self._admission.take()
        try:
            self._grow(self._nbytes)
        except BaseException:
            self._admission.leave(0)
            raise
        return self._grow

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self._held)

    def _grow(self, more: int) -> None:
        self._admission.hold(more)
        self._held += more


class Slots:
    """At most so many computations at a time.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self.waiting = 0

    @contextmanager
    def take(self, deadline: Deadline) -> Iterator[float]:
        """Waits for a slot and holds it; yields the seconds waited.

        Raises:
            DeadlineError: None became free in time.
        """
        start = time.perf_counter()
        got = self._free.acquire(blocking=False) or self._wait(deadline)
        if got and deadline.remaining_s <= 0:  # nobody waits for it any more
            self._free.release()
            got = False
        if not got:
            raise DeadlineError("no time was left in the queue", status=503)
        try:
            yield time.perf_counter() - start
        finally:
            self._free.release()

    def _wait(self, deadline: Deadline) -> bool:
        with self._lock:
            self.waiting += 1
        try:
            return self._free.acquire(timeout=max(0.0, deadline.remaining_s))
        finally:
            with self._lock:
                self.waiting -= 1
