"""What `inspect` tells of a model, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.graph.shapes import free_dimensions
from dnnsplit_onnx.work.analysis import Workload
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting, crossing_values, live_values_of_all, staircase
from dnnsplit_onnx.work.envelope import envelope


@dataclass(frozen=True)
class OperatorTotal:
    """All nodes of one operator."""

    op_type: str
    nodes: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Inspection:
    """A model's work, its cuts, and which of them can be best.

    Attributes:
        workload: The model's work and bytes.
        accounting: What a cut is charged.
    """

    workload: Workload
    accounting: Accounting = "live"

    @cached_property
    def cut_nbytes(self) -> NDArray[np.int64]:
        """Shape (n + 1,): bytes at each cut, `UNKNOWN` where they cannot be known."""
        return self.workload.cut_nbytes(self.accounting)

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """Positions of the candidate cuts."""
        return staircase(self.cut_nbytes)

    @cached_property
    def envelope(self) -> tuple[int, ...]:
        """Positions of the least cuts of the whole graph, over all ratios of work to bytes.

        In the order `envelope` all of them are positions; in another, those that happen to be.
        """
        cuts = [cut for cut in envelope(self.workload) if cut == set(range(len(cut)))]
        size = len(self.workload.graph.nodes)
        return tuple(sorted({len(cut) for cut in cuts if len(cut) < size}))

    @property
    def unbound(self) -> tuple[str, ...]:
        """Symbolic dimensions that no number was given for."""
        types = self.workload.types
        return free_dimensions(self.workload.graph, types.bindings)

    @property
    def operators(self) -> tuple[OperatorTotal, ...]:
        """Totals of each operator, the most work first."""
        found: dict[str, list[int]] = {}
        for at, node in enumerate(self.workload.graph.nodes):
            total = found.setdefault(
                f"{node.domain}::{node.op_type}" if node.domain else node.op_type, [0, 0, 0]
            )
            total[0] += 1
            total[1] += int(self.workload.macs[at])
            total[2] += int(self.workload.flops[at])
        rows = [OperatorTotal(name, *total) for name, total in found.items()]
        return tuple(sorted(rows, key=lambda row: (-row.flops, -row.nodes, row.op_type)))

    def crossing(self, position: int) -> tuple[str, ...]:
        """The values that cross at a position."""
        return crossing_values(self.workload.graph, position, self.accounting)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, with the keys that scripts rely on; unknown sizes are None."""
        workload = self.workload
        return {
            "model": str(workload.graph.file.path),
            "nodes": [self._node(at) for at in range(len(workload.graph.nodes))],
            "total": {
                "macs": int(workload.macs.sum()),
                "flops": int(workload.flops.sum()),
                "weight_nbytes": workload.total_weight_nbytes,
            },
            "uncounted_ops": workload.uncounted,
            "cuts": list(self._cuts()),
            "candidates": list(self.candidates),
            "envelope": list(self.envelope),
            "order": workload.order,
            "cut_size": self.accounting,
            "states": [asdict(state) for state in workload.graph.states],
            "bindings": dict(workload.types.bindings),
            "unbound": list(self.unbound),
        }

    def _node(self, at: int) -> dict[str, Any]:
        workload = self.workload
        node, work = workload.graph.nodes[at], workload.work[at]
        return {
            "name": node.name,
            "op_type": node.op_type,
            "domain": node.domain,
            "macs": work.macs if work else None,
            "flops": work.flops if work else None,
            "output_nbytes": workload.output_nbytes(at),
            "weight_nbytes": workload.weight_nbytes(at),
        }

    def _cuts(self) -> Iterator[dict[str, Any]]:
        candidates = set(self.candidates)
        for position, live in enumerate(live_values_of_all(self.workload.graph)):
            nbytes = int(self.cut_nbytes[position])
            yield {
                "position": position,
                "nbytes": None if nbytes == UNKNOWN else nbytes,
                "values": list(live if self.accounting == "live" else self.crossing(position)),
                "flops_below": int(self.workload.flops_below[position]),
                "candidate": position in candidates,
            }
