"""Garbage collection, put off where much is built and all of it stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_off() -> Iterator[None]:
    """Python looks for no cycles in the meantime; also the decorator of a function.

    A graph of many nodes is all references and no garbage, and each search of it looks at all of it
    again: a tenth of the time that `plan` takes for 200,000 nodes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
