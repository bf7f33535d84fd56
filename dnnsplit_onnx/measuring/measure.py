"""Latencies, summed up, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Repeated timings of one thing.

    Attributes:
        p50_ms, p95_ms, p99_ms: Percentiles, interpolated; with few runs the high ones are
            the slowest run.
        mean_ms, min_ms: Of all runs.
        runs: How many there were, warm-up left out.
        throughput_per_s: Runs a second, one after another.
        spread_ms: The middle half of the runs lies within so much: their interquartile range.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    runs: int
    throughput_per_s: float
    spread_ms: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Sums up at least one timing."""
        ms = np.asarray(seconds, dtype=np.float64) * 1e3
        low, p50, high, p95, p99 = (float(p) for p in np.percentile(ms, [25, 50, 75, 95, 99]))
        mean = float(ms.mean())
        return cls(p50, p95, p99, mean, float(ms.min()), len(ms), 1e3 / mean if mean else 0.0, high - low)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def machine() -> dict[str, Any]:
    """What a figure needs beside it: processor, cores this process may use, versions."""
    from dnnsplit_onnx.runtime.provider import installed_runtimes

    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        **installed_runtimes(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Hardware", "cpu model"}:
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
