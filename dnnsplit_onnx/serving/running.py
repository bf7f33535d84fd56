"""A number of requests through a chain, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.runtime.inputs import input_sets
from dnnsplit_onnx.runtime.measure import Latency
from dnnsplit_onnx.runtime.origin import bindings_of
from dnnsplit_onnx.serving.edge import Answer, Edge
from dnnsplit_onnx.serving.errors import ServingError
from dnnsplit_onnx.serving.routes import format_cuts

_MOST_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What came of some requests.

    Attributes:
        requests: How many there were.
        failed: How many got an error.
        errors: Different errors, the most frequent first, a few at most.
        outputs: What the last request that was answered got; None if none was.
        latency: Of the answered ones; None if there were none.
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

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data; the outputs by type and shape."""
        outputs = [
            {"name": name, "dtype": None, "shape": None}
            if array is None
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


def run_requests(edge: Edge, inputs: Path | None, *, runs: int = 1, concurrency: int = 1) -> Report:
    """Sends one set of inputs through the chain so many times.

    Args:
        edge: The client.
        inputs: An `.npz` file; made up if None.
        runs: How many requests.
        concurrency: How many are under way at a time.

    Raises:
        InputError: The inputs do not fit the model.
    """
    manifest = edge.routes.manifest
    given = input_sets(manifest.model.inputs, inputs, bindings_of(manifest), seed=0, runs=1)[0]
    start = time.perf_counter()
    results = list(edge.infer_all(repeat(given.values, runs), concurrency=concurrency))
    seconds = time.perf_counter() - start
    answers = [result for result in results if isinstance(result, Answer)]
    errors = Counter(result.message for result in results if isinstance(result, ServingError))
    return Report(
        requests=len(results),
        failed=len(results) - len(answers),
        errors=tuple(message for message, _ in errors.most_common(_MOST_ERRORS)),
        outputs=answers[-1].outputs if answers else None,
        latency=Latency.of([answer.seconds for answer in answers]) if answers else None,
        throughput_per_s=len(answers) / seconds,
        cuts=dict(Counter(format_cuts(answer.cuts) for answer in answers)),
        tiers=_tiers(answers),
        retried=sum(answer.attempts > 1 for answer in answers),
        source=given.source,
    )


def _tiers(answers: list[Answer]) -> tuple[dict[str, Any], ...]:
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for answer in answers:
        for tier in answer.tiers:
            wire = float("nan") if tier.hop is None else tier.hop.wire_s
            rows.setdefault(tier.tier, []).append((tier.queue_s, tier.compute_s, wire))
    found = []
    for name, times in rows.items():
        queue, compute, link = (np.array(column) * 1e3 for column in zip(*times, strict=True))
        sent = link[~np.isnan(link)]
        found.append(
            {
                "tier": name,
                "queue_ms": float(np.median(queue)),
                "compute_ms": float(np.median(compute)),
                "link_ms": float(np.median(sent)) if len(sent) else None,
                "requests": len(times),
            }
        )
    return tuple(found)
