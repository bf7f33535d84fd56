"""A circuit breaker: when a server is gone, say so at once instead of finding out each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dnnsplit_onnx.serving.wire.errors import LinkError


class Breaker:
    """Opens on a failed attempt; then lets one attempt through every so often.

    Args:
        pause_s: Between attempts while it is open.
    """

    def __init__(self, pause_s: float = 0.5) -> None:
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._next = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last attempt failed."""
        return self._reason is not None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Wraps an attempt. Only a `LinkError` of this link itself counts as a failure.

        Raises:
            LinkError: The circuit is open, and it is not time to try again.
        """
        with self._lock:
            if self._reason is not None:
                if time.monotonic() < self._next:
                    raise LinkError(self._reason)
                self._next = time.monotonic() + self._pause_s
        try:
            yield
        except LinkError as error:
            if error.link is None:
                with self._lock:
                    self._reason, self._next = error.message, time.monotonic() + self._pause_s
            raise
        self.close()

    def close(self) -> None:
        """Closes the circuit: the server works."""
        with self._lock:
            self._reason = None
