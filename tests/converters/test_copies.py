"""Masks made anew in each block: the same bits, and fewer bytes at cuts between blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, slice_model, verify
from dnnsplit_onnx.converters.branches import choose_branches
from dnnsplit_onnx.converters.copies import copy_cheap
from dnnsplit_onnx.errors import InputError

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dnnsplit-onnx[cpu]'")

WIDTH, WORDS, BLOCKS, TOKENS = 80, 70, 3, 24


def _model(*, masked: bool = True) -> onnx.ModelProto:
    """Blocks that attend under one causal mask, which follows from the tokens' number and a mask of them."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.standard_normal((WORDS, WIDTH)).astype(np.float32), "table"),
        numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 9, "w"),
        *(numpy_helper.from_array(np.array(n), name) for name, n in (("zero", 0), ("one", 1))),
        numpy_helper.from_array(np.array([0], np.int64), "zeros"),
        numpy_helper.from_array(np.array([1], np.int64), "ones"),
        numpy_helper.from_array(np.array(-1e9, np.float32), "low"),
        numpy_helper.from_array(np.array(0, np.float32), "none"),
    ]
    make = helper.make_node
    nodes = [
        make("Shape", ["input_ids"], ["shape"]),
        make("Gather", ["shape", "one"], ["length"], axis=0),
        make("Range", ["zero", "length", "one"], ["places"]),
        make("Unsqueeze", ["places", "ones"], ["rows"]),
        make("Unsqueeze", ["places", "zeros"], ["columns"]),
        make("LessOrEqual", ["columns", "rows"], ["causal"]),
        make("Cast", ["attention_mask"], ["seen"], to=TensorProto.BOOL),
        make("And", ["causal", "seen"], ["both"]),
        make("Where", ["both", "none", "low"], ["mask"]),
        make("Gather", ["table", "input_ids"], ["x0"], axis=0),
    ]
    for at in range(BLOCKS):
        x = f"x{at}"
        nodes += [
            make("MatMul", [x, "w"], [f"q{at}"]),
            make("Transpose", [x], [f"k{at}"], perm=[0, 2, 1]),
            make("MatMul", [f"q{at}", f"k{at}"], [f"raw{at}"]),
            make("Add", [f"raw{at}", "mask"], [f"scores{at}"])
            if masked
            else make("Identity", [f"raw{at}"], [f"scores{at}"]),
            make("Softmax", [f"scores{at}"], [f"shares{at}"], axis=-1),
            make("MatMul", [f"shares{at}", x], [f"read{at}"]),
            make("Add", [f"read{at}", x], [f"x{at + 1}"]),
        ]
    size = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, size)]
    if masked:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, size))
    else:
        nodes = nodes[9:]
    result = helper.make_tensor_value_info(f"x{BLOCKS}", TensorProto.FLOAT, [*size, WIDTH])
    graph = helper.make_graph(nodes, "blocks", inputs, [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(model: onnx.ModelProto) -> np.ndarray:
    ids = np.random.default_rng(2).integers(0, WORDS, (1, TOKENS))
    mask = np.ones_like(ids)
    mask[0, 3] = 0
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: np.ndarray = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return found


def _narrowest(model: onnx.ModelProto, block: int) -> tuple[int, int]:
    """The cut of fewest bytes right after a block, or before the next begins; and its bytes."""
    analysis = analyse(model, {"batch": 1, "sequence": TOKENS})
    after = next(at for at, n in enumerate(analysis.graph.nodes) if f"x{block}" in n.outputs) + 1
    stop = next(at for at, n in enumerate(analysis.graph.nodes) if f"q{block}" in n.outputs)
    nbytes = analysis.cut_nbytes()[after : stop + 1]
    return after + int(nbytes.argmin()), int(nbytes.min())


def test_the_same_bits_and_no_mask_at_a_cut(tmp_path: Path) -> None:
    one = _model()
    path = tmp_path / "copied.onnx"
    copied = choose_branches(one, {}, path, copies=True)
    onnx.checker.check_model(copied, full_check=True)
    assert np.array_equal(_run(one).view(np.int32), _run(copied).view(np.int32))
    residual, mask = 4 * TOKENS * WIDTH, 4 * TOKENS * TOKENS
    for block in range(1, BLOCKS):
        assert _narrowest(one, block)[1] == residual + mask
        where, nbytes = _narrowest(copied, block)
        # A bool for each token, and how many there are.
        assert nbytes == residual + TOKENS + 8
    machines = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=2)], links=[Link(bandwidth_mbps=10)])
    sizes = {"batch": 1, "sequence": TOKENS}
    before = plan(one, machines, cuts=[_narrowest(one, BLOCKS - 1)[0]], bindings=sizes, pareto=False)
    assert any("--copy-masks" in note for note in before.notes)
    made = plan(path, machines, cuts=[where], bindings=sizes, pareto=False)
    assert not any("--copy-masks" in note for note in made.notes)
    slice_model(path, made, tmp_path / "slices")
    assert verify(tmp_path / "slices", path).bitwise


def test_within_one_model_copies_are_one_again(tmp_path: Path) -> None:
    counts = []
    for name, model in (("one", _model()), ("copied", _model())):
        if name == "copied":
            assert copy_cheap(model) > 0
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        counts.append(len(onnx.load(tmp_path / f"{name}.onnx").graph.node))
    assert counts[0] == counts[1]


def test_a_model_that_gains_nothing_is_left_and_told(tmp_path: Path) -> None:
    model = _model(masked=False)
    before = model.SerializeToString(deterministic=True)
    assert copy_cheap(model) == 0
    assert model.SerializeToString(deterministic=True) == before
    with pytest.raises(InputError, match="no cut of the model would send less"):
        choose_branches(model, {}, tmp_path / "copied.onnx", copies=True)
