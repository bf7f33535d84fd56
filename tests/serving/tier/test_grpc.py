"""The protocol over gRPC: our messages against the protocol's, and a foreign client unmodified."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.graph.protobuf import length_delimited
from dnnsplit_onnx.serving.tier import grpc_server
from dnnsplit_onnx.serving.wire import grpc_messages
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.grpc_messages import CALLS, MESSAGES, SERVICE, message_classes
from dnnsplit_onnx.serving.wire.security import TlsFiles
from tests.serving.conftest import Network, eventually, inputs

try:
    import tritonclient.grpc as triton
    from tritonclient.grpc import service_pb2
except (ImportError, RuntimeError):  # it raises the latter where the extra is missing
    triton = None

try:
    import grpc
except ImportError:
    grpc = None

needs_grpc = pytest.mark.skipif(grpc is None, reason="needs gRPC: pip install 'dnnsplit-onnx[grpc]'")
needs_client = pytest.mark.skipif(
    triton is None, reason="needs gRPC and a client: pip install grpcio 'tritonclient[grpc]'"
)
TOKEN = "0123456789abcdefghij"


def test_grpc_is_an_extra(network: Network, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtraError) as caught:
        grpc_server.GrpcServer(network.serve("cloud").service, "127.0.0.1", 0, TlsFiles())
    assert caught.value.hint == "pip install 'dnnsplit-onnx[grpc]'"


def test_messages_travel_and_come_back():
    classes = message_classes()
    request = classes["ModelInferRequest"](
        model_name="m",
        parameters={"a": classes["InferParameter"](int64_param=-1)},
        inputs=[classes["InferInputTensor"](name="x", datatype="FP32", shape=[1, 2])],
        raw_input_contents=[b"12345678"],
    )
    again = classes["ModelInferRequest"].FromString(request.SerializeToString())
    assert again == request
    assert grpc_messages.choice_of(again.parameters["a"]) == -1
    assert grpc_messages.choice_of(classes["InferParameter"]()) is None
    assert {f"{call}{end}" for call in CALLS for end in ("Request", "Response")} <= set(MESSAGES)


@needs_client
def test_messages_are_the_protocols_own():
    theirs: dict[str, Any] = {}

    def collect(messages: Any) -> None:
        for name, descriptor in messages.items():
            theirs.setdefault(name, descriptor)
            collect(descriptor.nested_types_by_name)

    collect(service_pb2.DESCRIPTOR.message_types_by_name)
    for name, cls in message_classes().items():
        ours = {field.name: (field.number, field.type, field.is_repeated) for field in cls.DESCRIPTOR.fields}
        other = {field.name: (field.number, field.type, field.is_repeated) for field in theirs[name].fields}
        # Triton has added fields of its own to some.
        assert {key: other.get(key) for key in ours} == (
            ours | {k: None for k in ours if k == "properties"}
        ), name
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert methods.full_name == SERVICE
    assert set(CALLS) <= set(methods.methods_by_name)


@contextmanager
def client_of(network: Network, tier: str = "cloud", **options: Any) -> Iterator[Any]:
    service = network.serve(tier, **options).service
    with grpc_server.GrpcServer(service, "127.0.0.1", 0, TlsFiles()) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        try:
            yield client
        finally:
            client.close()


def tensors(values: dict[str, np.ndarray]) -> list[Any]:
    found = []
    for name, array in values.items():
        kind = {"float32": "FP32", "int64": "INT64", "float64": "FP64"}[str(array.dtype)]
        tensor = triton.InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array)
        found.append(tensor)
    return found


ALL = {"parameters": {"dnnsplit_cuts": "0,0"}}


@needs_client
def test_health_and_metadata(network: Network):
    with client_of(network) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("cloud")
        assert client.is_model_ready("cloud", "1")
        assert client.get_server_metadata().name == "dnnsplit-onnx"
        metadata = client.get_model_metadata("cloud")
        assert {tensor.name: list(tensor.shape) for tensor in metadata.inputs} == {
            name: [-1, 8] for name in ("x", "k", "c")
        }
        for name, version in (("other", ""), ("cloud", "2")):
            with pytest.raises(triton.InferenceServerException, match=r"one model|only version") as caught:
                client.get_model_metadata(name, version)
            assert caught.value.status() == "StatusCode.NOT_FOUND"


@needs_client
def test_a_foreign_client_gets_the_right_answers(network: Network, whole):
    with client_of(network) as client:
        for seed in range(5):
            found = client.infer("cloud", tensors(inputs(seed)), request_id="7", **ALL)
            assert found.get_response().id == "7"
            for name, expected in whole(inputs(seed)).items():
                assert found.as_numpy(name).tobytes() == expected.tobytes()
        only = client.infer("cloud", tensors(inputs()), outputs=[triton.InferRequestedOutput("m")], **ALL)
        assert [output.name for output in only.get_response().outputs] == ["m"]
        with ThreadPoolExecutor(8) as threads:
            asked = [
                threads.submit(client.infer, "cloud", tensors(inputs(seed)), **ALL) for seed in range(30)
            ]
            for seed, answer in enumerate(asked):
                np.testing.assert_array_equal(answer.result(20).as_numpy("y"), whole(inputs(seed))["y"])


@needs_client
def test_a_call_goes_on_up_the_chain(network: Network, whole):
    cloud = network.serve("cloud")
    with client_of(network, "near", next_url=cloud.url) as client:
        found = client.infer(
            "near", tensors(inputs()), parameters={"dnnsplit_cuts": "0,3", "dnnsplit_trace": True}
        )
        np.testing.assert_array_equal(found.as_numpy("y"), whole(inputs())["y"])
        trace = json.loads(found.get_response().parameters["dnnsplit_trace"].string_param)
        assert [tier["tier"] for tier in trace] == ["near", "cloud"]
        cloud.close()
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("near", tensors(inputs()), parameters={"dnnsplit_cuts": "0,3"})
        assert caught.value.status() == "StatusCode.UNAVAILABLE"


@needs_client
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": np.zeros((2, 8), np.float64)}, "must be FP32"),
        ({"x": np.zeros((2, 4), np.float32)}, "must be"),
        ({"q": np.zeros(1, np.float32)}, "no input `q`"),
        ({"x": None}, "is missing"),
    ],
)
def test_wrong_tensors_are_refused(network: Network, change: dict[str, Any], match: str):
    values = {name: array for name, array in {**inputs(), **change}.items() if array is not None}
    with client_of(network) as client:
        with pytest.raises(triton.InferenceServerException, match=match) as caught:
            client.infer("cloud", tensors(values), **ALL)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert client.infer("cloud", tensors(inputs()), **ALL).as_numpy("y") is not None


@contextmanager
def raw_channel(network: Network, **options: Any) -> Iterator[Any]:
    """Sends messages that no client would."""
    service = network.serve("cloud", **options).service
    classes = message_classes()
    with (
        grpc_server.GrpcServer(service, "127.0.0.1", 0, TlsFiles()) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda asked: asked if isinstance(asked, bytes) else asked.SerializeToString(),
            response_deserializer=classes["ModelInferResponse"].FromString,
        )


def typed(**changes: Any) -> Any:
    """A request whose elements are typed, not raw."""
    classes = message_classes()
    values = inputs()
    contents = {"x": {"fp32_contents": values["x"].ravel()}, "k": {"int64_contents": values["k"].ravel()}}
    request = {
        "model_name": "cloud",
        "parameters": {"dnnsplit_cuts": classes["InferParameter"](string_param="0,0")},
        "inputs": [
            classes["InferInputTensor"](
                name=name,
                datatype="FP32" if name == "x" else "INT64",
                shape=[2, 8],
                contents=classes["InferTensorContents"](**elements),
            )
            for name, elements in contents.items()
        ],
    }
    return classes["ModelInferRequest"](**{**request, **changes})


@needs_grpc
def test_typed_elements_are_read_too(network: Network, whole):
    with raw_channel(network) as call:
        answer = call(typed(), timeout=10)
        raw = dict(zip([output.name for output in answer.outputs], answer.raw_output_contents, strict=True))
        assert raw == {name: array.tobytes() for name, array in whole(inputs()).items()}


@needs_grpc
def test_messages_that_are_wrong_are_refused_and_the_server_goes_on(network: Network):
    classes = message_classes()
    tensor = classes["InferInputTensor"](name="x", datatype="FP32", shape=[2, 8])
    wrong = {
        "raw contents": typed(raw_input_contents=[b"1"]),
        "both raw and typed": typed(raw_input_contents=[b"1", b"2"]),
        "elements, not those": typed(inputs=[tensor]),
        "takes 64 bytes": typed(inputs=[tensor], raw_input_contents=[b"1"]),
        "no datatype": typed(
            inputs=[classes["InferInputTensor"](name="x", datatype="FP32X", shape=[1])],
            raw_input_contents=[b"1"],
        ),
        "travels as raw": typed(inputs=[classes["InferInputTensor"](name="x", datatype="FP16", shape=[1])]),
        "one name": typed(inputs=[tensor, tensor], raw_input_contents=[bytes(64)] * 2),
        "list of sizes": typed(
            inputs=[classes["InferInputTensor"](name="x", datatype="FP32", shape=[-1])],
            raw_input_contents=[b""],
        ),
        "shared memory": typed(
            parameters={"shared_memory_region": classes["InferParameter"](string_param="r")}
        ),
        "no cuts of this model": typed(
            parameters={"dnnsplit_cuts": classes["InferParameter"](string_param="9,1")}
        ),
    }
    with raw_channel(network) as call:
        for match, request in wrong.items():
            with pytest.raises(grpc.RpcError, match=match) as caught:
                call(request, timeout=10)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, match
        rng = np.random.default_rng(0)
        good = typed().SerializeToString()
        for _ in range(200):
            bad = bytearray(good)
            for at in rng.integers(0, len(bad), 3):
                bad[at] = rng.integers(256)
            with suppress(grpc.RpcError):  # some are still good
                call(bytes(bad), timeout=10)
        assert call(typed(), timeout=10).outputs
        metrics = network.servers["cloud"].service.metrics
        assert metrics.value("responses_total", 'code="500"') == 0
        assert metrics.value("responses_total", 'code="400"') > 50


@needs_grpc
def test_the_bounds_are_those_of_http(network: Network):
    with raw_channel(network, requests=1, body_nbytes=4096) as call:
        with pytest.raises(grpc.RpcError) as caught:
            call(typed(raw_input_contents=[bytes(10_000)] * 2), timeout=10)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        service = network.servers["cloud"].service
        with service.admission.enter(1), pytest.raises(grpc.RpcError, match="busy") as caught:
            call(typed(), timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert call(typed(), timeout=10).outputs
        assert service.metrics.value("responses_total", 'code="503"') == 1


@needs_grpc
def test_a_calls_deadline_is_kept(network: Network):
    with raw_channel(network) as call:
        stage = network.servers["cloud"].service.stage
        held, leave = threading.Event(), threading.Event()

        def hold() -> None:
            from dnnsplit_onnx.serving.wire.stream import Deadline

            with stage.slots.take(Deadline(5)):
                held.set()
                leave.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(10)
        with pytest.raises(grpc.RpcError) as caught:
            call(typed(), timeout=0.2)
        assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        assert eventually(lambda: stage.waiting == 0, 2)
        leave.set()
        holder.join()


@needs_client
def test_the_token_is_asked_for_and_health_is_not(network: Network):
    with client_of(network, token=TOKEN) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for headers in ({}, {"authorization": "Bearer wrong"}):
            with pytest.raises(triton.InferenceServerException) as caught:
                client.infer("cloud", tensors(inputs()), headers=headers, **ALL)
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        good = {"authorization": f"Bearer {TOKEN}"}
        assert client.infer("cloud", tensors(inputs()), headers=good, **ALL).as_numpy("y") is not None


@needs_client
def test_tls_and_certificates_of_clients(network: Network, certificates, whole):
    files = certificates("authority")
    key, cert, ca = (path.read_bytes() for path in (files.key, files.cert, files.ca))
    service = network.serve("cloud").service
    with grpc_server.GrpcServer(service, "127.0.0.1", 0, files) as server:
        for shown in ({"private_key": key, "certificate_chain": cert}, {}):
            client = triton.InferenceServerClient(
                f"localhost:{server.port}",
                ssl=True,
                creds=grpc.ssl_channel_credentials(root_certificates=ca, **shown),
            )
            if shown:
                found = client.infer("cloud", tensors(inputs()), **ALL)
                np.testing.assert_array_equal(found.as_numpy("y"), whole(inputs())["y"])
            else:
                with pytest.raises(triton.InferenceServerException):
                    client.infer("cloud", tensors(inputs()), client_timeout=5, **ALL)
            client.close()


@needs_grpc
def test_an_address_that_is_taken_is_an_error(network: Network):
    service = network.serve("cloud").service
    with (
        grpc_server.GrpcServer(service, "127.0.0.1", 0, TlsFiles()) as server,
        pytest.raises(InputError, match="cannot listen"),
    ):
        grpc_server.GrpcServer(service, "127.0.0.1", server.port, TlsFiles())


@needs_client
def test_a_tier_is_served_over_both_and_stops(slices: Path, whole):
    words = (
        "-m",
        "tests.serving.program",
        "serve",
        slices / "cloud",
        "--port",
        0,
        "--grpc-port",
        0,
        "--json",
    )
    process = subprocess.Popen([sys.executable, *map(str, words), "--threads", "1"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            said = json.loads(process.stdout.readline())
            client = triton.InferenceServerClient(f"127.0.0.1:{said['grpc_port']}")
            found = client.infer("cloud", tensors(inputs()), **ALL)
            np.testing.assert_array_equal(found.as_numpy("y"), whole(inputs())["y"])
            client.close()
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


@needs_grpc
def test_nothing_compressed_is_read(network: Network):
    """50 kB of gzip would be 50 MB of zeros."""
    bomb = typed(raw_input_contents=[bytes(25_000_000)] * 2)
    with raw_channel(network) as call:
        with pytest.raises(grpc.RpcError) as caught:
            call(bomb, timeout=10, compression=grpc.Compression.Gzip)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert call(typed(), timeout=10).outputs


@needs_grpc
@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda: length_delimited(5, 0) * 1_000_000, id="a million inputs"),
        pytest.param(lambda: length_delimited(7, 0) * 1_000_000, id="a million raw contents"),
        pytest.param(lambda: length_delimited(4, 0) * 1_000_000, id="a million parameters"),
        pytest.param(
            lambda: (
                length_delimited(5, 5_000_000 + len(length_delimited(5, 5_000_000)))
                + length_delimited(5, 5_000_000)
                + bytes(5_000_000)
            ),
            id="elements beyond the JSON part's bound",
        ),
    ],
)
def test_messages_that_grow_when_they_are_parsed_are_refused_before(network: Network, flood: Any):
    with raw_channel(network) as call:
        start = time.perf_counter()
        with pytest.raises(grpc.RpcError) as caught:
            call(typed().SerializeToString() + flood(), timeout=10)
        assert caught.value.code() in (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.INVALID_ARGUMENT,
        )
        assert time.perf_counter() - start < 5
        assert call(typed(), timeout=10).outputs


@needs_grpc
def test_a_request_is_let_in_before_its_message_is_received(network: Network):
    """Whoever is refused, for the token or since all is taken, has not used up any memory."""
    received: list[int] = []
    with raw_channel(network, token=TOKEN, requests=1) as call:
        service = network.servers["cloud"].service
        big = typed(raw_input_contents=[bytes(10_000_000)] * 2)
        original = grpc_server._Call.receive

        def receive(self: Any) -> bytes:
            message = original(self)
            received.append(len(message))
            return message

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grpc_server._Call, "receive", receive)
            with pytest.raises(grpc.RpcError) as caught:
                call(big, timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            good = (("authorization", f"Bearer {TOKEN}"),)
            with service.admission.enter(1), pytest.raises(grpc.RpcError) as caught:
                call(big, timeout=10, metadata=good)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert received == []
            assert call(typed(), timeout=10, metadata=good).outputs
            assert len(received) == 1


@needs_grpc
def test_a_message_that_never_comes_gives_its_place_back(network: Network):
    service = network.serve("cloud", requests=1, request_s=0.2).service
    with (
        grpc_server.GrpcServer(service, "127.0.0.1", 0, TlsFiles()) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stalled = channel.stream_unary(f"/{SERVICE}/ModelInfer").future(iter(threading.Event().wait, None))
        assert eventually(lambda: service.admission.count == 1)
        assert eventually(lambda: service.admission.count == 0, 5)
        stalled.cancel()


def test_parts_of_a_message_are_found_and_joined_again():
    classes = message_classes()
    request = classes["ModelInferRequest"](model_name="m", raw_input_contents=[b"1", b"", b"333"])
    head, parts = grpc_messages.parted(request.SerializeToString(), grpc_messages.RAW_INPUTS, 100)
    assert classes["ModelInferRequest"].FromString(head) == classes["ModelInferRequest"](model_name="m")
    assert [bytes(part) for part in parts] == [b"1", b"", b"333"]
    again = grpc_messages.joined(head, grpc_messages.RAW_INPUTS, parts)
    assert classes["ModelInferRequest"].FromString(again) == request
    with pytest.raises(ProtocolError, match="is none"):
        grpc_messages.parted(b"\x3a\x05abc", grpc_messages.RAW_INPUTS, 100)
    with pytest.raises(ProtocolError, match="more than 2 bytes") as caught:
        grpc_messages.parted(request.SerializeToString(), grpc_messages.RAW_INPUTS, 2)
    assert caught.value.status == 413
