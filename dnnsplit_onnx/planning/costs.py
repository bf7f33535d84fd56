"""Seconds: what an analysis takes on each tier of a topology.

A cost table is all that planning knows of model and machines. Stage seconds are
differences of prefix sums. A tier's seconds come from one of three models:

1. `gflops` alone (the paper's): FLOPs divided by speed. The prefix is an exact integer,
   divided once, so nodes without work cost exactly nothing.
2. A roofline (Williams, Waterman and Patterson, CACM 2009): each node takes the longer of
   its FLOPs over `gflops` and its bytes over `memory_gb_per_s`, and `overhead_us` on top.
   A node whose bytes are unknown counts with its FLOPs alone.
3. A measured `profile`, or a predictor, which was fitted on other models.

Or the caller gives the seconds: an array, or a function that makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dnnsplit_onnx.errors import InputError, TopologyError, close_names
from dnnsplit_onnx.machines.predictors import Timings
from dnnsplit_onnx.machines.profiles import CodeTimes, Place, Profile
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.coding import CodeCosts, code_costs
from dnnsplit_onnx.planning.picture_files import decode_seconds, files_nbytes
from dnnsplit_onnx.planning.timings import run_seconds, timed_below, timings_of
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import Accounting
from dnnsplit_onnx.work.memory import StageMemory
from dnnsplit_onnx.work.passes import Passes
from dnnsplit_onnx.work.texts import Text

if TYPE_CHECKING:
    from dnnsplit_onnx.planning.sharing import MachineSeconds, TierRows

#: Seconds of each node on each tier, shape (K, n), along the analysis's order.
CostFunction = Callable[[Analysis, Topology], ArrayLike]
Costs = CostFunction | ArrayLike

_Analysis = TypeVar("_Analysis", bound=Analysis)


@dataclass(frozen=True)
class CostTable:
    """Costs of a graph of n nodes on K tiers, along the graph's order.

    Attributes:
        seconds_below: Shape (K, n + 1): seconds that tier t needs for the first i nodes.
        flops_below: Shape (n + 1,): FLOPs of the first i nodes.
        up_nbytes: Shape (n + 1,): bytes that cross the cut at each position; `UNKNOWN`
            where that cannot be known.
        down_nbytes: Shape (n + 1,): bytes of model outputs made above each position.
        memory: What each stage needs in memory; None if that is not to be looked at.
        codes: What each code takes that some link allows; none where there are none.
        passes: How often the model runs for a request: each link's delay is paid so often.
        most_up_nbytes: Shape (n + 1,): bytes that cross in the largest pass, where there are several.
        most_down_nbytes: Shape (n + 1,): the same of outputs.
        prefill: Of a whole text, what its prompt takes; None for requests of one pass.
        step: Of a whole text, what one of its steps takes.
        check: Of a text with drafts, what a pass takes that checks them.
        timings: What each tier's seconds were read from, None for one without a file; those
            of its first machine, if it has several.
        is_custom: Whether the seconds are the caller's own.
        rows: How the machines of tier 0 share rows; None if it has one machine. Its prefix
            seconds are then those of the best way to share each prefix, so they may fall.
    """

    seconds_below: NDArray[np.float64]
    flops_below: NDArray[np.int64]
    up_nbytes: NDArray[np.int64]
    down_nbytes: NDArray[np.int64]
    memory: StageMemory | None = None
    is_custom: bool = False
    rows: TierRows | None = None
    codes: Mapping[str, CodeCosts] = field(default_factory=dict)
    timings: tuple[Timings | None, ...] = ()
    passes: int = 1
    most_up_nbytes: NDArray[np.int64] | None = None
    most_down_nbytes: NDArray[np.int64] | None = None
    prefill: CostTable | None = None
    step: CostTable | None = None
    check: CostTable | None = None

    @property
    def pass_nbytes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes that cross, and that return, in the largest pass; each of shape (n + 1,)."""
        up, down = self.most_up_nbytes, self.most_down_nbytes
        return (self.up_nbytes if up is None else up, self.down_nbytes if down is None else down)

    def of_phase(self, measure: str) -> CostTable:
        """What the first token of a text takes, or each after it.

        Raises:
            InputError: A request is no text.
        """
        found = self.prefill if measure == "ttft" else self.step
        if found is None:
            raise InputError(f"`{measure}` is a figure of texts, and a request is one run", hint=TEXTS_HINT)
        return found

    @property
    def size(self) -> int:
        """Number of nodes, n."""
        return len(self.flops_below) - 1


def cost_table(
    analysis: Analysis, topology: Topology, accounting: Accounting = "live", costs: Costs | None = None
) -> CostTable:
    """The cost table of an analysis on a topology.

    Args:
        analysis: The model's work and bytes.
        topology: The tiers.
        accounting: What a cut is charged: `live`, or the paper's `layer-input`.
        costs: The nodes' seconds on each tier, shape (K, n), or a function that makes them of
            the analysis and the topology; by default they are those of the topology's tiers.

    Raises:
        InputError: `costs` are of another shape, or not all finite and from 0 up.
        ProfileError: A tier's profile cannot be read, or is of another model, provider
            or binding.
        TopologyError: `input_nbytes` names what is no input of the model.
    """
    if isinstance(analysis, Passes):
        return _table_of_passes(analysis, topology, accounting, costs)
    rows: TierRows | None = None
    timings: tuple[Timings | None, ...] = ()
    if costs is not None:
        below = _custom_below(costs, analysis, topology)
    else:
        timings = tuple(timings_of(tier.singles[0]) for tier in topology.tiers)
        pairs = zip(topology.tiers, timings, strict=True)
        places = [_place(t, topology) for t in range(len(topology.tiers))]
        below = np.array(
            [_seconds_below(analysis, *pair, place) for pair, place in zip(pairs, places, strict=True)]
        )
        rows = _shared(analysis, topology)
        below[0] = below[0] if rows is None else rows.seconds_below
    if topology.files:
        below = below + decode_seconds(analysis, topology, _measured(timings))
    return CostTable(
        seconds_below=below,
        flops_below=analysis.flops_below,
        up_nbytes=on_links(analysis, topology).cut_nbytes(accounting),
        down_nbytes=analysis.outputs_above,
        memory=analysis.memory,
        is_custom=costs is not None,
        rows=rows,
        codes=_codes(analysis, topology, timings) if accounting == "live" else {},
        timings=timings,
    )


def _table_of_passes(
    analysis: Passes, topology: Topology, accounting: Accounting, costs: Costs | None
) -> CostTable:
    """The sum of what all passes take.

    Raises:
        InputError: Rows are shared, links have codes, or `costs` are of one pass alone.
    """
    if any(tier.machines for tier in topology.tiers):
        raise InputError("machines that share rows are not planned for texts", hint="name one machine")
    if costs is not None and not callable(costs):
        raise InputError(
            "`costs` is an array, and a text takes passes of unequal sizes",
            hint="give a function of analysis and topology: it is asked for each pass",
        )
    analysis = on_links(analysis, topology)
    tables = [(cost_table(part, topology, accounting, costs), count) for part, count in analysis.parts]
    below = np.sum([count * table.seconds_below for table, count in tables], axis=0)
    if costs is None:  # FLOPs are whole numbers, divided once
        for row, tier in zip(below, topology.tiers, strict=True):
            if tier.cost_model == "gflops":
                row[:] = _seconds_below(analysis, tier, None, "top")
    largest = analysis.pass_nbytes(accounting)
    table = CostTable(
        seconds_below=below,
        flops_below=analysis.flops_below,
        up_nbytes=analysis.cut_nbytes(accounting),
        down_nbytes=analysis.outputs_above,
        memory=analysis.memory,
        is_custom=costs is not None,
        timings=tables[0][0].timings,
        passes=analysis.passes,
        most_up_nbytes=largest[0],
        most_down_nbytes=largest[1],
    )
    if isinstance(analysis, Text):
        check = tables[2][0] if analysis.check is not None else None
        return replace(table, prefill=tables[0][0], step=tables[1][0], check=check)
    return table


def _custom_below(costs: Costs, analysis: Analysis, topology: Topology) -> NDArray[np.float64]:
    """Shape (K, n + 1): prefixes of the caller's own seconds."""
    given = costs(analysis, topology) if callable(costs) else costs
    try:
        seconds = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"`costs` are no array of numbers: {error}", hint=_COSTS_HINT) from None
    shape = (len(topology.tiers), len(analysis.graph.nodes))
    if seconds.shape != shape:
        raise InputError(
            f"`costs` have shape {seconds.shape}, for {shape[0]} tiers and {shape[1]} nodes", hint=_COSTS_HINT
        )
    wrong = np.argwhere(~np.isfinite(seconds) | (seconds < 0))
    if len(wrong):
        t, at = (int(place) for place in wrong[0])
        raise InputError(
            f"`costs` give node `{analysis.graph.nodes[at].name}` {seconds[t, at]:g} seconds "
            f"on tier `{topology.tiers[t].name}`",
            hint="give finite seconds, 0 or more; a pin keeps a node from a tier",
        )
    return np.concatenate((np.zeros((shape[0], 1)), np.cumsum(seconds, axis=1)), axis=1)


#: What makes a request a text.
TEXTS_HINT = "say how long they are: --prompt-tokens 512 --new-tokens 128"
_COSTS_HINT = "give seconds of shape (tiers, nodes), along analysis.graph.nodes"


def _shared(analysis: Analysis, topology: Topology) -> TierRows | None:
    """How the machines of tier 0 share rows, if it has several."""
    tier = topology.tiers[0]
    if len(tier.machines) < 2:
        return None
    from dnnsplit_onnx.planning.sharing import share_rows  # takes time to load, and few tiers need it

    return share_rows(analysis, tier, [_machine_seconds(analysis, one) for one in tier.singles])


def _machine_seconds(analysis: Analysis, tier: Tier) -> MachineSeconds:
    """What one machine of tier 0 takes: what goes with the rows, and what does not."""
    from dnnsplit_onnx.planning.sharing import MachineSeconds

    timings = timings_of(tier)
    per_node = np.diff(_seconds_below(analysis, tier, timings, "bottom"))
    fixed = np.full_like(per_node, tier.overhead_us / 1e6 if timings is None else 0.0)
    run_s = 0.0
    if timings is not None and len(per_node):
        run_s = run_seconds(timings)
        per_node[0] = max(per_node[0] - run_s, 0.0)  # where a bottom tier's prefixes have it
    return MachineSeconds(per_node - fixed, fixed, run_s)


def on_links(analysis: _Analysis, topology: Topology) -> _Analysis:
    """The analysis as a topology's links see it: inputs take its `input_nbytes` there.

    Everything that prices a cut, planners, bounds and the envelope, asks `link_nbytes` and so
    sees the same sizes. Work, memory and the order of nodes do not change.

    Raises:
        TopologyError: A name in `input_nbytes` is no input of the model.
    """
    files = files_nbytes(topology)
    sizes, inputs = topology.input_nbytes | files, analysis.graph.inputs
    for name in sizes:
        if name not in inputs:
            key = "[input.NAME]" if name in files else "`input_nbytes`"
            close = close_names(name, inputs, n=3)
            listed = " or ".join(f"`{match}`" for match in close)
            raise TopologyError(
                f"{key} names `{name}`, which is no input of the model",
                hint=f"did you mean {listed}?" if close else f"its inputs are {', '.join(inputs)}",
            )
    return analysis if sizes == analysis.input_nbytes else _with_sizes(analysis, sizes)


def _with_sizes(analysis: _Analysis, sizes: Mapping[str, int]) -> _Analysis:
    """An analysis, and those it sums, with other bytes of inputs on links."""
    if not isinstance(analysis, Passes):
        return replace(analysis, input_nbytes=sizes)
    parts = tuple((_with_sizes(part, sizes), count) for part, count in analysis.parts)
    return replace(analysis, input_nbytes=sizes, parts=parts)


def _codes(analysis: Analysis, topology: Topology, timings: Sequence[Timings | None]) -> dict[str, CodeCosts]:
    """What codes take, measured where a profile says so."""
    return code_costs(on_links(analysis, topology), topology, _measured(timings))


def _measured(timings: Sequence[Timings | None]) -> list[tuple[CodeTimes, ...]]:
    """What codes were measured to take on each tier."""
    return [found.codes if isinstance(found, Profile) else () for found in timings]


def _place(t: int, topology: Topology) -> Place:
    return "bottom" if t == 0 else "top" if t == len(topology.tiers) - 1 else "between"


def _seconds_below(
    analysis: Analysis, tier: Tier, timings: Timings | None, place: Place
) -> NDArray[np.float64]:
    """Shape (n + 1,): seconds that a tier needs for each prefix; its first machine, if it has several."""
    tier = tier.singles[0]
    if timings is not None:
        return timed_below(analysis, tier, timings, place)
    speed = (tier.gflops or 0.0) * 1e9
    if tier.memory_gb_per_s is None and not tier.overhead_us:
        below: NDArray[np.float64] = analysis.flops_below / speed
        return below
    seconds = analysis.flops / speed
    if tier.memory_gb_per_s is not None:
        seconds = np.maximum(seconds, analysis.moved_nbytes / (tier.memory_gb_per_s * 1e9))
    return np.concatenate(([0.0], np.cumsum(seconds + tier.overhead_us / 1e6)))
