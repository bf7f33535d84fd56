"""Random legal graphs: the chain of their slices equals the whole, wherever they are cut."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import SliceIndex, extract
from tests.slicing.chain import check_cut
from tests.slicing.constructs import model, value

SHAPE = (2, 3)


class Builder:
    """Grows a graph of values of one shape, node by node."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values = ["x0", "x1"]
        self.constants: list[str] = []
        for _ in range(draw(st.integers(1, 3))):
            self.add_weight()

    def fresh(self) -> str:
        return f"v{len(self.values) + len(self.constants)}_{len(self.nodes)}"

    def pick(self) -> str:
        """Any value or weight, the latest values more often."""
        return str(self.draw(st.sampled_from([*self.values, *self.constants, *self.values[-3:]])))

    def add_weight(self) -> None:
        name = f"w{len(self.weights)}"
        seed = self.draw(st.integers(0, 99))
        array = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        self.weights.append(nh.from_array(array, name))
        self.constants.append(name)

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> None:
        names = [f"{self.fresh()}_{at}" for at in range(outputs)]
        name = self.draw(st.sampled_from(["", f"node{len(self.nodes)}"]))
        self.nodes.append(h.make_node(op, inputs, names, name=name, **attributes))
        constant = all(i in self.constants for i in inputs)
        (self.constants if constant else self.values).extend(names)

    def unary(self) -> None:
        self.add(self.draw(st.sampled_from(["Relu", "Tanh", "Neg", "Abs"])), [self.pick()])

    def binary(self) -> None:
        self.add(self.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"])), [self.pick(), self.pick()])

    def clip(self) -> None:
        low = h.make_tensor("", T.FLOAT, [], [-0.5])
        limit = f"{self.fresh()}_low"
        self.nodes.append(h.make_node("Constant", [], [limit], value=low))
        self.add("Clip", [self.pick(), limit, ""])

    def multiple_outputs(self) -> None:
        """Split and join again: both halves are values, of another shape, used once."""
        left, right = f"{self.fresh()}_l", f"{self.fresh()}_r"
        source = self.pick()
        self.nodes.append(h.make_node("Split", [source, "sizes"], [left, right], axis=1))
        joined = f"{self.fresh()}_j"
        self.nodes.append(h.make_node("Concat", [right, left], [joined], axis=1))
        (self.constants if source in self.constants else self.values).append(joined)

    def branch(self) -> None:
        """An If whose branches capture values and weights, one of them in a nested If."""
        a, b, c = self.pick(), self.pick(), self.pick()
        tag = self.fresh()
        deep = h.make_graph(
            [h.make_node("Sub", [a, c], [f"{tag}_d"])], "deep", [], [value(f"{tag}_d", shape=SHAPE)]
        )
        flat = h.make_graph(
            [h.make_node("Neg", [c], [f"{tag}_f"])], "flat", [], [value(f"{tag}_f", shape=SHAPE)]
        )
        inner = h.make_node("If", ["p"], [f"{tag}_t"], then_branch=deep, else_branch=flat)
        then = h.make_graph([inner], "then", [], [value(f"{tag}_t", shape=SHAPE)])
        other = h.make_graph(
            [h.make_node("Add", [a, b], [f"{tag}_e"])], "else", [], [value(f"{tag}_e", shape=SHAPE)]
        )
        self.nodes.append(h.make_node("If", ["p"], [tag], then_branch=then, else_branch=other))
        self.values.append(tag)

    def build(self) -> onnx.ModelProto:
        steps = [self.unary, self.binary, self.binary, self.clip, self.multiple_outputs, self.branch]
        for _ in range(self.draw(st.integers(1, 9))):
            self.draw(st.sampled_from(steps))()
        outputs = self.draw(
            st.lists(st.sampled_from([*self.values, *self.constants]), min_size=1, unique=True)
        )
        sizes = nh.from_array(np.array([1, 2], np.int64), "sizes")
        inputs = [value("x0", shape=SHAPE), value("x1", shape=("A", 3)), value("p", T.BOOL, ())]
        if self.draw(st.booleans()):
            inputs.append(value("w0", shape=SHAPE))  # may be overridden, and counts as a weight
        graph = h.make_graph(
            self.nodes, "g", inputs, [value(name, shape=None) for name in outputs], [*self.weights, sizes]
        )
        return model(graph, opset=18)


@st.composite
def random_models(draw: Any) -> onnx.ModelProto:
    return Builder(draw).build()


def feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    arrays = {name: random.standard_normal(SHAPE).astype(np.float32) for name in ("x0", "x1")}
    return {**arrays, "p": np.array(True)}


@settings(max_examples=60, deadline=None)
@given(random_models(), st.data())
def test_chain_equals_whole(built: onnx.ModelProto, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(built, folder / "source.onnx")
        graph = load_graph(folder / "source.onnx")
        tiers = data.draw(st.integers(1, 4))
        cuts = sorted(
            data.draw(st.lists(st.integers(0, len(graph.nodes)), min_size=tiers - 1, max_size=tiers - 1))
        )
        inputs = {key: array for key, array in feeds().items() if key in graph.inputs}
        check_cut(folder / "source.onnx", tuple(cuts), inputs, folder / "out", graph=graph)


@settings(max_examples=60, deadline=None)
@given(random_models(), st.data())
def test_every_range_is_self_contained(built: onnx.ModelProto, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        onnx.save(built, Path(name) / "source.onnx")
        graph = load_graph(Path(name) / "source.onnx")
    stop = data.draw(st.integers(0, len(graph.nodes)))
    start = data.draw(st.integers(0, stop))
    part = extract(SliceIndex(graph), start, stop)
    known = {v.name for v in part.proto.graph.input} | {t.name for t in part.proto.graph.initializer} | {""}
    for node in part.proto.graph.node:
        assert known.issuperset(node.input)
        known.update(node.output)
    assert known.issuperset(port.name for port in part.outputs)
    made = {value for node in graph.nodes[start:stop] for value in node.outputs}
    assert made.isdisjoint(port.name for port in part.inputs)
    assert made.isdisjoint(part.forward)
