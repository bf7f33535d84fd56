"""What the measurements of segments and of parts share: a clock, a budget, and bare tiers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.runtime.sessions import Session
from dnnsplit_onnx.runtime.values import Value

MOST_RUNS, FEWEST_RUNS = 200, 7


@dataclass(frozen=True, slots=True)
class Budget:
    """How often to run something.

    Attributes:
        runs: Measured runs; None for as many as fit into `seconds`, 7 to 200.
        seconds: See above.
        warmup: Runs before these, not counted.
    """

    runs: int | None
    seconds: float
    warmup: int

    def is_spent(self, done: int, seconds: float) -> bool:
        """Whether so many runs in so many seconds are enough."""
        if self.runs is not None:
            return done >= self.runs
        return done >= MOST_RUNS or (done >= FEWEST_RUNS and seconds >= self.seconds)


def timed(
    session: Session, values: Mapping[str, Value], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one run, by a clock."""
    start = clock()
    session.run(values)
    return clock() - start


def clock_of(threads: int | None) -> Callable[[], float]:
    """The clock that others on the machine disturb least: for one thread, its processor time."""
    return time.thread_time if threads == 1 else time.perf_counter


def spread(taken: Sequence[float]) -> float:
    """Half the distance between the quartiles."""
    if len(taken) < 2:
        return 0.0
    low, _, high = statistics.quantiles(taken, n=4)
    return (high - low) / 2


def tiers_of(count: int) -> Topology:
    """Tiers to cut for; only their names, `segment0` and so on, matter."""
    return parse_topology(
        {
            "tier": [{"name": f"segment{at}", "gflops": 1.0} for at in range(count)],
            "link": [{"bandwidth_mbps": 1.0}] * (count - 1),
        },
        "segments",
    )
