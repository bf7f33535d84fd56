"""Progress of anything that takes longer than a second: on stderr, and only on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE_S = 1.0


class Update(Protocol):
    """Takes how much is done, of how much, and optionally what is being done."""

    def __call__(self, done: int, total: int, what: str = "", /) -> None:
        """Moves the bar."""


@contextmanager
def progress(label: str) -> Iterator[Update]:
    """Shows a bar while the block runs, once a second has passed.

    Args:
        label: What is being done; shown until an update says something more exact.

    Yields:
        A function to call as work is done. Until it is called the bar only moves.
    """
    bar = _Bar(label) if sys.stderr.isatty() else None
    if bar is None:
        yield lambda *_: None
        return
    timer = threading.Timer(_PATIENCE_S, bar.show)
    timer.daemon = True
    timer.start()
    try:
        yield bar.update
    finally:
        timer.cancel()
        bar.close()


class _Bar:
    """A bar that may be shown from another thread, and never after it is closed."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._state: tuple[int, int | None] = (0, None)
        self._lock = threading.Lock()
        self._shown: Progress | None = None
        self._closed = False

    def show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with self._lock:
            if self._closed:
                return
            self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
            done, total = self._state
            self._shown.add_task(self._label, total=total, completed=done)
            self._shown.start()

    def update(self, done: int, total: int, what: str = "", /) -> None:
        with self._lock:
            self._label, self._state = what or self._label, (done, total)
            if self._shown is not None:
                task = self._shown.task_ids[0]
                self._shown.update(task, description=self._label, completed=done, total=total)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._shown is not None:
                self._shown.stop()
