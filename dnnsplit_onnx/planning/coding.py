"""What codes take: bytes on a link, and seconds to write and read them on each tier.

A cut with a code sends each value in it to which the code applies, and the others as they are.
Writing and reading are elementary operators over whole tensors (`slicing.coding`), bound by memory:

    seconds = tensors' worth of traffic * bytes of the values / memory bandwidth + overhead * nodes

with the traffic of each code counted from its operators, and `memory_gb_per_s` and `overhead_us` of
the tier, 10 GB/s and none where it does not say. It is a model: nothing of it is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError, check_name
from dnnsplit_onnx.machines.topology import Tier, Topology
from dnnsplit_onnx.planning.plans import CodedValue
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import LOSSY, RAW, coded_nbytes
from dnnsplit_onnx.work.cuts import UNKNOWN, cut_nbytes, live_values

#: Of a tier that does not say how fast its memory is.
GB_PER_S = 10.0


@dataclass(frozen=True, slots=True)
class _Traffic:
    """How often an operator chain moves a value of 4 bytes an element, and its nodes."""

    encode: float
    encode_nodes: int
    decode: float
    decode_nodes: int


# fp16: one read and half a write. uint8: ReduceMin, ReduceMax and ReduceSum read; Mul, Sub, Div, Add,
# Floor and Clip read and write; Cast reads, and writes a quarter. Back: Cast, Mul, Add.
_TRAFFIC: Mapping[str, _Traffic] = {
    "fp16": _Traffic(1.5, 1, 1.5, 1),
    "uint8": _Traffic(16.25, 14, 5.25, 3),
    "uint8-channel": _Traffic(16.25, 12, 5.25, 3),
}


@dataclass(frozen=True, slots=True)
class CodeCosts:
    """What one code takes at each cut of a graph of n nodes.

    Attributes:
        nbytes: Shape (n + 1,): bytes that cross; `UNKNOWN` where that cannot be known.
        applies: Shape (n + 1,): whether it applies to any value there.
        encode_s: Shape (K, n + 1): seconds that each tier needs to write it.
        decode_s: Shape (K, n + 1): seconds that each tier needs to read it.
    """

    nbytes: NDArray[np.int64]
    applies: NDArray[np.bool_]
    encode_s: NDArray[np.float64]
    decode_s: NDArray[np.float64]


def code_costs(analysis: Analysis, topology: Topology) -> dict[str, CodeCosts]:
    """What each code takes that some link allows, `raw` left out.

    Raises:
        InputError: Machines of a tier share rows, or requests have rates: codes know of neither.
    """
    names = code_names(name for link in topology.links for name in link.codes or ())
    if names and any(tier.machines for tier in topology.tiers):
        raise InputError(
            "codes are for tiers of one machine, and some machines share rows here",
            hint="leave out --codes, or the machines",
        )
    if names and _has_rates(topology):
        raise InputError(
            "codes are not planned together with a workload, replicas, fees or a least throughput",
            hint="leave out --codes, or these",
        )
    return {name: _costs(name, analysis, topology) for name in names}


def _has_rates(topology: Topology) -> bool:
    """Whether a stage's figure is more than its seconds at a rate, which merged links cannot hold."""
    workload = topology.workload
    return (
        workload.requests_per_s is not None
        or workload.clients > 1
        or topology.limits.throughput_per_s is not None
        or any(tier.replicas > 1 or tier.usd_per_request for tier in topology.tiers)
    )


def code_names(names: Iterable[str]) -> tuple[str, ...]:
    """The codes among names, each once, in the order of what they lose; `raw` is always there.

    Raises:
        InputError: One is no code.
    """
    wanted = set(names)
    for name in sorted(wanted):
        check_name("code", name, (RAW, *LOSSY))
    return tuple(code for code in LOSSY if code in wanted)


def coded_at(analysis: Analysis, position: int, code: str) -> tuple[CodedValue, ...]:
    """The values of a cut that a code applies to."""
    if code == RAW or position >= len(analysis.graph.nodes):
        return ()
    found = []
    for value in live_values(analysis.graph, position):
        raw, nbytes = analysis.types.nbytes(value), _coded(analysis, code, value)
        if raw is not None and nbytes is not None:
            found.append(CodedValue(value, code, raw, nbytes))
    return tuple(found)


def _coded(analysis: Analysis, code: str, value: str) -> int | None:
    """Bytes of a value in a code; None where it does not apply, or the user says what crosses.

    A state would build up what a code loses, and keeps what was made.
    """
    if value in analysis.input_nbytes or analysis.graph.next_readers.get(value):
        return None
    return coded_nbytes(code, analysis.types[value])


def _costs(code: str, analysis: Analysis, topology: Topology) -> CodeCosts:
    graph = analysis.graph

    def sent(value: str) -> int | None:
        nbytes = _coded(analysis, code, value)
        return analysis.link_nbytes(value) if nbytes is None else nbytes

    def elements(value: str) -> int:
        return 0 if _coded(analysis, code, value) is None else analysis.types[value].elements or 0

    traffic = _TRAFFIC[code]
    moved = cut_nbytes(graph, elements).astype(np.float64) * 4
    count = cut_nbytes(graph, lambda value: int(_coded(analysis, code, value) is not None))
    nbytes = cut_nbytes(graph, sent)
    nbytes[-1] = moved[-1] = count[-1] = 0
    applies: NDArray[np.bool_] = (count > 0) & (nbytes != UNKNOWN)

    def seconds(tier: Tier, times: float, nodes: int) -> NDArray[np.float64]:
        speed = (tier.memory_gb_per_s or GB_PER_S) * 1e9
        return times * moved / speed + nodes * count * (tier.overhead_us / 1e6)

    return CodeCosts(
        nbytes=nbytes,
        applies=applies,
        encode_s=np.array([seconds(tier, traffic.encode, traffic.encode_nodes) for tier in topology.tiers]),
        decode_s=np.array([seconds(tier, traffic.decode, traffic.decode_nodes) for tier in topology.tiers]),
    )
