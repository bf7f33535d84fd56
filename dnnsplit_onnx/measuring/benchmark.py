"""How fast each slice, the chain, and the whole model run on this machine.

Whole and chain take turns, run by run: a machine that slows down or gets busy in between
slows both. The slices are timed inside the chain, where each finds the caches as its
predecessor left them. Tiles of a stage that machines share have turns of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError, ManifestError, ModelError
from dnnsplit_onnx.measuring.coded import recorded_codes
from dnnsplit_onnx.measuring.measure import machine
from dnnsplit_onnx.measuring.side_by_side import SideBySide
from dnnsplit_onnx.measuring.speeds import pace
from dnnsplit_onnx.measuring.timings import (
    BenchReport,
    Measured,
    costly_copies,
    measured,
    summed,
    two_speeds,
)
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.origin import assumed_of, bindings_of, find_model, slices_folder
from dnnsplit_onnx.running.slices import open_slice, options_on, with_libraries
from dnnsplit_onnx.runtime.inputs import Inputs, input_sets, to_values
from dnnsplit_onnx.runtime.placement import Placement
from dnnsplit_onnx.runtime.provider import is_on_host, runtime
from dnnsplit_onnx.runtime.sessions import TIER, Session, SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord, load_manifest

__all__ = ["BenchReport", "Progress", "bench"]

#: Called with runs done, runs in all (an estimate), and what is being done.
Progress = Callable[[int, int, str], None]

# Without a number of runs: this many, or fewer once the time is up.
_MOST_RUNS, _FEWEST_RUNS, _SECONDS = 100, 5, 10.0
# On a device the first run searches algorithms, and the second captures a CUDA graph.
_DEVICE_WARMUP = 3


def bench(
    folder: str | Path,
    *,
    tier: str | None = None,
    provider: str | None = None,
    runs: int | None = None,
    warmup: int = 3,
    threads: int | None = None,
    cuda_graph: bool = False,
    model: str | Path | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Times the slices of a folder, the chain of them, and the whole model.

    Args:
        folder: The folder that `split` wrote.
        tier: Only this tier's slice; the others need not be on this machine. Its inputs
            are then what the slice reads.
        provider: `cpu` or `cuda`; by default each slice runs on its tier's provider, as the
            manifest has it, and the whole model on that of the highest tier with work.
        runs: How many; by default 100, or fewer if they take more than ten seconds.
        warmup: Runs before these, not counted; on CUDA at least three.
        threads: Threads within an operator; None leaves it to onnxruntime.
        cuda_graph: Whether what runs on CUDA is captured as a CUDA graph.
        model: The whole model; by default where the manifest says it is.
        inputs: Arrays by name, or an `.npz` file; random by default.
        seed: Of made-up inputs.
        progress: Called as runs are done.

    Raises:
        ManifestError: A slice's file is missing or is not the one that was written.
        InputError: There is no such tier or provider, the inputs do not suit the model, or a
            CUDA graph is asked for where there can be none.
        ModelError: A slice cannot be loaded, or fails.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    runtime()
    if runs is not None and runs < 1:
        raise InputError(f"cannot measure {runs} runs", hint="ask for 1 or more")
    place, manifest = slices_folder(folder), load_manifest(folder)
    options = SessionOptions(provider=provider or TIER, threads=threads, cuda_graph=cuda_graph, record=True)
    clock = _Clock(runs, max(0, warmup), progress)
    record = None if tier is None else _record(manifest, tier)
    ports = manifest.model.inputs if record is None else record.inputs
    given = input_sets(ports, inputs, bindings_of(manifest), seed=seed, runs=1)[0]
    values = to_values(ports, given.values)
    chain: Measured | None = None
    whole: Measured | None = None
    notes: list[str] = []
    with _blaming(given):
        if record is not None:
            session = open_slice(place, record, options)
            _need_device(cuda_graph, [session])
            tiled = _open_tiles(place, [record], options)
            slices = _bench_tier(session, record.tier, values, tiled, clock)
        else:
            opened = Chain.open(place, lambda _: options, manifest=manifest)
            _need_device(cuda_graph, [session for _, session in opened.stages])
            uncut, notes = _open_whole(place, manifest, model, options)
            tiled = _open_tiles(place, manifest.slices, options)
            slices, chain, whole = _bench_chain(opened, uncut, values, tiled, clock)
    return BenchReport(
        slices,
        chain,
        whole,
        given.source,
        assumed_of(manifest, given),
        machine(),
        threads,
        cuda_graph,
        (*notes, *costly_copies(slices), *two_speeds(slices)),
        tuple(stage.measured() for stage in tiled),
        *recorded_codes(manifest),
    )


def _open_tiles(
    place: Path, records: Sequence[SliceRecord], options: SessionOptions
) -> tuple[SideBySide, ...]:
    """The tiles of each slice that machines share."""
    return tuple(
        SideBySide.open(place, record, options_on(options, record)) for record in records if record.tiles
    )


def _need_device(cuda_graph: bool, sessions: Sequence[Session]) -> None:
    """Refuses CUDA graphs where nothing runs on CUDA.

    Raises:
        InputError: They are asked for.
    """
    if cuda_graph and not any(session.captured for session in sessions):
        raise InputError(
            "no slice runs on `cuda`, so there is nothing to make a CUDA graph of",
            hint="pass --provider cuda, or leave out --cuda-graph",
        )


@dataclass
class _Clock:
    """Decides when enough has been measured."""

    runs: int | None
    warmup: int
    progress: Progress | None
    started: float = field(default=0.0)

    def measure(
        self, once: Callable[[], None], forget: Callable[[], None], sessions: Sequence[Session]
    ) -> dict[str, Placement | None]:
        """Calls `once` for the warm-up, `forget`, then `once` until enough has been seen.

        Returns:
            Where the nodes of each session ran in the warm-up, by its label.
        """
        on_device = any(not is_on_host(session.provider) for session in sessions)
        for _ in range(max(self.warmup, _DEVICE_WARMUP) if on_device else self.warmup):
            self._tell(0, "warming up")
            once()
        forget()
        found = {session.label: session.placement() for session in sessions}
        self.started = time.perf_counter()
        done = 0
        while not self._enough(done):
            once()
            done += 1
            self._tell(done, "measuring")
        return found

    def _enough(self, done: int) -> bool:
        if self.runs is not None:
            return done >= self.runs
        spent = time.perf_counter() - self.started
        return done >= _MOST_RUNS or (done >= _FEWEST_RUNS and spent >= _SECONDS)

    def _tell(self, done: int, what: str) -> None:
        if self.progress is not None:
            self.progress(done, self.runs or _MOST_RUNS, what)


def _record(manifest: Manifest, tier: str) -> SliceRecord:
    found = next((record for record in manifest.slices if record.tier == tier), None)
    if found is None:
        names = ", ".join(f"`{record.tier}`" for record in manifest.slices)
        raise InputError(f"no tier `{tier}`", hint=f"the tiers are {names}")
    if found.file is None:
        raise InputError(f"tier `{tier}` has no work in this plan, so there is nothing to measure")
    return found


def _open_whole(
    place: Path, manifest: Manifest, model: str | Path | None, options: SessionOptions
) -> tuple[Session | None, list[str]]:
    """The whole model, or a note that says why it is left out.

    A model that the caller named must be there.
    """
    # Where slices run on different providers, there is no one place for the whole. That of
    # the highest tier is the one that the whole model would be sent to.
    top = next((record for record in reversed(manifest.slices) if record.file is not None), None)
    if top is not None:
        libraries = with_libraries(options, manifest.slices)
        options = replace(options_on(options, top), custom_ops=libraries)
    try:
        path = find_model(place, manifest, model)
        return open_session(path, options, label="the whole model"), []
    except (ManifestError, ModelError) as error:
        if model is not None:
            raise
        return None, [f"the whole model was not measured: {error.message}"]


def _bench_tier(
    session: Session,
    tier: str,
    values: Mapping[str, Value],
    tiled: Sequence[SideBySide],
    clock: _Clock,
) -> tuple[Measured, ...]:
    seconds: list[float] = []
    paces: list[float] = []

    def once() -> None:
        paces.append(pace())
        start = time.perf_counter()
        session.run(values)
        seconds.append(time.perf_counter() - start)
        for stage in tiled:
            stage.once(values)

    def forget() -> None:
        seconds.clear()
        paces.clear()
        for stage in tiled:
            stage.forget()

    found = clock.measure(once, forget, [session])
    return (measured(tier, session, seconds, found, paces),)


def _bench_chain(
    chain: Chain,
    whole: Session | None,
    values: Mapping[str, Value],
    tiled: Sequence[SideBySide],
    clock: _Clock,
) -> tuple[tuple[Measured, ...], Measured, Measured | None]:
    per_tier: dict[str, list[float]] = {tier: [] for tier, _ in chain.stages}
    chain_seconds: list[float] = []
    whole_seconds: list[float] = []
    paces: list[float] = []
    crossing = {name for stage in tiled for name in stage.reads} - values.keys()
    read = dict(values)
    if crossing:
        read |= chain.run_values(values, keep=crossing)

    def once() -> None:
        paces.append(pace())
        start = time.perf_counter()
        chain.run_values(values, on_stage=lambda tier, seconds: per_tier[tier].append(seconds))
        chain_seconds.append(time.perf_counter() - start)
        if whole is not None:
            start = time.perf_counter()
            whole.run(values)
            whole_seconds.append(time.perf_counter() - start)
        for stage in tiled:
            stage.once(read)

    def forget() -> None:
        for seconds in (*per_tier.values(), chain_seconds, whole_seconds, paces):
            seconds.clear()
        for stage in tiled:
            stage.forget()

    sessions = [session for _, session in chain.stages]
    found = clock.measure(once, forget, sessions if whole is None else [*sessions, whole])
    slices = tuple(measured(tier, session, per_tier[tier], found, paces) for tier, session in chain.stages)
    uncut = None if whole is None else measured(None, whole, whole_seconds, found, paces)
    return slices, summed(slices, chain_seconds, chain.crossings, paces), uncut


@contextmanager
def _blaming(given: Inputs) -> Iterator[None]:
    """Where a run fails on made-up inputs, the error says that they may be to blame."""
    try:
        yield
    except ModelError as error:
        if given.source == "generated" and error.hint is None:
            error.hint = "made-up inputs do not suit every model: pass real ones, --input X.npz"
        raise
