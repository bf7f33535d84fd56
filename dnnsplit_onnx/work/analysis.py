"""What a model asks of the machines: work, bytes and weights, node by node and cut by cut.

An analysis knows nothing of tiers. `costs` turns it into seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dnnsplit_onnx.errors import ShapeError
from dnnsplit_onnx.graph.bodies import reads_of, subgraphs
from dnnsplit_onnx.graph.graph import Graph, build_graph
from dnnsplit_onnx.graph.identity import in_file_order, model_digest, order_digest
from dnnsplit_onnx.graph.inner import functions_of, inner_weights
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.shape_values import known_values
from dnnsplit_onnx.graph.shapes import Types, ValueType, bind_shapes, free_dimensions
from dnnsplit_onnx.views import Tabled
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting, cut_nbytes, outputs_above, parted_states, staircase
from dnnsplit_onnx.work.flops import TensorType, Work, count_node
from dnnsplit_onnx.work.memory import StageMemory, stage_memory
from dnnsplit_onnx.work.moved import moved_nbytes

if TYPE_CHECKING:
    import networkx as nx

#: The orders that a model's nodes can be brought into by name; see `orders`.
ORDERS = ("envelope", "file")
#: The name of an order that was made for cuts that a user named.
CUSTOM = "custom"

_LARGEST_TOTAL = 1 << 61
_MOVES = frozenset(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"))
# Where uncounted nodes read a larger share of the weights, the count says too little.
_MOST_UNCOUNTED = 0.1
# numpy has no arrays of more dimensions, and no operator means anything for them.
_MOST_DIMS = 64


@dataclass(frozen=True, repr=False)
class Analysis(Tabled):
    """A graph with the work of each node and the bytes at each cut.

    Attributes:
        graph: The graph, n nodes in order.
        types: The types of its values.
        work: Work of each node, None where it cannot be counted.
        order: Name of the order that the graph's nodes are in.
        input_nbytes: Bytes that model inputs take on a link where they do not travel as the
            tensors they are (`costs.on_links`). In memory they are those tensors.
        returned: Bytes that model outputs take on their way back, where they do not return as
            the tensors they are.
        trips: Trip counts of loops that the user gave, by node name.
        assumed: Numbers that nobody gave for symbolic dimensions, and that were chosen for
            them; a part of `types.bindings`.
        notes: What the user should know of how it came about, each a sentence.
    """

    graph: Graph
    types: Types
    work: tuple[Work | None, ...]
    order: str = "file"
    input_nbytes: Mapping[str, int] = field(default_factory=dict)
    returned: Mapping[str, int] = field(default_factory=dict)
    trips: Mapping[str, int] = field(default_factory=dict)
    assumed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        size = f"{len(self.graph.nodes)} nodes, {self.flops.sum() / 1e9:.4g} GFLOP"
        return f"<Analysis of {self.graph.file.path.name}, {size}, order {self.order}>"

    def records(self) -> list[dict[str, Any]]:
        """A row for each node; what is not known is None."""
        return [
            {
                "position": at,
                "name": node.name,
                "op_type": node.op_type,
                "macs": None if work is None else work.macs,
                "flops": None if work is None else work.flops,
                "output_nbytes": self.output_nbytes(at),
                "weight_nbytes": self.weight_nbytes(at),
            }
            for at, (node, work) in enumerate(zip(self.graph.nodes, self.work, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data; `Inspection` has the cuts besides."""
        return {
            "model": str(self.graph.file.path),
            "order": self.order,
            "bindings": dict(self.types.bindings),
            "assumed": dict(self.assumed),
            "nodes": self.records(),
            "uncounted_ops": self.uncounted,
            "notes": list(self.notes),
        }

    @cached_property
    def flops(self) -> NDArray[np.int64]:
        """Shape (n,): FLOPs of each node; uncounted ones are 0, and `uncounted` names them."""
        return np.array([w.flops if w else 0 for w in self.work], dtype=np.int64)

    @cached_property
    def macs(self) -> NDArray[np.int64]:
        """Shape (n,): multiply-adds of each node."""
        return np.array([w.macs if w else 0 for w in self.work], dtype=np.int64)

    @cached_property
    def flops_below(self) -> NDArray[np.int64]:
        """Shape (n + 1,): FLOPs below each cut."""
        return np.concatenate(([0], np.cumsum(self.flops)))

    @cached_property
    def uncounted(self) -> dict[str, int]:
        """Operators without a count, and how many nodes of each there are."""
        found: dict[str, int] = {}
        for node, work in zip(self.graph.nodes, self.work, strict=True):
            if work is None:
                name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                found[name] = found.get(name, 0) + 1
        return found

    def output_nbytes(self, position: int) -> int | None:
        """Bytes that a node makes, None if unknown."""
        return self._sum(self.graph.nodes[position].outputs)

    def weight_nbytes(self, position: int) -> int | None:
        """Bytes of the weights that a node reads and holds, None if unknown."""
        read = self._sum(self.graph.nodes[position].weights)
        return None if read is None else read + sum(self.inner_weights[position].values())

    @cached_property
    def inner_weights(self) -> tuple[Mapping[str, int], ...]:
        """For each node the bytes of the weights inside it, by keys (`graph.inner`)."""
        functions = functions_of(self.graph.proto)
        return tuple(inner_weights(node.proto, node.index, functions) for node in self.graph.nodes)

    @cached_property
    def uncounted_weight_share(self) -> float:
        """Share of the weights that nodes without a count of work read; 0 if there are none."""
        names = {
            name
            for node, work in zip(self.graph.nodes, self.work, strict=True)
            if work is None
            for name in node.weights
        }
        held = {
            key: nbytes
            for inner, work in zip(self.inner_weights, self.work, strict=True)
            if work is None
            for key, nbytes in inner.items()
        }
        read = sum(self.types.nbytes(name) or 0 for name in names) + sum(held.values())
        return read / self.total_weight_nbytes if self.total_weight_nbytes else 0.0

    @property
    def knows_enough(self) -> bool:
        """Whether the counted nodes read most of the weights: else its work says too little."""
        return self.uncounted_weight_share <= _MOST_UNCOUNTED

    @cached_property
    def moved_nbytes(self) -> NDArray[np.int64]:
        """Shape (n,): bytes that each node reads and writes, weights included; 0 if unknown."""
        moved = [
            moved_nbytes(node, self.types.nbytes) + sum(inner.values())
            for node, inner in zip(self.graph.nodes, self.inner_weights, strict=True)
        ]
        return np.array(moved, dtype=np.int64)

    @cached_property
    def total_weight_nbytes(self) -> int:
        """Bytes of all weights that nodes read or hold, shared ones once; unknown ones left out.

        A table that is read as it is and transposed, as embeddings are that the logits are tied to, is one
        weight. (In memory it is two: onnxruntime lays down what it has transposed.)
        """
        stored = {self._stored(name): name for node in self.graph.nodes for name in node.weights}
        inner = {key: nbytes for held in self.inner_weights for key, nbytes in held.items()}
        return sum(self.types.nbytes(name) or 0 for name in stored.values()) + sum(inner.values())

    def _stored(self, name: str) -> str:
        """The weight of a file that another one has the elements of, in another order or shape."""
        while name in self.graph.constant_nodes:
            node = self.graph.proto.graph.node[self.graph.constant_nodes[name]]
            if node.op_type not in _MOVES or node.domain:
                break
            name = node.input[0]
        return name

    def cut_nbytes(self, accounting: Accounting = "live") -> NDArray[np.int64]:
        """Shape (n + 1,): bytes that cross each cut.

        `UNKNOWN` where they are, and where a state would be parted: no link is cut there.
        """
        nbytes = cut_nbytes(self.graph, self.link_nbytes, accounting)
        if self.graph.states:
            nbytes[parted_states(self.graph)] = UNKNOWN
        return nbytes

    @property
    def candidates(self) -> tuple[int, ...]:
        """The candidate cuts: the staircase of live bytes."""
        return staircase(self.cut_nbytes())

    @cached_property
    def outputs_above(self) -> NDArray[np.int64]:
        """Shape (n + 1,): bytes of model outputs made above each cut."""
        return outputs_above(self.graph, self.returned_nbytes)

    @cached_property
    def memory(self) -> StageMemory:
        """What each stage needs in memory."""
        return stage_memory(self.graph, self.types.nbytes, self.inner_weights)

    @cached_property
    def dag(self) -> nx.DiGraph:
        """The networkx view with quantities: `macs`, `flops`, `weight_nbytes` and `nbytes`.

        As `Graph.dag`; what is unknown is None. `nbytes` are those of the tensors.
        """
        dag = self.graph.dag.copy()
        for at, (node, work) in enumerate(zip(self.graph.nodes, self.work, strict=True)):
            dag.nodes[node.index].update(
                macs=None if work is None else int(work.macs),
                flops=None if work is None else int(work.flops),
                weight_nbytes=self.weight_nbytes(at),
            )
        for edge in dag.edges.values():
            edge["nbytes"] = self._sum(edge["values"])
        return dag

    def link_nbytes(self, value: str) -> int | None:
        """Bytes that a value takes on a link, None if unknown."""
        if value in self.input_nbytes:
            return self.input_nbytes[value]
        return self.types.nbytes(value)

    def returned_nbytes(self, value: str) -> int | None:
        """Bytes that a model output takes on its way back, None if unknown."""
        given = self.returned.get(value)
        return self.types.nbytes(value) if given is None else given

    def pass_nbytes(self, accounting: Accounting = "live") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes that cross each cut, and that return over it, in the largest pass; shapes (n + 1,)."""
        return self.cut_nbytes(accounting), self.outputs_above

    @property
    def passes(self) -> int:
        """How often the model runs for one request."""
        return 1

    @cached_property
    def texts(self) -> dict[str, Analysis]:
        """The analyses of whole texts that were made of it (`work.texts`)."""
        return {}

    @cached_property
    def model_digest(self) -> str:
        """What tells the model from others: see `identity`."""
        return model_digest(self.graph)

    @cached_property
    def order_digest(self) -> str:
        """What tells the model and the order of its nodes from others."""
        return order_digest(self.graph, self.model_digest)

    @cached_property
    def has_named_order(self) -> bool:
        """Whether the name of the order is enough to make it again from the model alone.

        It is not where the order was made for one plan, or by hand, or where the sizes behind
        it were seen in a run or depend on what the user gave.
        """
        if self.order == "file":
            return in_file_order(self.graph) is self.graph
        if self.order not in ORDERS:
            return False
        # Where dimensions are open, an order is made at sizes of its own (`orders.canonical`).
        return bool(free_dimensions(self.graph, {})) or not (self.types.observed or self.trips)

    def _sum(self, names: tuple[str, ...]) -> int | None:
        sizes = [self.types.nbytes(name) for name in names]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def once_nbytes(analysis: Analysis, position: int) -> int | None:
    """Bytes of the states above a cut that stay for a whole sequence; None if one is unknown."""
    readers = analysis.graph.state_readers
    staying = [state.input for state in analysis.graph.states if state.output is None]
    sizes = [analysis.link_nbytes(name) for name in staying if any(at >= position for at in readers[name])]
    return None if None in sizes else sum(size or 0 for size in sizes)


def measure(graph: Graph, types: Types, trips: Mapping[str, int] | None = None) -> Analysis:
    """Counts the work of every node.

    Args:
        graph: The graph.
        types: Its types, symbolic dimensions bound.
        trips: Trip counts of loops that the model leaves open, by node name.
    """
    context = _Context(types, trips or {})
    functions = {(f.domain, f.name) for f in graph.proto.functions}
    nodes = types.inferred.graph.node
    work = [
        _inlined_work(nodes[node.index], types, context.trips, functions)
        if functions and calls_any(node.proto, functions)
        else count_node(nodes[node.index], context)
        for node in graph.nodes
    ]
    analysis = Analysis(graph, types, tuple(work), trips=dict(trips or {}))
    _check_totals(analysis)
    return analysis


def _check_totals(analysis: Analysis) -> None:
    """Refuses claims whose sums no 64-bit number holds; every sum of parts is smaller.

    Raises:
        ShapeError: The model's work or its values are that large.
    """
    graph, types = analysis.graph, analysis.types
    totals = {
        "FLOPs": sum(work.flops for work in analysis.work if work is not None),
        "bytes that nodes read and write": sum(
            types.nbytes(name) or 0
            for node in graph.nodes
            for names in (node.inputs, node.weights, node.outputs)
            for name in names
        ),
        "bytes of outputs": sum(types.nbytes(name) or 0 for name in graph.outputs),
    }
    for what, total in totals.items():
        if total > _LARGEST_TOTAL:
            raise ShapeError(
                f"the model claims more than 2^61 {what}",
                context=f"in {graph.file.path}",
                hint="is it damaged?",
            )


def calls_any(node: onnx.NodeProto, functions: Set[tuple[str, str]]) -> bool:
    """Whether a node is a call of one of these functions, or holds one in a body."""
    if (node.domain, node.op_type) in functions:
        return True
    return any(calls_any(inner, functions) for body in subgraphs(node) for inner in body.node)


def _inlined_work(
    node: onnx.NodeProto, types: Types, trips: Mapping[str, int], functions: Set[tuple[str, str]]
) -> Work | None:
    """The work of a call: that of a model of this one node, its functions inlined."""
    from onnx import inliner

    source = types.graph.proto
    model = onnx.ModelProto(ir_version=source.ir_version)
    model.opset_import.extend(source.opset_import)
    model.functions.extend(source.functions)
    model.graph.node.append(node)
    for name in reads_of(node):
        constant = types.constant(name)
        if constant is not None:
            model.graph.initializer.append(numpy_helper.from_array(constant, name))
        else:
            model.graph.input.append(types.value_info(name))
    model.graph.output.extend(types.value_info(name) for name in node.output if name)
    try:
        inlined = inliner.inline_local_functions(model)
    except Exception:
        # The inliner is native code that names no errors of its own. What it cannot inline is not
        # counted, and the analysis says so.
        return None
    if any(calls_any(inner, functions) for inner in inlined.graph.node):
        return None  # it leaves calls as they are where opsets differ
    graph = build_graph(ModelFile(types.graph.file.path, inlined))
    parts = measure(graph, bind_shapes(graph), trips).work
    known = [part for part in parts if part is not None]
    return sum(known, Work()) if len(known) == len(parts) else None


def _tensor_type(value: ValueType) -> TensorType | None:
    if value.kind not in ("tensor", "sparse_tensor"):
        return None
    shape = value.shape
    if shape is None or len(shape) > _MOST_DIMS or not all(isinstance(d, int) for d in shape):
        return TensorType(value.dtype, None)
    return TensorType(value.dtype, tuple(d for d in shape if isinstance(d, int)))


class _Context:
    """What a formula may ask about the surroundings of a node."""

    def __init__(self, types: Types, trips: Mapping[str, int]) -> None:
        self.trips = trips
        self._types = types
        self._known: dict[int, TensorType | None] = {}  # by the type's id: `types` keeps it
        self._opsets: dict[str, int] = {o.domain: o.version for o in types.graph.proto.opset_import}

    def type_of(self, name: str) -> TensorType | None:
        found = self._types[name]
        try:
            return self._known[id(found)]
        except KeyError:
            return self._known.setdefault(id(found), _tensor_type(found))

    def constant(self, name: str) -> np.ndarray | None:
        value = self._types.constant(name)
        return self._computed.get(name) if value is None else value

    @cached_property
    def _computed(self) -> Mapping[str, np.ndarray]:
        """What is computed from shapes, where a Loop may ask for it: how often it runs."""
        model = self._types.inferred
        return known_values(model) if any(node.op_type == "Loop" for node in model.graph.node) else {}

    def opset(self, domain: str) -> int:
        newest: int = onnx.defs.onnx_opset_version()
        return self._opsets.get(domain) or self._opsets.get("ai.onnx", newest)
