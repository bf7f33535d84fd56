"""What enters and leaves a range of nodes.

A range `[start, stop)` of a graph's order is a stage: it reads values that were made below
it (or model inputs), and makes values that something above it, or the user, needs.

1. *Inputs*: data-flow values that its nodes read and do not make.
2. *Outputs*: values made in it that a later node reads, and model outputs made in it.
3. *Constant outputs*: model outputs that are weights depend on no node. The range that
   starts at position 0 makes them, and where they are states, every range that reads these; a
   graph without nodes has one range, `[0, 0)`, for them.
4. *Dead* values: if nobody needs anything the range makes, its outputs are the values that
   nobody reads, because onnxruntime does not run a model without outputs.
5. *Forwarded* values: live above the range and not made in it. They travel on as they came
   and are never put through the slice.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.work.cuts import live_values


@dataclass(frozen=True, slots=True)
class Boundary:
    """What crosses the ends of a range; each value once, in the order values are made.

    Attributes:
        inputs: Data-flow values read from below.
        outputs: Values made for above, then model outputs that are weights.
        forward: Values that pass the range untouched on their way up.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    forward: tuple[str, ...]


def boundary(graph: Graph, start: int, stop: int) -> Boundary:
    """The values that enter and leave the nodes `[start, stop)`.

    Raises:
        ValueError: It is not a range of the graph.
    """
    if not 0 <= start <= stop <= len(graph.nodes):
        raise ValueError(f"[{start}, {stop}) is not a range of {len(graph.nodes)} nodes")
    nodes = graph.nodes[start:stop]
    made = dict.fromkeys(value for node in nodes for value in node.outputs)
    read = {value for node in nodes for value in node.inputs}
    wanted = set(graph.outputs)
    last_use = graph.last_use
    outputs = [v for v in made if v in wanted or last_use.get(v, -1) >= stop]
    is_first = start == 0 and (stop > 0 or not graph.nodes)
    for value in dict.fromkeys(graph.outputs):
        needed = any(start <= at < stop for at in graph.next_readers.get(value, ()))
        if value in graph.constants and (is_first or needed):
            outputs.append(value)
    if not outputs:
        outputs = [v for v in made if v not in read]
    return Boundary(
        inputs=_in_order(graph, read.difference(made)),
        outputs=tuple(outputs),
        forward=tuple(v for v in live_values(graph, stop) if v not in made),
    )


def _in_order(graph: Graph, values: set[str]) -> tuple[str, ...]:
    """Model inputs in the model's order, then the others in the order they are made."""
    inputs = {value: at - len(graph.inputs) for at, value in enumerate(graph.inputs)}
    producer = graph.producer
    made_by_one = {
        v: i
        for p in {producer[v] for v in values if v in producer}
        for i, v in enumerate(graph.nodes[p].outputs)
    }
    return tuple(
        sorted(values, key=lambda v: (inputs[v] if v in inputs else producer[v], made_by_one.get(v, 0)))
    )
