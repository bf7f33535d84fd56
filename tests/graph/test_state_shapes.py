"""A shape that is asked of the wrong layer's state, as torch's dynamo export does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from dnnsplit_onnx import (
    Link,
    Steps,
    Tier,
    Topology,
    analyse,
    load_graph,
    load_manifest,
    plan,
    slice_model,
    verify,
)
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.work.cuts import parted_states

# The first layer adds a mask as long as the second one's cache.
TWO_LAYERS = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[b, 1, 4] x, float[b, PAST, 4] past_0, float[b, PAST_OF_1, 4] past_1)
    => (float[b, 1, 4] y, float[b, total, 4] present_0, float[b, total, 4] present_1)
    <float[1] one = {1}, int64[1] second = {1}, int64 zero = {0}>
{
    shape = Shape (past_1)
    length = Gather (shape, second)
    bias = ConstantOfShape <value = float[1] {0.5}> (length)
    most = ReduceSum <keepdims = 0> (bias)
    start = Mul (x, one)
    shifted = Add (start, most)
    present_0 = Concat <axis = 1> (past_0, shifted)
    mixed = ReduceSum <keepdims = 1> (present_0)
    middle = Add (shifted, mixed)
    present_1 = Concat <axis = 1> (past_1, middle)
    last = ReduceSum <keepdims = 1> (present_1)
    y = Mul (middle, last)
}
"""


def _model(other: str = "p") -> onnx.ModelProto:
    return onnx.parser.parse_model(TWO_LAYERS.replace("PAST_OF_1", other).replace("PAST", "p"))


def _middle(analysis) -> int:  # type: ignore[no-untyped-def]
    return next(at for at, node in enumerate(analysis.graph.nodes) if "middle" in node.outputs) + 1


def test_there_is_a_cut_between_the_layers_and_the_chain_is_the_whole(tmp_path: Path) -> None:
    onnx.save(_model(), tmp_path / "two.onnx")
    analysis = analyse(tmp_path / "two.onnx", {"b": 1, "p": 3})
    cut = _middle(analysis)
    assert not parted_states(analysis.graph)[cut]
    machines = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=2)], links=[Link(bandwidth_mbps=1)])
    slice_model(analysis.graph, plan(analysis, machines, cuts=[cut]), tmp_path / "slices")
    assert verify(tmp_path / "slices").bitwise
    chain = Steps.open(tmp_path / "slices")
    whole = Steps.of_whole(tmp_path / "two.onnx", load_manifest(tmp_path / "slices"))
    rng = np.random.default_rng(0)
    for _ in range(4):
        token = {"x": rng.standard_normal((1, 1, 4), dtype=np.float32)}
        assert np.array_equal(chain(token)["y"], whole(token)["y"])


def test_states_of_other_dimensions_are_told_apart() -> None:
    graph = in_file_order(load_graph(_model("q")))
    assert [node.inputs for node in graph.nodes if node.op_type == "Shape"] == [("past_1",)]
    analysis = analyse(_model("q"), {"b": 1, "p": 3, "q": 3})
    assert parted_states(analysis.graph)[_middle(analysis)]


def test_it_is_done_once() -> None:
    graph = in_file_order(load_graph(_model()))
    assert [node.inputs for node in graph.nodes if node.op_type == "Shape"] == [("past_0",)]
    assert in_file_order(graph) is graph
    # The file's own node is as it was.
    assert [node.input[0] for node in graph.proto.graph.node if node.op_type == "Shape"] == ["past_1"]
