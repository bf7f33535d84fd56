"""Nodes that look at a state early, ordered where the state is made.

Exporters read all caches at the front of a graph: a dynamo export takes the shape of each, a
half-precision decoder with single-precision ends casts each. Who reads a state may not be below
who makes it, so in such an order no cut between two layers is left, though nothing but the order
is in the way. Here such nodes, and what follows from them alone, move up: to the first node
that needs what they make, but not beyond the first other node of the same state. So

1. a set of nodes that keeps its states whole and was a prefix still is one, if need be without
   some of the moved nodes that nothing else in it needs: it holds a node that reads a state only
   together with the maker, and there the node stops at the latest. A state that nothing makes
   stays for a sequence, and may be where it is first needed;
2. such a cut sends no more than before: moved nodes read nothing that crosses.

What follows from states that stay for a sequence and from shapes goes with them: an encoder's
keys are given the batch's size, which the decoder's input has, and its mask is stretched over heads.
Then a few lengths cross in place of the keys of all layers above.
"""

from __future__ import annotations

from dnnsplit_onnx.graph.graph import Graph, Node

# Of a few numbers these make a few.
_OF_LENGTHS = frozenset(
    {"Abs", "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Max", "Min", "Mod", "Mul", "Neg"}
    | {"ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)


def with_states_together(graph: Graph) -> Graph:
    """A graph with what follows from states alone moved up to who needs it, or makes the state.

    Args:
        graph: The graph, in whatever order; without states it is returned as it is.
    """
    if not graph.states:
        return graph
    places = _places(graph)
    order = sorted(range(len(graph.nodes)), key=lambda at: (places.get(at, at), at not in places, at))
    return graph if order == list(range(len(order))) else graph.reordered(order)


def _places(graph: Graph) -> dict[int, int]:
    """For each node that depends on states alone, the position of the node that it goes before."""
    bounds = _bounds(graph)
    places: dict[int, int] = {}
    first_reader: dict[str, int] = {}
    for at in reversed(range(len(graph.nodes))):
        node = graph.nodes[at]
        if at in bounds:
            needed = [first_reader[value] for value in node.outputs if value in first_reader]
            stop = min([bounds[at], *needed])
            places[at] = at if stop == len(graph.nodes) else max(at, stop)
        for value in node.inputs:
            place = places.get(at, at)
            first_reader[value] = min(place, first_reader.get(value, place))
    return places


def _bounds(graph: Graph) -> dict[int, int]:
    """For each node that depends on states alone, and makes none, how far up it may go."""
    followers = followers_of(graph)
    limit_of = _first_others(graph, followers)  # how far up what reads a value may go
    bounds: dict[int, int] = {}
    for at in sorted(followers):
        node = graph.nodes[at]
        limits = [limit_of[value] for value in node.inputs if value in limit_of]
        bounds[at] = max(limits, default=len(graph.nodes))
        limit_of.update(dict.fromkeys(node.outputs, bounds[at]))
    return bounds


def followers_of(graph: Graph) -> set[int]:
    """The positions of nodes that depend on states alone, or on staying ones and shapes, and make none."""
    made = {state.output for state in graph.states}
    followers: set[int] = set()
    early = {state.input for state in graph.states}  # values that depend on states alone
    staying = {state.input for state in graph.states if state.output is None}
    lengths: set[str] = set()
    for at, node in enumerate(graph.nodes):
        is_length = _is_length(node, lengths)
        if is_length:
            lengths.update(node.outputs)
        if not node.inputs or not made.isdisjoint(node.outputs):
            continue
        stays = bool(staying) and not node.random and (staying | lengths).issuperset(node.inputs)
        if early.issuperset(node.inputs) or (stays and not is_length):
            followers.add(at)
            early.update(node.outputs)
            if stays:
                staying.update(node.outputs)
    return followers


def _is_length(node: Node, lengths: set[str]) -> bool:
    """Whether what a node makes is a few numbers that follow from shapes alone."""
    if node.domain:
        return False
    if node.op_type in ("Shape", "Size"):
        return True
    return (
        node.op_type in _OF_LENGTHS
        and bool(node.inputs)
        and lengths.issuperset(node.inputs)
        # Of a table, one could take any number of rows.
        and (node.op_type != "Gather" or node.proto.input[0] in lengths)
    )


def _first_others(graph: Graph, followers: set[int]) -> dict[str, int]:
    """For each state's input, the first node but the followers that reads or renews it; -1 for none."""
    renewed = {state.input: state.output for state in graph.states}
    first: dict[str, int] = {}
    for state in graph.states:
        made = renewed[state.input]
        while made in renewed and made != state.input:  # handed on, from one state to another
            made = renewed[made]
        tied = {at for at in graph.state_readers[state.input] if state.input in graph.nodes[at].inputs}
        tied |= {graph.producer[made]} if made in graph.producer else set()
        # What stays may be wherever it is read: each tier keeps its own copy.
        first[state.input] = min(tied - followers, default=len(graph.nodes) if made is None else -1)
    return first
