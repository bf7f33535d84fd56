"""The client of a chain for asyncio programs.

The work is done on threads, as it is in `edge`: onnxruntime and sockets both release the
interpreter, and a request is one thread for its whole life either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from dnnsplit_onnx.serving.edge.edge import Answer, Edge


class AsyncEdge:
    """An `Edge` whose requests are awaited.

    Args:
        edge: It is closed with this.
        concurrency: How many requests are under way at a time; others wait their turn.
    """

    def __init__(self, edge: Edge, *, concurrency: int = 8) -> None:
        self.edge = edge
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="request")

    async def infer(self, inputs: Mapping[str, Any], *, deadline_s: float | None = None) -> Answer:
        """Runs one request; see `Edge.infer`.

        Cancelling does not stop a request that has begun, only the wait for it.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self.edge.infer(inputs, deadline_s=deadline_s)
        )

    async def __aenter__(self) -> AsyncEdge:
        await asyncio.get_running_loop().run_in_executor(self._threads, self.edge.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self.edge.close()
