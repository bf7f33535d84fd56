"""The data-flow graph: what is a weight, what is data, in which order nodes run."""

from __future__ import annotations

import random

import networkx as nx
import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.bodies import captures
from dnnsplit_onnx.graph.graph import load_graph
from tests.conftest import LIGHT, light

RESIDUAL = """
g (float[1,4] x) => (float[1,4] y)
<float[4] b = {1, 2, 3, 4}, float[1] s = {2}>
{
   scaled = Mul (b, s)
   a = Relu (x)
   c = Add (a, scaled)
   y = Add (c, x)
}
"""


def test_weights_are_kept_apart_from_data_flow(graph_text):
    graph = graph_text(RESIDUAL)
    assert [node.op_type for node in graph.nodes] == ["Relu", "Add", "Add"]
    assert graph.constants == {"b", "s", "scaled"}
    assert graph.constant_nodes == {"scaled": 0}
    assert graph.inputs == ("x",)
    assert graph.outputs == ("y",)


def test_a_node_lists_data_and_weights_it_reads_each_once(graph_text):
    graph = graph_text(
        """g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}>
        { a = Sum (x, x, w, w)
          y = Relu (a) }"""
    )
    assert graph.nodes[0].inputs == ("x",)
    assert graph.nodes[0].weights == ("w",)


def test_unnamed_nodes_get_names_from_operator_and_output(graph_text):
    assert [node.name for node in graph_text(RESIDUAL).nodes] == ["Relu_a", "Add_c", "Add_y"]


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_random_values_of_weights_are_data(graph_text, op):
    graph = graph_text(
        f"""g (float[2] x) => (float[2] y) <float[2] w = {{0.5, 0.5}}>
        {{ noise = {op} (w)
           y = Add (x, noise) }}"""
    )
    assert [node.op_type for node in graph.nodes] == [op, "Add"]
    assert graph.nodes[0].random
    assert "noise" not in graph.constants


def test_an_unknown_operator_on_weights_is_data(graph_text):
    graph = graph_text(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 2}>
        { q = my.domain.Quant (w)
          y = Add (x, q) }""",
        header='ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]',
    )
    assert [node.op_type for node in graph.nodes] == ["Quant", "Add"]


def test_dropout_is_random_only_where_it_may_train(graph_text):
    header = """g (float[2] x, bool t) => (float[2] y) <float r = {0.5}> { y = Dropout (x, r%s) }"""
    assert not graph_text(header % "").nodes[0].random
    assert graph_text(header % ", t").nodes[0].random


def branch(name: str, *nodes: onnx.NodeProto, output: str, **kwargs) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [2])
    return helper.make_graph(list(nodes), name, [], [value], **kwargs)


def test_captures_reach_through_nested_bodies_and_returned_outer_values():
    inner = branch("inner", helper.make_node("Add", ["outer_a", "mid"], ["i"]), output="i")
    nested = helper.make_node(
        "If", ["flag"], ["n"], then_branch=inner, else_branch=branch("e", output="outer_b")
    )
    body = branch("body", helper.make_node("Relu", ["outer_c"], ["mid"]), nested, output="n")
    assert set(captures(body)) == {"outer_a", "outer_b", "outer_c", "flag"}


def test_captured_values_are_inputs_of_the_node(tmp_path):
    then = branch("then", helper.make_node("Add", ["a", "w"], ["t"]), output="t")
    node = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=branch("else", output="a"))
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["a"]), node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])],
    )
    path = tmp_path / "if.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    loaded = load_graph(path)
    assert loaded.nodes[1].inputs == ("flag", "a")
    assert loaded.nodes[1].weights == ("w",)


def test_initializers_listed_as_inputs_are_weights():
    graph = load_graph(light("resnet50"))
    assert graph.inputs == ("gpu_0/data_0",)
    assert len(graph.proto.graph.input) > 1


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_real_models_become_the_same_dag_that_networkx_sees(path):
    graph = load_graph(path)
    dag = graph.dag
    assert nx.is_directed_acyclic_graph(dag)
    # Every data node hangs together with the model's input.
    first = graph.nodes[0].index
    assert set(nx.descendants(dag, first)) | {first} == {node.index for node in graph.nodes}
    place = dag.nodes.data("position")
    for before, after, names in dag.edges.data("values"):
        assert place[before] < place[after]
        outputs, inputs = graph.nodes[place[before]].outputs, graph.nodes[place[after]].inputs
        assert set(names) == set(outputs) & set(inputs)


def test_a_shuffled_file_is_sorted(tmp_path):
    model = onnx.load(light("squeezenet"))
    nodes = list(model.graph.node)
    random.Random(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "shuffled.onnx")
    graph = load_graph(tmp_path / "shuffled.onnx")
    seen = set(graph.inputs)
    for node in graph.nodes:
        assert seen.issuperset(node.inputs)
        seen.update(node.outputs)
    assert len(graph.nodes) == len(load_graph(light("squeezenet")).nodes)


def test_reordering_keeps_dependencies(graph_text):
    graph = graph_text(
        """g (float[2] x) => (float[2] y)
        { a = Relu (x)
          b = Neg (x)
          y = Add (a, b) }"""
    )
    assert [node.op_type for node in graph.reordered([1, 0, 2]).nodes] == ["Neg", "Relu", "Add"]
    with pytest.raises(ValueError, match="before its input"):
        graph.reordered([0, 2, 1])
    with pytest.raises(ValueError, match="permutation"):
        graph.reordered([0, 0, 1])


def proto(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]), ir_version=8)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["y"])], "cycle"),
        ([("Relu", ["gone"], ["y"])], "nothing makes value `gone`"),
        ([("Relu", ["x"], ["z"])], "nothing makes the model's output `y`"),
        ([("Relu", ["x"], ["y"]), ("Neg", ["x"], ["y"])], "`y` is made twice"),
        ([("Relu", ["y"], ["x"]), ("Neg", ["x"], ["y"])], "`x` is made twice"),
    ],
)
def test_broken_graphs_are_refused(tmp_path, nodes, message):
    onnx.save(proto([helper.make_node(*node) for node in nodes]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        load_graph(tmp_path / "m.onnx")


def test_duplicate_node_names_name_nothing(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Neg", ["a"], ["b"], name="same"),
        helper.make_node("Neg", ["b"], ["y"], name="own"),
    ]
    onnx.save(proto(nodes), tmp_path / "m.onnx")
    assert load_graph(tmp_path / "m.onnx").position_of_node == {"own": 2}
