"""How far up the chain requests can go: what is down, and when it is back.

A link that fails under a request is down from then on, and no request tries it. Meanwhile the
tiers above are asked every so often whether they are there, and it is up as soon as they are.
That is cheap, so one failure is enough.

A request whose time was up says less: perhaps the link stands still, perhaps the caller was in
a hurry. So the tiers are asked at once, and their answer decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dnnsplit_onnx.serving.wire.errors import LinkError

_log = logging.getLogger(__name__)

#: Asks the tiers above, the next one first, whether they are ready.
Probe = Callable[[], Sequence[dict[str, Any]]]


class Health:
    """The state of the links above a tier; safe to use from several threads.

    Args:
        probe: Asks the tiers above; None if there is no way up.
        first: The link above this tier, counted from tier 0.
        links: How many links the chain has.
        pause_s: Between two probes while something is down.

    Attributes:
        reach: Links below this one can be used.
        reason: Why not all can; empty if they can.
        on_change: Called with a link, whether it is up now, and the reason.
    """

    def __init__(self, probe: Probe | None, first: int, links: int, *, pause_s: float = 0.25) -> None:
        self._ask, self._first, self._links, self._pause_s = probe, first, links, pause_s
        self.on_change: Callable[[int, bool, str], None] = lambda *_: None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told: set[int] = set()  # links that were said to be down
        self._asked_at = float("-inf")
        self._prober: threading.Thread | None = None
        self.reach = links if probe is not None else first
        self.reason = "" if probe is not None else "no URL of the next tier was given"

    def check(self, links: int) -> None:
        """Refuses at once what would need a link that is down.

        Args:
            links: How many links, counted from tier 0, a request needs.

        Raises:
            LinkError: One of them is down.
        """
        if links > self.reach:
            raise LinkError(self.reason or "a link is down", link=self.reach)

    def down(self, link: int, reason: str) -> None:
        """Notes a link that failed."""
        with self._lock:
            if link >= self.reach:
                return
            self.reach, self.reason = link, reason
            self._begin(self._pause_s)
        self._tell(link, reason)

    def doubt(self) -> None:
        """Has the tiers above asked, since a request's time was up on its way."""
        with self._lock:
            self._begin(0.0)

    def look(self, age_s: float) -> None:
        """Has them asked if that was longer ago: for whoever shows how they are."""
        with self._lock:
            if time.monotonic() - self._asked_at >= age_s:
                self._asked_at = time.monotonic()
                self._begin(0.0)

    def close(self) -> None:
        """Stops asking."""
        self._stop.set()
        prober = self._prober
        if prober is not None and prober is not threading.current_thread():
            prober.join()

    def _begin(self, pause_s: float) -> None:
        if self._ask is not None and self._prober is None and not self._stop.is_set():
            prober = threading.Thread(target=self._probe, args=(pause_s,), name="probe", daemon=True)
            try:
                prober.start()
            except RuntimeError as error:  # there are too many threads: the next failure tries again
                _log.error("cannot ask whether the tiers above are there: %s", error)
            else:
                self._prober = prober

    def _probe(self, pause_s: float) -> None:
        assert self._ask is not None
        while not self._stop.wait(pause_s):
            tiers = self._ask()
            found = next((at for at, tier in enumerate(tiers) if not tier["ready"]), len(tiers))
            why = str(tiers[found].get("error", "it is not ready")) if found < len(tiers) else ""
            if self._learn(min(self._first + found, self._links), why):
                return
            pause_s = self._pause_s

    def _learn(self, reach: int, why: str) -> bool:
        """Notes how far the tiers are there; whether all are, and asking is over."""
        with self._lock:
            before, self.reach = self.reach, reach
            whole = reach == self._links
            if whole:
                self._prober = None
                self.reason = ""
            elif reach < before or not self.reason:
                self.reason = why
        if reach < before:
            self._tell(reach, why)
        for link in [link for link in range(before, reach) if link in self._told]:
            self._told.discard(link)
            _log.warning("link %d is back", link)
            self.on_change(link, True, "it answers again")
        return whole

    def _tell(self, link: int, reason: str) -> None:
        self._told.add(link)
        _log.warning("link %d is down: %s", link, reason)
        self.on_change(link, False, reason)
