"""Which cuts a request should take, given how far up the chain it can go."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from dnnsplit_onnx.serving.edge.watching import LinkWatch
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.estimate import LinkState
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace

#: Has all tiers open the slices of some cuts ahead of the first request that uses them.
Prepare = Callable[[Cuts], None]

# Of links that nothing is known about: the first transfer that tells replaces it.
_UNKNOWN = (math.inf, 0.0)


class Chooser(Protocol):
    """Chooses cuts, and may learn from requests.

    Attributes:
        reason: Why the cuts are what they are, for the log.
    """

    reason: str

    @property
    def links(self) -> tuple[LinkState, ...]:
        """What each link is believed to do."""

    def choose(self, reach: int) -> Cuts | None:
        """The cuts to use now.

        Args:
            reach: How many links can be used, counted from tier 0.

        Returns:
            Cuts that there are slices for and that use no link beyond the reach; None if
            there are none.
        """

    def observe(self, cuts: Cuts, tiers: tuple[TierTrace, ...], hop: Hop | None) -> None:
        """Learns from a request that was answered.

        Args:
            cuts: The cuts that it used.
            tiers: Its times on each tier, from tier 0 up.
            hop: Its way over link 0, if it went there.
        """

    def under_way(self, nbytes: int) -> AbstractContextManager[None]:
        """Entered while a request with so many bytes is on its way over link 0."""

    def close(self) -> None:
        """Stops learning."""


class FixedCuts:
    """Always the same cuts, or what remains of them when links are down.

    Args:
        routes: The slices there are.
        cuts: The cuts; those of the plan by default.
    """

    def __init__(self, routes: Routes, cuts: Cuts | None = None) -> None:
        self.reason = "they are fixed, and change only while a link is down"
        self._routes = routes
        self._cuts = routes.cuts if cuts is None else cuts
        self._watch = LinkWatch([_UNKNOWN] * len(self._cuts))
        routes.route(self._cuts)

    @property
    def links(self) -> tuple[LinkState, ...]:
        """What each link is seen to do; nothing depends on it here."""
        return self._watch.states

    def choose(self, reach: int) -> Cuts | None:
        """The cuts, the work of unreachable tiers given to the highest that can be reached."""
        return clipped(self._routes, self._cuts, reach)

    def observe(self, cuts: Cuts, tiers: tuple[TierTrace, ...], hop: Hop | None) -> None:  # noqa: ARG002
        """Notes what the links did."""
        self._watch.observe(tiers, hop)

    def under_way(self, nbytes: int) -> AbstractContextManager[None]:
        """Notes who shares link 0."""
        return self._watch.under_way(nbytes)

    def close(self) -> None:
        """Has nothing to stop."""


def clipped(routes: Routes, cuts: Cuts, reach: int) -> Cuts | None:
    """Cuts changed as little as can be so that they use no link beyond the reach."""
    found = tuple(cut if link < reach else routes.size for link, cut in enumerate(cuts))
    if routes.has(found) and routes.route(found).links <= reach:
        return found
    # Perhaps the lower tiers have slices for another way: everything on one of them.
    for tier in reversed(range(reach + 1)):
        alone = tuple(0 if link < tier else routes.size for link in range(len(cuts)))
        if routes.has(alone):
            return alone
    return None
