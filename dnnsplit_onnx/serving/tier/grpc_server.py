"""The Open Inference Protocol over gRPC, beside HTTP and with the same bounds.

A call becomes the same message as a request over HTTP, is held against the same checks, and
is let in by the same `Admission`, before its message is received: what one of the two takes,
the other lacks. Nothing compressed is read. It is for clients that speak nothing else.
Between tiers HTTP is used, which is several times faster for large tensors.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.serving.tier.service import SERVER, Service
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.encoding import encode
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.exchange import as_failure
from dnnsplit_onnx.serving.wire.grpc_messages import (
    CALLS,
    RAW_INPUTS,
    RAW_OUTPUTS,
    SERVICE,
    choice_of,
    joined,
    message_classes,
    parted,
)
from dnnsplit_onnx.serving.wire.protocol import Scalar, message_of
from dnnsplit_onnx.serving.wire.security import TlsFiles

INSTALL = "pip install 'dnnsplit-onnx[grpc]'"

# gRPC's names of what HTTP has numbers for.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    408: "CANCELLED",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Where the elements of a tensor are that does not travel as bytes.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}
_HEALTH_CALLS = 4  # besides those that infer
_UNCOMPRESSED = 1  # the set of the first algorithm alone, which is none
_LONGEST_NAME = 1 << 14
_STOP_S = 1.0
_LONGEST_MS = 300_000  # a connection may live; then the client makes another
_OPEN_CALLS = frozenset({"ServerLive", "ServerReady"})  # health is told to anyone


class GrpcServer:
    """Serves one tier over gRPC until it is closed.

    Args:
        service: What answers, over HTTP as well.
        host: Address to listen on.
        port: Port, 0 for any free one.
        tls: Files for TLS; none for plain text.

    Attributes:
        port: The port that it listens on.

    Raises:
        MissingExtraError: `grpcio` is not installed.
        InputError: The address cannot be listened on, or a TLS file cannot be read.
    """

    def __init__(self, service: Service, host: str, port: int, tls: TlsFiles) -> None:
        grpc = _grpc()
        limits = service.limits
        most = limits.requests + _HEALTH_CALLS
        # Nobody knows how long a message is before it is there: all of them must fit together.
        longest = min(limits.body_nbytes, limits.bodies_nbytes // most)
        self._calls = _Calls(service, grpc, longest)
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=most,
            options=[
                ("grpc.max_receive_message_length", longest),
                ("grpc.max_send_message_length", -1),
                ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED),
                ("grpc.max_concurrent_streams", most),
                ("grpc.max_metadata_size", 1 << 14),
                ("grpc.max_connection_idle_ms", int(1000 * limits.idle_s)),
                ("grpc.max_connection_age_ms", _LONGEST_MS),
                ("grpc.max_connection_age_grace_ms", int(1000 * limits.request_s)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((self._calls.handler(),))
        self._service = service
        name = f"[{host}]" if ":" in host else host
        try:
            self.port = self._listen(grpc, f"{name}:{port}", tls)
        except RuntimeError:
            self.port = 0  # as older releases say it
        if not self.port:
            raise InputError(f"cannot listen on {name}:{port} for gRPC", hint="another program may use it")

    def _listen(self, grpc: ModuleType, address: str, tls: TlsFiles) -> int:
        if not tls:
            port: int = self._server.add_insecure_port(address)
            return port
        try:
            key, cert = (path.read_bytes() for path in (tls.key, tls.cert) if path is not None)
            ca = None if tls.ca is None else tls.ca.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read a TLS file: {error}") from None
        credentials = grpc.ssl_server_credentials(
            [(key, cert)], root_certificates=ca, require_client_auth=ca is not None
        )
        secure: int = self._server.add_secure_port(address, credentials)
        return secure

    def __enter__(self) -> GrpcServer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Refuses new calls, lets those under way finish, and stops."""
        self._service.drain()
        self._server.stop(_STOP_S).wait()


class _Calls:
    """The calls of the service.

    Each is taken as a stream of one message, so that the message is received when it is asked
    for: after the token was looked at, and the request let in.
    """

    def __init__(self, service: Service, grpc: ModuleType, longest: int) -> None:
        self._service, self._grpc, self._longest = service, grpc, longest
        self._classes = message_classes()

    def handler(self) -> Any:
        """What gRPC calls, for each name."""
        answers: dict[str, Callable[[_Call], bytes]] = {
            "ServerLive": lambda _: self._message("ServerLive", live=True),
            "ServerReady": lambda _: self._message(
                "ServerReady", ready=self._service.ready and not self._service.admission.is_full
            ),
            "ServerMetadata": lambda _: self._message("ServerMetadata", **SERVER),
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return self._grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: self._grpc.stream_unary_rpc_method_handler(
                    functools.partial(self._answer, name, answers[name])
                )
                for name in CALLS
            },
        )

    def _answer(
        self, name: str, answer: Callable[[_Call], bytes], messages: Iterator[bytes], context: Any
    ) -> bytes:
        try:
            if name not in _OPEN_CALLS:
                shown = dict(context.invocation_metadata()).get("authorization", "")
                self._service.check_token(shown.encode() if isinstance(shown, str) else shown)
            response = answer(_Call(messages, context, self._service.limits.request_s))
            status, text = 200, ""
        except self._grpc.RpcError:
            status, text = 408, "the message did not come, or nobody waits for the answer"
        except Exception as error:
            failure = as_failure(error)
            status, text = failure.status, failure.message
        self._service.metrics.add("responses_total", label=f'code="{status}"')
        if status != 200:
            context.abort(getattr(self._grpc.StatusCode, _CODES.get(status, "INTERNAL")), text)
        return response

    def _message(self, call: str, **fields: Any) -> bytes:
        message: bytes = self._classes[f"{call}Response"](**fields).SerializeToString()
        return message

    def _parse(self, call: str, raw: bytes) -> Any:
        # Read here and not by gRPC, which logs a traceback for each message that is none.
        try:
            return self._classes[f"{call}Request"].FromString(raw)
        except DecodeError:
            raise ProtocolError(f"the message is no {call}Request") from None

    def _check_model(self, name: str, version: str) -> None:
        self._service.check_model(name, version or "1")

    def _named(self, call: str, asked: _Call) -> None:
        raw = asked.receive()
        if len(raw) > _LONGEST_NAME:
            raise ProtocolError(f"a {call}Request has at most {_LONGEST_NAME} bytes", status=413)
        request = self._parse(call, raw)
        self._check_model(request.name, request.version)

    def _model_ready(self, asked: _Call) -> bytes:
        self._named("ModelReady", asked)
        return self._message("ModelReady", ready=self._service.ready)

    def _model_metadata(self, asked: _Call) -> bytes:
        self._named("ModelMetadata", asked)
        found = self._service.metadata()
        parameters = found.pop("parameters")
        return self._message("ModelMetadata", **found, properties=parameters)

    def _infer(self, asked: _Call) -> bytes:
        with self._service.inference(self._longest) as inference:
            raw = asked.receive()
            head, contents = parted(raw, RAW_INPUTS, self._service.limits.json_nbytes)
            request = self._parse("ModelInfer", head)
            self._check_model(request.model_name, request.model_version)
            nbytes = sum(map(len, contents))
            message = message_of(as_json(request, contents, asked.remaining_s), "inputs", nbytes)
            parts = iter(contents)

            def read_into(view: memoryview) -> None:
                view[:] = next(parts)

            outputs, trace = inference.answer(message, read_into, len(raw), Arena())
            response = self._response(request.id, outputs, trace)
            inference.count_sent(len(response))
            return response

    def _response(self, identity: str, outputs: Mapping[str, np.ndarray], trace: str | None) -> bytes:
        listed, buffers = encode(outputs, lambda _: True)
        described = [
            {key: entry[key] for key in ("name", "datatype", "shape")} for entry in json.loads(listed)
        ]
        head = self._message(
            "ModelInfer",
            model_name=self._service.stage.name,
            model_version="1",
            id=identity,
            parameters={}
            if trace is None
            else {"dnnsplit_trace": self._classes["InferParameter"](string_param=trace)},
            outputs=[self._classes["InferOutputTensor"](**entry) for entry in described],
        )
        return joined(head, RAW_OUTPUTS, buffers)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, whose message is still to be received."""

    messages: Iterator[bytes]
    context: Any
    receive_s: float

    @property
    def remaining_s(self) -> float | None:
        """Until the client gives up; None if it does not say."""
        seconds: float | None = self.context.time_remaining()
        return seconds

    def receive(self) -> bytes:
        """The message, which may take so long and no longer.

        Raises:
            ProtocolError: There is none.
        """
        timer = threading.Timer(self.receive_s, self.context.cancel)
        timer.daemon = True
        timer.start()
        try:
            message = next(self.messages, None)
        finally:
            timer.cancel()
        if message is None:
            raise ProtocolError("the call has no message")
        return message


def as_json(request: Any, raws: list[memoryview], seconds: float | None) -> dict[str, Any]:
    """The message as the JSON part of a request over HTTP would have it.

    Raises:
        ProtocolError: It says where elements are in two ways, or in none.
    """
    if raws and len(raws) != len(request.inputs):
        raise ProtocolError(f"{len(request.inputs)} inputs, and {len(raws)} raw contents")
    parameters = _parameters(request.parameters)
    if seconds is not None:
        own = parameters.get("timeout")
        left = max(1, int(seconds * 1e6))
        parameters["timeout"] = min(own, left) if type(own) is int and own > 0 else left
    lengths: Iterator[int] = map(len, raws)
    inputs = [_input(tensor, next(lengths) if raws else None) for tensor in request.inputs]
    outputs = [
        {"name": output.name, "parameters": _parameters(output.parameters)} for output in request.outputs
    ]
    return {"id": request.id or None, "parameters": parameters, "inputs": inputs, "outputs": outputs}


def _input(tensor: Any, nbytes: int | None) -> dict[str, Any]:
    entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    parameters = _parameters(tensor.parameters)
    if nbytes is not None:
        if tensor.HasField("contents"):
            raise ProtocolError(f"tensor `{tensor.name}` has both raw and typed contents")
        return {**entry, "parameters": {**parameters, "binary_data_size": nbytes}}
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise ProtocolError(f"tensor `{tensor.name}` is {tensor.datatype}, which travels as raw contents")
    parameters.pop("binary_data_size", None)
    data = list(getattr(tensor.contents, field))
    if field == "bytes_contents":
        try:
            data = [element.decode() for element in data]
        except UnicodeDecodeError:
            raise ProtocolError(f"tensor `{tensor.name}` holds bytes that are not UTF-8") from None
    return {**entry, "parameters": parameters, "data": data}


def _parameters(found: Mapping[str, Any]) -> dict[str, Scalar]:
    values = {key: choice_of(parameter) for key, parameter in found.items()}
    return {key: value for key, value in values.items() if value is not None}


def _grpc() -> ModuleType:
    # It would log a line for each compressed call that it refuses.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return import_module("grpc")
    except ImportError:
        raise MissingExtraError("gRPC is not installed", hint=INSTALL) from None
