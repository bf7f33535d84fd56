"""Nodes of slices say which tier they are for; the models stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.slicing import slice_all_candidates, slice_model
from dnnsplit_onnx.slicing.tags import POSITION, TIER
from dnnsplit_onnx.work.analysing import analyse
from tests.slicing.chain import plan_at, run_chain, run_whole

# A weight that a node makes out of constants, and a branch in the middle.
BODY = """
g (float[2, 2] x, bool c) => (float[2, 2] y)
<float[2, 2] w = {1, 2, 3, 4}>
{
  half = Constant <value = float {0.5}> ()
  v = Mul (w, half)
  a = MatMul (x, v)
  b = If (c) <
    then_branch = t () => (float[2, 2] p) { p = Relu (a) },
    else_branch = e () => (float[2, 2] q) { q = Neg (a) }
  >
  d = MatMul (b, v)
  y = Relu (d)
}
"""
FEEDS = {"x": np.array([[1, -2], [3, -4]], np.float32), "c": np.array(True)}

Text = Callable[..., Graph]


def tags(path: Path) -> list[tuple[str, str | None, str | None]]:
    """Of each node of a file: its operator, tier and position."""
    found = []
    for node in onnx.load(path).graph.node:
        said = [(entry.key, entry.value) for entry in node.metadata_props]
        assert len(said) == len(dict(said))  # the format wants distinct keys
        found.append((node.op_type, dict(said).get(TIER), dict(said).get(POSITION)))
    return found


def test_every_node_has_its_tier_and_position(graph_text: Text, tmp_path: Path) -> None:
    graph = graph_text(BODY)
    assert [node.op_type for node in graph.nodes] == ["MatMul", "If", "MatMul", "Relu"]
    slice_model(graph, plan_at(graph, (2,), ("edge", "cloud")), tmp_path / "out")
    weights = ["Constant", "Mul"]
    assert tags(tmp_path / "out" / "edge" / "model.onnx") == [
        *((op, "edge", None) for op in weights),
        ("MatMul", "edge", "0"),
        ("If", "edge", "1"),
    ]
    assert tags(tmp_path / "out" / "cloud" / "model.onnx") == [
        *((op, "cloud", None) for op in weights),
        ("MatMul", "cloud", "2"),
        ("Relu", "cloud", "3"),
    ]


@pytest.mark.parametrize("version", [4, 7, 9, 10, 11])
def test_any_ir_version_keeps_it_and_stays_the_same_model(
    graph_text: Text, tmp_path: Path, version: int
) -> None:
    # Node metadata came with IR version 10: what loads older models must load these.
    graph = graph_text(BODY, header=f'ir_version: {version}, opset_import: ["" : 13]')
    manifest = slice_model(graph, plan_at(graph, (1,)), tmp_path / "out")
    for record in manifest.slices:
        path = tmp_path / "out" / str(record.file)
        assert onnx.load(path).ir_version == version
        onnx.checker.check_model(path, full_check=True)
    whole = run_whole(graph.file.path, FEEDS)
    assert np.array_equal(run_chain(tmp_path / "out", manifest, FEEDS)["y"], whole["y"])


def test_a_file_for_two_tiers_says_the_tier_of_its_folder(graph_text: Text, tmp_path: Path) -> None:
    graph = graph_text(BODY)
    plan = plan_at(graph, (1, 1), ("edge", "near", "cloud"))
    manifest = slice_all_candidates(graph, plan, (1, 2), tmp_path / "out")
    files = [record for record in manifest.candidates if record.file is not None]
    assert {record.tier for record in files if record.start == 0} == {"edge", "near", "cloud"}
    for record in files:
        for _, tier, position in tags(tmp_path / "out" / str(record.file)):
            assert tier == record.tier
            assert position is None or record.start <= int(position) < record.stop
    whole = run_whole(graph.file.path, FEEDS)
    assert np.array_equal(run_chain(tmp_path / "out", manifest, FEEDS)["y"], whole["y"])


def test_a_slice_that_is_sliced_again_says_the_new_tier(graph_text: Text, tmp_path: Path) -> None:
    graph = graph_text(BODY)
    slice_model(graph, plan_at(graph, (2,), ("edge", "cloud")), tmp_path / "one")
    again = load_graph(tmp_path / "one" / "cloud" / "model.onnx")
    slice_model(again, plan_at(again, (1,), ("lower", "upper")), tmp_path / "two")
    assert tags(tmp_path / "two" / "upper" / "model.onnx") == [("Relu", "upper", "1")]


def test_what_a_node_said_before_is_kept(graph_text: Text, tmp_path: Path) -> None:
    graph = graph_text(BODY)
    graph.nodes[0].proto.metadata_props.add(key="layer", value="first")
    slice_model(graph, plan_at(graph, (1,)), tmp_path / "out")
    node = onnx.load(tmp_path / "out" / "t0" / "model.onnx").graph.node[-1]
    assert {entry.key: entry.value for entry in node.metadata_props}["layer"] == "first"
    # The source is as it was: only the slice is marked.
    assert [entry.key for entry in graph.nodes[0].proto.metadata_props] == ["layer"]


@pytest.mark.parametrize("everything", [False, True])
def test_nodes_of_codes_do_not_move_positions(everything: bool, tmp_path: Path) -> None:
    text = "g (float[1, 4] x) => (float[1, 4] y) { a = Relu (x) b = Neg (a) c = Exp (b) y = Sin (c) }"
    onnx.save(
        onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}'), tmp_path / "m.onnx"
    )
    machines = {
        "tier": [{"name": "edge", "gflops": 1}, {"name": "cloud", "gflops": 1}],
        "link": [{"bandwidth_mbps": 1e-5, "codes": ["fp16"]}],
    }
    analysis = analyse(tmp_path / "m.onnx", order="file")
    made = plan(analysis, parse_topology(machines, "t"), cuts=(2,), pareto=False)
    assert made.codes == ("fp16",)
    if everything:
        slice_all_candidates(analysis.graph, made, (2,), tmp_path / "out")
        names = ["0-2.fp16.onnx", "2.fp16-4.onnx"]
    else:
        slice_model(analysis.graph, made, tmp_path / "out")
        names = ["model.onnx"] * 2
    found = [
        tags(tmp_path / "out" / tier / name) for tier, name in zip(("edge", "cloud"), names, strict=True)
    ]
    assert [[(op, at) for op, _, at in one if at is not None] for one in found] == [
        [("Relu", "0"), ("Neg", "1")],
        [("Exp", "2"), ("Sin", "3")],
    ]
