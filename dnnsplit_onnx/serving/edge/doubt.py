"""What was seen of a tier or a link, doubted the longer no request tells of it.

Requests tell only of what they use. What the last of them saw may have been a moment's trouble:
a run on slices that were just opened, a machine that was busy. If it were believed for ever,
the cuts would never return to a tier that they have left. So it fades to what the plan thought,
and cuts that would be best by that are tried. Where they find things as they were
remembered, that is believed again at once, and for twice as long as before: of a tier that is
slow for good ever fewer requests are lost.
"""

from __future__ import annotations

import math
import time

#: In so many seconds half of what was seen is forgotten; at first, and at most.
_HALF_S, _LONGEST_HALF_S = 5.0, 640.0
# A memory that has faded by less than this factor was hardly doubted.
_DOUBTED = 1.25


class Doubt:
    """How much a ratio of what was seen to what the plan thought is still believed."""

    def __init__(self) -> None:
        self._half_s = _HALF_S
        self._since: float | None = None

    @property
    def trust(self) -> float:
        """1 while requests tell of it, towards 0 the longer they do not."""
        if self._since is None:
            return 1.0
        # Not 0.5 to a power of its own: that overflows after a very long time.
        return math.exp(-math.log(2.0) * (time.monotonic() - self._since) / self._half_s)

    def untold(self) -> None:
        """Notes a request that tells nothing of it."""
        if self._since is None:
            self._since = time.monotonic()

    def told(self, seen: float, remembered: float) -> float:
        """Notes a request that tells of it.

        Args:
            seen: The ratio by this request.
            remembered: The ratio by those before, as it was when they ended.

        Returns:
            The ratio to go on from: as remembered, or as it had faded where that is nearer.
        """
        faded = math.exp(self.trust * math.log(remembered))
        self._since = None
        if _apart(faded, remembered) < math.log(_DOUBTED):
            return remembered
        if _apart(seen, remembered) <= _apart(seen, faded):
            self._half_s = min(2 * self._half_s, _LONGEST_HALF_S)
            return remembered
        self._half_s = _HALF_S
        return faded


def _apart(a: float, b: float) -> float:
    return abs(math.log(a / b))
