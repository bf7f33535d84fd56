"""What is done to a file between the exporter and the user."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx.converters.finishing import (
    Seen,
    correct_outputs,
    finish,
    name_dims,
    read_sizes_first,
    strip,
    write,
)
from dnnsplit_onnx.graph.layers import LAYER_KEY, layer_of, set_layer
from dnnsplit_onnx.graph.modelfile import open_model

BODY = """
g (float[s77, 3] x, bool c) => (float[unk__9, 8] y)
<float[3, 8] w>
{
    a = MatMul(x, w)
    y = If (c) <then_branch = t () => (float[s77, 8] t1) { t1 = Relu(a) },
                else_branch = e () => (float[s77, 8] e1) { e1 = Neg(a) }>
}
"""


@pytest.fixture
def model(model_text):
    proto = onnx.load(model_text(BODY))
    weight = np.arange(24, dtype=np.float32).reshape(3, 8)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto


def every_text(message) -> list[str]:
    """All strings anywhere in a protobuf message."""
    found = []
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if field.type == field.TYPE_MESSAGE:
                found += every_text(item)
            elif field.type == field.TYPE_STRING:
                found.append(item)
    return found


@pytest.mark.parametrize(
    "text",
    [
        'File "/home/ada/nets/model.py", line 3, in forward',
        "converted from /srv/models/resnet",
        r"C:\Users\ada\model.py",
        "(/tmp/x/y.keras)",
    ],
)
def test_paths_of_the_authors_machine_go(model, text):
    branch = next(a.g for a in model.graph.node[1].attribute if a.name == "then_branch")
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = text
    model.graph.input[0].doc_string = model.graph.initializer[0].doc_string = text
    branch.node[0].doc_string = text
    for part in (model, model.graph, model.graph.node[0], branch.node[0], model.graph.input[0]):
        part.metadata_props.add(key="note", value=text)
    strip(model)
    assert not [found for found in every_text(model) if text in found]


@pytest.mark.parametrize("text", ["trained on a/b/c", "see https://onnx.ai/model/zoo", "1/2", "a note", "/"])
def test_other_texts_stay(model, text):
    model.doc_string = text
    model.metadata_props.add(key="note", value=text)
    strip(model)
    assert model.doc_string == text
    assert model.metadata_props[0].value == text


def test_exporter_bookkeeping_goes_and_the_layer_stays(model):
    node = model.graph.node[0]
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "model.py", line 1')
    node.metadata_props.add(key="pkg.torch.onnx.fx_node", value="%conv")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'stem', 'conv']")
    node.metadata_props.add(key="namespace", value="net/stem")
    set_layer(node, "/stem/conv")
    strip(model)
    assert [(entry.key, entry.value) for entry in node.metadata_props] == [(LAYER_KEY, "/stem/conv")]


def test_nodes_get_their_layers(model, tmp_path):
    onnx.save(model, tmp_path / "raw.onnx")
    layers = {"MatMul": "dense", "If": None}
    done = finish(tmp_path / "raw.onnx", tmp_path / "m.onnx", lambda node: layers[node.op_type], {})
    assert (done.nodes, done.layers_named) == (2, 0.5)
    assert [layer_of(node) for node in onnx.load(tmp_path / "m.onnx").graph.node] == ["dense", None]


def test_open_dimensions_get_the_names_of_the_inputs(model):
    name_dims(model, {"x": ("batch", 3)})
    shapes = [v.type.tensor_type.shape for v in (model.graph.input[0], model.graph.output[0])]
    assert [shape.dim[0].dim_param for shape in shapes] == ["batch", "batch"]


def test_a_fixed_batch_is_a_number_everywhere(model):
    name_dims(model, {"x": (5, 3)})
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 5
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 5


def big(model_text, tmp_path):
    """A model with two weights large enough to lie outside, and one that is not."""
    proto = onnx.load(
        model_text("g (float[64] x) => (float[64] y) { a = Add(x, p) b = Add(a, q) y = Mul(b, r) }")
    )
    for name, size in (("p", 64), ("q", 32), ("r", 1)):
        values = np.resize(np.arange(512, dtype=np.float64), (size, 64) if size > 1 else (1,))
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(
        proto, tmp_path / "raw.onnx", save_as_external_data=True, location="raw.bin", size_threshold=1024
    )
    return tmp_path / "raw.onnx"


@pytest.mark.parametrize(("limit", "names"), [(1 << 30, ["m.onnx"]), (1000, ["m.onnx", "m.onnx.data"])])
def test_weights_lie_in_the_file_until_it_is_too_large(model_text, tmp_path, limit, names):
    raw = big(model_text, tmp_path)
    files = write(open_model(raw), tmp_path / "m.onnx", limit)
    assert [file.name for file in files] == names
    raw.unlink()
    (tmp_path / "raw.bin").unlink()
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    for name, size in (("p", 64), ("q", 32), ("r", 1)):
        expected = np.resize(np.arange(512, dtype=np.float32), (size, 64) if size > 1 else (1,))
        np.testing.assert_array_equal(weights[name], expected)
    onnx.checker.check_model(str(tmp_path / "m.onnx"))


def test_a_size_that_inputs_share_is_read_from_the_first():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[batch, n] a, float[n, batch] b, float[other] c)
            => (int64[1] p, int64[1] q, int64[2] r, int64[1] s)
        {
            p = Shape <start = 1, end = 2> (b)
            q = Shape <end = 1> (b)
            r = Shape (b)
            s = Shape <start = 0, end = 1> (c)
        }
    """)
    read_sizes_first(model)
    read = [(node.input[0], {entry.name: entry.i for entry in node.attribute}) for node in model.graph.node]
    assert read == [
        ("a", {"start": 0, "end": 1}),
        ("a", {"end": 2, "start": 1}),
        ("b", {}),
        ("c", {"start": 0, "end": 1}),
    ]


def test_outputs_have_the_dimensions_that_were_seen():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[batch, time] x) => (float[batch, 7] y, float[unk__1, 4, unk__2] z)
        <float[7] inner>
        { y = Identity(x) inner = Squeeze(x) z = Unsqueeze(inner) }
    """)
    seen = [
        Seen({"batch": 2, "time": 7}, [(2, 7), (2, 4, 14)]),
        Seen({"batch": 3, "time": 15}, [(3, 15), (3, 4, 30)]),
        Seen({"batch": 1, "time": 7}, [(1, 7), (1, 4, 14)]),
    ]
    correct_outputs(model, seen[:1])
    assert dims(model) == [["batch", 7], ["unk__1", 4, "unk__2"]]
    assert model.graph.value_info
    correct_outputs(model, seen)
    assert dims(model) == [["batch", "time"], ["batch", 4, "unk__2"]]
    assert not model.graph.value_info


def dims(model):
    return [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    ]
