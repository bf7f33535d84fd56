"""How to run a session, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: In place of a provider: each slice on the one that its tier has in the manifest.
TIER = "tier"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a session.

    Attributes:
        provider: One of `provider.PROVIDERS`, or for slices `tier`: what the manifest says of each.
        optimize: All graph optimisations, or none.
        threads: Threads within an operator; None leaves it to onnxruntime.
        spin: Whether idle threads spin while a run is under way. On a single core that
            doubles the time. Between runs they never do: the threads of one slice would
            take the processor from the next.
        memory_nbytes: Most device memory the session's arena may take.
        cuda_graph: Whether runs on CUDA are captured as a graph, which needs fixed shapes.
        record: Whether to record where nodes run on a device, until `Session.placement` is
            asked for. CUDA graphs are not recorded.
        by_priority: Whether nodes run as soon as they can, those that read shapes first, which
            frees values early.
        custom_ops: Files of libraries of operators besides those of the process; `tier` allows a
            slice's own (`runtime.custom_ops`).
        provider_options: Options of the provider, by the names that onnxruntime has for them.
    """

    provider: str = "cpu"
    optimize: bool = True
    threads: int | None = None
    spin: bool = True
    memory_nbytes: int | None = None
    cuda_graph: bool = False
    record: bool = False
    by_priority: bool = False
    custom_ops: tuple[str, ...] = ()
    provider_options: Mapping[str, str | bool | int | float] = field(default_factory=dict)
