"""A number of requests through a chain, and what came of them."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass
from itertools import cycle, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.measuring.measure import Latency
from dnnsplit_onnx.running.origin import bindings_of
from dnnsplit_onnx.runtime.inputs import Inputs, check_inputs, generate, load_arrays
from dnnsplit_onnx.runtime.pictures import is_of_pictures, load_pictures
from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.edge.here import Here
from dnnsplit_onnx.serving.tier.cuts import format_cuts
from dnnsplit_onnx.serving.wire.errors import ServingError

#: Seconds that a request waited, computed, and was on the link above.
_Row = tuple[float, float, float]

_MOST_ERRORS = 10
_MOST_MESSAGES = 1000
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Report:
    """What came of some requests.

    Attributes:
        requests: How many there were.
        failed: How many got an error.
        errors: Different errors, the most frequent first, a few at most.
        outputs: What the last request that was answered got; None if none was.
        latency: Of the answered ones, the last 100,000 of them; None if there were none.
        throughput_per_s: Answers a second, all under way together.
        cuts: How many answers each cut gave.
        tiers: Median milliseconds of each tier: queue, compute, and the link above it.
        retried: How many answers took more than one attempt.
        source: Where the inputs came from.
    """

    requests: int
    failed: int
    errors: tuple[str, ...]
    outputs: dict[str, np.ndarray | None] | None
    latency: Latency | None
    throughput_per_s: float
    cuts: dict[str, int]
    tiers: tuple[dict[str, Any], ...]
    retried: int
    source: str

    def records(self) -> list[dict[str, Any]]:
        """A row for the chain, then one for each tier."""
        whole = {} if self.latency is None else self.latency.to_dict()
        chain = {"tier": "chain", **{key: v for key, v in whole.items() if not isinstance(v, list | dict)}}
        return [chain, *(dict(tier) for tier in self.tiers)]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data; the outputs by type and shape."""
        outputs = [
            {"name": name, "dtype": None, "shape": None}
            if not isinstance(array, np.ndarray)
            else {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in (self.outputs or {}).items()
        ]
        return {
            "requests": self.requests,
            "failed": self.failed,
            "errors": list(self.errors),
            "outputs": outputs,
            "latency": None if self.latency is None else self.latency.to_dict(),
            "throughput_per_s": self.throughput_per_s,
            "cuts": self.cuts,
            "tiers": list(self.tiers),
            "retried": self.retried,
            "source": self.source,
        }


def run_requests(
    edge: Edge | Here,
    inputs: Path | None,
    *,
    runs: int | None = 1,
    concurrency: int = 1,
    stop: threading.Event | None = None,
) -> Report:
    """Sends inputs through the chain: one set so many times, or pictures in turn.

    Args:
        edge: The client, or all slices in this process.
        inputs: An `.npz` file, which may hold what states are to begin with, or a picture, or a
            folder of them; made up if None.
        runs: How many requests, and no fewer than there are pictures; None for as many as there
            is time for, until `stop` is set.
        concurrency: How many are under way at a time.
        stop: No request begins once it is set.

    Raises:
        InputError: The inputs do not fit the model.
    """
    given = _inputs(edge, inputs)
    kept = {port.name for port in edge.routes.states}
    fresh = [{name: value for name, value in one.values.items() if name not in kept} for one in given]
    states = {name: value for name, value in given[0].values.items() if name in kept}
    endless = cycle(fresh) if runs is None else islice(cycle(fresh), max(runs, len(fresh)))
    asked = takewhile(lambda _: stop is None or not stop.is_set(), endless)
    tally = _Tally(given[0].source if len(given) == 1 else str(inputs))
    start = time.perf_counter()
    for result in edge.infer_all(asked, states=states, concurrency=concurrency):
        tally.add(result)
    return tally.report(time.perf_counter() - start)


def _inputs(edge: Edge | Here, path: Path | None) -> list[Inputs]:
    """What requests bring: pictures, the file's values, or made-up ones.

    Raises:
        InputError: The file does not fit the model, or nothing can be made up.
    """
    routes = edge.routes
    if path is None:
        ports = [*routes.manifest.fresh_inputs, *routes.staying]
        return [generate(ports, bindings_of(routes.manifest))]
    if is_of_pictures(path):
        return [Inputs(values, name) for values, name in load_pictures(path, routes.manifest.fresh_inputs)]
    arrays = load_arrays(path)
    brought = [port for port in routes.states if port.name in arrays]
    ports = [*routes.manifest.fresh_inputs, *brought]
    return [Inputs(check_inputs(arrays, ports, where=f"in {path}"), str(path))]


class _Tally:
    """What came of requests, counted as they end: of answers only the last is kept."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._requests = self._failed = self._retried = 0
        self._errors: Counter[str] = Counter()
        self._cuts: Counter[str] = Counter()
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._tiers: defaultdict[str, deque[_Row]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._outputs: dict[str, np.ndarray | None] | None = None

    def add(self, result: Answer | ServingError) -> None:
        """Counts one request."""
        self._requests += 1
        if isinstance(result, ServingError):
            self._failed += 1
            if result.message in self._errors or len(self._errors) < _MOST_MESSAGES:
                self._errors[result.message] += 1
            return
        self._outputs = result.outputs
        self._seconds.append(result.seconds)
        self._cuts[format_cuts(result.cuts)] += 1
        self._retried += result.attempts > 1
        for tier in result.tiers:
            wire_s = float("nan") if tier.hop is None else tier.hop.wire_s
            self._tiers[tier.tier].append((tier.queue_s, tier.compute_s, wire_s))

    def report(self, seconds: float) -> Report:
        """What came of all, which took so many seconds together."""
        return Report(
            requests=self._requests,
            failed=self._failed,
            errors=tuple(message for message, _ in self._errors.most_common(_MOST_ERRORS)),
            outputs=self._outputs,
            latency=Latency.of(list(self._seconds)) if self._seconds else None,
            throughput_per_s=(self._requests - self._failed) / seconds,
            cuts=dict(self._cuts),
            tiers=tuple(_tier(name, rows) for name, rows in self._tiers.items()),
            retried=self._retried,
            source=self._source,
        )


def _tier(name: str, rows: Collection[_Row]) -> dict[str, Any]:
    queue, compute, link = (np.array(column) * 1e3 for column in zip(*rows, strict=True))
    sent = link[~np.isnan(link)]
    return {
        "tier": name,
        "queue_ms": float(np.median(queue)),
        "compute_ms": float(np.median(compute)),
        "link_ms": float(np.median(sent)) if len(sent) else None,
        "requests": len(rows),
    }
