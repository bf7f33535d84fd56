"""What a slice must keep, and what it must drop, of everything a model can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.slicing import SliceIndex, extract, slice_model
from dnnsplit_onnx.slicing.tags import POSITION, TIER
from tests.slicing.chain import plan_at
from tests.slicing.constructs import CONSTRUCTS, REFERENCE_ONLY, W, model, value

# Field 999 of any message: nobody knows it, and it must be kept.
UNKNOWN = b"\xba\x3e\x03new"


def save(built: onnx.ModelProto, folder: Path, name: str = "source.onnx") -> Graph:
    onnx.save(built, folder / name)
    return load_graph(folder / name)


def untagged(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node as it was before slicing marked it with its tier."""
    kept = [entry for entry in node.metadata_props if entry.key not in (TIER, POSITION)]
    assert len(node.metadata_props) - len(kept) == 2
    del node.metadata_props[:]
    node.metadata_props.extend(kept)
    return node


def rich_model() -> onnx.ModelProto:
    """Two MatMul layers with everything around them that a model can hold."""
    nodes = [
        h.make_node("MatMul", ["x", "w1"], ["a"], name="one", doc_string="first"),
        h.make_node("Relu", ["a"], ["b"], name="two"),
        h.make_node("MatMul", ["b", "w2"], ["y"], name="three"),
    ]
    weights = [nh.from_array(W, "w1"), nh.from_array(W + 1, "w2"), nh.from_array(np.float32(0.1), "w2_scale")]
    x, y = value("x"), value("y")
    x.doc_string, x.type.denotation = "the input", "IMAGE"
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    y.metadata_props.add(key="unit", value="logit")
    b = value("b")
    b.doc_string = "hidden"
    graph = h.make_graph(nodes, "g", [x], [y], weights, doc_string="graph doc", value_info=[value("a"), b])
    graph.metadata_props.add(key="of", value="graph")
    for tensor, scale in (("w2", "w2_scale"), ("x", "w2_scale")):
        note = graph.quantization_annotation.add(tensor_name=tensor)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)
    node = graph.node[1]
    node.metadata_props.add(key="of", value="node")
    node.device_configurations.add(configuration_id="two devices", pipeline_stage=1)
    node.MergeFromString(UNKNOWN)
    graph.MergeFromString(UNKNOWN)
    built = model(graph, opset=21, ir=11, producer_name="maker", opsets=[h.make_opsetid("unused", 3)])
    built.domain, built.model_version, built.doc_string = "org.example", 7, "model doc"
    built.metadata_props.add(key="of", value="model")
    built.configuration.add(name="two devices", num_devices=2)
    built.MergeFromString(UNKNOWN)
    return built


def test_headers_nodes_and_values_are_copied_whole(tmp_path: Path) -> None:
    source = rich_model()
    graph = save(source, tmp_path)
    manifest = slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    for record in manifest.slices:
        assert record.file is not None
        part = onnx.load(tmp_path / "out" / record.file)
        for field in ("ir_version", "producer_name", "domain", "model_version", "doc_string"):
            assert getattr(part, field) == getattr(source, field)
        for field in ("opset_import", "metadata_props", "configuration"):
            assert list(getattr(part, field)) == list(getattr(source, field))
        assert (part.graph.name, part.graph.doc_string) == ("g", "graph doc")
        assert list(part.graph.metadata_props) == list(source.graph.metadata_props)
        assert part.SerializeToString().count(UNKNOWN) == (3 if record.start == 0 else 2)
        onnx.checker.check_model(part)
    low, high = (onnx.load(tmp_path / "out" / str(record.file)) for record in manifest.slices)
    nodes = (*low.graph.node, *high.graph.node)
    assert [untagged(n).SerializeToString() for n in nodes] == [
        n.SerializeToString() for n in source.graph.node
    ]
    assert low.graph.input[0] == source.graph.input[0]
    assert high.graph.output[0] == source.graph.output[0]
    assert list(low.graph.value_info) == [source.graph.value_info[0]]
    assert low.graph.output[0].doc_string == high.graph.input[0].doc_string == "hidden"


def test_weights_go_where_they_are_used(tmp_path: Path) -> None:
    index = SliceIndex(save(rich_model(), tmp_path))
    low, high = extract(index, 0, 2).proto, extract(index, 2, 3).proto
    # `w2_scale` is no operand: it is there for the annotation of `x`, or of `w2`.
    assert [t.name for t in low.graph.initializer] == ["w1", "w2_scale"]
    assert [t.name for t in high.graph.initializer] == ["w2", "w2_scale"]
    assert [a.tensor_name for a in low.graph.quantization_annotation] == ["x"]
    assert [a.tensor_name for a in high.graph.quantization_annotation] == ["w2"]


def test_functions_follow_their_calls(tmp_path: Path) -> None:
    index = SliceIndex(save(CONSTRUCTS["functions"]()[0], tmp_path))
    names = [[f.name for f in extract(index, at, at + 1).proto.functions] for at in range(4)]
    assert names == [[], ["twice_plus", "double"], ["in_branch"], []]


def test_training_stays_with_what_it_trains(tmp_path: Path) -> None:
    built = rich_model()
    for weight in ("w1", "w2"):
        step = built.training_info.add()
        step.algorithm.CopyFrom(
            h.make_graph(
                [h.make_node("Neg", [weight], [f"{weight}_new"])], "step", [], [value(f"{weight}_new")]
            )
        )
        step.update_binding.add(key=weight, value=f"{weight}_new")
    index = SliceIndex(save(built, tmp_path))
    kept = [[b.key for t in extract(index, *r).proto.training_info for b in t.update_binding]
            for r in ((0, 2), (2, 3), (0, 3))]  # fmt: skip
    assert kept == [["w1"], ["w2"], ["w1", "w2"]]


def test_initializers_listed_as_inputs_stay_listed(tmp_path: Path) -> None:
    index = SliceIndex(save(CONSTRUCTS["initializers_as_inputs_ir3"]()[0], tmp_path))
    low, high = extract(index, 0, 2), extract(index, 2, 4)
    assert [v.name for v in low.proto.graph.input] == ["x", "w"]
    assert [v.name for v in high.proto.graph.input] == ["bias", "w", "b"]
    assert [port.name for port in high.inputs] == ["b"]


def test_constants_are_replicated_and_never_sent(tmp_path: Path) -> None:
    graph = save(CONSTRUCTS["constants_on_both_sides"]()[0], tmp_path)
    high = extract(SliceIndex(graph), 2, 4)
    assert [port.name for port in high.inputs] == ["b"]
    assert {n.op_type for n in high.proto.graph.node} >= {"ConstantOfShape", "Unsqueeze", "Constant"}


def test_random_nodes_are_data_flow(tmp_path: Path) -> None:
    graph = save(CONSTRUCTS["stage_without_inputs"]()[0], tmp_path)
    manifest = slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert [port.name for port in manifest.slices[1].inputs] == ["x", "s"]
    assert manifest.random == (graph.nodes[0].name,)


def test_values_that_pass_a_tier_are_forwarded(tmp_path: Path) -> None:
    graph = save(CONSTRUCTS["skip_connections"]()[0], tmp_path)
    manifest = slice_model(graph, plan_at(graph, (1, 1, 3, 6), tuple("abcde")), tmp_path / "out")
    assert [record.forward for record in manifest.slices] == [("x",), ("x", "a"), ("x", "a"), (), ()]
    assert [record.file is None for record in manifest.slices] == [False, True, False, False, True]
    assert [port.name for port in manifest.slices[2].inputs] == ["a"]


def test_dead_nodes_still_make_a_slice(tmp_path: Path) -> None:
    graph = save(CONSTRUCTS["dead_nodes"]()[0], tmp_path)
    part = extract(SliceIndex(graph), 1, 3)
    assert [port.name for port in part.outputs] == ["dead1"]


def test_constant_outputs_are_made_once(tmp_path: Path) -> None:
    graph = save(CONSTRUCTS["odd_outputs"]()[0], tmp_path)
    manifest = slice_model(graph, plan_at(graph, (0, 2)), tmp_path / "out")
    made = [port.name for record in manifest.slices for port in record.outputs]
    assert sorted(made) == ["a", "b", "c", "minus_k", "w"]
    assert [port.name for port in manifest.model.outputs] == ["b", "x", "w", "minus_k", "a", "c"]


@pytest.mark.parametrize("name", ["duplicate_node_names", "branch_returns_outer_value"])
def test_nodes_are_kept_as_they_are(name: str, tmp_path: Path) -> None:
    built, _ = REFERENCE_ONLY[name]()
    part = extract(SliceIndex(save(built, tmp_path)), 0, len(built.graph.node))
    assert list(part.proto.graph.node) == list(built.graph.node)


def test_not_a_range(tmp_path: Path) -> None:
    index = SliceIndex(save(rich_model(), tmp_path))
    for start, stop in ((2, 1), (-1, 2), (0, 4)):
        with pytest.raises(ValueError, match="not a range"):
            extract(index, start, stop)


def test_unnamed_weights_of_dtype_string(tmp_path: Path) -> None:
    index = SliceIndex(save(CONSTRUCTS["strings"]()[0], tmp_path))
    part = extract(index, 1, 3)
    assert part.inputs[0].dtype == "string"
    assert part.proto.graph.initializer[0].data_type == T.STRING
