"""The nine real topologies that the onnx package ships, cut in two and in three.

Their weights come from ConstantOfShape, all alike, so that a classifier's output
is flat. They are made to vary here, so that a mix-up of tensors of equal shape shows.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dnnsplit_onnx.graph.graph import Graph, load_graph
from tests.conftest import LIGHT
from tests.slicing.chain import check_cut, run_whole

NAMES = sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("light_*.onnx"))
SMALL = {"bvlc_alexnet", "squeezenet"}
BIGGEST = 5_000_000  # elements; beyond it weights stay flat, to save time


def meaningful(name: str, folder: Path) -> Path:
    """The model with waves for the weights of its layers, still computed by nodes from shapes alone."""
    built = onnx.load(LIGHT / f"light_{name}.onnx")
    graph = built.graph
    shapes = {t.name: numpy_helper.to_array(t).tolist() for t in graph.initializer if t.data_type == 7}
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    graph.input.append(helper.make_tensor_value_info("flat", 7, [1]))  # IR 3
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        shape = shapes.get(node.input[0], []) if node.op_type == "ConstantOfShape" else []
        if len(shape) > 1 and math.prod(shape) < BIGGEST:
            graph.node.extend(_waves(node.input[0], node.output[0], math.sqrt(4 / math.prod(shape[1:]))))
        else:
            graph.node.append(node)
    path = folder / f"{name}.onnx"
    onnx.save(built, path)
    return path


def _waves(shape: str, output: str, height: float) -> list[onnx.NodeProto]:
    """Nodes that fill a shape with cos(0), cos(1), ..., times a height, as opset 9 can."""
    one, high = (helper.make_tensor("", 1, [1], [x]) for x in (1.0, height))
    steps = [
        ("ConstantOfShape", [shape], {"value": one}),
        ("Reshape", ["0", "flat"], {}),
        ("NonZero", ["1"], {}),
        ("Cast", ["2"], {"to": 1}),
        ("Cos", ["3"], {}),
        ("Constant", [], {"value": high}),
        ("Mul", ["4", "5"], {}),
    ]
    names = {str(at): f"{output}/{at}" for at in range(len(steps))}
    nodes = [
        helper.make_node(op, [names.get(i, i) for i in inputs], [names[str(at)]], **attributes)
        for at, (op, inputs, attributes) in enumerate(steps)
    ]
    return [*nodes, helper.make_node("Reshape", [names["6"], shape], [output])]


def feeds(graph: Graph) -> dict[str, np.ndarray]:
    (name,) = graph.inputs
    shape = next(v for v in graph.proto.graph.input if v.name == name).type.tensor_type.shape
    size = [dim.dim_value for dim in shape.dim]
    return {name: np.random.default_rng(0).standard_normal(size).astype(np.float32)}


def test_there_are_nine() -> None:
    assert len(NAMES) == 9


@pytest.mark.parametrize("name", NAMES)
def test_chain_equals_whole(name: str, tmp_path: Path) -> None:
    path = meaningful(name, tmp_path)
    n = len(load_graph(path).nodes)
    pick = random.Random(name)
    hold(path, [(pick.randrange(n + 1),), tuple(sorted(pick.choices(range(n + 1), k=2)))])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_chain_equals_whole_at_many_cuts(name: str, tmp_path: Path) -> None:
    path = meaningful(name, tmp_path)
    n = len(load_graph(path).nodes)
    pick = random.Random(f"{name} again")
    positions = range(n + 1) if name in SMALL else pick.sample(range(n + 1), 4)
    hold(path, [(at,) for at in positions])


def hold(path: Path, cuts: list[tuple[int, ...]]) -> None:
    """Holds the chain against the whole at each of these cuts."""
    graph = load_graph(path)
    out = path.parent / "out"
    inputs = feeds(graph)
    expected = run_whole(path, inputs)
    assert all(np.isfinite(result).all() and np.ptp(result) > 0 for result in expected.values())
    for cut in cuts:
        manifest = check_cut(path, cut, inputs, out, graph=graph, expected=expected)
        for record in manifest.slices:
            if record.file is not None:
                onnx.checker.check_model(out / record.file)


def test_resnet50_sends_two_tensors_where_a_naive_cut_sends_174(tmp_path: Path) -> None:
    graph = load_graph(LIGHT / "light_resnet50.onnx")
    manifest = check_cut(graph.file.path, (60,), feeds(graph), tmp_path / "out", graph=graph)
    assert len(manifest.slices[1].inputs) <= 2
