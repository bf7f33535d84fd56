"""Models whose weights are large enough to stay in files, and ways to write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from tests.slicing.constructs import model, value

SIDE = 32  # a weight has 4 KiB


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32) / SIDE


def layers(count: int = 4) -> onnx.ModelProto:
    """MatMul and Relu, `count` times, each with a weight of its own; the first is used at the end again."""
    nodes, last = [], "x"
    for at in range(count):
        nodes.append(h.make_node("MatMul", [last, f"w{at}"], [f"m{at}"], name=f"matmul{at}"))
        nodes.append(h.make_node("Relu", [f"m{at}"], [f"r{at}"], name=f"relu{at}"))
        last = f"r{at}"
    nodes.append(h.make_node("MatMul", [last, "w0"], ["y"], name="last"))
    weights = [nh.from_array(matrix(at), f"w{at}") for at in range(count)]
    return model(
        h.make_graph(nodes, "g", [value("x", shape=("N", SIDE))], [value("y", shape=("N", SIDE))], weights)
    )


def attributes() -> onnx.ModelProto:
    """Weights in a Constant, in a branch, and in a function."""
    then = h.make_graph(
        [h.make_node("MatMul", ["a", "wt"], ["t"])], "then", [], [value("t", shape=None)],
        [nh.from_array(matrix(11), "wt")],
    )  # fmt: skip
    constant = h.make_node("Constant", [], ["we"], value=nh.from_array(matrix(12)))
    other = h.make_graph(
        [constant, h.make_node("MatMul", ["a", "we"], ["e"])], "else", [], [value("e", shape=None)]
    )
    body = [
        h.make_node("Constant", [], ["wf"], value=nh.from_array(matrix(13))),
        h.make_node("MatMul", ["i", "wf"], ["o"]),
    ]
    function = h.make_function("local", "Layer", ["i"], ["o"], body, [h.make_opsetid("", 17)])
    nodes = [
        h.make_node("Constant", [], ["wc"], value=nh.from_array(matrix(10))),
        h.make_node("MatMul", ["x", "wc"], ["a"]),
        h.make_node("If", ["p"], ["b"], then_branch=then, else_branch=other),
        h.make_node("Layer", ["b"], ["c"], domain="local"),
        h.make_node("MatMul", ["c", "wc"], ["y"]),
    ]
    inputs = [value("x", shape=("N", SIDE)), value("p", T.BOOL, ())]
    graph = h.make_graph(nodes, "g", inputs, [value("y", shape=("N", SIDE))])
    return model(graph, functions=[function], opsets=[h.make_opsetid("local", 1)])


def save(built: onnx.ModelProto, path: Path, *, external: bool) -> Path:
    """Writes a model, its weights inline or all in `NAME.bin` beside it."""
    if not external:
        path.write_bytes(built.SerializeToString())
        return path
    onnx.save(
        built,
        path,
        save_as_external_data=True,
        location=f"{path.stem}.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def refer(
    tensor: onnx.TensorProto, location: str, offset: int | str = 0, length: int | str | None = None
) -> None:
    """Makes a tensor refer to bytes of a file, sensible or not."""
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    del tensor.external_data[:]
    pairs = {"location": location, "offset": str(offset)} | (
        {} if length is None else {"length": str(length)}
    )
    for key, text in pairs.items():
        tensor.external_data.add(key=key, value=text)
