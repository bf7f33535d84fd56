"""Between Python and onnxruntime's own values, for every type that ONNX has.

An onnxruntime value (`OrtValue`) holds what numpy cannot: bfloat16, 4-bit integers,
sequences, maps. The chain passes these from slice to slice untouched; only its ends are
turned into Python.

| ONNX | Python |
|---|---|
| tensor | `numpy.ndarray`, of an `ml_dtypes` type where numpy has none, of `object` for strings |
| sequence | list |
| map | dict |
| optional without a value | None |

An `OrtValue` that holds an absent optional crashes the process when it is touched in any
way but `has_value`. It is None here, and a session takes it as an input not given.
"""

from __future__ import annotations

import ctypes
import re
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError

#: An `OrtValue`, or None for an absent optional.
Value = Any

# What `OrtValue.numpy` gets right. It refuses bfloat16, and misreads packed 4-bit types.
_NATIVE = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.STRING}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
)
_PLAIN = frozenset(
    f"tensor({TensorProto.DataType.Name(number).lower()})" for number in _NATIVE - {TensorProto.STRING}
)
_AS_THEY_ARE = frozenset(
    helper.tensor_dtype_to_np_dtype(number).newbyteorder("=") for number in _NATIVE - {TensorProto.STRING}
)
_CARRIER = {1: np.uint8, 2: np.uint16}
# Old enough for any onnxruntime that can run here.
_IR_VERSION, _OPSET = 8, 15


def to_value(ort: ModuleType, data: Any, dtype: str | None = None) -> Value:
    """A Python object as a value of onnxruntime.

    Args:
        ort: The module `onnxruntime`.
        data: An array, a list of arrays (a sequence), or None (an absent optional).
        dtype: Element type as onnx spells it in lower case; needed for empty sequences only.

    Raises:
        InputError: onnxruntime has no such type.
    """
    if data is None:
        return None
    if isinstance(data, list):
        return _sequence(ort, data, dtype)
    if isinstance(data, np.ndarray) and data.dtype in _AS_THEY_ARE and data.flags.c_contiguous:
        return ort.OrtValue.ortvalue_from_numpy(data)  # most are: each step of a text has many
    array = np.ascontiguousarray(data).reshape(np.shape(data))  # ascontiguousarray makes 0-d arrays 1-d
    if array.dtype.kind in "OSU":
        return _constant(ort, _tensor(array, "value"))
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        number = helper.np_dtype_to_tensor_dtype(array.dtype)
        if number in _NATIVE:
            return ort.OrtValue.ortvalue_from_numpy(array)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(_carried(array), number)
    except (KeyError, ValueError, TypeError, RuntimeError):
        raise InputError(f"onnxruntime has no tensors of {array.dtype}") from None


def to_python(ort: ModuleType, value: Value) -> Any:
    """A value of onnxruntime as a Python object: see the table above."""
    if value is None:
        return None
    if not value.is_tensor():
        return _through_session(ort, value)
    number = value.element_type()
    if number in _NATIVE:
        return value.numpy()
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    tensor = onnx.TensorProto(data_type=number, dims=value.shape(), raw_data=raw)
    return numpy_helper.to_array(tensor)


def present(value: Value) -> Value:
    """The value, or None if it is an optional that holds none."""
    return value if value.has_value() else None


def is_plain_type(text: str) -> bool:
    """Whether a type, as onnxruntime writes it, is a tensor of numbers that numpy has too."""
    return text in _PLAIN


def on_device(ort: ModuleType, value: Value, device: str) -> Value:
    """A value in another memory; itself where it lies there, or is no plain tensor.

    Args:
        ort: The module `onnxruntime`.
        value: In host memory, or on the device already.
        device: As onnxruntime calls it, such as `cuda`.
    """
    if value is None or not value.is_tensor() or value.device_name() == device:
        return value
    if not is_plain_type(value.data_type()):
        return value
    return ort.OrtValue.ortvalue_from_numpy(value.numpy(), device, 0)


def _carried(array: np.ndarray) -> np.ndarray:
    """The bytes of an array that numpy has no dtype for, in one that has its shape."""
    raw = np.frombuffer(_tensor(array, "value").raw_data, np.uint8)
    if raw.nbytes == array.size * array.itemsize:
        return raw.view(_CARRIER[array.itemsize]).reshape(array.shape)
    # Packed: onnxruntime takes the shape from the carrier and reads fewer bytes of it.
    carrier = np.zeros(array.shape, np.uint8)
    carrier.reshape(-1)[: raw.size] = raw
    return carrier


def _tensor(array: np.ndarray, name: str) -> onnx.TensorProto:
    if array.dtype.kind in "OSU":
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1)]
        return onnx.TensorProto(name=name, data_type=TensorProto.STRING, dims=array.shape, string_data=texts)
    return numpy_helper.from_array(array, name)


def _constant(ort: ModuleType, tensor: onnx.TensorProto) -> Value:
    """A tensor by way of a model that holds it: onnxruntime makes string tensors nowhere else."""
    output = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    return _run_model(ort, [], output, [tensor])


def _sequence(ort: ModuleType, items: list[Any], dtype: str | None) -> Value:
    tensors = [_tensor(np.asarray(item), f"item{at}") for at, item in enumerate(items)]
    if len({tensor.data_type for tensor in tensors}) > 1:
        raise InputError("the tensors of a sequence differ in type")
    if not tensors and dtype is None:
        raise InputError("an empty sequence of unknown type")
    number = tensors[0].data_type if tensors else TensorProto.DataType.Value((dtype or "").upper())
    output = helper.make_tensor_sequence_value_info("value", number, None)
    if tensors:
        node = helper.make_node("SequenceConstruct", [tensor.name for tensor in tensors], ["value"])
    else:
        node = helper.make_node("SequenceEmpty", [], ["value"], dtype=number)
    return _run_model(ort, [node], output, tensors)


def _run_model(
    ort: ModuleType,
    nodes: list[onnx.NodeProto],
    output: onnx.ValueInfoProto,
    tensors: list[onnx.TensorProto],
) -> Value:
    graph = helper.make_graph(nodes, "value", [], [output], tensors)
    return _session(ort, graph).run_with_ort_values(None, {})[0]


def _through_session(ort: ModuleType, value: Value) -> Any:
    """A sequence or map, by way of a model that passes it through.

    Only a session's outputs can be turned into Python objects.
    """
    info = helper.make_value_info("value", _parse_type(value.data_type()))
    session = _session(ort, helper.make_graph([], "value", [info], [info]))
    binding = session.io_binding()
    binding.bind_ortvalue_input("value", value)
    binding.bind_output("value")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def _session(ort: ModuleType, graph: onnx.GraphProto) -> Any:
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=opsets)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # or it would start a pool of threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _parse_type(text: str) -> onnx.TypeProto:
    """The type that onnxruntime writes as, say, `seq(map(int64,tensor(float)))`."""
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None:
        raise InputError(f"onnxruntime made a value of unknown type `{text}`")
    kind, inner = match[1], match[2]
    if kind == "seq":
        return helper.make_sequence_type_proto(_parse_type(inner))
    if kind == "map":
        key, _, element = inner.partition(",")
        return helper.make_map_type_proto(TensorProto.DataType.Value(key.upper()), _parse_type(element))
    return helper.make_tensor_type_proto(TensorProto.DataType.Value(inner.upper()), None)
