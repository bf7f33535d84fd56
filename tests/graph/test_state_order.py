"""What looks at a state early stands where the state is made: valid, and no cut gets worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.state_order import followers_of, with_states_together
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.cuts import cut_nbytes, parted_states
from tests.dags import analysis_of
from tests.running.stateful import random_model

WIDTH = 8


def dynamo_like(layers: int, *, opening: str) -> onnx.ModelProto:
    """A decoder that looks at all its caches before anything else.

    Args:
        layers: How many there are.
        opening: `Shape`, as torch's dynamo export has it, or `Cast`, as half precision with
            single-precision ends has it.
    """
    ends = T.FLOAT16 if opening == "Cast" else T.FLOAT
    inputs = [h.make_tensor_value_info("x", T.FLOAT, [1, "s", WIDTH])]
    outputs = [h.make_tensor_value_info("y", T.FLOAT, [1, "s", WIDTH])]
    front, rest, weights = [], [], [h.make_tensor("one", T.INT64, [1], [1])]
    value = "x"
    for at in range(layers):
        past, present, made = f"past_key_values.{at}.key", f"present.{at}.key", f"r{at}"
        inputs.append(h.make_tensor_value_info(past, ends, [1, "p", WIDTH]))
        outputs.append(h.make_tensor_value_info(present, ends, [1, "t", WIDTH]))
        weights.append(h.make_tensor(f"w{at}", T.FLOAT, [WIDTH, WIDTH], [0.125 + at] * WIDTH**2))
        rest.append(h.make_node("MatMul", [value, f"w{at}"], [f"k{at}"]))
        if opening == "Cast":
            front.append(h.make_node("Cast", [past], [f"c{at}"], to=T.FLOAT))
            rest.append(h.make_node("Concat", [f"c{at}", f"k{at}"], [f"all{at}"], axis=1))
            rest.append(h.make_node("Cast", [f"all{at}"], [present], to=ends))
            rest.append(h.make_node("ReduceMean", [f"all{at}"], [f"m{at}"], axes=[1], keepdims=1))
        else:
            front.append(h.make_node("Shape", [past], [f"shape{at}"]))
            front.append(h.make_node("Gather", [f"shape{at}", "one"], [f"length{at}"]))
            rest.append(h.make_node("Concat", [past, f"k{at}"], [present], axis=1))
            rest.append(h.make_node("ReduceMean", [present], [f"mean{at}"], axes=[1], keepdims=1))
            rest.append(h.make_node("Cast", [f"length{at}"], [f"f{at}"], to=T.FLOAT))
            rest.append(h.make_node("Mul", [f"mean{at}", f"f{at}"], [f"m{at}"]))
        value = made if at < layers - 1 else "y"
        rest.append(h.make_node("Add", [f"k{at}", f"m{at}"], [value]))
    graph = h.make_graph([*front, *rest], "g", inputs, outputs, weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("opening", ["Shape", "Cast"])
@pytest.mark.parametrize("order", ["file", "envelope"])
def test_a_decoder_that_looks_at_all_caches_first_has_cuts_between_its_layers(opening, order):
    analysis = analyse(dynamo_like(4, opening=opening), {"s": 1, "p": 5, "t": 6}, order=order)
    assert len(analysis.graph.states) == 4
    whole = np.flatnonzero(~parted_states(analysis.graph))
    between = {stop for stop in whole if analysis.graph.nodes[stop - 1].outputs[0] in ("r0", "r1", "r2")}
    assert len(between) == 3
    nbytes = cut_nbytes(analysis.graph, analysis.types.nbytes)
    assert {nbytes[stop] for stop in between} == {4 * WIDTH}  # one token's values and nothing else
    assert analysis.has_named_order


def translator(layers: int) -> onnx.ModelProto:
    """A decoder that gives all its encoder's keys the batch's size, and a mask their heads, at the front."""
    dims = [1, "source", WIDTH]
    inputs = [h.make_tensor_value_info("x", T.FLOAT, ["b", "s", WIDTH])]
    inputs += [h.make_tensor_value_info("encoder_attention_mask", T.FLOAT, [1, "source"])]
    outputs = [h.make_tensor_value_info("y", T.FLOAT, ["b", "s", WIDTH])]
    weights = [h.make_tensor(name, T.INT64, [1], [n]) for name, n in (("zero", 0), ("one", 1), ("rest", -1))]
    weights += [h.make_tensor("width", T.INT64, [1], [WIDTH]), h.make_tensor("axis", T.INT64, [1], [1])]
    front = [
        h.make_node("Shape", ["x"], ["shape"]),
        h.make_node("Gather", ["shape", "zero"], ["batch"]),
        h.make_node("Concat", ["batch", "rest", "width"], ["keyed"], axis=0),
        h.make_node("Concat", ["batch", "one", "rest"], ["masked"], axis=0),
        h.make_node("Reshape", ["encoder_attention_mask", "masked"], ["mask"]),
    ]
    rest, value = [], "x"
    for at in range(layers):
        past, cross, made = f"past_key_values.{at}.key", f"past_key_values.{at}.encoder.key", f"r{at}"
        inputs.append(h.make_tensor_value_info(past, T.FLOAT, ["b", "p", WIDTH]))
        inputs.append(h.make_tensor_value_info(cross, T.FLOAT, dims))
        outputs.append(h.make_tensor_value_info(f"present.{at}.key", T.FLOAT, ["b", "t", WIDTH]))
        front.append(h.make_node("Reshape", [cross, "keyed"], [f"keys{at}"]))
        front.append(h.make_node("Transpose", [f"keys{at}"], [f"turned{at}"], perm=[0, 2, 1]))
        rest.append(h.make_node("Concat", [past, value], [f"present.{at}.key"], axis=1))
        rest.append(h.make_node("ReduceMean", [f"present.{at}.key"], [f"m{at}"], axes=[1], keepdims=1))
        rest.append(h.make_node("MatMul", [f"m{at}", f"turned{at}"], [f"scores{at}"]))
        rest.append(h.make_node("Mul", [f"scores{at}", "mask"], [f"shares{at}"]))
        rest.append(h.make_node("MatMul", [f"shares{at}", f"keys{at}"], [f"c{at}"]))
        value = made if at < layers - 1 else "y"
        rest.append(h.make_node("Add", [f"m{at}", f"c{at}"], [value]))
    graph = h.make_graph([*front, *rest], "g", inputs, outputs, weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def test_what_an_encoder_gave_is_shaped_where_it_is_read():
    sizes = {"b": 1, "s": 1, "p": 5, "t": 6, "source": 400}
    analysis = analyse(translator(3), sizes)
    assert sorted(s.pair for s in analysis.graph.states if s.output is None) == [
        "encoder_attention_mask=", *(f"past_key_values.{at}.encoder.key=" for at in range(3))
    ]  # fmt: skip
    whole = np.flatnonzero(~parted_states(analysis.graph))
    between = [at for at in whole if analysis.graph.nodes[at - 1].outputs[0] in ("r0", "r1")]
    nbytes = cut_nbytes(analysis.graph, analysis.types.nbytes)
    # The token's values, the mask that the first layer has made, and three numbers; no keys of 12,800 bytes.
    assert [int(nbytes[at]) for at in between] == [4 * WIDTH + 4 * 400 + 8 * 3] * 2


def test_a_table_is_no_length_however_it_is_looked_up():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, s, 4] x, float[1, p, 4] past_key_0, float[1, n, 4] encoder_hidden_states)
        => (float[1, t, 4] present_key_0, float[1, s, 4] y)
        <float[100, 4] table = {TABLE}, int64[1] zero = {0}>
    {
        shape = Shape (x)
        length = Gather (shape, zero)
        row = Gather (table, length)
        z = Add (encoder_hidden_states, row)
        present_key_0 = Concat <axis = 1> (past_key_0, x)
        w = ReduceMean <axes = [1], keepdims = 1> (z)
        y = Add (x, w)
    }""".replace("TABLE", ", ".join(["0"] * 400))
    analysis = analyse(onnx.parser.parse_model(text), {"s": 1, "p": 2, "n": 3, "t": 3})
    found = {analysis.graph.nodes[at].outputs[0] for at in followers_of(analysis.graph)}
    assert found == {"row", "z", "w"}


def random_graphs(count: int) -> list[Graph]:
    graphs = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        model, texts = random_model(rng)
        found = analysis_of(model, [1] * len(model.graph.node)).graph
        states = tuple(State(a, b or None) for a, b in (text.split("=") for text in texts))
        graphs.append(replace(found, states=states))
    return graphs


def test_every_whole_cut_is_kept_and_sends_no_more():
    moved = 0
    for graph in random_graphs(600):
        analysis = analyse(graph, order="file")
        before = replace(analysis, graph=graph)
        after = replace(analysis, graph=with_states_together(graph))
        assert sorted(n.index for n in after.graph.nodes) == [n.index for n in graph.nodes]
        moved += after.graph.nodes != graph.nodes
        old, new = (cut_nbytes(a.graph, a.types.nbytes) for a in (before, after))
        kept, made = ~parted_states(graph), ~parted_states(after.graph)
        prefixes = {
            frozenset(n.index for n in after.graph.nodes[:stop]): new[stop] for stop in np.flatnonzero(made)
        }
        for stop in np.flatnonzero(kept):
            below = frozenset(n.index for n in graph.nodes[:stop])
            assert any(
                cut <= below and nbytes <= old[stop]
                for cut, nbytes in prefixes.items()
                if below - cut <= followers(graph)
            )
    assert moved > 40


def followers(graph: Graph) -> set[int]:
    """Places of the nodes that depend on states alone, and make none."""
    early = {state.input for state in graph.states}
    made = {state.output for state in graph.states}
    found = set()
    for node in graph.nodes:
        if node.inputs and early.issuperset(node.inputs) and made.isdisjoint(node.outputs):
            found.add(node.index)
            early.update(node.outputs)
    return found
