"""A model's work and cuts as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import glyphs, grid, with_note

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dnnsplit_onnx.work.inspection import Inspection

_OPERATOR_ROWS = 12
_CANDIDATE_ROWS = 20


def print_inspection(console: Console, inspection: Inspection) -> None:
    """Prints what a model holds, what it computes, and where it may be cut."""
    analysis = inspection.analysis
    graph = analysis.graph
    dot = glyphs(console).dot
    title = [units.clean(graph.file.path.name), units.count(len(graph.nodes), "node"), *_work(inspection)]
    title.append(f"{units.nbytes(analysis.total_weight_nbytes)} of weights")
    console.print(f" {dot} ".join(title), style="bold")
    fresh, results = graph.fresh_inputs, graph.results
    console.print(f"reads {_ports(inspection, fresh)}, makes {_ports(inspection, results)}")
    _print_states(console, inspection)
    console.print()
    console.print(_operators(inspection))
    console.print()
    if inspection.candidates:
        console.print(_candidates(inspection))
    else:
        console.print("No cut has a known size.")
    _print_notes(console, inspection)


def _print_states(console: Console, inspection: Inspection) -> None:
    """Prints what runs hand to the next ones, and what stays for a whole sequence of them."""
    states = inspection.analysis.graph.states
    renewed = tuple(state.input for state in states if state.output is not None)
    staying = tuple(state.input for state in states if state.output is None)
    if renewed:
        kept = _ports(inspection, renewed)
        console.print(f"keeps {units.count(len(renewed), 'state')} on their tiers: {kept}")
    if staying:
        console.print(f"reads once in a sequence: {_ports(inspection, staying)}")


def _work(inspection: Inspection) -> list[str]:
    """The model's work; a lower bound where some of it is not counted."""
    analysis = inspection.analysis
    macs, flops = int(analysis.macs.sum()), int(analysis.flops.sum())
    if analysis.uncounted and not flops:
        return ["unknown work"]
    least = "at least " if analysis.uncounted else ""
    return [units.flops(macs, "MAC"), f"{least}{units.flops(flops)}"]


def _ports(inspection: Inspection, names: tuple[str, ...]) -> str:
    shown = []
    for name in names[:3]:
        kind = inspection.analysis.types[name]
        shape = "?" if kind.shape is None else " x ".join("?" if d is None else str(d) for d in kind.shape)
        shown.append(f"`{units.clean(name)}` ({kind.dtype_name or kind.kind} {units.clean(shape)})")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(shown) or "nothing") + more


def _operators(inspection: Inspection) -> RenderableType:
    table = grid("operator", ">nodes", ">MACs", ">FLOPs", ">share")
    operators = inspection.operators
    total = sum(row.flops for row in operators)
    uncounted = inspection.analysis.uncounted
    for row in operators[:_OPERATOR_ROWS]:
        known = row.op_type not in uncounted
        table.add_row(
            units.clean(row.op_type),
            f"{row.nodes:,}",
            units.flops(row.macs, "") if row.macs else "",
            units.flops(row.flops, "") if known else units.UNKNOWN,
            units.percent(row.flops, total) if known and total else "",
        )
    left_out = len(operators) - _OPERATOR_ROWS
    return with_note(table, f"... ({left_out} more with --json)" if left_out > 0 else "")


def _candidates(inspection: Inspection) -> RenderableType:
    """The cuts that an optimal plan can use, and how much work lies below each."""
    graph, below = inspection.analysis.graph, inspection.analysis.flops_below
    table = grid("=candidate cut", ">bytes", ">work below", "after node", "?values that cross")
    shown = inspection.candidates[:_CANDIDATE_ROWS]
    best = set(inspection.envelope)
    for position in shown:
        node = units.clean(graph.nodes[position - 1].name) if position else "(the input)"
        row = [
            f"{position} *" if position in best else str(position),
            units.nbytes(int(inspection.cut_nbytes[position])),
            units.percent(int(below[position]), int(below[-1])),
            node,
        ]
        table.add_row(*row, units.listed(inspection.crossing(position), 1))
    left_out = len(inspection.candidates) - len(shown)
    return with_note(table, f"... ({left_out} more with --json)" if left_out else "")


def _print_notes(console: Console, inspection: Inspection) -> None:
    if set(inspection.envelope) & set(inspection.candidates):
        console.print(
            "* on the envelope: of all cuts of the graph, best for some speed of links.", style="dim"
        )
    console.print()
    if inspection.unbound:
        binds = " ".join(f"--bind {units.clean(dim)}=1" for dim in inspection.unbound)
        console.print(f"Some sizes are unknown, and with them some work: pass {binds}", style="bold")
    elif inspection.analysis.uncounted:
        ops = ", ".join(f"{units.clean(op)} ({n})" for op, n in sorted(inspection.analysis.uncounted.items()))
        console.print(f"Not counted, so the work is more than shown: {ops}.", style="bold")
