"""The Open Inference Protocol over gRPC, beside HTTP and with the same bounds.

A call becomes the same message as a request over HTTP, is held against the same checks, and
is let in by the same `Admission`: what one of the two takes, the other lacks. It is for
clients that speak nothing else. Between tiers HTTP is used, which is several times faster for
large tensors.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from dnnsplit_onnx.errors import DnnsplitError, InputError, MissingExtraError
from dnnsplit_onnx.serving.tier.service import SERVER, Service
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.grpc_messages import CALLS, SERVICE, choice_of, message_classes
from dnnsplit_onnx.serving.wire.protocol import Scalar, encode, message_of
from dnnsplit_onnx.serving.wire.security import TlsFiles

_log = logging.getLogger(__name__)

INSTALL = "pip install 'dnnsplit-onnx[grpc]'"

# gRPC's names of what HTTP has numbers for.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
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
        self._calls = _Calls(service, grpc)
        limits = service.limits
        most = limits.requests + _HEALTH_CALLS
        self._server = grpc.server(
            ThreadPoolExecutor(most, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=most,
            options=[
                # A call is received before it is let in: all of them together must fit.
                ("grpc.max_receive_message_length", min(limits.body_nbytes, limits.bodies_nbytes // most)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", most),
                ("grpc.max_metadata_size", 1 << 14),
                ("grpc.max_connection_idle_ms", int(1000 * limits.idle_s)),
                ("grpc.max_connection_age_ms", _LONGEST_MS),
                ("grpc.max_connection_age_grace_ms", int(1000 * limits.request_s)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((self._calls.handler(),))
        self._drain_s = limits.drain_s
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
        self._server.stop(self._drain_s).wait()


class _Calls:
    """The calls of the service."""

    def __init__(self, service: Service, grpc: ModuleType) -> None:
        self._service, self._grpc = service, grpc
        self._classes = message_classes()

    def handler(self) -> Any:
        """What gRPC calls, for each name."""
        answers: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
            "ServerLive": lambda *_: {"live": True},
            "ServerReady": lambda *_: {"ready": self._service.ready},
            "ServerMetadata": lambda *_: SERVER,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return self._grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: self._grpc.unary_unary_rpc_method_handler(
                    functools.partial(self._answer, name, answers[name]),
                    response_serializer=self._classes[f"{name}Response"].SerializeToString,
                )
                for name in CALLS
            },
        )

    def _answer(
        self, name: str, answer: Callable[[Any, Any], dict[str, Any]], raw: bytes, context: Any
    ) -> Any:
        try:
            if name not in _OPEN_CALLS:
                shown = dict(context.invocation_metadata()).get("authorization", "")
                self._service.check_token(shown.encode() if isinstance(shown, str) else shown)
            request = self._read(name, raw)
            response = self._classes[f"{name}Response"](**answer(request, context))
            status, text = 200, ""
        except DnnsplitError as error:
            status = error.status if isinstance(error, ServingError) else 500
            text = error.message
        except Exception:
            _log.exception("a call failed")
            status, text = 500, "the server failed"
        self._service.metrics.add("responses_total", label=f'code="{status}"')
        if status != 200:
            context.abort(getattr(self._grpc.StatusCode, _CODES.get(status, "INTERNAL")), text)
        return response

    def _read(self, name: str, raw: bytes) -> Any:
        # Read here and not by gRPC, which logs a traceback for each message that is none.
        try:
            return self._classes[f"{name}Request"].FromString(raw)
        except DecodeError:
            raise ProtocolError(f"the message is no {name}Request") from None

    def _check_model(self, name: str, version: str) -> None:
        self._service.check_model(name, version or "1")

    def _model_ready(self, request: Any, _context: Any) -> dict[str, Any]:
        self._check_model(request.name, request.version)
        return {"ready": self._service.ready}

    def _model_metadata(self, request: Any, _context: Any) -> dict[str, Any]:
        self._check_model(request.name, request.version)
        found = self._service.metadata()
        return {
            **{key: value for key, value in found.items() if key != "parameters"},
            "properties": found["parameters"],
        }

    def _infer(self, request: Any, context: Any) -> dict[str, Any]:
        self._check_model(request.model_name, request.model_version)
        raws = list(request.raw_input_contents)
        nbytes = sum(map(len, raws))
        message = message_of(_as_json(request, raws, context.time_remaining()), "inputs", nbytes)
        parts = iter(raws)

        def read_into(view: memoryview) -> None:
            view[:] = next(parts)

        with self._service.inference(request.ByteSize()) as inference:
            outputs, trace = inference.answer(message, read_into, request.ByteSize(), Arena())
            answer = self._as_message(outputs)
            inference.count_sent(sum(map(len, answer["raw_output_contents"])))
        parameters = {} if trace is None else {"dnnsplit_trace": {"string_param": trace}}
        return {
            "model_name": request.model_name,
            "model_version": "1",
            "id": request.id,
            "parameters": {
                key: self._classes["InferParameter"](**value) for key, value in parameters.items()
            },
            **answer,
        }

    def _as_message(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        entries, buffers = encode(outputs, lambda _: True)
        return {
            "outputs": [
                self._classes["InferOutputTensor"](
                    name=entry["name"], datatype=entry["datatype"], shape=entry["shape"]
                )
                for entry in entries
            ],
            "raw_output_contents": [bytes(buffer) for buffer in buffers],
        }


def _as_json(request: Any, raws: list[bytes], seconds: float | None) -> dict[str, Any]:
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
    try:
        return import_module("grpc")
    except ImportError:
        raise MissingExtraError("gRPC is not installed", hint=INSTALL) from None
