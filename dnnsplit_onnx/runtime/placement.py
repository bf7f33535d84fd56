"""Where a session's nodes really ran, and what that made it copy.

A node that CUDA has no kernel for runs on the CPU. That is harmless for the few numbers of a
shape computation, which onnxruntime leaves on the CPU on purpose. Where such a node reads or
makes what lies on the device, onnxruntime puts nodes of its own between, `MemcpyToHost` and
`MemcpyFromHost`, and each stops the device on every run. Only onnxruntime's record of a run
shows these nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnsplit_onnx.runtime.provider import PROVIDERS

_SUFFIX = "_kernel_time"
_COPIES = ("MemcpyFromHost", "MemcpyToHost")


@dataclass(frozen=True, slots=True)
class Crossings:
    """Values that a run moved between host and device.

    Attributes:
        to_device: Inputs that lay in host memory.
        to_host: Outputs that were wanted there.
    """

    to_device: int = 0
    to_host: int = 0

    def __add__(self, other: Crossings) -> Crossings:
        """Of two runs, one after the other."""
        return Crossings(self.to_device + other.to_device, self.to_host + other.to_host)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where nodes ran.

    Attributes:
        elsewhere: `name (operator)` of each node that did not run on the provider that was
            asked for.
        copies: Nodes that copy between host and device within the model, each once a run.
    """

    elsewhere: tuple[str, ...] = ()
    copies: int = 0


def placement_of(events: Sequence[Mapping[str, Any]], provider: str) -> Placement:
    """Where nodes ran, from onnxruntime's record.

    Args:
        events: Of one run or more.
        provider: What was asked for: `cpu` or `cuda`.
    """
    elsewhere: dict[tuple[str, str], str] = {}
    copies: set[tuple[str, str]] = set()
    for event in events:
        name, about = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX):
            continue
        name, kind = name.removesuffix(_SUFFIX), str(about.get("op_name", "?"))
        node = (str(about.get("node_index", "")), name)
        if kind in _COPIES:
            copies.add(node)
        elif about.get("provider") != PROVIDERS[provider]:
            elsewhere[node] = f"{name or 'unnamed'} ({kind})"
    return Placement(tuple(elsewhere.values()), len(copies))


def end_record(session: Any) -> list[dict[str, Any]]:
    """Ends the record of an onnxruntime session that keeps one, and returns its events.

    Args:
        session: Made with `enable_profiling`. It can go on to run, unrecorded.
    """
    path = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return events
