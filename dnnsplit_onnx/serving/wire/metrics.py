"""Counters, gauges and histograms, in the text form that Prometheus reads.

Only what a server of slices needs: a few families, each with at most one label.
"""

from __future__ import annotations

import os
import resource
import threading
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

#: Upper bounds of the buckets of every histogram, in seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A set of families of metrics; safe to use from several threads.

    Args:
        prefix: Of every name.
    """

    def __init__(self, prefix: str = "dnnsplit_") -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, dict[str, float]] = {}
        self._buckets: dict[str, dict[str, list[float]]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str, text: str) -> None:
        """Declares a counter; its name should end in `_total`."""
        self._help[name] = ("counter", text)
        self._counts[name] = {}

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Declares a gauge that is read when the metrics are."""
        self._help[name] = ("gauge", text)
        self._gauges[name] = read

    def histogram(self, name: str, text: str) -> None:
        """Declares a histogram of seconds."""
        self._help[name] = ("histogram", text)
        self._buckets[name] = {}

    def add(self, name: str, amount: float = 1, *, label: str = "") -> None:
        """Adds to a counter. `label` is written as Prometheus has it, `code="200"`."""
        with self._lock:
            series = self._counts[name]
            series[label] = series.get(label, 0) + amount

    def observe(self, name: str, seconds: float, *, label: str = "") -> None:
        """Adds an observation to a histogram."""
        with self._lock:
            series = self._buckets[name].setdefault(label, [0.0] * (len(BUCKETS) + 2))
            series[bisect_left(BUCKETS, seconds)] += 1
            series[-1] += seconds

    def value(self, name: str, label: str = "") -> float:
        """A counter's value."""
        with self._lock:
            return self._counts[name].get(label, 0)

    def total(self, name: str) -> tuple[int, float]:
        """How many observations a histogram has, and their sum in seconds."""
        with self._lock:
            rows = list(self._buckets[name].values())
            return int(sum(sum(row[:-1]) for row in rows)), float(sum(row[-1] for row in rows))

    def render(self) -> str:
        """All metrics as text."""
        lines: list[str] = []
        gauges = {name: read() for name, read in self._gauges.items()}
        with self._lock:
            for name, (kind, text) in self._help.items():
                full = self._prefix + name
                lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
                if kind == "gauge":
                    lines.append(f"{full} {gauges[name]:g}")
                elif kind == "counter":
                    lines += [
                        f"{full}{_braces(label)} {value:.17g}" for label, value in self._counts[name].items()
                    ]
                else:
                    for label, series in self._buckets[name].items():
                        lines += _histogram(full, label, series)
        return "\n".join(lines) + "\n"


def process_metrics() -> str:
    """What Prometheus' own clients tell of a process, by the same names; nothing where there is no /proc."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        figures = {
            ("process_cpu_seconds_total", "counter"): (int(fields[11]) + int(fields[12])) / tick,
            ("process_resident_memory_bytes", "gauge"): int(fields[21]) * page,
            ("process_virtual_memory_bytes", "gauge"): int(fields[20]),
            ("process_threads", "gauge"): int(fields[17]),
            ("process_open_fds", "gauge"): sum(1 for _ in Path("/proc/self/fd").iterdir()),
            ("process_max_fds", "gauge"): resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }
    except (OSError, ValueError, IndexError):
        return ""
    return "".join(f"# TYPE {name} {kind}\n{name} {value:.17g}\n" for (name, kind), value in figures.items())


def _histogram(name: str, label: str, series: list[float]) -> list[str]:
    lines, total = [], 0.0
    for bound, count in zip((*BUCKETS, float("inf")), series[:-1], strict=True):
        total += count
        edge = "+Inf" if bound == float("inf") else f"{bound:g}"
        within = _braces(label, f'le="{edge}"')
        lines.append(f"{name}_bucket{within} {total:g}")
    return [*lines, f"{name}_sum{_braces(label)} {series[-1]:.9g}", f"{name}_count{_braces(label)} {total:g}"]


def _braces(*labels: str) -> str:
    given = ",".join(label for label in labels if label)
    return f"{{{given}}}" if given else ""
