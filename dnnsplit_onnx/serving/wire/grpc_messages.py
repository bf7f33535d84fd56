"""The messages of the Open Inference Protocol over gRPC, made when they are first needed.

Code that a protobuf compiler generates is tied to versions of the protobuf runtime, and puts
its messages into a registry that all of a process shares: two packages that bring this
protocol (`tritonclient`, `kserve`) cannot be imported together. Messages made from a table
work with any runtime, and these are in a registry of their own.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.protobuf import fields, length_delimited
from dnnsplit_onnx.serving.wire.errors import ProtocolError

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

#: Fields of each message: type, name and number. `*` repeats; `map:T` is from strings to T.
#: Messages that the protocol nests stand beside the others here: on the wire that is the same.
MESSAGES: dict[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1, string version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, *string extensions 3",
    "ModelMetadataRequest": "string name 1, string version 2",
    "ModelMetadataResponse": "string name 1, *string versions 2, string platform 3, "
    "*TensorMetadata inputs 4, *TensorMetadata outputs 5, map:string properties 6",
    "TensorMetadata": "string name 1, string datatype 2, *int64 shape 3",
    "ModelInferRequest": "string model_name 1, string model_version 2, string id 3, "
    "map:InferParameter parameters 4, *InferInputTensor inputs 5, "
    "*InferRequestedOutputTensor outputs 6, *bytes raw_input_contents 7",
    "InferInputTensor": "string name 1, string datatype 2, *int64 shape 3, "
    "map:InferParameter parameters 4, InferTensorContents contents 5",
    "InferRequestedOutputTensor": "string name 1, map:InferParameter parameters 2",
    "ModelInferResponse": "string model_name 1, string model_version 2, string id 3, "
    "map:InferParameter parameters 4, *InferOutputTensor outputs 5, *bytes raw_output_contents 6",
    "InferOutputTensor": "string name 1, string datatype 2, *int64 shape 3, "
    "map:InferParameter parameters 4, InferTensorContents contents 5",
    "InferTensorContents": "*bool bool_contents 1, *int32 int_contents 2, *int64 int64_contents 3, "
    "*uint32 uint_contents 4, *uint64 uint64_contents 5, *float fp32_contents 6, "
    "*double fp64_contents 7, *bytes bytes_contents 8",
}
#: The one message whose fields exclude each other.
PARAMETER = "InferParameter"
_CHOICE = "parameter_choice"
_CHOICES = "bool bool_param 1, int64 int64_param 2, string string_param 3, double double_param 4, "
_CHOICES += "uint64 uint64_param 5"

#: Numbers of the fields that hold tensors as bytes, in requests and in answers.
RAW_INPUTS, RAW_OUTPUTS = 7, 6
_BYTES = 2  # the wire type of what has a length
_MOST_FIELDS = 1 << 14

#: The calls of the service; each takes `...Request` and answers `...Response`.
CALLS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in ("bool", "string", "bytes", "int32", "int64", "uint32", "uint64", "float", "double")
}


def parted(message: bytes, number: int, most_nbytes: int) -> tuple[bytes, list[memoryview]]:
    """A message without one of its fields of bytes, and what that field holds, not copied.

    Large tensors never pass through the protobuf library so, and what does is bounded before
    it is parsed: there, two bytes of a message can take fifty.

    Args:
        message: As it arrived.
        number: The field's number.
        most_nbytes: Of the message without it.

    Raises:
        ProtocolError: It is no message, or too large (413).
    """
    whole, rest, parts = memoryview(message), bytearray(), []
    try:
        for count, (field, wire_type, first, start, stop) in enumerate(fields(message, 0, len(message))):
            if field == number and wire_type == _BYTES:
                parts.append(whole[start:stop])
            else:
                rest += whole[first:stop]
            if count == _MOST_FIELDS or len(rest) > most_nbytes:
                limit = f"{most_nbytes} bytes and {_MOST_FIELDS} fields"
                raise ProtocolError(f"the message has more than {limit} besides raw contents", status=413)
    except ModelError as error:
        raise ProtocolError(f"the message is none: {error.message}") from None
    return bytes(rest), parts


def joined(message: bytes, number: int, parts: Iterable[memoryview]) -> bytes:
    """A message with a field of bytes that `parted` would find."""
    pieces = [piece for part in parts for piece in (length_delimited(number, len(part)), part)]
    return b"".join([message, *pieces])


@cache
def message_classes() -> dict[str, Any]:
    """The class of each message, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="dnnsplit_onnx/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, described in {**MESSAGES, PARAMETER: _CHOICES}.items():
        message = file.message_type.add(name=name)
        if name == PARAMETER:
            message.oneof_decl.add(name=_CHOICE)
        for text in filter(None, described.split(", ")):
            _add_field(message, *text.split(" "))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = (*MESSAGES, PARAMETER)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in names
    }


def choice_of(parameter: Any) -> bool | int | float | str | None:
    """The value of an `InferParameter`, None if it has none."""
    name = parameter.WhichOneof(_CHOICE)
    value: bool | int | float | str | None = None if name is None else getattr(parameter, name)
    return value


def _add_field(message: Any, kind: str, name: str, number: str) -> None:
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("map:"):
        entry_name = "".join(part.title() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "string", "key", "1")
        _add_field(entry, kind.removeprefix("map:"), "value", "2")
        kind = f"*{message.name}.{entry_name}"
    if kind.startswith("*"):
        field.label = _FIELD.LABEL_REPEATED
        kind = kind[1:]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    if message.name == PARAMETER:
        field.oneof_index = 0
