"""How to run a session, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dnnsplit_onnx.manifest import SliceRecord

#: In place of a provider: each slice on the one that its tier has in the manifest.
TIER = "tier"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a session.

    Attributes:
        provider: `cpu` or `cuda`, or for slices `tier`: what the manifest says of each.
        optimize: All graph optimisations, or none.
        threads: Threads within an operator; None leaves it to onnxruntime.
        spin: Whether idle threads spin while a run is under way. On a single core that
            doubles the time. Between runs they never do: the threads of one slice would
            take the processor from the next.
        memory_nbytes: Most device memory the session's arena may take.
        cuda_graph: Whether runs on CUDA are captured as a graph, which needs fixed shapes.
        record: Whether to record where nodes run on a device, until `Session.placement` is
            asked for. CUDA graphs are not recorded.
    """

    provider: str = "cpu"
    optimize: bool = True
    threads: int | None = None
    spin: bool = True
    memory_nbytes: int | None = None
    cuda_graph: bool = False
    record: bool = False

    def on(self, record: SliceRecord) -> SessionOptions:
        """The options for a slice, `tier` made the provider of its own tier.

        The limit on a CUDA tier's memory becomes that of the device memory.
        """
        own = record.provider or "cpu"
        provider = own if self.provider == TIER else self.provider
        memory = self.memory_nbytes
        if memory is None and provider == own == "cuda":
            memory = record.memory_nbytes
        graph = self.cuda_graph and (provider == "cuda" or self.provider != TIER)
        return replace(self, provider=provider, memory_nbytes=memory, cuda_graph=graph)
