"""The DAG of an ONNX model: nodes joined by values, weights kept apart.

Three things look alike in an ONNX file and are told apart here:

1. *Data flow*: values that depend on the model's inputs, and the nodes that make them.
   Only these are ordered, counted as positions, priced, and sent across a cut.
2. *Weights*: initializers, and values computed from weights alone (Constant,
   ConstantOfShape, an Unsqueeze of a bias ...). They are constant, so whoever needs them
   can have a copy.
3. *Random* values: made from no input, and yet not constant. They are data flow: a copy of
   the node would draw other numbers.

A node of an unknown operator is data flow even where all its inputs are weights, because
nothing says that it is deterministic.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.bodies import reads_of
from dnnsplit_onnx.graph.bounds import check_bounds
from dnnsplit_onnx.graph.modelfile import ModelFile, open_model, open_proto
from dnnsplit_onnx.graph.operators import ONNX_DOMAINS, OperatorFacts
from dnnsplit_onnx.graph.states import Signature, State, named_states, parse_states
from dnnsplit_onnx.views import Tabled

if TYPE_CHECKING:
    import networkx as nx

_LONGEST_ENDS = 80


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the data flow.

    Attributes:
        index: Where the node stands in the model's own file (`GraphProto.node`).
        name: Its name; where the file gives none, one made from operator and output.
        op_type: The operator, or the name of a local function.
        domain: The operator's domain, "" for ONNX itself.
        inputs: Data-flow values it reads, each once: its inputs and what its subgraphs
            capture.
        outputs: Values it makes; omitted optional outputs are left out.
        weights: Constant values it reads, each once, captured ones included.
        random: Whether two runs of it may differ.
        proto: The node as the file has it.
    """

    index: int
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
    random: bool
    proto: onnx.NodeProto = field(repr=False, compare=False)


@dataclass(frozen=True, repr=False)
class Graph(Tabled):
    """A model as data flow, in an order in which it can run.

    Attributes:
        file: The model and where its weights lie.
        nodes: The data-flow nodes; position `i` is the cut of the first `i` of them.
        inputs: Model inputs that are data, not weights, in the model's order.
        outputs: Model outputs, in the model's order.
        constants: Names of all weights: initializers and values made from weights alone.
        constant_nodes: For each value made from weights alone, the index in
            `GraphProto.node` of the node that makes it.
        states: What one run hands to the next; recognised by name, unless they are given.
    """

    file: ModelFile
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: frozenset[str]
    constant_nodes: dict[str, int]
    states: tuple[State, ...] = ()

    def __repr__(self) -> str:
        ends = f"{', '.join(self.inputs)} to {', '.join(dict.fromkeys(self.outputs))}"
        ends = ends if len(ends) <= _LONGEST_ENDS else f"{ends[:_LONGEST_ENDS]}..."
        return f"<Graph of {self.file.path.name}, {len(self.nodes)} nodes, {ends}>"

    def records(self) -> list[dict[str, Any]]:
        """A row for each node, in the order that positions count in."""
        return [
            {
                "position": at,
                "name": node.name,
                "op_type": node.op_type,
                "inputs": list(node.inputs),
                "weights": list(node.weights),
                "outputs": list(node.outputs),
            }
            for at, node in enumerate(self.nodes)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "model": str(self.file.path),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "nodes": self.records(),
            "states": [{"input": state.input, "output": state.output} for state in self.states],
        }

    @property
    def proto(self) -> onnx.ModelProto:
        """The model, its large weights left in their files."""
        return self.file.proto

    @cached_property
    def fresh_inputs(self) -> tuple[str, ...]:
        """The inputs that a request brings: all but states."""
        kept = {state.input for state in self.states}
        return tuple(name for name in self.inputs if name not in kept)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The outputs that a request is about, each once: all but states."""
        kept = {state.output for state in self.states}
        return tuple(name for name in dict.fromkeys(self.outputs) if name not in kept)

    @cached_property
    def producer(self) -> dict[str, int]:
        """For each value that a node makes, the position of that node."""
        return {value: at for at, node in enumerate(self.nodes) for value in node.outputs}

    @cached_property
    def last_use(self) -> dict[str, int]:
        """For each data-flow value that a node reads, the position of its last reader."""
        return {value: at for at, node in enumerate(self.nodes) for value in node.inputs}

    @cached_property
    def state_readers(self) -> dict[str, tuple[int, ...]]:
        """For each state's input, the positions of the nodes that need it, in ascending order.

        They read it, or the state that it is handed to.
        """
        readers: dict[str, set[int]] = {state.input: set() for state in self.states}
        for at, node in enumerate(self.nodes):
            for value in node.inputs:
                if value in readers:
                    readers[value].add(at)
        handed = [(s.output, s.input) for s in self.states if s.output is not None and s.output in readers]
        while any(not readers[into] <= readers[name] for name, into in handed):
            for name, into in handed:
                readers[name] |= readers[into]
        return {name: tuple(sorted(positions)) for name, positions in readers.items()}

    @cached_property
    def next_readers(self) -> dict[str, tuple[int, ...]]:
        """For each output that a state is, the positions of the nodes that need it in the next run."""
        return {s.output: self.state_readers[s.input] for s in self.states if s.output is not None}

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The data-flow values: model inputs, then what nodes make, in order."""
        return self.inputs + tuple(value for node in self.nodes for value in node.outputs)

    @cached_property
    def position_of_node(self) -> dict[str, int]:
        """Positions by node name; duplicate names are left out, since they name nothing."""
        found: dict[str, int] = {}
        twice = set()
        for at, node in enumerate(self.nodes):
            if node.name in found:
                twice.add(node.name)
            found[node.name] = at
        return {name: at for name, at in found.items() if name not in twice}

    @cached_property
    def dag(self) -> nx.DiGraph:
        """The networkx view: structure, without quantities (`Analysis.dag` has them).

        A node's key is its `index` in the model's file; `graph.dag` says what is on nodes
        and edges.
        """
        import networkx as nx  # as long to import as onnx, and few need it

        dag = nx.DiGraph()
        for at, node in enumerate(self.nodes):
            dag.add_node(node.index, name=node.name, op_type=node.op_type, position=at)
        for node in self.nodes:
            for value in node.inputs:
                if (before := self.producer.get(value)) is not None:
                    edge = (self.nodes[before].index, node.index)
                    shared = dag.edges[edge]["values"] if dag.has_edge(*edge) else ()
                    dag.add_edge(*edge, values=(*shared, value))
        return dag

    def reordered(self, order: Sequence[int]) -> Graph:
        """The same graph in another order.

        Args:
            order: A permutation of the present positions in which every node comes after
                the nodes it depends on.

        Raises:
            ValueError: It is not such a permutation.
        """
        if sorted(order) != list(range(len(self.nodes))):
            raise ValueError("not a permutation of the positions")
        place = {at: rank for rank, at in enumerate(order)}
        for at, node in enumerate(self.nodes):
            for value in node.inputs:
                before = self.producer.get(value)
                if before is not None and place[before] > place[at]:
                    raise ValueError(f"node `{node.name}` would run before its input `{value}` is made")
        return replace(self, nodes=tuple(self.nodes[at] for at in order))


def load_graph(model: str | Path | onnx.ModelProto | bytes, states: Sequence[str] | None = None) -> Graph:
    """Reads an ONNX model as a data-flow graph, without its weights.

    Nodes keep the file's order; a file that is not sorted is sorted, moving as little as
    possible.

    Args:
        model: The `.onnx` file, or a folder of one; or the model itself, or the bytes of its file, which then
            lie in a temporary file for as long as the graph is in use.
        states: What one run hands to the next, each as `IN=OUT`, or `IN=` for what stays
            for a whole sequence; `none` for nothing. Recognised by name if it is not given.

    Raises:
        ModelError: The file is not a readable ONNX model, or its graph has a cycle, a
            value nobody makes, or a value made twice.
        InputError: A state names no input and output of the model.
    """
    if isinstance(model, onnx.ModelProto | bytes):
        file = open_proto(model)
    elif isinstance(model, str | Path):
        file = open_model(model)
    else:
        raise ModelError(
            f"an object of type `{type(model).__name__}` is no model",
            hint="pass the path of an ONNX file, or an onnx.ModelProto",
        )
    graph = build_graph(file)
    if states is None:
        return graph
    return replace(graph, states=parse_states(states, graph.inputs, graph.outputs))


def build_graph(file: ModelFile) -> Graph:
    """The data-flow graph of an opened model. See `load_graph`."""
    proto = file.proto.graph
    _check_bounds(file)
    facts = OperatorFacts(file.proto)
    weights = {tensor.name for tensor in proto.initializer}
    weights.update(sparse.values.name for sparse in proto.sparse_initializer)
    inputs = tuple(value.name for value in proto.input if value.name not in weights)
    _refuse_duplicates(file, inputs, weights)

    constants = set(weights)
    constant_nodes: dict[str, int] = {}
    nodes: list[Node] = []
    same: dict[str, str] = {}  # of each text one object, however many nodes have it
    for index, node, reads, outputs in _runnable_order(file, set(inputs) | weights, same):
        random = facts.is_random(node)
        if not random and constants.issuperset(reads) and facts.is_known(node):
            constants.update(outputs)
            constant_nodes.update((name, index) for name in outputs)
            continue
        reads_data = constants.isdisjoint(reads)  # most nodes: theirs is one tuple then
        nodes.append(
            Node(
                index=index,
                name=node.name or f"{node.op_type}_{outputs[0] if outputs else index}",
                op_type=sys.intern(node.op_type),
                domain="" if node.domain in ONNX_DOMAINS else node.domain,
                inputs=reads if reads_data else tuple([name for name in reads if name not in constants]),
                outputs=outputs,
                weights=() if reads_data else tuple([name for name in reads if name in constants]),
                random=random,
                proto=node,
            )
        )
    made = constants.union(inputs, *(node.outputs for node in nodes))
    graph_outputs = tuple(value.name for value in proto.output)
    for name in graph_outputs:
        if name not in made:
            raise ModelError(f"nothing makes the model's output `{name}`", context=f"in {file.path}")
    states = named_states(*signatures(proto, inputs))
    return Graph(file, tuple(nodes), inputs, graph_outputs, frozenset(constants), constant_nodes, states)


def signatures(
    proto: onnx.GraphProto, inputs: Sequence[str]
) -> tuple[dict[str, Signature | None], dict[str, Signature | None]]:
    """What the file says of the types of the inputs that are data, and of the outputs."""
    said = {value.name: _signature(value.type) for value in proto.input}
    made = {value.name: _signature(value.type) for value in proto.output}
    return {name: said[name] for name in inputs}, made


def _signature(kind: onnx.TypeProto) -> Signature | None:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.elem_type:
        return None
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return tensor.elem_type, tuple(sizes)


def _runnable_order(
    file: ModelFile, available: set[str], same: dict[str, str]
) -> Iterator[tuple[int, onnx.NodeProto, tuple[str, ...], tuple[str, ...]]]:
    """The file's nodes, by index, in an order in which they can run, with what each reads and makes.

    The file's own order where it is one, as the standard demands; otherwise each node as
    soon as its inputs are there, earliest in the file first.
    """
    nodes = list(file.proto.graph.node)
    reads = [tuple([same.setdefault(name, name) for name in reads_of(node)]) for node in nodes]
    makes = [tuple([same.setdefault(name, name) for name in node.output if name]) for node in nodes]
    maker: dict[str, int] = {}
    for index, (node, made) in enumerate(zip(nodes, makes, strict=True)):
        for name in made:
            if name in maker or name in available:
                raise ModelError(
                    f"value `{name}` is made twice",
                    context=f"in {file.path}, the second time by node {_called(node, index)}",
                )
            maker[name] = index
    is_sorted = True
    for index, names in enumerate(reads):
        for name in names:
            before = maker.get(name, -1)
            is_sorted &= before < index
            if before < 0 and name not in available:
                node = nodes[index]
                raise ModelError(
                    f"nothing makes value `{name}`",
                    context=f"in {file.path}, read by node {_called(node, index)}",
                    hint="the model is broken: export it again",
                )
    order: Iterable[int] = range(len(nodes))
    if not is_sorted:
        order = _sorted(
            file,
            ((maker[name], at) for at, names in enumerate(reads) for name in names if name in maker),
        )
    for index in order:
        yield index, nodes[index], reads[index], makes[index]


def _check_bounds(file: ModelFile) -> None:
    try:
        check_bounds(file.proto)
    except ModelError as error:
        error.context = error.context or f"in {file.path}"
        raise


def _called(node: onnx.NodeProto, index: int) -> str:
    """A node as errors call it: by its name, or its place in the file."""
    return f"`{node.name or index}` ({node.op_type})"


def _sorted(file: ModelFile, reads_from: Iterable[tuple[int, int]]) -> list[int]:
    """The nodes in an order in which they can run, earliest in the file first."""
    import networkx as nx  # only for files that break the rule

    nodes = file.proto.graph.node
    dag = nx.DiGraph()
    dag.add_nodes_from(range(len(nodes)))
    dag.add_edges_from(reads_from)
    try:
        return list(nx.lexicographical_topological_sort(dag))
    except nx.NetworkXUnfeasible:
        stuck = min(index for edge in nx.find_cycle(dag) for index in edge)
        raise ModelError(
            f"the graph has a cycle through node {_called(nodes[stuck], stuck)}",
            context=f"in {file.path}",
            hint="an ONNX graph must be acyclic: export the model again",
        ) from None


def _refuse_duplicates(file: ModelFile, inputs: Iterable[str], weights: set[str]) -> None:
    seen: set[str] = set()
    for name in inputs:
        if name in seen:
            raise ModelError(f"model input `{name}` is listed twice", context=f"in {file.path}")
        seen.add(name)
    graph = file.proto.graph
    if len(weights) < len(graph.initializer) + len(graph.sparse_initializer):
        names = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ModelError(f"initializer `{twice}` is given twice", context=f"in {file.path}")
