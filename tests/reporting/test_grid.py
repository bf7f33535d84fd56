"""Figures are whole at every width; names give way in their middle."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from dnnsplit_onnx.cli.app import app
from dnnsplit_onnx.cli.lazy import COMMANDS
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import stdout_console
from dnnsplit_onnx.reporting.grid import shortened
from dnnsplit_onnx.reporting.inspect_view import print_inspection
from dnnsplit_onnx.reporting.plan_view import print_plan
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.inspection import Inspection

WIDTHS = [40, 60, 80, 120]
NODES = 2800


def long_name(at: int) -> str:
    """A name of 90 characters, as exporters of PyTorch give."""
    name = f"/model/encoder/layers.{at}/self_attention/output_projection/dense_intermediate/MatMul_{at}"
    return name.ljust(90, "_")[:90]


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A chain of 2,800 nodes with names of 90 characters, narrower from node to node."""
    nodes, weights, value = [], [], "x"
    for at in range(NODES):
        name = long_name(at)
        if at % 140 == 0:
            rows, columns = 3000 - at, 2860 - at
            weights.append(numpy_helper.from_array(np.full((1,), 0.5, np.float32), f"w{at}"))
            nodes.append(helper.make_node("Expand", [f"w{at}", f"s{at}"], [f"e{at}"], name=f"{name[:-2]}_e"))
            weights.append(numpy_helper.from_array(np.array([rows, columns], np.int64), f"s{at}"))
            nodes.append(helper.make_node("MatMul", [value, f"e{at}"], [name], name=name))
        else:
            nodes.append(helper.make_node("Relu", [value], [name], name=name))
        value = name
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, 3000])]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [7, 200])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    path = tmp_path_factory.mktemp("long") / "long.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    loaded: Graph = load_graph(path)
    return measure(loaded, bind_shapes(loaded))


def console(width: int) -> Console:
    return Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    text = to.file.getvalue()
    assert all(cell_len(line) <= to.width for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_keeps_every_figure(analysis: Analysis, width: int) -> None:
    tiers = (Tier("edge", gflops=1), Tier("near", gflops=30), Tier("cloud", gflops=900))
    made = plan(analysis, Topology(tiers=tiers, links=(Link(bandwidth_mbps=20), Link(bandwidth_mbps=2))),
                cuts=(700, 1400))  # fmt: skip
    to = console(width)
    print_plan(to, made, analysis.graph, {})
    text = " ".join(printed(to).split())
    for link in made.figures.links:
        assert f"{link.source} → {link.target}" in text
        assert str(link.position) in text
        assert units.sent(link, len(analysis.graph.nodes)) in text
        assert units.seconds(link.seconds) in text
        node = analysis.graph.nodes[link.position - 1].name
        assert node[:4] in text
        assert node[-4:] in text
    for stage in made.figures.stages:
        assert units.seconds(stage.seconds) in text
        assert f"{stage.stop - stage.start:,}" in text
    for single in made.single_tier:
        assert units.seconds(single.latency_s) in text
        assert units.per_second(single.throughput_per_s) in text


@pytest.mark.parametrize("width", WIDTHS)
def test_an_inspection_keeps_every_figure(analysis: Analysis, width: int) -> None:
    inspection = Inspection(analysis)
    to = console(width)
    print_inspection(to, inspection)
    text = " ".join(printed(to).split())
    assert len(inspection.candidates) > 10
    for position in inspection.candidates[:20]:
        assert units.nbytes(int(inspection.cut_nbytes[position])) in text
        share = units.percent(int(analysis.flops_below[position]), int(analysis.flops_below[-1]))
        assert share in text
        assert re.search(rf"\b{position}\b", text)
        if position:
            assert analysis.graph.nodes[position - 1].name[:4] in text
    assert ("values that cross" in text) is (width >= 120)


def test_names_lose_their_middle() -> None:
    assert shortened("abcdefghijkl", 12) == "abcdefghijkl"
    assert shortened("abcdefghijkl", 9) == "abc...jkl"
    for width in range(1, 30):
        assert cell_len(shortened("名前のとても長いノード" * 3, width)) <= width


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "utf-8"])
def test_every_encoding_can_show_it(
    analysis: Analysis, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    tiers = (Tier("edge", gflops=1e6), Tier("cloud", gflops=1e7))
    made = plan(analysis, Topology(tiers=tiers, links=(Link(bandwidth_mbps=1e6),)), cuts=(700,))
    print_plan(stdout_console(80), replace(made, objective="latency"), analysis.graph, {})
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert ("µs" in text) is (encoding != "ascii")
    assert re.search(r"\d [uµ]s\b", text)
    assert "\\x" not in text
    assert "\\u" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_holds_no_pictures(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert all(ord(c) < 0x2600 for c in shown)
