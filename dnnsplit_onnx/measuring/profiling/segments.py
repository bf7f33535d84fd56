"""A model timed segment by segment, fully optimised, on this machine.

Timing each layer by itself misses what the whole takes: fusion and layout changes cross
layers, and a run of one small layer is mostly the fixed cost of a run. So the model is cut
at the few positions where a plan would ever cut it, and the segments between run one after
the other, as slices do, with all graph optimisations on. Segments and whole take turns, so
that a machine that slows down slows both.

The fixed cost of a run is measured on a model that does nothing and is taken off each
segment. What is left still adds up to more than the whole: every cut keeps operators from being
fused over it, and makes the runtime convert layouts twice. A plan has one or two cuts and not
all of them, so the segments are scaled to add up to the whole; what a single cut takes is
measured by itself (see `parts`). Between candidates, segments end where blocks do (see `blocks`), so that
plans that cut there are not interpolated.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.machines.profiles import SCHEMA_VERSION, Parts, Profile, Segment, TwoSpeeds
from dnnsplit_onnx.measuring.measure import machine
from dnnsplit_onnx.measuring.profiling.blocks import with_blocks
from dnnsplit_onnx.measuring.profiling.parts import measure_parts
from dnnsplit_onnx.measuring.profiling.timing import MOST_RUNS, Budget, spread, tiers_of, timed
from dnnsplit_onnx.measuring.speeds import Speeds, pace, typical
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.inputs import input_sets, to_values
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.work.analysing import Source, analysis_from
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import check_states, staircase

#: Called with runs done, runs in all (an estimate), and what is being done.
Progress = Callable[[int, int, str], None]

# Half for the segments, half for the parts of all cuts.
_SECONDS = 20.0


def measure_segments(
    model: Source,
    tier: str,
    *,
    options: SessionOptions | None = None,
    positions: Sequence[int] | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    runs: int | None = None,
    warmup: int = 5,
    progress: Progress | None = None,
) -> Profile:
    """Times the segments of a model between cuts, the parts of each cut, and the whole.

    Args:
        model: An analysis, or what `analyse` takes, its symbolic dimensions bound.
        tier: The tier that this machine is.
        options: Provider and threads.
        positions: The cuts; by default the candidates, and ends of blocks between them, whose
            parts are not timed.
        inputs: Arrays by name, or an `.npz` file; random by default.
        runs: Measured runs of everything; by default as many as fit into ten seconds for the
            segments and ten for the parts, 7 to 200.
        warmup: Runs before these, not counted.
        progress: Called as runs are done.

    Raises:
        InputError: The model has no nodes, or a position is not one of its own.
        ModelError: A segment cannot be loaded or fails.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    analysis, options = analysis_from(model), options or SessionOptions()
    parted = segment_cuts(analysis, positions)
    cuts = parted if positions is not None else with_blocks(analysis, parted)
    graph = analysis.graph
    with tempfile.TemporaryDirectory(prefix="dnnsplit-profile-") as scratch:
        folder = Path(scratch) / "segments"
        made = plan(analysis, tiers_of(len(cuts) + 1), cuts=cuts, pareto=False)
        manifest = slice_model(graph, made, folder)
        chain = Chain.open(folder, lambda _: options, manifest=manifest, check=False)
        whole = open_session(graph.file.path, options, label="the whole model")
        empty = open_session(empty_model(Path(scratch)), options)
        given = input_sets(manifest.model.inputs, inputs, dict(analysis.types.bindings), seed=0, runs=1)[0]
        values = to_values(manifest.model.inputs, given.values)
        clock = _Timer(chain, whole, empty, values)
        ticker = _Ticker(progress, runs, 1 + len(parted))
        clock.run(Budget(runs, _SECONDS / 2, max(warmup, 0)), ticker.tick)
        del chain, clock.chain  # the parts need the memory
        budget = Budget(runs, _SECONDS / 2 / max(len(parted), 1), max(warmup, 0))
        whole_s = typical(clock.whole_times, clock.paces)
        parts = measure_parts(analysis, parted, whole, whole_s, values, options, budget, ticker.tick)
    return _profile(analysis, tier, options, cuts, clock, parts)


def segment_cuts(analysis: Analysis, positions: Sequence[int] | None = None) -> list[int]:
    """The inner positions that separate the segments: the candidates, or those given.

    Raises:
        InputError: The model has no nodes, or a position is not one of its own.
        CutError: A position parts a state.
        ShapeError: A dimension of an input is not bound.
    """
    size = len(analysis.graph.nodes)
    if size == 0:
        raise InputError("the model has no nodes to measure", hint="everything in it is constant")
    for value in analysis.graph.inputs:
        analysis.types.need_nbytes(value)  # times hold for one size of the inputs
    chosen = staircase(analysis.cut_nbytes()) if positions is None else positions
    for position in chosen:
        if not 0 <= position <= size:
            raise InputError(f"position {position} is not one of 0 to {size}")
    check_states(analysis.graph, chosen)
    return sorted({at for at in chosen if 0 < at < size})


class _Ticker:
    """Counts runs; how many there will be is an estimate."""

    def __init__(self, progress: Progress | None, runs: int | None, turns: int) -> None:
        self._progress, self._done = progress, 0
        self._total = (runs or MOST_RUNS) * turns

    def tick(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total, "measuring")


class _Timer:
    """Runs segments, whole and nothing in turns, and keeps what each took."""

    def __init__(self, chain: Chain, whole: Session, empty: Session, values: Mapping[str, Value]) -> None:
        self.chain = chain
        self._whole, self._empty, self._values = whole, empty, values
        self._nothing = nothing()
        self.stages: dict[str, list[float]] = {tier: [] for tier, _ in chain.stages}
        self.whole_times: list[float] = []
        self.empty_times: list[float] = []
        self.paces: list[float] = []

    def run(self, budget: Budget, on_run: Callable[[], None]) -> None:
        for _ in range(budget.warmup):
            self._once()
        for taken in (*self.stages.values(), self.whole_times, self.empty_times, self.paces):
            taken.clear()
        start = time.perf_counter()
        while not budget.is_spent(len(self.whole_times), time.perf_counter() - start):
            self._once()
            on_run()

    def _once(self) -> None:
        self.paces.append(pace())
        self.chain.run_values(self._values, on_stage=lambda tier, s: self.stages[tier].append(s))
        self.whole_times.append(timed(self._whole, self._values))
        self.empty_times.append(timed(self._empty, self._nothing))


def nothing() -> dict[str, Value]:
    """The input of the model that does nothing."""
    return to_values([Port(name="x", dtype="float", shape=(1,))], {"x": np.zeros(1, np.float32)})


def empty_model(folder: Path) -> Path:
    """A model that does nothing, in a form that any onnxruntime of the last years reads."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    path = folder / "empty.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _profile(
    analysis: Analysis,
    tier: str,
    options: SessionOptions,
    cuts: list[int],
    timer: _Timer,
    parts: tuple[Parts, ...],
) -> Profile:
    graph = analysis.graph
    overhead, whole = (typical(taken, timer.paces) for taken in (timer.empty_times, timer.whole_times))
    overhead = min(overhead, whole)  # noise may say that nothing takes longer than the model
    segments = _segments([0, *cuts, len(graph.nodes)], timer.stages, timer.paces, overhead, whole)
    speeds = Speeds.of(timer.whole_times, timer.paces)
    about = machine()
    versions = {
        key: str(about.pop(key)) for key in list(about) if key.startswith(("onnxruntime", "numpy", "python"))
    }
    return Profile(
        schema_version=SCHEMA_VERSION,
        producer=f"dnnsplit-onnx {__version__}",
        tier=tier,
        provider=options.provider,
        threads=options.threads or 0,
        model=graph.file.path.name,
        model_sha256=graph.file.sha256(),
        order=analysis.order,
        nodes=len(graph.nodes),
        bindings=dict(analysis.types.bindings),
        assumed=dict(analysis.assumed),
        segments=segments,
        overhead_s=overhead,
        whole_s=whole,
        speeds=None if speeds is None else TwoSpeeds.model_validate(asdict(speeds)),
        machine=about,
        versions=versions,
        parts=parts,
        node_order=tuple(node.index for node in graph.nodes),
    )


def _segments(
    bounds: Sequence[int],
    stages: Mapping[str, Sequence[float]],
    paces: Sequence[float],
    overhead: float,
    whole: float,
) -> tuple[Segment, ...]:
    """The segments, the fixed cost of a run taken off, scaled to add up to the whole."""
    taken = [stages.get(f"segment{at}", [0.0]) for at in range(len(bounds) - 1)]
    medians = [max(typical(times, paces) - overhead, 0.0) for times in taken]
    total = sum(medians)
    scale = min((whole - overhead) / total, 1.0) if total > 0 and whole > overhead else 1.0
    return tuple(
        Segment(
            start=start, stop=stop, seconds=median * scale, spread_s=spread(times) * scale, runs=len(times)
        )
        for (start, stop), median, times in zip(pairwise(bounds), medians, taken, strict=True)
    )
