"""Tiles: put side by side, they are the rows of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx.reference import ReferenceEvaluator

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import Graph, build_graph
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.slicing.tiles import TilePart, tile_stage
from dnnsplit_onnx.work.tiling import longest_region, region_of, shares
from tests.slicing.stacks import Stack, image

Run = Callable[[onnx.ModelProto, Mapping[str, np.ndarray]], list[np.ndarray]]
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def graph_of(model: onnx.ModelProto) -> Graph:
    return build_graph(ModelFile(Path("stack.onnx"), model))


def with_runtime(level: str) -> Run:
    def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(feeds)))

    return run


def with_reference(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(model).run(None, dict(feeds)))


def assembled(
    parts: Sequence[TilePart | None], feeds: Mapping[str, np.ndarray], run: Run
) -> dict[str, np.ndarray]:
    """Each tile is given its rows and nothing else; its outputs are put side by side."""
    made: dict[str, list[np.ndarray]] = {}
    axes: dict[str, int] = {}
    for part in filter(None, parts):
        axes.update(part.region.axes)
        own = {}
        for name, rows in part.tile.inputs.items():
            whole = feeds[name]
            own[name] = whole if rows is None else np.take(whole, range(rows.start, rows.stop), axes[name])
        for port, result in zip(part.outputs, run(part.proto, own), strict=True):
            made.setdefault(port.name, []).append(result)
    return {
        name: np.concatenate(results, axes[name]) if name in axes else results[0]
        for name, results in made.items()
    }


def check(
    model: onnx.ModelProto,
    counts: Sequence[int],
    feeds: Mapping[str, np.ndarray],
    run: Run,
    along: str = "height",
    *,
    bitwise: bool = False,
) -> None:
    """Holds the tiles of a whole model against the model."""
    graph = graph_of(model)
    parts = tile_stage(graph, 0, len(graph.nodes), counts, along=along)  # type: ignore[arg-type]
    whole = dict(zip([value.name for value in model.graph.output], run(model, feeds), strict=True))
    tiled = assembled(parts, feeds, run)
    assert tiled.keys() == whole.keys()
    largest = 0.0 if bitwise else largest_inside(model, feeds)
    for name, expected in whole.items():
        assert tiled[name].shape == expected.shape
        if bitwise:
            np.testing.assert_array_equal(tiled[name], expected)
        else:
            # Additions that cancel leave roundings of the values inside, which may be larger.
            close = 3e-6 * largest
            np.testing.assert_allclose(tiled[name], expected, rtol=0, atol=close)


def largest_inside(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> float:
    """The largest magnitude of any value that a node of a model makes."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output if name
    )
    values = with_runtime("ORT_DISABLE_ALL")(shown, feeds)
    return max(float(np.abs(value.astype(np.float64)).max(initial=1e-3)) for value in values)


def a_stack(seed: int, layers: int, *, symbolic: bool = False) -> tuple[onnx.ModelProto, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = Stack(rng).grow(layers).model(symbolic_batch=symbolic)
    return model, image(model, rng)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.sampled_from(["height", "width"]),
    st.sampled_from(LEVELS),
    st.data(),
)
def test_tiles_of_random_stacks_are_the_whole(
    seed: int, layers: int, along: str, level: str, data: st.DataObject
) -> None:
    model, x = a_stack(seed, layers)
    graph = graph_of(model)
    region = region_of(graph, bind_shapes(graph), 0, len(graph.nodes), along)  # type: ignore[arg-type]
    cuts = sorted(data.draw(st.lists(st.integers(0, region.height), min_size=1, max_size=3)))
    bounds = [0, *cuts, region.height]
    counts = [stop - start for start, stop in pairwise(bounds)]
    check(model, counts, {"x": x}, with_runtime(level), along)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_the_reference_evaluator_agrees(seed: int, machines: int) -> None:
    stack = Stack(np.random.default_rng(seed), height=17, width=9)
    layers = [stack.conv, stack.residual, stack.scale, stack.normalise, stack.fork, stack.activation]
    for _ in range(3):
        stack.pick(*layers)()
    assume(stack.shape[2] >= machines)
    model = stack.model()
    check(model, shares(stack.shape[2], [1.0] * machines), {"x": image(model, stack.rng)}, with_reference)


@pytest.mark.parametrize("seed", range(6))
def test_a_symbolic_batch_stays_symbolic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = Stack(rng)
    stack.conv()
    stack.residual()
    stack.pool()
    model = stack.model(symbolic_batch=True)
    graph = graph_of(model)
    for part in tile_stage(graph, 0, len(graph.nodes), shares(stack.shape[2], [2.0, 1.0])):
        assert part is not None
        assert part.inputs[0].shape is not None
        assert part.inputs[0].shape[0] == "N"
        rows = part.tile.inputs["x"]
        assert rows is not None
        assert part.inputs[0].shape[2] == len(rows)
    for batch in (1, 3):
        check(
            model,
            shares(stack.shape[2], [2.0, 1.0]),
            {"x": image(model, rng, batch)},
            with_runtime("ORT_ENABLE_ALL"),
        )


def a_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray],
    opset: int = 18,
    dtype: int = T.FLOAT,
) -> onnx.ModelProto:
    graph = h.make_graph(
        list(nodes),
        "g",
        [h.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [h.make_empty_tensor_value_info(name) for name in outputs],
        [nh.from_array(array, name) for name, array in weights.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:
        known = next(v for v in (*inferred.graph.output, *inferred.graph.value_info) if v.name == value.name)
        value.CopyFrom(known)
    return model


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS)
def test_outputs_of_several_heights_are_divided_in_proportion(level: str) -> None:
    """A pyramid: two outputs, the second half as high."""
    nodes = [
        h.make_node("Conv", ["x", "w"], ["fine"], pads=[1, 1, 1, 1]),
        h.make_node("MaxPool", ["fine"], ["coarse"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = a_model(nodes, {"x": [1, 3, 20, 8]}, ["fine", "coarse"], {"w": random(4, 3, 3, 3)})
    check(model, [4, 0, 6], {"x": random(1, 3, 20, 8)}, with_runtime(level), bitwise=True)


def test_what_has_no_rows_is_computed_by_each_tile_that_needs_it_and_handed_out_once() -> None:
    """A vector of scales from another input; it is an output as well."""
    nodes = [
        h.make_node("Sigmoid", ["s"], ["gate"]),
        h.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        h.make_node("Mul", ["c", "gate"], ["y"]),
    ]
    inputs = {"x": [1, 3, 12, 5], "s": [1, 4, 1, 1]}
    model = a_model(nodes, inputs, ["y", "gate"], {"w": random(4, 3, 3, 3)})
    graph = graph_of(model)
    first, second = tile_stage(graph, 0, 3, [5, 7])
    assert first is not None
    assert second is not None
    assert set(first.tile.outputs) == {"y", "gate"}
    assert set(second.tile.outputs) == {"y"}
    assert second.tile.inputs["s"] is None
    feeds = {"x": random(1, 3, 12, 5), "s": random(1, 4, 1, 1, seed=1)}
    check(model, [5, 7], feeds, with_runtime("ORT_ENABLE_ALL"))


def test_quantized_convolutions_pad_with_their_zero_point() -> None:
    weight = np.random.default_rng(0).integers(-9, 9, (4, 3, 3, 3)).astype(np.int8)
    scalars = {"s": np.float32(0.1), "z": np.uint8(7), "sw": np.float32(0.05), "zw": np.int8(0)}
    nodes = [
        h.make_node("QLinearConv", ["x", "s", "z", "w", "sw", "zw", "s", "z"], ["q"], pads=[1, 1, 1, 1]),
        h.make_node("MaxPool", ["q"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    weights = {"w": weight, **{name: np.asarray(value) for name, value in scalars.items()}}
    model = a_model(nodes, {"x": [1, 3, 21, 9]}, ["y"], weights, dtype=T.UINT8)
    x = np.random.default_rng(1).integers(0, 255, (1, 3, 21, 9)).astype(np.uint8)
    for level in LEVELS:
        check(model, [4, 3, 4], {"x": x}, with_runtime(level), bitwise=True)


def test_quantize_and_dequantize_around_a_convolution() -> None:
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        h.make_node("DequantizeLinear", ["w", "sw", "zw"], ["dw"], axis=0),
        h.make_node("Conv", ["d", "dw"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        h.make_node("QuantizeLinear", ["c", "s", "z"], ["qc"]),
        h.make_node("DequantizeLinear", ["qc", "s", "z"], ["y"]),
    ]
    weights = {
        "s": np.array(0.05, np.float32),
        "z": np.array(120, np.uint8),
        "w": np.random.default_rng(0).integers(-9, 9, (4, 3, 3, 3)).astype(np.int8),
        "sw": np.array([0.1, 0.2, 0.3, 0.1], np.float32),
        "zw": np.zeros(4, np.int8),
    }
    model = a_model(nodes, {"x": [1, 3, 21, 9]}, ["y"], weights)
    for level in LEVELS:
        check(model, [6, 5], {"x": random(1, 3, 21, 9)}, with_runtime(level))


def test_the_words_of_a_text_are_rows_until_attention_mixes_them() -> None:
    nodes = [
        h.make_node("LayerNormalization", ["x", "g", "b"], ["n"]),
        h.make_node("MatMul", ["n", "w1"], ["h1"]),
        h.make_node("Gelu", ["h1"], ["h2"]),
        h.make_node("MatMul", ["h2", "w2"], ["h3"]),
        h.make_node("Add", ["x", "h3"], ["y"]),
        h.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        h.make_node("MatMul", ["y", "t"], ["scores"]),
    ]
    weights = {"g": random(8), "b": random(8), "w1": random(8, 32), "w2": random(32, 8)}
    model = a_model(nodes, {"x": ["N", 10, 8]}, ["scores"], weights, opset=20)
    graph = graph_of(model)
    region = longest_region(graph, bind_shapes(graph), 0)
    assert region is not None
    assert region.stop == 6  # the scores of a word depend on all words
    only = a_model(nodes[:5], {"x": ["N", 10, 8]}, ["y"], weights, opset=20)
    check(only, [3, 3, 4], {"x": random(2, 10, 8)}, with_runtime("ORT_ENABLE_ALL"))


def test_signals_of_one_dimension_have_rows_too() -> None:
    nodes = [
        h.make_node("Conv", ["x", "w"], ["c"], pads=[4, 4], dilations=[2], strides=[2]),
        h.make_node("Relu", ["c"], ["y"]),
    ]
    model = a_model(nodes, {"x": [1, 3, 50]}, ["y"], {"w": random(4, 3, 5)})
    check(model, [5, 20], {"x": random(1, 3, 50)}, with_runtime("ORT_ENABLE_ALL"))


def test_slices_of_old_operator_sets_carry_their_bounds_as_attributes() -> None:
    nodes = [
        h.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        h.make_node("Add", ["c", "x"], ["y"]),
    ]
    model = a_model(nodes, {"x": [1, 3, 12, 5]}, ["y"], {"w": random(3, 3, 3, 3)}, opset=9)
    model.ir_version = 4
    check(model, [6, 6], {"x": random(1, 3, 12, 5)}, with_runtime("ORT_ENABLE_ALL"))


REFUSED = {
    "GlobalAveragePool": [h.make_node("GlobalAveragePool", ["c"], ["y"])],
    "Flatten": [h.make_node("Flatten", ["c"], ["y"])],
    "Softmax": [h.make_node("Softmax", ["c"], ["y"], axis=2)],
    "Resize": [h.make_node("Resize", ["c", "", "f"], ["y"], coordinate_transformation_mode="align_corners")],
    "InstanceNormalization": [h.make_node("InstanceNormalization", ["c", "b", "b"], ["y"])],
    "Concat": [h.make_node("Concat", ["c", "c"], ["y"], axis=2)],
}


@pytest.mark.parametrize("op", REFUSED)
def test_an_operator_that_mixes_rows_ends_the_tiles(op: str) -> None:
    nodes = [h.make_node("Conv", ["x", "w"], ["c"]), *REFUSED[op]]
    weights = {"w": random(4, 3, 3, 3), "b": random(4), "f": np.array([1, 1, 2, 2], np.float32)}
    graph = graph_of(a_model(nodes, {"x": [1, 3, 12, 6]}, ["y"], weights))
    with pytest.raises(CutError, match=rf"node `{op}_y` \({op}\) in tiles") as raised:
        tile_stage(graph, 0, 2, [5, 5])
    assert raised.value.hint == "end the tiles at position 1"
    assert len(tile_stage(graph, 0, 1, [5, 5])) == 2  # and the hint works


@pytest.mark.parametrize("counts", [[5, 4], [12, -1], [], [11]])
def test_rows_that_are_not_all_rows_once_are_refused(counts: list[int]) -> None:
    nodes = [h.make_node("Conv", ["x", "w"], ["y"])]
    graph = graph_of(a_model(nodes, {"x": [1, 3, 12, 6]}, ["y"], {"w": random(4, 3, 3, 3)}))
    with pytest.raises(CutError, match="10 rows"):
        tile_stage(graph, 0, 1, counts)


def test_more_machines_than_rows_leave_some_without_a_tile() -> None:
    nodes = [h.make_node("Conv", ["x", "w"], ["y"])]
    model = a_model(nodes, {"x": [1, 3, 12, 6]}, ["y"], {"w": random(4, 3, 3, 3)})
    counts = [0, *[1, 0] * 10]
    parts = tile_stage(graph_of(model), 0, 1, counts)
    assert [part is None for part in parts] == [count == 0 for count in counts]
    check(model, counts, {"x": random(1, 3, 12, 6)}, with_runtime("ORT_ENABLE_ALL"))


def test_rows_that_nobody_knows_are_not_tiled() -> None:
    nodes = [h.make_node("Conv", ["x", "w"], ["y"])]
    graph = graph_of(a_model(nodes, {"x": [1, 3, "H", 6]}, ["y"], {"w": random(4, 3, 3, 3)}))
    assert longest_region(graph, bind_shapes(graph), 0) is None
    parts = tile_stage(graph, 0, 1, [5, 5], types=bind_shapes(graph, {"H": 12}))
    assert [part.inputs[0].shape for part in parts if part] == [(1, 3, 7, 6), (1, 3, 7, 6)]


def test_a_tile_is_a_model_that_the_checker_accepts() -> None:
    model, _ = a_stack(3, 6)
    graph = graph_of(model)
    region = region_of(graph, bind_shapes(graph), 0, len(graph.nodes))
    for part in tile_stage(graph, 0, len(graph.nodes), shares(region.height, [1.0, 1.0])):
        assert part is not None
        onnx.checker.check_model(part.proto, full_check=True)
