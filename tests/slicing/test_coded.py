"""Slices with codes: without them the chain is the whole, bit for bit; with them it stays near."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import CutError, ModelError, PlanError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.figures import CodedValue
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.codes import LOSSY, coded_nbytes, parts
from dnnsplit_onnx.work.cuts import live_values
from tests.slicing.chain import plan_at
from tests.slicing.stacks import Stack
from tests.slicing.test_random_graphs import feeds, random_models


def coded_plan(graph: Graph, cuts: tuple[int, ...], codes: tuple[str, ...]) -> Plan:
    """A plan with codes wherever they apply."""
    plan, types = plan_at(graph, cuts), bind_shapes(graph)
    links = []
    for link, code in zip(plan.figures.links, codes, strict=True):
        live = live_values(graph, link.position) if link.position < len(graph.nodes) else ()
        coded = tuple(
            CodedValue(value, code, types[value].nbytes or 0, coded_nbytes(code, types[value]) or 0)
            for value in live
            if code != "raw" and parts(code, types[value])
        )
        links.append(replace(link, code=code, coded=coded))
    return replace(plan, figures=replace(plan.figures, links=tuple(links)))


def prove(
    model: onnx.ModelProto, cuts: tuple[int, ...], codes: tuple[str, ...], given: dict[str, Any] | None = None
) -> Any:
    """Slices a model with codes and verifies it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "model.onnx")
        graph = load_graph(folder / "model.onnx")
        slice_model(graph, coded_plan(graph, cuts, codes), folder / "slices")
        inputs = {name: given[name] for name in graph.inputs} if given else None
        return verify(folder / "slices", inputs=inputs), load_manifest(folder / "slices")


@settings(max_examples=12, deadline=None, phases=(Phase.generate,))
@given(random_models(), st.data())
def test_random_graphs(model: onnx.ModelProto, data: st.DataObject) -> None:
    graph = load_graph(model)
    count = data.draw(st.integers(1, 3))
    cuts = tuple(
        sorted(data.draw(st.lists(st.integers(0, len(graph.nodes)), min_size=count, max_size=count)))
    )
    at = {cut: data.draw(st.sampled_from(["raw", *LOSSY])) for cut in sorted(set(cuts))}
    proof, manifest = prove(model, cuts, tuple(at[cut] for cut in cuts), feeds())
    assert proof.error is None or "cannot: NaN" in proof.error, proof.error
    assert all(output.bitwise for output in proof.outputs), (cuts, at, proof.to_dict())
    assert all(check.kept for check in proof.codes), (cuts, at, proof.codes)
    told = {
        (port.stands_for, port.code) for record in manifest.slices for port in record.outputs if port.code
    }
    assert {(check.value, check.code) for check in proof.codes} == told


@pytest.mark.parametrize("code", LOSSY)
def test_a_stack_of_convolutions(code: str) -> None:
    model = Stack(np.random.default_rng(3)).grow(9).model()
    size = len(load_graph(model).nodes)
    proof, _ = prove(model, (size // 3, 2 * size // 3), (code, code))
    assert proof.passed
    assert len(proof.codes) >= 2
    assert 0 < proof.coded_output.relative < 0.2


def test_tier_0_without_work_writes_inputs_and_a_tier_between_passes_them_on() -> None:
    model = Stack(np.random.default_rng(4)).grow(7).model()
    proof, manifest = prove(model, (0, 0), ("fp16", "fp16"))
    assert proof.passed
    lowest, middle, top = manifest.slices
    assert lowest.file is not None
    assert lowest.start == lowest.stop == 0
    assert middle.file is None
    assert middle.forward == tuple(port.name for port in lowest.outputs)
    assert {port.name for port in top.inputs} == {port.name for port in lowest.outputs}


def one_input(dtype: int = TensorProto.FLOAT, opset: int = 13) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", dtype, (2, 3))
    y, z = (helper.make_tensor_value_info(name, dtype, (2, 3)) for name in "yz")
    nodes = [helper.make_node("Abs", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", [x], [y, z])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("code", LOSSY)
def test_what_a_code_cannot_hold_is_refused(code: str, bad: float, tmp_path: Path) -> None:
    onnx.save(one_input(), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    slice_model(graph, coded_plan(graph, (1,), (code,)), tmp_path / "slices")
    chain = Chain.open(tmp_path / "slices")
    x = np.ones((2, 3), np.float32)
    assert np.allclose(chain.run({"x": x})["z"], -1)
    x[1, 2] = bad
    with pytest.raises(ModelError, match=f"value `y` holds what {code} cannot"):
        chain.run({"x": x})


def test_a_model_output_that_crosses_in_a_code_is_what_it_was(tmp_path: Path) -> None:
    onnx.save(one_input(), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    slice_model(graph, coded_plan(graph, (1,), ("uint8",)), tmp_path / "slices")
    x = np.array([[0.1, 0.2, 0.3], [1, 2, 7]], np.float32)
    made = Chain.open(tmp_path / "slices").run({"x": x})
    assert np.array_equal(made["y"], x)
    assert not np.array_equal(made["z"], -x)


def test_refusals(tmp_path: Path) -> None:
    onnx.save(one_input(TensorProto.INT64), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    plan = coded_plan(graph, (1,), ("raw",))

    def coding(value: str, code: str) -> Plan:
        (link,) = plan.figures.links
        link = replace(link, coded=(CodedValue(value, code, 24, 12),))
        return replace(plan, figures=replace(plan.figures, links=(link,)))

    with pytest.raises(CutError, match="value `y` cannot be written as uint8: it is int64"):
        slice_model(graph, coding("y", "uint8"), tmp_path / "slices")
    with pytest.raises(PlanError, match="value `x` does not cross cut 1"):
        slice_model(graph, coding("x", "uint8"), tmp_path / "slices")
    assert not (tmp_path / "slices").exists()
    onnx.save(one_input(opset=6), tmp_path / "old.onnx")
    old = load_graph(tmp_path / "old.onnx")
    with pytest.raises(CutError, match="opset 6"):
        slice_model(old, coded_plan(old, (1,), ("fp16",)), tmp_path / "slices")
