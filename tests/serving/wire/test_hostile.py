"""Peers that mean harm: bombs in requests, and servers that answer with lies."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.http import parse_request
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.protocol import parse
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import Network

from .test_server import ask, request_for

MIB = 1 << 20


def post(body: bytes, **fields: object) -> bytes:
    head = {"Host": "h", "Content-Length": len(body), **fields}
    lines = ["POST /v2/models/cloud/infer HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
def test_bodies_that_would_have_to_be_unpacked_are_refused(network: Network, encoding: str) -> None:
    server = network.serve("cloud")
    bomb = gzip.compress(bytes(8 * MIB))
    status, _, body = ask(server, post(bomb, **{"Content-Encoding": encoding}))
    assert status == 415
    assert "content encodings are not supported" in json.loads(body)["error"]
    assert ask(server, request_for(server, **{"Content-Encoding": "identity"}))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * (4 * MIB), id="nested lists"),
        pytest.param(b'{"inputs":' * 400_000, id="nested objects"),
        pytest.param(b'{"inputs":[' + b"9" * (3 * MIB) + b"]}", id="a number of three million digits"),
        pytest.param(b'{"inputs":[' + b"{}," * MIB + b"{}]}", id="a million inputs"),
        pytest.param(b'{"id":"' + b"x" * (3 * MIB) + b'"}', id="a long name"),
        pytest.param(b"{" + b'"a":1,' * 500_000 + b'"b":1}', id="a million keys"),
    ],
)
def test_bombs_of_json_are_refused(network: Network, body: bytes) -> None:
    server = network.serve("cloud")
    status, _, answer = ask(server, post(body))
    assert status in (400, 413)
    assert len(answer) < 2000
    assert ask(server, request_for(server))[0] == 200


@pytest.mark.parametrize(
    ("shape", "nbytes"), [([1 << 47] * 32, 4), ([0, 1 << 47], 4), ([1 << 48], 0), ([1] * 33, 4), ([-1], 4)]
)
def test_shapes_that_are_not_there_take_no_memory(shape: list[int], nbytes: int) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": nbytes}}
    with pytest.raises(ProtocolError):
        parse(json.dumps({"inputs": [entry]}).encode(), "inputs", nbytes)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Content-Length: 5", b"Content-Length: 6"], id="two lengths"),
        pytest.param([b"Content-Length: 5, 5"], id="a list of lengths"),
        pytest.param([b"Content-Length: +5"], id="a sign"),
        pytest.param([b"Content-Length: " + b"9" * 19], id="too many digits"),
        pytest.param([b"Transfer-Encoding: chunked"], id="chunks"),
        pytest.param([b"A: b", b" folded"], id="a folded line"),
        pytest.param([b"A : b"], id="a blank before the colon"),
        pytest.param([b"A: b\nContent-Length: 5"], id="a bare line feed"),
        pytest.param([b"A: \0"], id="a NUL"),
        pytest.param([b"A: b"] * 101, id="too many fields"),
    ],
)
def test_heads_that_can_be_read_in_two_ways_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(b"\r\n".join([b"POST /v2 HTTP/1.1", b"Host: h", *lines, b"", b""]))


@contextmanager
def liar(answers: list[bytes]) -> Iterator[str]:
    """A server that gives these answers, one for each request on each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                for answer in answers:
                    if not sock.recv(1 << 16):
                        break
                    sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\n", id="an endless body"),
        pytest.param(b"HTTP/1.1 500 No\r\nContent-Length: 999999999999999999\r\n\r\n", id="an endless error"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunks"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", id="packed"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 20000, id="a head without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"[" * 65536, id="nested lists"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", id="no object"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", id="not HTTP"),
    ],
)
def test_a_server_that_lies_is_an_error_and_takes_no_memory(answer: bytes, slices: Path) -> None:
    routes = Routes(load_manifest(slices))
    with liar([answer]) as url:
        remote = Remote(Target(url), routes, 2)
        with pytest.raises(ServingError):
            remote.infer(routes.default, {}, Deadline(5))
        assert remote.probe()[0]["ready"] is False
        remote.close()
