"""Where a request's time went, tier by tier, as it travels back with the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class TierTrace:
    """A request on one tier; all times in seconds.

    Attributes:
        tier: The tier's name.
        queue_s: Waiting to compute.
        compute_s: Computing.
        total_s: From the head of the request to its answer, tiers above included.
        receive_s: Receiving the request's body.
        received_nbytes: Bytes of that body.
        hop: The way to the next tier, if it went on.
        unpack_s: Unpacking that body's tensors, after it was received.
    """

    tier: str
    queue_s: float
    compute_s: float
    total_s: float
    receive_s: float = 0.0
    received_nbytes: int = 0
    hop: Hop | None = None
    unpack_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The trace as JSON-ready data, in milliseconds to keep it short."""
        data: dict[str, Any] = {
            "tier": self.tier,
            "received_nbytes": self.received_nbytes,
            "queue_ms": round(self.queue_s * 1e3, 4),
            "compute_ms": round(self.compute_s * 1e3, 4),
            "total_ms": round(self.total_s * 1e3, 4),
            "receive_ms": round(self.receive_s * 1e3, 4),
        }
        if self.unpack_s:
            data["unpack_ms"] = round(self.unpack_s * 1e3, 4)
        if self.hop is not None:
            data["hop"] = [self.hop.total_s, self.hop.sent_nbytes, self.hop.received_nbytes]
        return data


# No request takes so long, or has so many bytes; and their sums stay finite.
_MOST = 1e15
_LONGEST = 256
_TIMES = ("queue_ms", "compute_ms", "total_ms", "receive_ms")


@dataclass(slots=True)
class Hop:
    """One request over one link.

    Attributes:
        total_s: From the first byte sent to the last received.
        sent_nbytes, received_nbytes: Bytes of the bodies, up and down.
        tiers: What the tiers above say, the next one first; empty if they do not.
        saved_nbytes: What packing took off the body that was sent.
        pack_s: Seconds of packing it, before the first byte was sent.
    """

    total_s: float
    sent_nbytes: int
    received_nbytes: int
    tiers: tuple[TierTrace, ...] = field(default=())
    saved_nbytes: int = 0
    pack_s: float = 0.0

    @property
    def wire_s(self) -> float:
        """Time on the link alone, both ways: what the next tier does not account for.

        Its own time starts when the head of the request has arrived, so that it overlaps
        with the body's transfer, which is given back here.
        """
        if not self.tiers:
            return self.total_s
        above = self.tiers[0]
        return max(0.0, self.total_s - above.total_s + above.receive_s)


def read_trace(text: object) -> tuple[TierTrace, ...]:
    """The traces of an answer's parameter; none if it is not in order, since nothing depends on it."""
    if not isinstance(text, str):
        return ()
    try:
        traces = tuple(_read(entry) for entry in json.loads(text))
    except (ValueError, OverflowError, RecursionError, KeyError, TypeError, AttributeError):
        return ()
    for at, trace in enumerate(traces):
        if trace.hop is not None:
            trace.hop.tiers = traces[at + 1 :]
    return traces


def _read(entry: Mapping[str, Any]) -> TierTrace:
    queue, compute, total, receive = (_within(entry[key]) / 1e3 for key in _TIMES)
    trace = TierTrace(str(entry["tier"])[:_LONGEST], queue, compute, total)
    trace.receive_s, trace.received_nbytes = receive, int(_within(entry["received_nbytes"]))
    trace.unpack_s = _within(entry.get("unpack_ms", 0)) / 1e3
    if "hop" in entry:
        total, sent, received = map(_within, entry["hop"])
        trace.hop = Hop(total, int(sent), int(received))
    return trace


def _within(value: Any) -> float:
    """A time or a number of bytes that can be one.

    Raises:
        ValueError: It cannot.
    """
    number = float(value)
    if not 0 <= number < _MOST:
        raise ValueError("a figure is none")
    return number
