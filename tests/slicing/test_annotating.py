"""A plan in the model: the checker passes, onnxruntime runs it, and it is a plan again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, annotate, load_graph, plan
from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.slicing.annotating import CONFIGURATION, annotated_cuts

MACHINES = Topology(
    tiers=[Tier("edge", gflops=1), Tier("fog", gflops=10), Tier("cloud", gflops=100)],
    links=[Link(bandwidth_mbps=10), Link(bandwidth_mbps=10)],
)


def annotated(name: str, folder: Path, *cuts: int | str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    write_model(name, folder / "m.onnx")
    work = analyse(folder / "m.onnx", {"batch": 1})
    annotate(work, plan(work, MACHINES, cuts=cuts), folder / "out" / "a.onnx")
    return onnx.load(folder / "m.onnx"), onnx.load(folder / "out" / "a.onnx")


def test_the_checker_passes_and_the_runtime_computes_the_same(tmp_path: Path) -> None:
    before, after = annotated("tiny_residual", tmp_path, 4, 9)
    onnx.checker.check_model(after, full_check=True)
    assert after.ir_version >= 11
    (made,) = after.configuration
    assert (made.name, made.num_devices, list(made.device)) == (CONFIGURATION, 3, ["edge", "fog", "cloud"])
    rng = np.random.default_rng(0)
    found = []
    for model in (before, after):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        if not found:
            feeds = {
                one.name: rng.random([d if isinstance(d, int) else 1 for d in one.shape], np.float32)
                for one in session.get_inputs()
            }
        found.append(session.run(None, feeds))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_annotation_is_new(tmp_path: Path) -> None:
    before, after = annotated("tiny_residual", tmp_path, 4, 9)
    for node in after.graph.node:
        del node.device_configurations[:]
    del after.configuration[:]
    after.ir_version = before.ir_version
    assert after == before


@pytest.mark.parametrize("cuts", [(4, 9), (0, 0), (3, 3), (0, 16)])
def test_it_is_a_plan_again(tmp_path: Path, cuts: tuple[int, int]) -> None:
    annotated("tiny_residual", tmp_path, *cuts)
    work = analyse(tmp_path / "m.onnx", {"batch": 1})
    given = load_graph(tmp_path / "out" / "a.onnx")
    graph, found = annotated_cuts(work.graph, given, 2)
    assert found == cuts
    for link, cut in enumerate(cuts):
        assert {node.index for node in graph.nodes[:cut]} == {
            node.index for node in work.graph.nodes[: cuts[link]]
        }


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    _, model = annotated("tiny_residual", tmp_path, 4, 9)
    graph = load_graph(tmp_path / "m.onnx")
    with pytest.raises(CutError, match="has no pipeline stage, so the model is no plan"):
        annotated_cuts(graph, graph, 2)
    given = load_graph(tmp_path / "out" / "a.onnx")
    with pytest.raises(CutError, match="is in pipeline stage 2, and the tiers are 2"):
        annotated_cuts(graph, given, 1)
    first = next(node for node in model.graph.node if node.device_configurations)
    first.device_configurations[0].pipeline_stage = 2
    with pytest.raises(CutError, match="which is made in stage 2"):
        annotated_cuts(graph, load_graph(model), 2)
