"""Several passes of a model as one request: an analysis whose numbers are sums over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting
from dnnsplit_onnx.work.memory import StageMemory


@dataclass(frozen=True, repr=False)
class Passes(Analysis):
    """An analysis of passes at other sizes, in one order of nodes.

    Types, and the work of single nodes, are those of the model as it was analysed; what plans ask
    for is summed.

    Attributes:
        parts: Analyses of one pass each, or of more, and how often each runs.
    """

    parts: tuple[tuple[Analysis, int], ...] = ()

    @property
    def passes(self) -> int:
        """How often the model runs."""
        return sum(count * part.passes for part, count in self.parts)

    @property
    def single(self) -> tuple[Analysis, ...]:
        """The analyses of one pass each, in the order in which they first run."""
        parts = (part.single if isinstance(part, Passes) else (part,) for part, _ in self.parts)
        return tuple(one for part in parts for one in part)

    @cached_property
    def flops(self) -> NDArray[np.int64]:
        """Shape (n,): FLOPs of each node in all passes."""
        total: NDArray[np.int64] = np.sum([count * part.flops for part, count in self.parts], axis=0)
        return total

    @cached_property
    def macs(self) -> NDArray[np.int64]:
        """Shape (n,): multiply-adds of each node in all passes."""
        total: NDArray[np.int64] = np.sum([count * part.macs for part, count in self.parts], axis=0)
        return total

    def link_nbytes(self, value: str) -> int | None:
        """Bytes that a value takes on a link in all passes, None if unknown."""
        given = self.input_nbytes.get(value)
        if given is not None:
            return given * self.passes
        return _sum((part.link_nbytes(value), count) for part, count in self.parts)

    def returned_nbytes(self, value: str) -> int | None:
        """Bytes that a model output takes on its way back in all passes, None if unknown."""
        return _sum((part.returned_nbytes(value), count) for part, count in self.parts)

    def pass_nbytes(self, accounting: Accounting = "live") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes that cross each cut, and that return over it, in the largest pass; shapes (n + 1,)."""
        up, down = zip(*(part.pass_nbytes(accounting) for part, _ in self.parts), strict=True)
        return _most(up), _most(down)

    @cached_property
    def memory(self) -> StageMemory:
        """What each stage needs in memory: the most that any pass does."""
        memories = [part.memory for part, _ in self.parts]
        outputs = tuple(
            (made, idle, max(one.outputs[at][2] for one in memories))
            for at, (made, idle, _) in enumerate(memories[0].outputs)
        )
        return replace(
            memories[0],
            held=np.max([one.held for one in memories], axis=0),
            weight_nbytes=np.max([one.weight_nbytes for one in memories], axis=0),
            outputs=outputs,
        )


def _most(sizes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The largest of some sizes, unknown where one is."""
    most: NDArray[np.int64] = np.max(sizes, axis=0)
    most[np.min(sizes, axis=0) == UNKNOWN] = UNKNOWN
    return most


def _sum(sizes: Iterable[tuple[int | None, int]]) -> int | None:
    """Sizes, each so often; None if one that counts is unknown."""
    total = 0
    for nbytes, count in sizes:
        if nbytes is None and count:
            return None
        total += (nbytes or 0) * count
    return total
