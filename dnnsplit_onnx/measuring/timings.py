"""What a benchmark finds, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dnnsplit_onnx.measuring.coded import CodeCheck, OutputError
from dnnsplit_onnx.measuring.measure import Latency
from dnnsplit_onnx.measuring.side_by_side import StageMeasured
from dnnsplit_onnx.measuring.speeds import Speeds
from dnnsplit_onnx.runtime.placement import Crossings, Placement
from dnnsplit_onnx.runtime.sessions import Session
from dnnsplit_onnx.views import Tabled


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
        copies: Nodes that onnxruntime put in to copy between host and device on every run;
            None if nobody looked.
        crossings: Inputs that lay in host memory and were copied to the device, and outputs
            that were copied back.
        speeds: What it took at each of the machine's two speeds; None if there was but one.
    """

    tier: str | None
    provider: str
    latency: Latency
    cpu_nodes: tuple[str, ...] | None = ()
    copies: int | None = 0
    crossings: Crossings = field(default_factory=Crossings)
    speeds: Speeds | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        data = {
            "provider": self.provider,
            **self.latency.to_dict(),
            "cpu_nodes": None if self.cpu_nodes is None else list(self.cpu_nodes),
            "memcpy_nodes": self.copies,
            "copied_to_device": self.crossings.to_device,
            "copied_to_host": self.crossings.to_host,
            "fast_ms": self.speeds and self.speeds.fast_s * 1e3,
            "slow_ms": self.speeds and self.speeds.slow_s * 1e3,
            "slow_share": self.speeds and self.speeds.slow_share,
        }
        return data if self.tier is None else {"tier": self.tier, **data}


@dataclass(frozen=True)
class BenchReport(Tabled):
    """What `bench` measured.

    Attributes:
        slices: One for each tier with work.
        chain: All slices, one after another in one process; None for a single tier.
        whole: The whole model; None for a single tier, or if it cannot be run here.
        source: Where inputs came from: "generated", "given" or a path.
        assumed: Sizes of dimensions that nobody gave.
        machine: Processor, cores, versions.
        threads: Threads within an operator, None for onnxruntime's choice.
        cuda_graph: Whether slices on CUDA ran as CUDA graphs.
        notes: What was left out, and why.
        side_by_side: Stages that several machines share, in tiles.
        codes: What each code does to its value, as it was verified when the slices were made.
        coded_output: What all of them do to the outputs; None if there are none.
    """

    slices: tuple[Measured, ...]
    chain: Measured | None
    whole: Measured | None
    source: str
    assumed: Mapping[str, int]
    machine: Mapping[str, Any]
    threads: int | None = None
    cuda_graph: bool = False
    notes: tuple[str, ...] = ()
    side_by_side: tuple[StageMeasured, ...] = ()
    codes: tuple[CodeCheck, ...] = ()
    coded_output: OutputError | None = None

    @property
    def overhead(self) -> float | None:
        """How many times as long the chain takes as the whole (medians).

        None if one is unknown, or they ran on different providers.
        """
        if self.chain is None or self.whole is None or self.chain.provider != self.whole.provider:
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
            "cuda_graph": self.cuda_graph,
            "notes": list(self.notes),
            "side_by_side": [stage.to_dict() for stage in self.side_by_side],
            "tiles": [tile.to_dict() for stage in self.side_by_side for tile in stage.tiles],
            "codes": [asdict(check) for check in self.codes],
            "output_error": None if self.coded_output is None else self.coded_output.relative,
            "agreement": None if self.coded_output is None else self.coded_output.agreement,
            "samples": None if self.coded_output is None else self.coded_output.samples,
        }

    def records(self) -> list[dict[str, Any]]:
        """A row for each slice, the chain, the whole model, and each tile, without lists."""
        named = [("slice", one.to_dict()) for one in self.slices]
        named += [
            (kind, one.to_dict()) for kind, one in (("chain", self.chain), ("whole", self.whole)) if one
        ]
        for stage in self.side_by_side:
            named.append(("side by side", stage.to_dict()))
            named += [("tile", tile.to_dict()) for tile in stage.tiles]
        return [
            {"kind": kind, **{key: value for key, value in row.items() if not _is_nested(value)}}
            for kind, row in named
        ]


def _is_nested(value: object) -> bool:
    return isinstance(value, list | tuple | dict)


def measured(
    tier: str | None,
    session: Session,
    seconds: Sequence[float],
    found: Mapping[str, Placement | None],
    paces: Sequence[float] = (),
) -> Measured:
    """The timings of a session, and what it moved; `paces` as `speeds.pace` said before each run."""
    placement = found[session.label]
    nodes = session.cpu_nodes
    if nodes is None and placement is not None:  # an onnxruntime that cannot tell before it runs
        nodes = placement.elsewhere
    # What is captured as a CUDA graph has no such copies: onnxruntime refuses it otherwise.
    copies = 0 if session.captured or session.provider == "cpu" else None
    if placement is not None:
        copies = placement.copies
    return Measured(
        tier,
        session.provider,
        Latency.of(seconds),
        nodes,
        copies,
        session.crossings,
        Speeds.of(seconds, paces),
    )


def summed(
    slices: Sequence[Measured], seconds: Sequence[float], crossings: Crossings, paces: Sequence[float] = ()
) -> Measured:
    """The timings of a chain, with the nodes and copies of its slices.

    Args:
        slices: Of its slices.
        seconds: Of the chain as a whole.
        crossings: What a run of the chain moved between host and device.
        paces: What `speeds.pace` said before each run.
    """
    used = "+".join(dict.fromkeys(part.provider for part in slices))
    nodes: tuple[str, ...] | None = ()
    copies: int | None = 0
    for part in slices:
        nodes = None if nodes is None or part.cpu_nodes is None else nodes + part.cpu_nodes
        copies = None if copies is None or part.copies is None else copies + part.copies
    return Measured(None, used, Latency.of(seconds), nodes, copies, crossings, Speeds.of(seconds, paces))


def two_speeds(slices: Sequence[Measured]) -> list[str]:
    """A note where the machine had two speeds, with what each slice took at both."""
    said = [
        f"`{part.tier}` {part.speeds.fast_s * 1e3:.3g} or "
        f"{part.speeds.slow_s * 1e3:.3g} ms ({part.speeds.slow_share:.0%} of the runs)"
        for part in slices
        if part.speeds is not None
    ]
    return [f"this machine has two speeds, as a loop without memory shows: {', '.join(said)}"] if said else []


def costly_copies(slices: Sequence[Measured]) -> list[str]:
    """Warnings where nodes that fell back to the CPU make a slice copy on every run."""
    return [
        f"warning: slice `{part.tier}` copies between device and host {part.copies} times a run, for "
        f"nodes that CUDA has no kernel for"
        for part in slices
        if part.copies
    ]
