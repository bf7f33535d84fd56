"""What the links of a chain are seen to do, request by request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from dnnsplit_onnx.serving.tier.sharing import Sharing
from dnnsplit_onnx.serving.wire.estimate import LinkEstimate, LinkState
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace


class LinkWatch:
    """The estimates of all links; safe to use from several threads.

    Args:
        beliefs: Bandwidth in 10^6 bit/s and one-way delay in ms to believe of each at first.

    Attributes:
        links: One estimate a link, from tier 0 up.
        sharing: Who uses link 0 at the same time.
    """

    def __init__(self, beliefs: Sequence[tuple[float, float]]) -> None:
        self.links = [LinkEstimate(mbps, delay_ms) for mbps, delay_ms in beliefs]
        self.sharing = Sharing()

    @property
    def states(self) -> tuple[LinkState, ...]:
        """What each link is believed to do now."""
        return tuple(link.state for link in self.links)

    def observe(self, tiers: tuple[TierTrace, ...], hop: Hop | None) -> None:
        """Learns from a request that was answered.

        Args:
            tiers: Its times on each tier, from tier 0 up.
            hop: Its way over link 0, if it went there.
        """
        if hop is not None:
            busy_s = hop.tiers[0].receive_s if hop.tiers else hop.total_s
            self.links[0].observe(hop, others=self.sharing.others(busy_s))
        for link, tier in enumerate(tiers[1:], start=1):
            if tier.hop is not None and link < len(self.links):
                self.links[link].observe(tier.hop)

    def under_way(self, nbytes: int) -> AbstractContextManager[None]:
        """Entered while a request with so many bytes is on its way over link 0."""
        return self.sharing.transfer(nbytes)
