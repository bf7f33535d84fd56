"""What inputs take that cross links as files of pictures: bytes there, and seconds to decode them.

A file is decoded by the tier of the first node that reads it, in the seconds that the tiers file says, or
that the tier's profile measured, or, as codes are, as if that were bound by memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.machines.profiles import CodeTimes
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.coding import GB_PER_S
from dnnsplit_onnx.planning.figures import CodedValue
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import live_values

# Bytes of memory traffic that take as long as decoding a byte of a file: Pillow on 10 GB/s takes 35 to
# 180 ns a byte of a JPEG (17 to 25 a pixel), and 25 to 45 of a PNG.
_TRAFFIC = {"jpeg": 1000, "png": 350}


def files_nbytes(topology: Topology) -> dict[str, int]:
    """Bytes that inputs take on a link which cross it as files, by name.

    Raises:
        TopologyError: Nobody says how long such a file is.
    """
    return {name: _nbytes(name, one) for name, one in topology.files.items()}


def decode_seconds(
    analysis: Analysis, topology: Topology, profiles: Sequence[Sequence[CodeTimes]] = ()
) -> NDArray[np.float64]:
    """Shape (K, n + 1): seconds in which each tier decodes the files that its first i nodes read.

    Args:
        analysis: The model.
        topology: The machines.
        profiles: What codes were measured to take on each tier; none where nothing was.
    """
    measured = [{(one.value, one.code): one.decode_s for one in times} for times in profiles]
    seconds = np.zeros((len(topology.tiers), len(analysis.graph.nodes) + 1))
    for name, one in topology.files.items():
        first = next((at for at, node in enumerate(analysis.graph.nodes) if name in node.inputs), None)
        if first is None:
            continue
        for t, tier in enumerate(topology.tiers):
            memory = (tier.memory_gb_per_s or GB_PER_S) * 1e9
            took = _TRAFFIC[one.code] * _nbytes(name, one) / memory
            if tier.name in one.decode_ms:
                took = one.decode_ms[tier.name] / 1e3
            elif measured and (name, one.code) in measured[t]:
                took = measured[t][name, one.code]
            seconds[t, first + 1 :] += took
    return seconds


def files_at(analysis: Analysis, position: int, topology: Topology) -> tuple[CodedValue, ...]:
    """The inputs that cross a cut as files."""
    if not topology.files or position >= len(analysis.graph.nodes):
        return ()
    live = live_values(analysis.graph, position)
    return tuple(
        CodedValue(name, one.code, analysis.types.nbytes(name) or 0, _nbytes(name, one))
        for name, one in topology.files.items()
        if name in live
    )


def _nbytes(name: str, code: InputCode) -> int:
    if code.nbytes is None:
        raise TopologyError(
            f"how many bytes a {code.code} file of input `{name}` has is not known",
            hint="give pictures as they will come, --samples photos/, or say it: nbytes = 60000",
        )
    return code.nbytes
