"""What `inspect` tells of a model, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import check_name
from dnnsplit_onnx.graph import collection
from dnnsplit_onnx.graph.shapes import free_dimensions
from dnnsplit_onnx.views import Tabled
from dnnsplit_onnx.work.analysing import Source, analysis_from
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting, crossing_values, live_values_of_all, staircase
from dnnsplit_onnx.work.envelope import envelope


def inspect(
    model: Source, bindings: Mapping[str, int] | None = None, *, accounting: Accounting = "live"
) -> Inspection:
    """What a model computes, and where it may be cut.

    Args:
        model: An analysis, or what `analyse` takes.
        bindings: Numbers for symbolic dimensions.
        accounting: What a cut is charged.

    Raises:
        InputError: The accounting is not known, or as for `analyse`.
    """
    check_name("accounting", accounting, get_args(Accounting))
    return Inspection(analysis_from(model, bindings), accounting)


@dataclass(frozen=True)
class OperatorTotal:
    """All nodes of one operator."""

    op_type: str
    nodes: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Inspection(Tabled):
    """A model's work, its cuts, and which of them can be best.

    Attributes:
        analysis: The model's work and bytes.
        accounting: What a cut is charged.
    """

    analysis: Analysis
    accounting: Accounting = "live"

    @cached_property
    def cut_nbytes(self) -> NDArray[np.int64]:
        """Shape (n + 1,): bytes at each cut, `UNKNOWN` where they cannot be known."""
        return self.analysis.cut_nbytes(self.accounting)

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """Positions of the candidate cuts."""
        return staircase(self.cut_nbytes)

    @cached_property
    def envelope(self) -> tuple[int, ...]:
        """Positions of the least cuts of the whole graph, over all ratios of work to bytes.

        In the order `envelope` all of them are positions; in another, those that happen to be.
        """
        cuts = [cut for cut in envelope(self.analysis) if cut == set(range(len(cut)))]
        size = len(self.analysis.graph.nodes)
        return tuple(sorted({len(cut) for cut in cuts if len(cut) < size}))

    @property
    def unbound(self) -> tuple[str, ...]:
        """Symbolic dimensions that no number was given for."""
        types = self.analysis.types
        return free_dimensions(self.analysis.graph, types.bindings)

    @property
    def operators(self) -> tuple[OperatorTotal, ...]:
        """Totals of each operator, the most work first."""
        found: dict[str, list[int]] = {}
        for at, node in enumerate(self.analysis.graph.nodes):
            total = found.setdefault(
                f"{node.domain}::{node.op_type}" if node.domain else node.op_type, [0, 0, 0]
            )
            total[0] += 1
            total[1] += int(self.analysis.macs[at])
            total[2] += int(self.analysis.flops[at])
        rows = [OperatorTotal(name, *total) for name, total in found.items()]
        return tuple(sorted(rows, key=lambda row: (-row.flops, -row.nodes, row.op_type)))

    def crossing(self, position: int) -> tuple[str, ...]:
        """The values that cross at a position."""
        return crossing_values(self.analysis.graph, position, self.accounting)

    def records(self) -> list[dict[str, Any]]:
        """A row for each node, in the order that positions count in."""
        return list(self.to_dict()["nodes"])

    @collection.put_off()
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, with the keys that scripts rely on; unknown sizes are None."""
        analysis = self.analysis
        return {
            "model": str(analysis.graph.file.path),
            "nodes": [self._node(at) for at in range(len(analysis.graph.nodes))],
            "total": {
                "macs": int(analysis.macs.sum()),
                "flops": int(analysis.flops.sum()),
                "weight_nbytes": analysis.total_weight_nbytes,
            },
            "uncounted_ops": analysis.uncounted,
            "cuts": list(self._cuts()),
            "candidates": list(self.candidates),
            "envelope": list(self.envelope),
            "order": analysis.order,
            "cut_size": self.accounting,
            "states": [asdict(state) for state in analysis.graph.states],
            "bindings": dict(analysis.types.bindings),
            "assumed": dict(analysis.assumed),
            "unbound": list(self.unbound),
            "notes": list(analysis.notes),
        }

    def _node(self, at: int) -> dict[str, Any]:
        analysis = self.analysis
        node, work = analysis.graph.nodes[at], analysis.work[at]
        return {
            "name": node.name,
            "op_type": node.op_type,
            "domain": node.domain,
            "macs": work.macs if work else None,
            "flops": work.flops if work else None,
            "output_nbytes": analysis.output_nbytes(at),
            "weight_nbytes": analysis.weight_nbytes(at),
        }

    def _cuts(self) -> Iterator[dict[str, Any]]:
        candidates = set(self.candidates)
        below = self.analysis.flops_below.tolist()
        lives = live_values_of_all(self.analysis.graph)
        for position, (live, nbytes) in enumerate(zip(lives, self.cut_nbytes.tolist(), strict=True)):
            yield {
                "position": position,
                "nbytes": None if nbytes == UNKNOWN else nbytes,
                "values": list(live if self.accounting == "live" else self.crossing(position)),
                "flops_below": below[position],
                "candidate": position in candidates,
            }
