"""Whether a machine ran at one speed while something was timed, or at two.

A virtual processor may be one of the two hardware threads of a core, whose other one serves somebody
else. While that is busy, everything here takes up to twice as long, for milliseconds or minutes, and no
clock of the guest tells (docs/testing.md has the experiments). A loop that touches no memory does: it
takes one of two times. A median over runs at both speeds says which had more runs and little else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# About 50 microseconds, as Python counts.
_LOOP = 3_000
# Two speeds are told apart where the loop differs by so much, and runs by as much as the second.
_LEAST_RATIO, _LEAST_EFFECT = 1.35, 1.1
# Each speed must have so many of at least so many runs.
_LEAST_SHARE, _LEAST_RUNS = 0.1, 20


def pace() -> float:
    """Seconds of a loop that touches no memory: how fast the processor is just now."""
    start = time.perf_counter()
    for _ in range(_LOOP):
        pass
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Speeds:
    """What something took at each of a machine's two speeds.

    Attributes:
        fast_s, slow_s: Median seconds of the runs at each.
        slow_share: The share of runs at the slower one.
    """

    fast_s: float
    slow_s: float
    slow_share: float

    @classmethod
    def of(cls, seconds: Sequence[float], paces: Sequence[float]) -> Speeds | None:
        """The speeds of some runs; None where they had but one.

        Args:
            seconds: Of each run.
            paces: What `pace` said just before each.
        """
        if len(paces) != len(seconds) or len(paces) < _LEAST_RUNS:
            return None
        beside, taken = np.asarray(paces), np.asarray(seconds)
        low, high = np.percentile(beside, [5, 95])
        is_slow = beside > np.sqrt(low * high)
        share = float(is_slow.mean())
        if not _LEAST_SHARE <= share <= 1 - _LEAST_SHARE:
            return None
        if np.median(beside[is_slow]) < _LEAST_RATIO * np.median(beside[~is_slow]):
            return None
        fast, slow = float(np.median(taken[~is_slow])), float(np.median(taken[is_slow]))
        return cls(fast, slow, share) if slow >= _LEAST_EFFECT * fast else None

    @property
    def mean_s(self) -> float:
        """Seconds of a run, at whichever speed it meets."""
        return (1 - self.slow_share) * self.fast_s + self.slow_share * self.slow_s


def typical(seconds: Sequence[float], paces: Sequence[float]) -> float:
    """What a run takes: the median, or at two speeds the mean of both medians by their shares.

    The median of two groups jumps from one to the other as their shares pass a half; this does not.
    """
    speeds = Speeds.of(seconds, paces)
    return statistics.median(seconds) if speeds is None else speeds.mean_s
