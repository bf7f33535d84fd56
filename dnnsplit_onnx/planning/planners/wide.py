"""Sums of floats kept in twice the precision, so that comparing them is exact.

`objective.evaluate` rounds each figure once, correctly. A planner that added in plain
floats could prefer a plan that is worse in the last digit, and then call a limit met or
unmet wrongly. Here a sum is a pair (hi, lo) with hi = fl(hi + lo): about 106 bits. Its
pair is unique, so pairs compare lexicographically, and two sums compare as their true
values do as long as the terms lie within 2^53 of each other in magnitude.

The additions are those of Dekker (1971) and Knuth (TAOCP 2, 4.2.2, theorem B).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Wide(NamedTuple):
    """An array of sums, each `hi + lo`."""

    hi: Floats
    lo: Floats

    @classmethod
    def zeros(cls, count: int) -> Wide:
        """Sums without terms."""
        return cls(np.zeros(count), np.zeros(count))

    def plus(self, term: Floats) -> Wide:
        """The sums with one more term each."""
        hi = self.hi + term
        other = hi - self.hi
        error = (self.hi - (hi - other)) + (term - other)  # hi + error = self.hi + term, exactly
        lo = error + self.lo
        top = hi + lo
        return Wide(top, lo - (top - hi))

    def take(self, index: NDArray[np.intp]) -> Wide:
        """The sums at some places."""
        return Wide(self.hi[index], self.lo[index])

    def join(self, other: Wide) -> Wide:
        """These sums, then the others."""
        return Wide(np.concatenate((self.hi, other.hi)), np.concatenate((self.lo, other.lo)))

    def order(self) -> NDArray[np.intp]:
        """The places in ascending order of their sums; ties keep their places' order."""
        return np.lexsort((self.lo, self.hi))

    def ranks(self) -> NDArray[np.intp]:
        """Whole numbers that compare as the sums do; equal sums have equal ranks."""
        order = self.order()
        hi, lo = self.hi[order], self.lo[order]
        ranks = np.empty(len(hi), dtype=np.intp)
        ranks[order[:1]] = 0
        ranks[order[1:]] = np.cumsum((hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]))
        return ranks
