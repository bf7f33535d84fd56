"""Layer names on nodes, and cutting by them."""

from __future__ import annotations

import onnx
import pytest

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_of, layer_position, layer_positions, set_layer

BODY = """
g (float[2] x) => (float[2] y) {
    a = Relu(x)
    b = Sigmoid(a)
    c = Neg(a)
    y = Add(b, c)
}
"""


@pytest.fixture
def graph_of(model_text):
    """A graph whose nodes carry the given layers, None for none."""

    def build(*layers):
        path = model_text(BODY)
        model = onnx.load(path)
        for node, layer in zip(model.graph.node, layers, strict=True):
            if layer:
                set_layer(node, layer)
        onnx.save(model, path)
        return load_graph(path)

    return build


def test_layers_end_after_their_last_node(graph_of):
    graph = graph_of("stem", "branch", "branch", "head")
    assert layer_positions(graph) == {"stem": 1, "branch": 3, "head": 4}


def test_every_prefix_is_a_layer(graph_of):
    graph = graph_of("encoder.0.conv", "encoder.1.conv", "outer/inner/conv", None)
    assert layer_positions(graph) == {
        "encoder.0": 1,
        "encoder.0.conv": 1,
        "encoder": 2,
        "encoder.1": 2,
        "encoder.1.conv": 2,
        "outer": 3,
        "outer/inner": 3,
        "outer/inner/conv": 3,
    }


def test_a_layer_without_nodes_of_its_own_is_none(graph_of):
    graph = graph_of("stem", None, None, None)
    assert [layer_of(node.proto) for node in graph.nodes] == ["stem", None, None, None]
    assert layer_positions(graph) == {"stem": 1}


def test_setting_a_layer_again_replaces_it():
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key="other", value="kept")
    set_layer(node, "first")
    set_layer(node, "second")
    assert layer_of(node) == "second"
    assert len(node.metadata_props) == 2


def test_positions_follow_the_order_of_the_graph(graph_of):
    graph = graph_of("stem", "left", "right", "head").reordered([0, 2, 1, 3])
    assert layer_positions(graph) == {"stem": 1, "right": 2, "left": 3, "head": 4}


def test_an_unknown_layer_names_its_neighbours(graph_of):
    graph = graph_of("conv1", "conv2", "conv2", "head")
    assert layer_position(graph, "conv2") == 3
    with pytest.raises(CutError, match="no layer `conv3`") as caught:
        layer_position(graph, "conv3")
    assert "`conv1`" in caught.value.hint


def test_a_model_without_layer_names_says_so(graph_of):
    with pytest.raises(CutError, match="carries no layer names") as caught:
        layer_position(graph_of(None, None, None, None), "conv1")
    assert "convert" in caught.value.hint
