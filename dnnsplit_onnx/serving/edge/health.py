"""How far up the chain requests can go: what is down, and when it is back.

A request that fails on a link says so here, and the circuit is open from then on: no
request tries that link. Meanwhile the tiers above are asked every so often whether they are
there, and the circuit closes as soon as they are. That is cheap, so one failure is enough to
open it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dnnsplit_onnx.serving.tier.remote import Remote

_log = logging.getLogger(__name__)


class Health:
    """The state of the links, as seen from tier 0.

    Args:
        remote: Tier 1; None if there is no way up.
        links: How many links there are.
        pause_s: Between two probes while something is down.
        on_change: Called with a link, whether it is up now, and the reason.
    """

    def __init__(
        self,
        remote: Remote | None,
        links: int,
        *,
        pause_s: float = 0.25,
        on_change: Callable[[int, bool, str], None] = lambda *_: None,
    ) -> None:
        self._remote, self._links, self._pause_s = remote, links, pause_s
        self._on_change = on_change
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._prober: threading.Thread | None = None
        self.reach = links if remote is not None else 0
        self.reason = "" if remote is not None else "no URL of the next tier was given"

    def down(self, link: int, reason: str) -> None:
        """Opens the circuit of a link."""
        with self._lock:
            if link >= self.reach:
                return
            self.reach, self.reason = link, reason
            if self._remote is not None and self._prober is None and not self._stop.is_set():
                self._prober = threading.Thread(target=self._probe, name="probe", daemon=True)
                self._prober.start()
        _log.warning("link %d is down: %s", link, reason)
        self._on_change(link, False, reason)

    def close(self) -> None:
        """Stops probing."""
        self._stop.set()
        prober = self._prober
        if prober is not None and prober is not threading.current_thread():
            prober.join()

    def _probe(self) -> None:
        assert self._remote is not None
        while not self._stop.wait(self._pause_s):
            found = 0
            for tier in self._remote.probe():
                if not tier["ready"]:
                    break
                found += 1
            if self._took_back(min(found, self._links)):
                return

    def _took_back(self, reach: int) -> bool:
        """Notes how far the tiers are there; whether all are, and probing is over."""
        with self._lock:
            before, self.reach = self.reach, reach
            whole = reach == self._links
            if whole:
                self._prober = None
                self.reason = ""
        if reach > before:
            _log.warning("link %d is back", before)
            self._on_change(before, True, "it answers again")
        return whole
