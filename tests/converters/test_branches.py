"""A branch of a merged model, taken for good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx import analyse, load_graph
from dnnsplit_onnx.cli import main
from dnnsplit_onnx.converters.branches import choose_branches
from dnnsplit_onnx.errors import InputError

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'dnnsplit-onnx[cpu]'")

MERGED = """
<ir_version: 8, opset_import: ["" : 17]>
merged (bool[1] use_cache_branch, float[b, t, 4] x, float[b, p, 4] past_0,
        float[b, s, 4] past_encoder_0)
    => (float[b, t, 4] y, float[b, q, 4] present_0, float[b, s, 4] present_encoder_0)
    <float[4, 4] w = {1,2,3,4, 5,6,7,8, 1,0,1,0, 2,1,0,1}>
{
    scaled = MatMul (x, w)
    flag = Squeeze (use_cache_branch)
    y, present_0, present_encoder_0 = If (flag) <
        then_branch = with_past () => (float[b, t, 4] out, float[b, q, 4] key, float[0] unchanged) {
            key = Concat <axis = 1> (past_0, scaled)
            sum = ReduceSum <keepdims = 1> (key)
            inner = Relu (scaled)
            out = Add (inner, sum)
            unchanged = Constant <value = float[0] {}> ()
        },
        else_branch = no_past () => (float[b, t, 4] out, float[b, q, 4] key, float[b, s, 4] enc) {
            key = Identity (scaled)
            inner = Relu (scaled)
            out = Mul (inner, inner)
            enc = MatMul (past_encoder_0, w)
        }
    >
}
"""


def _inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"x": (1, 2, 4), "past_0": (1, 3, 4), "past_encoder_0": (1, 5, 4)}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    read = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {n: v for n, v in inputs.items() if n in read}), strict=True))


@pytest.mark.parametrize("is_true", [True, False])
def test_the_branch_computes_what_the_merged_model_does(tmp_path: Path, is_true: bool) -> None:
    merged = onnx.parser.parse_model(MERGED)
    whole = _run(merged, {**_inputs(), "use_cache_branch": np.array([is_true])})
    chosen = choose_branches(merged, {"use_cache_branch": is_true}, tmp_path / "one.onnx")
    onnx.checker.check_model(chosen)
    found = _run(onnx.load(tmp_path / "one.onnx"), _inputs())
    assert set(found) == ({"y", "present_0"} if is_true else set(whole))
    for name, array in found.items():
        assert np.array_equal(array, whole[name])
    assert "If" not in {node.op_type for node in chosen.graph.node}


def test_a_branch_has_cuts_inside_and_its_states(tmp_path: Path) -> None:
    merged, one = tmp_path / "decoder_model_merged.onnx", tmp_path / "one.onnx"
    onnx.save(onnx.parser.parse_model(MERGED), merged)
    assert len(load_graph(tmp_path).nodes) == 3
    choose_branches(tmp_path, {"use_cache_branch": True}, one)
    graph = load_graph(one)
    assert [node.op_type for node in graph.nodes] == ["MatMul", "Concat", "ReduceSum", "Relu", "Add"]
    assert [state.pair for state in graph.states] == ["past_0=present_0", "past_encoder_0="]
    analysis = analyse(one, {"b": 1, "t": 1, "p": 2})
    assert (analysis.cut_nbytes()[1:] >= 0).sum() >= 3


def test_the_command_says_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merged, one = tmp_path / "merged.onnx", tmp_path / "one.onnx"
    onnx.save(onnx.parser.parse_model(MERGED), merged)
    words = ["convert", str(merged), "--branch", "use_cache_branch=true", "-o", str(one), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"output": str(one), "branches": {"use_cache_branch": True}, "nodes": 5}
    assert main([*words, "--branch", "use_cache_branch=perhaps"]) == 2


def test_what_chooses_no_branch_is_refused(tmp_path: Path) -> None:
    merged = onnx.parser.parse_model(MERGED)
    with pytest.raises(InputError, match="no input `use_cache`"):
        choose_branches(merged, {"use_cache": True}, tmp_path / "one.onnx")
    with pytest.raises(InputError, match="`x` chooses no branch"):
        choose_branches(merged, {"x": True}, tmp_path / "one.onnx")
    assert not (tmp_path / "one.onnx").exists()
