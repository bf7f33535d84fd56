"""What a client's requests did lately: counts, times, and the changes of cuts and links.

Everything is bounded, however long the client lives; a page or a program may read it at any
time while requests go on.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnsplit_onnx.serving.wire.trace import TierTrace

_REQUESTS = 240
_PER_TIER = 100
_EVENTS = 50
_RATE_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        at_s: Seconds since the history began.
        kind: `cuts`, `link` or `error`.
        text: What happened, one line.
        reason: Why, one line; empty if nobody knows.
    """

    at_s: float
    kind: str
    text: str
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-ready data."""
        return {"at_s": round(self.at_s, 3), "kind": self.kind, "text": self.text, "reason": self.reason}


class History:
    """The last requests of a client; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._counts = {"answered": 0, "failed": 0, "under_way": 0, "retried": 0, "switches": 0}
        self._requests: deque[tuple[float, float, str]] = deque(maxlen=_REQUESTS)
        self._tiers: defaultdict[str, deque[TierTrace]] = defaultdict(lambda: deque(maxlen=_PER_TIER))
        self._events: deque[Event] = deque(maxlen=_EVENTS)

    def began(self) -> None:
        """Notes that a request is under way."""
        with self._lock:
            self._counts["under_way"] += 1

    def answered(self, seconds: float, tiers: Iterable[TierTrace], *, attempts: int, cuts: str = "") -> None:
        """Notes an answer.

        Args:
            seconds: From the request to its answer.
            tiers: Its times on each tier.
            attempts: How many ways were tried.
            cuts: The cuts that gave it, in words.
        """
        with self._lock:
            self._counts["under_way"] -= 1
            self._counts["answered"] += 1
            self._counts["retried"] += attempts > 1
            self._requests.append((time.monotonic() - self._start, seconds, cuts))
            for tier in tiers:
                self._tiers[tier.tier].append(tier)

    def failed(self, message: str) -> None:
        """Notes a request that got an error."""
        with self._lock:
            self._counts["under_way"] -= 1
            self._counts["failed"] += 1
            self._note("error", message)

    def switched(self, before: str, after: str, reason: str) -> None:
        """Notes other cuts."""
        with self._lock:
            self._counts["switches"] += 1
            self._note("cuts", f"{before or 'none'} \N{RIGHTWARDS ARROW} {after or 'none'}", reason)

    def link_changed(self, text: str, reason: str) -> None:
        """Notes a link that went down or came back."""
        with self._lock:
            self._note("link", text, reason)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data; times of tiers are medians of the last requests."""
        with self._lock:
            now = time.monotonic() - self._start
            requests, events = list(self._requests), list(self._events)
            counts = dict(self._counts)
            tiers = {name: list(traces) for name, traces in self._tiers.items()}
        latency = [1e3 * seconds for _, seconds, _ in requests]
        p50, p95 = np.percentile(latency, (50, 95)).tolist() if latency else (None, None)
        return {
            "uptime_s": round(now, 3),
            "counts": counts,
            "per_s": _rate([at for at, *_ in requests], now),
            "latency_ms": {"p50": p50, "p95": p95, "requests": len(requests)},
            "recent": [[round(at, 3), round(1e3 * seconds, 3), cuts] for at, seconds, cuts in requests],
            "tiers": {name: _medians(traces) for name, traces in tiers.items()},
            "events": [event.to_dict() for event in reversed(events)],
        }

    def _note(self, kind: str, text: str, reason: str = "") -> None:
        self._events.append(Event(time.monotonic() - self._start, kind, text, reason))


def _rate(times: list[float], now: float) -> float:
    """Answers a second over the last seconds."""
    since = max(now - _RATE_S, 0.0)
    recent = [at for at in times if at >= since]
    if not recent:
        return 0.0
    if len(recent) == _REQUESTS:  # there were more, and they are forgotten
        since = recent[0]
    return len(recent) / max(now - since, 1e-3)


def _medians(traces: list[TierTrace]) -> dict[str, float | int | None]:
    hops = [trace.hop for trace in traces if trace.hop is not None]

    def median(values: list[float]) -> float | None:
        return round(float(np.median(values)), 4) if values else None

    return {
        "requests": len(traces),
        "queue_ms": median([1e3 * trace.queue_s for trace in traces]),
        "compute_ms": median([1e3 * trace.compute_s for trace in traces]),
        "link_ms": median([1e3 * hop.wire_s for hop in hops]),
        "sent_nbytes": median([hop.sent_nbytes for hop in hops]),
        "received_nbytes": median([hop.received_nbytes for hop in hops]),
    }
