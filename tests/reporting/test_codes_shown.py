"""Codes as people see them: in plans, in the proof, in a benchmark, on the page, in comparisons."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.measuring.benchmark import bench
from dnnsplit_onnx.measuring.judging import Judge
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.comparing import compare
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting.plan_view import print_plan
from dnnsplit_onnx.reporting.proof_view import print_bench
from dnnsplit_onnx.reporting.reports import report
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest, record_verification
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis

# What crosses after `b` is a quarter of the input.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 1, 64, 64] x) => (float[1, 8] y) <float[1024, 8] w> {
    a = Relu(x)
    b = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a)
    c = Flatten(b)
    y = MatMul(c, w)
}
"""


@pytest.fixture(scope="module")
def machines() -> Topology:
    tiers = [{"name": "edge", "gflops": 10.0}, {"name": "cloud", "gflops": 1000.0}]
    limits = {"max_prefix": 3}
    tiers[0] |= limits
    return parse_topology({"tier": tiers, "link": [{"bandwidth_mbps": 1.0}]}, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("coded")
    model = onnx.parser.parse_model(MODEL)
    weights = np.random.default_rng(0).standard_normal((1024, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, made / "model.onnx")
    return made


@pytest.fixture(scope="module")
def analysis(folder: Path) -> Analysis:
    return analyse(folder / "model.onnx", order="file")


@pytest.fixture(scope="module")
def planned(analysis: Analysis, machines: Topology) -> Plan:
    return plan(analysis, machines, cuts=[2], codes=["uint8"])


@pytest.fixture(scope="module")
def slices(planned: Plan, analysis: Analysis, folder: Path) -> Path:
    out = folder / "out"
    slice_model(analysis.graph, planned, out)
    record_verification(out, verify(out).to_dict())
    return out


def printed(show: object, *given: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(console, *given)  # type: ignore[operator]
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_plan_says_how_much_smaller(planned: Plan, analysis: Analysis) -> None:
    (link,) = planned.figures.links
    assert (link.raw_nbytes, link.nbytes) == (4096, 1024 + 8)
    assert link.ratio == pytest.approx(3.97, abs=0.01)
    assert "uint8, 4 times smaller" in printed(print_plan, planned, analysis.graph, ())


def test_a_benchmark_says_what_was_verified(slices: Path) -> None:
    found = bench(slices, runs=1, warmup=0).to_dict()
    (code,) = found["codes"]
    assert (code["value"], code["code"], code["kept"]) == ("b", "uint8", True)
    assert 0 < found["output_error"] < 0.1
    shown = printed(print_bench, found)
    assert "3.97" in shown
    assert "outputs err by" in shown


@pytest.mark.parametrize("broken", [{"codes": 7}, {"codes": [{"value": "b"}]}, {"output_error": "large"}])
def test_what_cannot_be_read_of_it_is_left_out(slices: Path, broken: dict[str, object]) -> None:
    manifest = load_manifest(slices)
    record_verification(slices, {**(manifest.verification or {}), **broken})
    try:
        found = bench(slices, runs=1, warmup=0).to_dict()
    finally:
        record_verification(slices, manifest.verification or {})
    assert (found["codes"], found["output_error"]) == ([], None)


def test_the_page_draws_coded_bytes_and_shows_the_proof(slices: Path, tmp_path: Path) -> None:
    report(slices, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert 'class="curve coded"' in page
    assert "dashed, written as uint8" in page
    assert "uint8, 4 times smaller" in page
    assert "Coded values, where they are read." in page
    assert "With codes, outputs err by at most" in page


def test_a_page_without_codes_has_none_of_it(analysis: Analysis, machines: Topology, tmp_path: Path) -> None:
    slice_model(analysis.graph, plan(analysis, machines, cuts=[2]), tmp_path / "out")
    report(tmp_path / "out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "curve coded" not in page
    assert "Coded values" not in page


def test_planners_are_compared_by_what_their_codes_lose(
    analysis: Analysis, machines: Topology, tmp_path: Path
) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(1).random((3, 1, 1, 64, 64), np.float32))
    topology = machines.with_codes(["uint8"])
    loose = compare(analysis, topology, ["exact", "exhaustive"])
    assert [row.feasible for row in loose.rows] == [True, True]
    strict = compare(analysis, topology, ["exact", "exhaustive"], accept=Judge(analysis, samples, 0.0))
    exact, exhaustive = strict.rows
    assert exact.feasible
    assert not exhaustive.feasible
    assert "an output errs by" in exhaustive.violations[0]
    assert (exact.value or 0) > (exhaustive.value or 0) == pytest.approx(loose.rows[0].value)
    assert json.dumps(strict.to_dict())
