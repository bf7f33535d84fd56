"""Shape inference and ranges: sized where they are short, harmless where they are long."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.graph.inference import infer

GIGABYTES = 3 << 30


def ranges(count: int, *, constants: bool) -> onnx.ModelProto:
    """Numbers that are cast and reshaped, which is what makes onnx write them out."""
    tensors = [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in zip("abc", (0, count, 1), strict=True)
    ]
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] if constants else []
    nodes += [
        helper.make_node("Range", ["a", "b", "c"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axis"], ["row"]),
    ]
    output = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "ranges", [], [output], [axis] if constants else [axis, *tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("constants", [False, True])
def test_ranges_keep_their_rank_and_type(constants: bool) -> None:
    model = ranges(5, constants=constants)
    inferred = infer(model)
    assert list(inferred.graph.node) == list(model.graph.node)
    assert list(inferred.opset_import) == list(model.opset_import)
    found = {
        value.name: value.type.tensor_type for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    assert found["numbers"].elem_type == TensorProto.INT64
    assert len(found["numbers"].shape.dim) == 1
    assert found["floats"].elem_type == TensorProto.FLOAT
    assert len(found["row"].shape.dim) == 2


@pytest.mark.parametrize("command", ["inspect", "split"])
def test_a_range_of_two_trillion_takes_no_memory(tmp_path: Path, command: str) -> None:
    model = ranges(1 << 41, constants=True)
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    model.graph.node.append(helper.make_node("Neg", ["y"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [4]))
    del model.graph.output[0]
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "t.toml").write_text(
        '[[tier]]\nname = "a"\ngflops = 1\n[[tier]]\nname = "b"\ngflops = 2\n[[link]]\nbandwidth_mbps = 1'
    )
    extra = (
        ["--tiers", "t.toml", "--at", "1", "-o", "out", "--no-verify"] if command == "split" else ["--json"]
    )
    done = subprocess.run(
        [sys.executable, "-m", "dnnsplit_onnx", command, "m.onnx", *extra],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES, GIGABYTES)),
    )
    assert done.returncode == 0, done.stderr
