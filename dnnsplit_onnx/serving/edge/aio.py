"""The client of a chain for asyncio programs: `Edge`, awaited.

The work is done on threads, as it is in `edge`: onnxruntime and sockets both release the
interpreter, and a request is one thread for its whole life either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dnnsplit_onnx.runtime.options import SessionOptions
from dnnsplit_onnx.serving.edge.edge import Answer, Edge, MakeChooser
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.serving.wire.pool import Target

_T = TypeVar("_T")


class AsyncEdge:
    """As `Edge`, argument by argument and name by name; what waits there is awaited here.

    Args:
        folder: The folder of slices, of which tier 0's are run here.
        target: Tier 1; None if everything is to run here.
        options: How to run the slices of tier 0.
        deadline_s: A request may take, unless it says otherwise.
        peers: The other machines of tier 0; see `Edge`.
        chooser: Makes what chooses the cuts; see `Edge`.
        concurrency: How many requests are under way at a time; others wait their turn.

    Attributes:
        edge: The client that does the work.

    Raises:
        ManifestError: The folder is not one of slices.
    """

    def __init__(
        self,
        folder: str | Path,
        target: Target | str | None = None,
        *,
        options: SessionOptions | None = None,
        deadline_s: float = 30.0,
        peers: Mapping[str, Target | str] | None = None,
        chooser: MakeChooser | None = None,
        concurrency: int = 8,
    ) -> None:
        self.edge = Edge(folder, target, options=options, deadline_s=deadline_s, peers=peers, chooser=chooser)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="request")

    @property
    def cuts(self) -> Cuts | None:
        """The cuts that requests use now; None if there are none for what can be reached."""
        return self.edge.cuts

    async def open(self) -> None:
        """Opens the slices that may be needed, and runs them once; see `Edge.open`."""
        await self._on_thread(self.edge.open)

    async def prepare(self, cuts: Cuts) -> None:
        """Has every tier open its slice for some cuts; see `Edge.prepare`."""
        await self._on_thread(lambda: self.edge.prepare(cuts))

    async def infer(
        self,
        inputs: Mapping[str, Any],
        *,
        states: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        sequence: Sequence | None = None,
        cuts: Cuts | None = None,
    ) -> Answer:
        """Runs one request; see `Edge.infer`.

        Cancelling does not stop a request that has begun, only the wait for it.
        """
        return await self._on_thread(
            lambda: self.edge.infer(
                inputs, states=states, deadline_s=deadline_s, sequence=sequence, cuts=cuts
            )
        )

    async def infer_all(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        states: Mapping[str, Any] | None = None,
        concurrency: int = 2,
    ) -> AsyncIterator[Answer | ServingError]:
        """Runs many requests, several at a time; see `Edge.infer_all`."""
        answers = self.edge.infer_all(requests, states=states, concurrency=concurrency)
        while (answer := await self._on_thread(lambda: next(answers, None))) is not None:
            yield answer

    async def forget(self, name: str) -> None:
        """Has every tier forget the states of a sequence, as `Edge.forget` does."""
        await self._on_thread(lambda: self.edge.forget(name))

    async def close(self) -> None:
        """Waits for what is under way, closes connections, and stops probing."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self.edge.close()

    async def __aenter__(self) -> AsyncEdge:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
