"""What Triton's clients ask beyond the protocol, and how HTTP is spoken around it."""

from __future__ import annotations

import json
import math
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.encoding import encode
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.server import Server
from tests.serving.conftest import Network, eventually
from tests.serving.wire.test_server import ask, connect, request_for


def get(server: Server[Any], path: str) -> dict[str, Any]:
    with urllib.request.urlopen(server.url + path, timeout=5) as answer:
        data: dict[str, Any] = json.loads(answer.read())
    return data


def test_configuration_and_statistics_are_tritons(network: Network) -> None:
    server = network.serve("cloud")
    config = get(server, "/v2/models/cloud/config")
    metadata = get(server, "/v2/models/cloud")
    assert config["max_batch_size"] == 0
    assert {port["name"]: port["data_type"] for port in config["input"]} == {
        port["name"]: f"TYPE_{port['datatype']}" for port in metadata["inputs"]
    }
    for _ in range(3):
        assert ask(server, request_for(server))[0] == 200
    assert ask(server, request_for(server).replace(b'"0,0"', b'"9,9"'))[0] == 400
    (stats,) = get(server, "/v2/models/cloud/stats")["model_stats"]
    assert get(server, "/v2/models/stats")["model_stats"][0]["name"] == "cloud"
    assert (stats["inference_count"], stats["execution_count"]) == (3, 3)
    assert stats["inference_stats"]["fail"]["count"] == 1
    success, infer = (stats["inference_stats"][key] for key in ("success", "compute_infer"))
    assert success["count"] == infer["count"] == 3
    assert success["ns"] > infer["ns"] > 0


def test_tritons_client_reads_them(network: Network) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    server = network.serve("cloud")
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.get_model_config("cloud")["name"] == "cloud"
        assert client.get_inference_statistics("cloud")["model_stats"][0]["version"] == "1"


def raw(server: Server[Any], text: str) -> bytes:
    with connect(server) as sock:
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return answer


def test_head_has_the_head_of_get_and_no_body(network: Network) -> None:
    server = network.serve("cloud")
    ask_for = "{} /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = raw(server, ask_for.format("GET")).partition(b"\r\n\r\n")
    assert body
    assert raw(server, ask_for.format("HEAD")) == head + b"\r\n\r\n"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_what_may_be_asked_is_told(network: Network, method: str) -> None:
    status, fields, _ = ask(
        network.serve("cloud"), f"{method} /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    assert (status, fields["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_answers_have_no_words_for_what_is_not_finite(number: float) -> None:
    with pytest.raises(ProtocolError, match="ask for it as binary data") as caught:
        encode({"y": np.array([1.0, number], np.float32)}, lambda _: False)
    assert caught.value.status == 422
    entries, buffers = encode({"y": np.array([1.0, number], np.float32)}, lambda _: True)
    assert entries
    assert len(buffers) == 1


def test_the_process_is_measured_by_the_names_that_others_use(network: Network) -> None:
    server = network.serve("cloud")
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        lines = dict(
            line.split(" ") for line in answer.read().decode().splitlines() if line[:8] == "process_"
        )
    assert float(lines["process_resident_memory_bytes"]) > 1e7
    assert float(lines["process_cpu_seconds_total"]) > 0
    assert float(lines["process_open_fds"]) > 3


@pytest.fixture
def local(slices: Path) -> Any:
    with open_server(slices / "cloud", ServeOptions(port=0)) as server:
        server.service.stage.warm_up()
        yield server


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:9", 200), ("evil.example", 421), ("", 421)],
)
def test_on_loopback_the_host_is_looked_at(local: Server[Any], host: str, status: int) -> None:
    assert ask(local, f"GET /v2 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0] == status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/octet-stream", 200),
        ("text/plain", 415),
        ("Multipart/Form-Data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_on_loopback_no_form_of_a_page_is_answered(local: Server[Any], kind: str, status: int) -> None:
    raw_request = request_for(local, **{"Content-Type": kind}).replace(b"Host: h\r\n", b"Host: localhost\r\n")
    assert ask(local, raw_request)[0] == status


def test_what_nobody_waits_for_is_not_computed(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    server = network.serve("cloud", requests=8)
    computed, entered, gate, run = [], threading.Event(), threading.Event(), Stage._run

    def slowly(stage: Stage, session: Any, record: Any, feeds: Any) -> Any:
        entered.set()
        gate.wait(20)
        computed.append(1)
        return run(stage, session, record, feeds)

    monkeypatch.setattr(Stage, "_run", slowly)
    stage = server.service.stage
    first = connect(server)
    first.sendall(request_for(server))
    assert entered.wait(10)
    gone = [connect(server) for _ in range(4)]
    for sock in gone:
        sock.sendall(request_for(server))
    assert eventually(lambda: stage.waiting == 4)
    for sock in gone:
        sock.close()
    gate.set()
    assert eventually(lambda: server.service.admission.count == 0)
    first.close()
    assert len(computed) == 1
    assert server.service.metrics.value("requests_failed_total") == 4


def test_a_wrong_request_is_counted_once(network: Network) -> None:
    server = network.serve("cloud")
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "/v2/nowhere")
    caught.value.close()
    assert server.service.metrics.value("responses_total", 'code="404"') == 1
