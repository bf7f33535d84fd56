"""Bandwidth and delay of a link, estimated from the requests that cross it.

A request over a link tells two things. The next tier says how long the body took to arrive
once its head had: bytes over seconds, free of delays, but only where the body is much
longer than what the network holds at once. And the time on the wire as a whole is the delay,
twice, and both bodies over the bandwidth.

Both estimates move by a share of what is new (an exponential average), so that a change of
the link shows within a few requests and a single slow one does not.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from dnnsplit_onnx.serving.wire.stream import LONGEST_HEAD
from dnnsplit_onnx.serving.wire.trace import Hop

# What a body must be longer than, and take longer than, to tell a bandwidth: shorter ones
# are swallowed by buffers on the way.
_TELLING_NBYTES = 48 << 10
_TELLING_S = 0.002
_WEIGHT = 0.5
_DELAY_WEIGHT = 0.3
#: A transfer that shows a bandwidth this far from the estimate is believed at once, and one that
#: is so many spreads from it.
_LEAP = 2.0
_LEAP_SPREADS = 4.0
_SPREAD_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class LinkState:
    """What a link is believed to do.

    Attributes:
        bandwidth_mbps: 10^6 bit/s away from tier 0; infinite while nothing is known.
        delay_ms: One-way delay.
        samples: How many transfers told a bandwidth.
        age_s: Since the last of them, infinite if there was none.
        spread: How far transfers are from the estimate, as a share of it.
    """

    bandwidth_mbps: float
    delay_ms: float
    samples: int
    age_s: float
    spread: float = 0.0


class Spread:
    """How far what is measured lies from what is believed, as a share of it: an exponential average."""

    def __init__(self) -> None:
        self.value = 0.0

    def is_leap(self, ratio: float) -> bool:
        """Whether something is so many times what was believed, beyond what it always wavers by."""
        return max(ratio, 1 / ratio) >= max(_LEAP, 1 + _LEAP_SPREADS * self.value)

    def learn(self, ratio: float) -> None:
        """Learns from a measurement that is so many times what was believed."""
        self.value += _SPREAD_WEIGHT * (min(abs(ratio - 1), 1.0) - self.value)


class LinkEstimate:
    """The estimate of one link; safe to use from several threads.

    Args:
        bandwidth_mbps: What to believe at first; infinite if nothing is known.
        delay_ms: What to believe at first.
    """

    def __init__(self, bandwidth_mbps: float, delay_ms: float) -> None:
        self._lock = threading.Lock()
        self._bandwidth, self._delay_s = bandwidth_mbps * 1e6, delay_ms / 1e3
        self._samples = 0
        self._spread = Spread()
        self._last = float("-inf")

    @property
    def state(self) -> LinkState:
        """The estimate as it is now."""
        with self._lock:
            age = time.monotonic() - self._last
            return LinkState(
                self._bandwidth / 1e6, self._delay_s * 1e3, self._samples, age, self._spread.value
            )

    def observe(self, hop: Hop, *, others: float = 0.0) -> None:
        """Learns from a request that crossed the link.

        Args:
            hop: Its way.
            others: How many other requests shared the link with it, on average.
        """
        if not hop.tiers:
            return  # a tier that is not ours does not tell its own time from the link's
        receive_s = hop.tiers[0].receive_s
        # The head's buffer took the body's first bytes before the clock was started.
        nbytes = hop.sent_nbytes - LONGEST_HEAD
        with self._lock:
            if nbytes >= _TELLING_NBYTES and receive_s >= _TELLING_S:
                self._learn_bandwidth((1 + others) * 8 * nbytes / receive_s)
            elif nbytes >= _TELLING_NBYTES and hop.wire_s > 0:
                # Too fast to be measured, and perhaps faster than was believed.
                believed = self._bandwidth if math.isfinite(self._bandwidth) else 0.0
                if 8 * nbytes / hop.wire_s > believed:
                    self._learn_bandwidth(8 * nbytes / hop.wire_s)
            on_wire = 8 * ((1 + others) * hop.sent_nbytes + hop.received_nbytes) / self._bandwidth
            delay_s = max(0.0, hop.wire_s - on_wire) / 2
            self._delay_s += _DELAY_WEIGHT * (delay_s - self._delay_s)

    def touch(self) -> None:
        """Notes that the link was looked at, whether or not that told anything."""
        with self._lock:
            self._last = time.monotonic()

    def slower_than(self, nbytes: int, seconds: float) -> None:
        """Learns from a transfer that is not finished: so many bytes take longer than that."""
        with self._lock:
            ceiling = 8 * nbytes / max(seconds, _TELLING_S)
            if nbytes >= _TELLING_NBYTES and ceiling < self._bandwidth:
                self._learn_bandwidth(ceiling)

    def _learn_bandwidth(self, sample: float) -> None:
        # Seconds a bit, which are what is paid.
        leap = self._samples == 0 or self._spread.is_leap(self._bandwidth / sample)
        if self._samples:
            self._spread.learn(self._bandwidth / sample)
        weight = 1.0 if leap else _WEIGHT
        self._bandwidth = 1 / ((1 - weight) / self._bandwidth + weight / sample)
        self._samples += 1
        self._last = time.monotonic()
