"""What clients may do to a server, and what it does then."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest

from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.encoding import encode, to_text
from dnnsplit_onnx.serving.wire.server import Server
from tests.serving.conftest import Network, eventually, inputs


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def request_for(server: Server, *, path: str = "/v2/models/cloud/infer", **fields: object) -> bytes:
    """A good request for the top tier, with all of the model to run."""
    arrays = {**inputs()}
    tensors, buffers = encode(arrays, lambda _: True)
    text = to_text(
        {
            "inputs": json.loads(tensors),
            **{"parameters": {"dnnsplit_cuts": "0,0", "binary_data_output": True}},
        }
    )
    body = b"".join([text, *buffers])
    head = {"Host": "h", "Content-Length": len(body), "Inference-Header-Content-Length": len(text), **fields}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte: the next answer may follow at once
        part = sock.recv(1)
        if not part:
            raise ConnectionError(f"closed after {head!r}")
        head += part
    first, *lines = head.decode().strip().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(fields["content-length"])
    body = sock.recv(length, socket.MSG_WAITALL) if length else b""
    return int(first.split()[1]), fields, body


def ask(server: Server, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    with connect(server) as sock:
        sock.sendall(raw)
        return read_answer(sock)


def is_closed(sock: socket.socket) -> bool:
    """Whether the server closes a connection on which nothing more was answered."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def is_cut_off(sock: socket.socket, drip: bytes) -> bool:
    """Whether the server closes a connection into which bytes drip one by one."""
    try:
        for at in range(len(drip)):
            sock.sendall(drip[at : at + 1])
            time.sleep(0.02)  # the attack, not a wait for something
    except OSError:
        return True
    return False


def test_several_requests_follow_on_one_connection_even_sent_together(network: Network):
    server = network.serve("cloud")
    with connect(server) as sock:
        sock.sendall(request_for(server) * 3)
        for _ in range(3):
            status, fields, body = read_answer(sock)
            assert status == 200
            answer = json.loads(body[: int(fields["inference-header-content-length"])])
            assert [output["name"] for output in answer["outputs"]] == ["y", "z", "m"]
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(sock)[0] == 200


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"A: " + b"b" * 20000 + b"\r\n\r\n", 431),
        (
            b"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (b"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\n\r\n", 411),
        (b"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n", 413),
        (b"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"PUT /v2 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        (b"GET /v2/models/other HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        (b"GET /v2/models/cloud/versions/2 HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        (b"POST /v2/models/cloud HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", 404),
    ],
)
def test_bad_requests_get_an_error_in_the_protocols_form(network: Network, raw: bytes, status: int):
    server = network.serve("cloud")
    got, fields, body = ask(server, raw)
    assert got == status
    assert fields["content-type"] == "application/json"
    assert json.loads(body)["error"]
    assert ask(server, request_for(server))[0] == 200


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"datatype": "FP64", "parameters": {"binary_data_size": 128}}, "must be FP32"),
        ({"shape": [2, 4], "parameters": {"binary_data_size": 32}}, "must be"),
        ({"shape": [16], "parameters": {"binary_data_size": 64}}, "must be"),
        ({"name": "other"}, "no input `other`"),
        ({"parameters": {"binary_data_size": 60}}, "takes 64 bytes, not 60"),
    ],
)
def test_wrong_tensors_are_refused_and_the_connection_goes_on(network: Network, change, match):
    server = network.serve("cloud")
    listed, buffers = encode(inputs(), lambda _: True)
    tensors = json.loads(listed)
    tensors[0].update(change)
    nbytes = tensors[0]["parameters"]["binary_data_size"]
    text = to_text({"inputs": tensors, "parameters": {"dnnsplit_cuts": "0,0"}})
    body = b"".join([text, bytes(nbytes), buffers[1]])
    head = f"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    head += f"Inference-Header-Content-Length: {len(text)}\r\n\r\n"
    with connect(server) as sock:
        sock.sendall(head.encode() + body)
        status, _, answer = read_answer(sock)
        assert status == 400
        assert match in json.loads(answer)["error"]
        sock.sendall(request_for(server))
        assert read_answer(sock)[0] == 200


def test_a_missing_input_is_named(network: Network):
    server = network.serve("cloud")
    status, _, body = ask(
        server, b'POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 13\r\n\r\n{"inputs":[]}'
    )
    assert status == 400
    assert "is missing" in json.loads(body)["error"]


def test_a_client_that_asks_before_it_sends_is_told_to(network: Network):
    server = network.serve("cloud")
    head, _, body = request_for(server, Expect="100-continue").partition(b"\r\n\r\n")
    with connect(server) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_answer(sock)[0] == 200


def test_a_client_that_asks_before_it_sends_too_much_is_told_not_to(network: Network):
    server = network.serve("cloud", body_nbytes=10)
    with connect(server) as sock:
        sock.sendall(request_for(server, Expect="100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert read_answer(sock)[0] == 413
        sock.shutdown(socket.SHUT_WR)
        assert is_closed(sock)


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nHost: h\r\n"])
def test_slow_heads_are_cut_off(network: Network, sent: bytes):
    server = network.serve("cloud", head_s=0.2, idle_s=0.2)
    with connect(server) as sock:
        sock.sendall(sent)
        assert is_closed(sock)


def test_a_head_that_drips_is_cut_off_though_it_never_pauses(network: Network):
    server = network.serve("cloud", head_s=0.3, idle_s=5)
    start = time.monotonic()
    with connect(server) as sock:
        assert is_cut_off(sock, b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 1000)
        assert time.monotonic() - start < 5


def test_a_body_that_drips_is_cut_off_though_it_never_pauses(network: Network):
    server = network.serve("cloud", slack_s=0.3, slowest_bytes_per_s=1e6)
    raw = request_for(server)
    with connect(server) as sock:
        sock.sendall(raw[:-40])
        assert is_cut_off(sock, raw[-40:] * 100)
    assert eventually(lambda: server.service.admission.count == 0)
    assert ask(server, request_for(server))[0] == 200


def test_a_client_that_does_not_take_its_answer_is_cut_off(network: Network):
    server = network.serve("cloud", slack_s=0.3, slowest_bytes_per_s=1e9)
    big = np.zeros((40_000, 8), np.float32)
    tensors, buffers = encode({"x": big, "k": np.zeros((40_000, 8), np.int64)}, lambda _: True)
    text = to_text(
        {
            "inputs": json.loads(tensors),
            **{"parameters": {"dnnsplit_cuts": "0,0", "binary_data_output": True}},
        }
    )
    body = b"".join([text, *buffers])
    head = f"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
    head += f"Inference-Header-Content-Length: {len(text)}\r\n\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head.encode() + body)
        assert eventually(lambda: server.service.metrics.value("responses_total", 'code="200"') == 1)
        assert eventually(lambda: server.service.admission.count == 0, 20)


def test_a_new_connection_takes_the_place_of_the_one_idle_for_longest(network: Network):
    server = network.serve("cloud", connections=3)
    socks = [connect(server) for _ in range(3)]
    for sock in socks:
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(sock)[0] == 200
    assert ask(server, request_for(server))[0] == 200
    assert is_closed(socks[0])
    socks[2].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
    assert read_answer(socks[2])[0] == 200
    for sock in socks:
        sock.close()


def test_connections_over_the_bound_are_answered_503_at_once(network: Network):
    server = network.serve("cloud", connections=2, head_s=30)
    busy = [connect(server) for _ in range(2)]
    for sock in busy:
        sock.sendall(b"GET /v2 HTTP/1.1\r\n")  # a head that is under way is not idle
    assert eventually(
        lambda: all(c.idle_since is None for c in server._connections) and len(server._connections) == 2
    )
    with connect(server) as sock:
        status, fields, _ = read_answer(sock)
        assert status == 503
        assert fields["connection"] == "close"
    for sock in busy:
        sock.close()


class Gate:
    """Holds every computation until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        run = Stage.run

        def held(stage: Stage, leg, values, deadline, times=None, sequence=None):
            assert self.open.wait(30)
            return run(stage, leg, values, deadline, times)

        monkeypatch.setattr(Stage, "run", held)


def test_requests_over_the_bound_are_answered_503_at_once(network: Network, monkeypatch):
    server = network.serve("cloud", requests=2)
    gate = Gate(monkeypatch)
    inside = [connect(server) for _ in range(2)]
    for sock in inside:
        sock.sendall(request_for(server))
    assert eventually(lambda: server.service.admission.count == 2)
    start = time.monotonic()
    with connect(server) as sock:
        for _ in range(3):  # and the connection can be used again
            sock.sendall(request_for(server))
            status, fields, body = read_answer(sock)
            assert status == 503
            assert fields["retry-after"] == "1"
            assert "busy" in json.loads(body)["error"]
        assert time.monotonic() - start < 2
        gate.open.set()
        for other in inside:
            assert read_answer(other)[0] == 200
            other.close()
        sock.sendall(request_for(server))
        assert read_answer(sock)[0] == 200


def test_bodies_of_all_requests_together_are_bounded(network: Network, monkeypatch):
    server = network.serve("cloud", bodies_nbytes=1000)
    gate = Gate(monkeypatch)
    with connect(server) as first, connect(server) as second:
        first.sendall(request_for(server))
        assert eventually(lambda: server.service.admission.count == 1)
        second.sendall(request_for(server))
        second.sendall(request_for(server))
        gate.open.set()
        assert {read_answer(second)[0], read_answer(first)[0]} <= {200, 503}


def test_a_request_whose_time_is_up_in_the_queue_is_told_so(network: Network):
    server = network.serve("cloud")
    raw = request_for(server).replace(b'"dnnsplit_cuts"', b'"timeout":50000,"dnnsplit_cuts"')
    extra = len(b'"timeout":50000,')
    for name in (b"Content-Length: ", b"Inference-Header-Content-Length: "):
        at = raw.index(b"\r\n" + name) + 2 + len(name)
        stop = raw.index(b"\r\n", at)
        raw = raw[:at] + str(int(raw[at:stop]) + extra).encode() + raw[stop:]
    from dnnsplit_onnx.serving.wire.stream import Deadline

    with server.service.stage.slots.take(Deadline(5)):
        status, _, body = ask(server, raw)
    assert status == 503
    assert "queue" in json.loads(body)["error"]
    assert ask(server, raw)[0] == 200


def test_health_says_whether_a_slice_has_run(network: Network, slices):
    server = network.serve("cloud")
    stage = server.service.stage
    assert urllib.request.urlopen(server.url + "/v2/health/ready").status == 200
    stage.ready = False
    assert ask(server, b"GET /v2/health/ready HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 503
    assert ask(server, b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 200
    assert ask(server, b"GET /v2/models/cloud/ready HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 503


def test_a_token_is_asked_for_except_by_health(network: Network):
    token = "a-token-of-some-length"
    server = network.serve("cloud", token=token)
    assert ask(server, b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 200
    for path in ("/v2", "/metrics", "/v2/chain"):
        assert ask(server, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())[0] == 401
    assert ask(server, request_for(server))[0] == 401
    assert ask(server, request_for(server, Authorization="Bearer wrong"))[0] == 401
    assert ask(server, request_for(server, Authorization=f"Bearer {token}"))[0] == 200


def test_closing_lets_requests_under_way_finish(network: Network, monkeypatch):
    server = network.serve("cloud")
    gate = Gate(monkeypatch)
    with connect(server) as sock:
        sock.sendall(request_for(server))
        assert eventually(lambda: server.service.admission.count == 1)
        closing = threading.Thread(target=server.close)
        closing.start()
        assert eventually(lambda: server.service.draining)
        gate.open.set()
        assert read_answer(sock)[0] == 200
        closing.join(10)
        assert not closing.is_alive()
    with pytest.raises(OSError):  # noqa: PT011
        connect(server)
