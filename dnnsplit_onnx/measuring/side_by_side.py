"""How long the tiles of a stage take, timed one after the other on this machine.

Machines that share rows compute a region at the same time, so a region takes as long as its
slowest tile; cutting rows out and putting results together is the first machine's, and comes on
top. What the LAN takes is in neither: nothing is sent here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.measuring.measure import Latency
from dnnsplit_onnx.running.slices import open_slice
from dnnsplit_onnx.running.tiles import Arrays, run_tiles
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions
from dnnsplit_onnx.runtime.values import Value, to_python
from dnnsplit_onnx.slicing.manifest import SliceRecord, TileRecord


@dataclass(frozen=True, slots=True)
class TileMeasured:
    """The timings of one tile.

    Attributes:
        tier: The tier whose stage it is of.
        machine: The machine that it is for.
        start, stop: The nodes of its region.
        rows: The rows that it makes; None where the machine computes the region alone.
        latency: The timings.
    """

    tier: str
    machine: str
    start: int
    stop: int
    rows: tuple[int, int] | None
    latency: Latency

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        data = asdict(self)
        return {**data, **data.pop("latency"), "rows": None if self.rows is None else list(self.rows)}


@dataclass(frozen=True, slots=True)
class StageMeasured:
    """The timings of a stage whose machines compute side by side, without their LAN.

    Attributes:
        tier: The tier.
        latency: Of each run: the slowest tile of each region, and `assembly`.
        assembly: Of cutting rows out, and of putting results together.
        tiles: Each tile by itself.
    """

    tier: str
    latency: Latency
    assembly: Latency
    tiles: tuple[TileMeasured, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data, the tiles left out."""
        return {
            "tier": self.tier,
            **self.latency.to_dict(),
            "assembly_p50_ms": self.assembly.p50_ms,
            "assembly_p95_ms": self.assembly.p95_ms,
        }


class SideBySide:
    """The opened tiles of one slice."""

    def __init__(self, record: SliceRecord, sessions: Mapping[str, Session]) -> None:
        self._record, self._sessions = record, sessions
        self._taken: dict[str, list[float]] = {}
        self._slowest: list[float] = []
        self._assembly: list[float] = []

    @classmethod
    def open(cls, folder: Path, record: SliceRecord, options: SessionOptions) -> SideBySide:
        """Opens the tiles of a slice that has some.

        Raises:
            ManifestError: A file is missing or was changed.
            ModelError: onnxruntime cannot load one.
        """
        return cls(
            record, {tile.file: open_slice(folder, record.of_tile(tile), options) for tile in record.tiles}
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """The values that the slice reads."""
        return tuple(port.name for port in self._record.inputs)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those of the tiles."""
        return tuple(self._sessions.values())

    def forget(self) -> None:
        """Drops what was timed so far."""
        self._taken.clear()
        self._slowest.clear()
        self._assembly.clear()

    def once(self, values: Mapping[str, Value]) -> None:
        """Runs the stage in tiles.

        Args:
            values: What the slice reads.
        """
        ort = runtime()
        whole = {name: to_python(ort, values[name]) for name in self.reads}
        start = time.perf_counter()
        computed, slowest = 0.0, 0.0

        def compute(region: Sequence[TileRecord], inputs: Sequence[Arrays]) -> list[Arrays]:
            nonlocal computed, slowest
            made, taken = [], []
            for tile, given in zip(region, inputs, strict=True):
                begun = time.perf_counter()
                made.append(self._run(tile, given))
                taken.append(time.perf_counter() - begun)
                self._taken.setdefault(tile.file, []).append(taken[-1])
            computed += sum(taken)
            slowest += max(taken)
            return made

        run_tiles(self._record, whole, compute)
        self._assembly.append(time.perf_counter() - start - computed)
        self._slowest.append(slowest + self._assembly[-1])

    def _run(self, tile: TileRecord, given: Arrays) -> Arrays:
        ort = runtime()
        results = self._sessions[tile.file].run(to_values(tile.inputs, given))
        made: dict[str, np.ndarray | None] = {name: to_python(ort, value) for name, value in results.items()}
        return made

    def measured(self) -> StageMeasured:
        """What was timed."""
        tier = self._record.tier
        return StageMeasured(
            tier,
            Latency.of(self._slowest),
            Latency.of(self._assembly),
            tuple(
                TileMeasured(
                    tier, tile.machine, tile.start, tile.stop, tile.rows, Latency.of(self._taken[tile.file])
                )
                for tile in self._record.tiles
            ),
        )
