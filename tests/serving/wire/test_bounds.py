"""What clients can hold, and for how long: uploads that stand still, threads, memory, the way out."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire import stream
from dnnsplit_onnx.serving.wire.arena import Arena, Blocks
from dnnsplit_onnx.serving.wire.connection import Connection
from dnnsplit_onnx.serving.wire.encoding import to_text
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ProtocolError
from dnnsplit_onnx.serving.wire.protocol import parse
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.stream import Pace
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import Network, cut_model, eventually, inputs
from tests.serving.emulation import Relay
from tests.serving.wire.test_server import ask, connect, is_closed, read_answer, request_for


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(stream.time, "monotonic", lambda: self.now)


def test_whoever_keeps_the_pace_may_take_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(10.0, 1000.0)
    for _ in range(100):
        clock.now += 5.0
        pace.need("receiving")
        pace.moved(5000)
    clock.now += 9.9
    pace.need("receiving")
    clock.now += 0.2
    with pytest.raises(DeadlineError, match="receiving took too long"):
        pace.need("receiving")


def test_whoever_falls_behind_for_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(10.0, 1000.0)
    for _ in range(20):  # half of the pace: 20 s are there for 10 s of slack
        assert pace.remaining_s > 0
        clock.now += 1.0
        pace.moved(500)
    assert pace.remaining_s <= 0


def test_a_fast_start_saves_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(10.0, 1000.0)
    pace.moved(10**9)
    clock.now += 10.1
    assert pace.remaining_s <= 0


def ready(server: Server[Any]) -> int:
    try:
        with urllib.request.urlopen(f"{server.url}/v2/health/ready", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_stalled_uploads_give_their_places_back_and_readiness_says_when_there_are_none(
    network: Network,
) -> None:
    server = network.serve("cloud", requests=2, slack_s=0.5)
    assert ready(server) == 200
    raw = request_for(server)
    stalled = [connect(server) for _ in range(2)]
    for sock in stalled:
        sock.sendall(raw[:-1])
    assert eventually(lambda: ready(server) == 503)
    status, fields, _ = ask(server, raw)
    assert (status, fields["retry-after"]) == (503, "1")
    # Whoever asks for the link below hears that the tier is there.
    with urllib.request.urlopen(f"{server.url}/v2/chain") as answer:
        assert json.loads(answer.read())["tiers"][0]["ready"] is True
    assert eventually(lambda: ready(server) == 200, 5)
    assert ask(server, raw)[0] == 200
    for sock in stalled:
        with sock:
            assert read_answer(sock)[0] == 504


def test_a_slow_upload_that_goes_on_is_answered(network: Network) -> None:
    server = network.serve("cloud", slack_s=0.3, slowest_bytes_per_s=100)
    raw = request_for(server)
    with connect(server) as sock:
        for at in range(0, len(raw), 20):
            sock.sendall(raw[at : at + 20])
            time.sleep(0.02)  # the client, not a wait for something
        assert read_answer(sock)[0] == 200


def test_the_kernel_is_asked_to_notice_clients_that_are_gone(network: Network) -> None:
    server = network.serve("cloud", silence_s=7)
    with connect(server) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_answer(sock)
        (connection,) = server._connections
        ours = connection._socket
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000


def test_a_server_without_a_thread_to_spare_goes_on(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = network.serve("cloud")
    start, failures = Connection.start, iter([True, True, True])

    def cannot(connection: Connection) -> None:
        if next(failures, False):
            raise RuntimeError("can't start new thread")
        start(connection)

    monkeypatch.setattr(Connection, "start", cannot)
    for _ in range(3):
        with connect(server) as sock:
            assert read_answer(sock)[0] == 503
            assert is_closed(sock)
    assert ask(server, request_for(server))[0] == 200
    assert len(server._connections) <= 1


def test_a_tensor_of_no_bytes_is_bounded_too() -> None:
    for shape in ([0, 1 << 40], [1 << 20, 2, 0], [0] + [2] * 31):
        tensor = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 0}}
        with pytest.raises(ProtocolError, match="a dimension of 0, and others of too many"):
            parse(to_text({"inputs": [tensor]}), "inputs", 0)
    for shape in ([0], [0, 0], [1, 32, 0, 128], [0, 3, 224, 224]):
        tensor = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 0}}
        assert parse(to_text({"inputs": [tensor]}), "inputs", 0).tensors[0].shape == tuple(shape)


def test_all_connections_share_one_pool_of_memory() -> None:
    blocks = Blocks(keep_nbytes=1_000_000)
    arenas = [Arena(blocks) for _ in range(64)]
    for arena in arenas:
        arena.reset(100_000, 2)
        first, second = arena.allocate(50_000), arena.allocate(50_000)
        first[:], second[:] = 1, 2
        assert first.max() == 1
        assert (first.ctypes.data % 64, second.ctypes.data % 64) == (0, 0)
    for arena in arenas:
        arena.release()
        arena.release()  # does nothing twice
    assert 0 < blocks.nbytes <= 1_000_000


def test_a_connection_keeps_the_memory_of_short_requests_for_itself() -> None:
    blocks = Blocks()
    ours, theirs = Arena(blocks), Arena(blocks)
    places = []
    for _ in range(2):
        for arena in (ours, theirs):
            arena.reset(600, 2)
            first, second = arena.allocate(300), arena.allocate(300)
            first[:], second[:] = 1, 2
            assert first.max() == 1
            assert (first.ctypes.data % 64, second.ctypes.data % 64) == (0, 0)
            places.append(first.ctypes.data)
            arena.release()
    assert places[:2] == places[2:]
    assert places[0] != places[1]
    assert blocks.nbytes == 0


def test_memory_is_used_again_by_requests_of_about_its_size() -> None:
    blocks = Blocks(keep_nbytes=1 << 20)
    block = blocks.take(100_000, pinned=False)
    blocks.give(block, pinned=False)
    assert blocks.take(10, pinned=False) is not block  # far too large
    assert blocks.take(200_000, pinned=False) is not block  # too small
    assert blocks.take(90_000, pinned=True) is not block
    assert blocks.take(90_000, pinned=False) is block
    assert blocks.take(90_000, pinned=False) is not block
    blocks.give(np.empty(2 << 20, np.uint8), pinned=False)
    assert blocks.nbytes == 0  # larger than all that is kept


def test_requests_that_grow_a_little_each_share_memory() -> None:
    blocks = Blocks()
    arena = Arena(blocks)
    for nbytes in range(20_000, 60_000, 20):
        arena.reset(nbytes, 1)
        assert arena.allocate(nbytes).nbytes == nbytes
        arena.release()
    assert blocks.nbytes < 800_000  # one block a size would be 80 MB, all of them looked through each time


FIXED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 8] x) => (float[2, 8] y) { a = Relu(x) y = Neg(a) }
"""


def test_a_body_is_bounded_by_what_fixed_shapes_need(network: Network, tmp_path: Path) -> None:
    folder = cut_model(FIXED, tmp_path, (1,), tiers=("edge", "cloud"))
    assert Routes(load_manifest(folder)).most_nbytes(1) == 64
    assert Routes(load_manifest(network.folder)).most_nbytes(1) is None
    server = network.serve("cloud", folder=folder, json_nbytes=1000)
    head = "POST /v2/models/cloud/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
    status, _, body = ask(server, head.format(1065).encode())
    assert status == 413
    assert b"at most 1064 are taken" in body
    with connect(server) as sock:
        sock.sendall(head.format(1064).encode() + b" " * 1064)
        assert read_answer(sock)[0] == 413  # no binary part: its JSON is too long


def test_a_server_that_waits_for_a_frozen_tier_stops_all_the_same(network: Network) -> None:
    with Relay(network.serve("cloud").port, mbps=10_000) as link:
        near = network.serve("near", link.url, drain_s=0.3)
        edge = network.edge(near.url)
        edge.infer(inputs())
        link.cut(silently=True)
        threads = [threading.Thread(target=edge.infer, args=(inputs(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: near.service.admission.count == 4)
        start = time.monotonic()
        near.close()
        assert time.monotonic() - start < 2.5
        assert eventually(lambda: near.service.admission.count == 0)
        for thread in threads:
            thread.join(10)
