"""What a machine takes for some rows of a node: a part that goes with the rows, and a fixed one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MachineSeconds:
    """The seconds of one machine for a graph of n nodes.

    Attributes:
        by_rows: Shape (n,): seconds of each node for all rows; for some, as much less.
        fixed: Shape (n,): seconds on top, however few rows there are.
        run_s: Seconds of a run, whatever runs. Each region is a run, and so is what the first
            machine computes alone in between.
    """

    by_rows: Floats
    fixed: Floats
    run_s: float = 0.0

    @property
    def per_node(self) -> Floats:
        """Shape (n,): seconds of each node for all rows."""
        return self.by_rows + self.fixed
