"""Fused sums and norms taken apart: the same bits, and one tensor at a cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.converters.branches import choose_branches
from dnnsplit_onnx.converters.norms import split_norms
from dnnsplit_onnx.errors import InputError

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dnnsplit-onnx[cpu]'")

WIDTH = 48


def _block(op_type: str, *, biased: bool, both: bool = True) -> onnx.ModelProto:
    """A residual and a layer that reads its norm, twice."""
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    simple = op_type == "SkipSimplifiedLayerNormalization"
    weights = [weight(name, WIDTH) for name in ("gamma", "beta", "bias")] + [weight("w", WIDTH, WIDTH)]
    rest = ([] if simple else ["beta"]) + (["bias"] if biased else [])
    nodes = []
    for at in range(2):
        inputs = [f"residual{at}", f"layer{at}", "gamma", *rest]
        outputs = [f"norm{at}", "", "", f"residual{at + 1}"] if both else [f"norm{at}"]
        domain = "com.microsoft"
        nodes.append(
            helper.make_node(op_type, inputs, outputs, name=f"skip{at}", domain=domain, epsilon=1e-6)
        )
        nodes.append(helper.make_node("MatMul", [f"norm{at}", "w"], [f"layer{at + 1}"], name=f"layer{at}"))
        if not both:
            nodes.append(helper.make_node("Identity", [f"layer{at}"], [f"residual{at + 1}"]))
    nodes.append(helper.make_node("Add", ["residual2", "layer2"], ["y"], name="last"))
    shape = ["b", "t", WIDTH]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("residual0", "layer0", "y")]
    graph = helper.make_graph(nodes, "block", ends[:2], ends[2:], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _run(model: onnx.ModelProto, *, optimize: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    rng = np.random.default_rng(2)
    fed = {name: rng.standard_normal((2, 5, WIDTH), dtype=np.float32) for name in ("residual0", "layer0")}
    fed["layer0"][0, 0] = -fed["residual0"][0, 0]  # sums of zero, too
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: np.ndarray = session.run(None, fed)[0]
    return found


@pytest.mark.parametrize("op_type", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("biased", [False, True])
def test_the_same_bits_and_one_tensor_at_a_cut(tmp_path: Path, op_type: str, biased: bool) -> None:
    fused = _block(op_type, biased=biased)
    apart = choose_branches(fused, {}, tmp_path / "apart.onnx", norms=True)
    whole, found = (_run(model, optimize=False) for model in (fused, apart))
    assert np.array_equal(whole.view(np.int32), found.view(np.int32))
    row = 4 * WIDTH
    narrowest = []
    for model in (fused, apart):
        analysis = analyse(model, {"b": 1, "t": 1})
        after = next(at for at, n in enumerate(analysis.graph.nodes) if "residual1" in n.outputs) + 1
        stop = next(at for at, n in enumerate(analysis.graph.nodes) if "layer1" in n.outputs)
        narrowest.append(int(analysis.cut_nbytes()[after : stop + 1].min()))
    assert narrowest == [2 * row, row]


def test_a_model_without_them_is_told(tmp_path: Path) -> None:
    model = _block("SkipSimplifiedLayerNormalization", biased=False, both=False)
    with pytest.raises(InputError, match="no fused sums and norms"):
        choose_branches(model, {}, tmp_path / "apart.onnx", norms=True)
    assert not (tmp_path / "apart.onnx").exists()


@pytest.mark.parametrize("op_type", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_a_plan_says_what_would_not_have_to_cross(op_type: str) -> None:
    machines = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=2)], links=[Link(bandwidth_mbps=10)])
    model, sizes = _block(op_type, biased=False), {"b": 1, "t": 3}
    said = plan(model, machines, cuts=[1], bindings=sizes, pareto=False).notes
    assert any(note.startswith("50%") and "--split-norms" in note for note in said), said
    assert split_norms(model) == 2
    where = next(at for at, n in enumerate(analyse(model, sizes).graph.nodes, 1) if "residual1" in n.outputs)
    after = plan(model, machines, cuts=[where], bindings=sizes, pareto=False).notes
    assert not any("--split-norms" in note for note in after)
