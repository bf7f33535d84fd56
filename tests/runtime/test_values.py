from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.measuring.compare import compare
from dnnsplit_onnx.runtime.values import present, to_python, to_value


def through(data: Any, dtype: str | None = None) -> Any:
    return to_python(ort, to_value(ort, data, dtype))


TENSORS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(2.5),
    np.zeros((0, 3), np.float32),
    np.arange(6, dtype=np.int64).reshape(2, 3).T,  # not contiguous
    np.broadcast_to(np.float32(1), (2, 3)),  # read-only, no strides
    np.array([True, False]),
    np.array([1, 2], np.float16),
    np.array([[1.5, -2]], ml_dtypes.bfloat16),
    np.array([1, np.nan], ml_dtypes.float8_e4m3fn),
    np.array([1, 2], ml_dtypes.float8_e5m2),
    np.array([1, -8, 7], ml_dtypes.int4),
    np.array([[1, 15], [0, 3]], ml_dtypes.uint4),
    np.zeros((0,), ml_dtypes.bfloat16),
    np.array([["a", "b\0c"], ["é", ""]], object),
    np.zeros((0,), object),
]


@pytest.mark.parametrize("array", TENSORS, ids=lambda a: f"{a.dtype.name}-{a.shape}")
def test_tensors_survive(array: np.ndarray) -> None:
    result = through(array)
    assert compare(result, array).bitwise


def test_foreign_byte_order_is_turned() -> None:
    assert through(np.array([1, 2], ">f4")).tolist() == [1, 2]


def test_numpy_text_becomes_strings() -> None:
    assert through(np.array(["ab", "c"])).tolist() == ["ab", "c"]


@pytest.mark.parametrize(
    "items",
    [
        [np.array([1.0], np.float32), np.zeros((2, 2), np.float32)],
        [np.array(["a"], object)],
        [np.array(3)],
    ],
)
def test_sequences_survive(items: list[np.ndarray]) -> None:
    assert compare(through(items), items).bitwise


def test_empty_sequences_need_a_type() -> None:
    assert through([], "int64") == []
    with pytest.raises(InputError, match="empty sequence"):
        through([])


def test_sequences_of_two_types_are_refused() -> None:
    with pytest.raises(InputError, match="differ in type"):
        through([np.array(1), np.array(1.0)])


def test_absent_optionals_are_none_and_never_touched() -> None:
    assert through(None) is None
    node = helper.make_node(
        "Optional", [], ["o"], type=helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph([node], "g", [], [helper.make_value_info("o", kind)])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert present(session.run_with_ort_values(None, {})[0]) is None


def test_maps_become_dictionaries() -> None:
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    node = helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[3, 4])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_value_info("z", kind)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made = session.run_with_ort_values(None, {"x": to_value(ort, np.array([[0.25, 0.75]], np.float32))})[0]
    assert to_python(ort, made) == [{3: 0.25, 4: 0.75}]


def test_a_type_that_onnxruntime_lacks() -> None:
    with pytest.raises(InputError, match="complex64"):
        through(np.array([1j], np.complex64))
