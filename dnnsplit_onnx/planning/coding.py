"""What codes take: bytes on a link, and seconds to write and read them on each tier.

A cut with a code sends each value in it to which the code applies, and the others as they are.
Writing and reading are elementary operators over whole tensors (`slicing.coding`), bound by memory:

    seconds = tensors' worth of traffic * bytes of the values / memory bandwidth + overhead * nodes

with the traffic of each code counted from its operators, and `memory_gb_per_s` and `overhead_us` of
the tier, 10 GB/s and none where it does not say. A profile with codes has measured seconds in place
of that model, and the bytes of what is packed, which depend on the data: without one nothing is
planned to be packed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError, check_name
from dnnsplit_onnx.machines.profiles import CodeTimes
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.figures import CodedValue
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import LOSSY, PACKED, RAW, Choices, base, coded_nbytes, is_allowed, packed
from dnnsplit_onnx.work.cuts import UNKNOWN, cut_nbytes, live_values

#: Of a tier that does not say how fast its memory is.
GB_PER_S = 10.0
# Seconds are added up along cuts as whole numbers of this part of one.
_PER_S = 1e12


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


def code_costs(
    analysis: Analysis, topology: Topology, profiles: Sequence[Sequence[CodeTimes]] = ()
) -> dict[str, CodeCosts]:
    """What each code takes that some link allows, `raw` left out.

    Args:
        analysis: The model.
        topology: The machines.
        profiles: What codes were measured to take on each tier.

    Raises:
        InputError: Machines of a tier share rows, or requests have rates: codes know of neither. Or
            something is to be packed, and nobody measured what that makes of it.
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
    measured = _Measured.of(profiles, len(topology.tiers))
    plain = {name: _costs(name, analysis, topology, measured) for name in names if name != PACKED}
    if PACKED not in names:
        return plain
    if not measured.anywhere:
        raise InputError(
            "what packing makes of a value depends on the data, and nobody has measured it",
            hint="measure it: dnnsplit-onnx profile MODEL --tier NAME --codes --samples X.npz -o FILE",
        )
    costs: dict[str, CodeCosts] = {PACKED: _packed(RAW, None, analysis, measured)}
    for name, one in plain.items():
        costs |= {name: one, packed(name): _packed(name, one, analysis, measured)}
    return costs


def _has_rates(topology: Topology) -> bool:
    """Whether a stage's figure is more than its seconds at a rate, which merged links cannot hold."""
    workload = topology.workload
    return (
        workload.requests_per_s is not None
        or workload.has_texts
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
        check_name("code", name, (RAW, PACKED, *LOSSY))
    return tuple(code for code in (PACKED, *LOSSY) if code in wanted)


def coded_at(analysis: Analysis, position: int, code: str) -> tuple[CodedValue, ...]:
    """The values of a cut that a code applies to; what is packed is so on the wire alone."""
    code = base(code)
    if code == RAW or position >= len(analysis.graph.nodes):
        return ()
    found = []
    for value in live_values(analysis.graph, position):
        raw, nbytes = analysis.types.nbytes(value), _coded(analysis, code, value)
        if raw is not None and nbytes is not None:
            found.append(CodedValue(value, code, raw, nbytes))
    return tuple(found)


def choices_at(analysis: Analysis, topology: Topology, positions: Iterable[int]) -> tuple[Choices, ...]:
    """For each link, the cuts and codes besides `raw` that it allows, and the values in them.

    What is packed is so on the wire alone, and no choice of slices.

    Args:
        analysis: The model.
        topology: The machines; a link says what it allows.
        positions: The cuts.
    """
    names = {name for link in topology.links for name in link.codes or ()} - {RAW, PACKED}
    found = {
        (at, code): tuple(one.value for one in coded_at(analysis, at, code))
        for at in positions
        for code in sorted(names)
    }
    return tuple(
        {cut: values for cut, values in found.items() if values and is_allowed(cut[1], link.codes)}
        for link in topology.links
    )


def along(analysis: Analysis, code: str) -> NDArray[np.int64]:
    """Shape (n + 1,): bytes that cross each cut in a code, `UNKNOWN` where that cannot be known."""

    def sent(value: str) -> int | None:
        nbytes = _coded(analysis, code, value)
        return analysis.link_nbytes(value) if nbytes is None else nbytes

    return cut_nbytes(analysis.graph, sent)


def _coded(analysis: Analysis, code: str, value: str) -> int | None:
    """Bytes of a value in a code; None where it does not apply, or the user says what crosses.

    A state would build up what a code loses, and keeps what was made.
    """
    if value in analysis.input_nbytes or analysis.graph.next_readers.get(value):
        return None
    return coded_nbytes(code, analysis.types[value])


@dataclass(frozen=True)
class _Measured:
    """What codes were measured to take, by value and code.

    Attributes:
        tiers: On each tier.
        anywhere: On any of them, the lowest that measured it.
    """

    tiers: tuple[Mapping[tuple[str, str], CodeTimes], ...]
    anywhere: Mapping[tuple[str, str], CodeTimes]

    @classmethod
    def of(cls, profiles: Sequence[Sequence[CodeTimes]], tiers: int) -> _Measured:
        """From what each tier measured."""
        each = [{(one.value, one.code): one for one in times} for times in profiles]
        each += [{}] * (tiers - len(each))
        return cls(tuple(each), {key: one for times in reversed(each) for key, one in times.items()})

    def on(self, tier: int, value: str, code: str) -> CodeTimes | None:
        """What a value takes in a code on a tier, or on another if only that has measured it."""
        return self.tiers[tier].get((value, code)) or self.anywhere.get((value, code))


def _packed(code: str, one: CodeCosts | None, analysis: Analysis, measured: _Measured) -> CodeCosts:
    """A code with what it sends packed; it applies where every value of a cut was measured so."""
    graph = analysis.graph

    def of(value: str) -> str:
        return RAW if code == RAW or _coded(analysis, code, value) is None else code

    def sent(value: str) -> int | None:
        if value in analysis.input_nbytes:  # as the user says, and packed already for all that is known
            return analysis.link_nbytes(value)
        times = measured.anywhere.get((value, of(value)))
        return None if times is None else times.packed_nbytes

    def seconds(tier: int, *, packs: bool) -> NDArray[np.float64]:
        def each(value: str) -> float:
            times = measured.on(tier, value, of(value))
            return 0.0 if times is None else times.pack_s if packs else times.unpack_s

        return _sums(analysis, each)

    nbytes = cut_nbytes(graph, sent)
    nbytes[-1] = 0
    applies = nbytes != UNKNOWN
    applies[-1] = False
    if one is not None:
        applies &= one.applies
    tiers = range(len(measured.tiers))
    writes = np.array([seconds(tier, packs=True) for tier in tiers])
    reads = np.array([seconds(tier, packs=False) for tier in tiers])
    if one is not None:
        writes, reads = writes + one.encode_s, reads + one.decode_s
    return CodeCosts(nbytes=nbytes, applies=applies, encode_s=writes, decode_s=reads)


def _sums(analysis: Analysis, seconds: Callable[[str], float]) -> NDArray[np.float64]:
    """Shape (n + 1,): the seconds of all values of each cut, none at the last."""
    summed = cut_nbytes(analysis.graph, lambda value: round(seconds(value) * _PER_S)) / _PER_S
    summed[-1] = 0.0
    return np.asarray(summed)


def _costs(code: str, analysis: Analysis, topology: Topology, measured: _Measured) -> CodeCosts:
    graph = analysis.graph

    applies_to = functools.cache(lambda value: _coded(analysis, code, value) is not None)
    nbytes = along(analysis, code)
    count = cut_nbytes(graph, lambda value: int(applies_to(value)))
    nbytes[-1] = count[-1] = 0
    applies: NDArray[np.bool_] = (count > 0) & (nbytes != UNKNOWN)
    traffic = _TRAFFIC[code]

    def seconds(tier: int, times: float, nodes: int, *, writes: bool) -> NDArray[np.float64]:
        machine = topology.tiers[tier]
        per_element = 4 * times / ((machine.memory_gb_per_s or GB_PER_S) * 1e9)

        def each(value: str) -> float:
            if not applies_to(value):
                return 0.0
            found = measured.tiers[tier].get((value, code))
            if found is not None:
                return found.encode_s if writes else found.decode_s
            elements = analysis.types[value].elements or 0
            return elements * per_element + nodes * machine.overhead_us / 1e6

        return _sums(analysis, each)

    tiers = range(len(topology.tiers))
    return CodeCosts(
        nbytes=nbytes,
        applies=applies,
        encode_s=np.array([seconds(t, traffic.encode, traffic.encode_nodes, writes=True) for t in tiers]),
        decode_s=np.array([seconds(t, traffic.decode, traffic.decode_nodes, writes=False) for t in tiers]),
    )
