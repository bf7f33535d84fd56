"""How fast each slice, the chain, and the whole model run on this machine.

Whole and chain take turns, run by run: a machine that slows down or gets busy in between
slows both. The slices are timed inside the chain, where each finds the caches as its
predecessor left them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError, ManifestError, ModelError
from dnnsplit_onnx.manifest import Manifest, SliceRecord, load_manifest
from dnnsplit_onnx.runtime.chain import Chain, to_values
from dnnsplit_onnx.runtime.inputs import Inputs, input_sets
from dnnsplit_onnx.runtime.measure import Latency, machine
from dnnsplit_onnx.runtime.origin import bindings_of, find_model, slices_folder
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions, open_session, open_slice
from dnnsplit_onnx.runtime.values import Value

#: Called with runs done, runs in all (an estimate), and what is being done.
Progress = Callable[[int, int, str], None]

# Without a number of runs: this many, or fewer once the time is up.
_MOST_RUNS, _FEWEST_RUNS, _SECONDS = 100, 5, 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The timings of one thing.

    Attributes:
        tier: The slice's tier; None for the chain and the whole.
        provider: What it really ran on, `cpu` or `cuda`; for a chain that mixes them,
            all, joined by `+`.
        latency: The timings.
        cpu_nodes: Nodes that ran on the CPU although another provider was asked for; None
            if this onnxruntime cannot tell.
    """

    tier: str | None
    provider: str
    latency: Latency
    cpu_nodes: tuple[str, ...] | None = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        nodes = None if self.cpu_nodes is None else list(self.cpu_nodes)
        data = {"provider": self.provider, **self.latency.to_dict(), "cpu_nodes": nodes}
        return data if self.tier is None else {"tier": self.tier, **data}


@dataclass(frozen=True)
class BenchReport:
    """What `bench` measured.

    Attributes:
        slices: One for each tier with work.
        chain: All slices, one after another in one process; None for a single tier.
        whole: The whole model; None for a single tier, or if it cannot be run here.
        source: Where inputs came from: "generated", "given" or a path.
        assumed: Dimensions that had no size and were taken to be 1.
        machine: Processor, cores, versions.
        threads: Threads within an operator, None for onnxruntime's choice.
        notes: What was left out, and why.
    """

    slices: tuple[Measured, ...]
    chain: Measured | None
    whole: Measured | None
    source: str
    assumed: Mapping[str, int]
    machine: Mapping[str, Any]
    threads: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def overhead(self) -> float | None:
        """How many times as long the chain takes as the whole (medians); None if unknown."""
        if self.chain is None or self.whole is None:
            return None
        return self.chain.latency.p50_ms / self.whole.latency.p50_ms

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "slices": [measured.to_dict() for measured in self.slices],
            "chain": self.chain and self.chain.to_dict(),
            "whole": self.whole and self.whole.to_dict(),
            "chain_vs_whole": self.overhead,
            "inputs": self.source,
            "assumed": dict(self.assumed),
            "machine": dict(self.machine),
            "threads": self.threads,
            "notes": list(self.notes),
        }


def bench(
    folder: str | Path,
    *,
    tier: str | None = None,
    provider: str | None = None,
    runs: int | None = None,
    warmup: int = 3,
    threads: int | None = None,
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
        provider: `cpu` (the default) or `cuda`.
        runs: How many; by default 100, or fewer if they take more than ten seconds.
        warmup: Runs before these, not counted.
        threads: Threads within an operator; None leaves it to onnxruntime.
        model: The whole model; by default where the manifest says it is.
        inputs: Arrays by name, or an `.npz` file; made up by default.
        seed: Of made-up inputs.
        progress: Called as runs are done.

    Raises:
        ManifestError: A slice's file is missing or is not the one that was written.
        InputError: There is no such tier or provider, or the inputs do not suit the model.
        ModelError: A slice cannot be loaded, or fails.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    runtime()
    if runs is not None and runs < 1:
        raise InputError(f"cannot measure {runs} runs", hint="ask for 1 or more")
    place, manifest = slices_folder(folder), load_manifest(folder)
    options = SessionOptions(provider=provider or "cpu", threads=threads)
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
            slices = _bench_tier(session, record.tier, values, clock)
        else:
            opened = Chain.open(place, manifest, lambda _: options)
            uncut, notes = _open_whole(place, manifest, model, options)
            slices, chain, whole = _bench_chain(opened, uncut, values, clock)
    return BenchReport(slices, chain, whole, given.source, given.assumed, machine(), threads, tuple(notes))


@dataclass
class _Clock:
    """Decides when enough has been measured."""

    runs: int | None
    warmup: int
    progress: Progress | None
    started: float = field(default=0.0)

    def measure(self, once: Callable[[], None], forget: Callable[[], None]) -> None:
        """Calls `once` for the warm-up, `forget`, then `once` until enough has been seen."""
        for _ in range(self.warmup):
            self._tell(0, "warming up")
            once()
        forget()
        self.started = time.perf_counter()
        done = 0
        while not self._enough(done):
            once()
            done += 1
            self._tell(done, "measuring")

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
    try:
        path = find_model(place, manifest, model)
        return open_session(path, options, label="the whole model"), []
    except (ManifestError, ModelError) as error:
        if model is not None:
            raise
        return None, [f"the whole model was not measured: {error.message}"]


def _bench_tier(
    session: Session, tier: str, values: Mapping[str, Value], clock: _Clock
) -> tuple[Measured, ...]:
    seconds: list[float] = []

    def once() -> None:
        start = time.perf_counter()
        session.run(values)
        seconds.append(time.perf_counter() - start)

    clock.measure(once, seconds.clear)
    return (Measured(tier, session.provider, Latency.of(seconds), session.cpu_nodes),)


def _bench_chain(
    chain: Chain, whole: Session | None, values: Mapping[str, Value], clock: _Clock
) -> tuple[tuple[Measured, ...], Measured, Measured | None]:
    per_tier: dict[str, list[float]] = {tier: [] for tier, _ in chain.stages}
    chain_seconds: list[float] = []
    whole_seconds: list[float] = []

    def once() -> None:
        start = time.perf_counter()
        chain.run_values(values, on_stage=lambda tier, seconds: per_tier[tier].append(seconds))
        chain_seconds.append(time.perf_counter() - start)
        if whole is not None:
            start = time.perf_counter()
            whole.run(values)
            whole_seconds.append(time.perf_counter() - start)

    def forget() -> None:
        for seconds in (*per_tier.values(), chain_seconds, whole_seconds):
            seconds.clear()

    clock.measure(once, forget)
    slices = tuple(
        Measured(tier, session.provider, Latency.of(per_tier[tier]), session.cpu_nodes)
        for tier, session in chain.stages
    )
    used = "+".join(dict.fromkeys(session.provider for _, session in chain.stages))
    uncut = None
    if whole is not None:
        uncut = Measured(None, whole.provider, Latency.of(whole_seconds), whole.cpu_nodes)
    return slices, Measured(None, used, Latency.of(chain_seconds)), uncut


@contextmanager
def _blaming(given: Inputs) -> Iterator[None]:
    """Where a run fails on made-up inputs, the error says that they may be to blame."""
    try:
        yield
    except ModelError as error:
        if given.source == "generated" and error.hint is None:
            error.hint = "made-up inputs do not suit every model: pass real ones, --input X.npz"
        raise
