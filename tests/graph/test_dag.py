"""The networkx view: keys, quantities, and files for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest

from dnnsplit_onnx.errors import InputError, OutputError
from dnnsplit_onnx.graph.dag import write_dag
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import Analysis, measure

FORK = """
g (float[4, 8] x) => (float[4, 8] z) <float[8, 8] w>
{
   constant = Neg (w)
   left = MatMul (x, constant)
   right = Relu (x)
   odd = com.example.Odd (left)
   z = Sum (left, right, odd, left)
}
"""


@pytest.fixture
def fork(graph_text: Callable[..., Graph]) -> Analysis:
    text = FORK.replace("float[8, 8] w>", "float[8, 8] w = {" + ", ".join(["1"] * 64) + "}>")
    graph = graph_text(text, header='ir_version: 8, opset_import: ["" : 17, "com.example" : 1]')
    return measure(graph, bind_shapes(graph))


def test_nodes_carry_work_and_edges_carry_bytes(fork: Analysis) -> None:
    dag = fork.dag
    matmul, relu, odd, total = (node.index for node in fork.graph.nodes)
    assert dag.nodes[matmul] == {
        "name": fork.graph.nodes[0].name,
        "op_type": "MatMul",
        "position": 0,
        "macs": 4 * 8 * 8,
        "flops": 2 * 4 * 8 * 8,
        "weight_nbytes": 8 * 8 * 4,
    }
    assert dag.nodes[relu]["flops"] == 32
    assert dag.nodes[odd]["flops"] is None
    assert dag.edges[matmul, total] == {"values": ("left",), "nbytes": 4 * 8 * 4}
    assert dag.edges[odd, total] == {"values": ("odd",), "nbytes": None}
    assert not dag.has_edge(relu, odd)


def test_keys_are_those_of_the_file_in_every_order(fork: Analysis) -> None:
    graph = fork.graph
    other = graph.reordered([1, 0, 2, 3])
    assert nx.utils.edges_equal(graph.dag.edges, other.dag.edges, directed=True)
    for node in graph.nodes:
        assert graph.dag.nodes[node.index]["name"] == other.dag.nodes[node.index]["name"]
    assert [other.dag.nodes[node.index]["position"] for node in other.nodes] == [0, 1, 2, 3]


def test_a_graph_without_an_analysis_keeps_no_quantities(fork: Analysis) -> None:
    assert fork.dag.nodes.keys() == fork.graph.dag.nodes.keys()
    assert all("flops" not in attributes for attributes in fork.graph.dag.nodes.values())


def test_json_is_the_graph_as_it_is(fork: Analysis, tmp_path: Path) -> None:
    write_dag(fork.dag, tmp_path / "g.json")
    read = nx.node_link_graph(json.loads((tmp_path / "g.json").read_text()), edges="edges")
    assert dict(read.nodes.data()) == dict(fork.dag.nodes.data())
    edges = {(u, v): {**a, "values": tuple(a["values"])} for u, v, a in read.edges.data()}
    assert edges == {(u, v): a for u, v, a in fork.dag.edges.data()}


def test_graphml_holds_what_is_known(fork: Analysis, tmp_path: Path) -> None:
    write_dag(fork.dag, tmp_path / "g.graphml")
    read = nx.read_graphml(tmp_path / "g.graphml", node_type=int)
    assert read.edges.keys() == fork.dag.edges.keys()
    for key, attributes in fork.dag.nodes.data():
        assert read.nodes[key] == {name: value for name, value in attributes.items() if value is not None}
    assert {a["values"] for _, _, a in read.edges.data()} == {"left", "right", "odd"}


def test_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    dag = nx.DiGraph()
    dag.add_node(0, name="a\x00b<&>\ud800", op_type="Relu", position=0)
    write_dag(dag, tmp_path / "g.graphml")
    assert nx.read_graphml(tmp_path / "g.graphml").nodes["0"]["name"] == "a\ufffdb<&>\ufffd"


@pytest.mark.parametrize("name", ["g.txt", "g", ".graphml"])
def test_other_endings_are_refused(fork: Analysis, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no graph is written as") as caught:
        write_dag(fork.dag, tmp_path / name)
    assert ".json" in (caught.value.hint or "")
    assert not list(tmp_path.glob("g*.json"))


def test_a_file_is_replaced_on_demand_only(fork: Analysis, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        write_dag(fork.dag, tmp_path / "g.json")
    assert (tmp_path / "g.json").read_text() == "kept"
    write_dag(fork.dag, tmp_path / "g.json", force=True)
