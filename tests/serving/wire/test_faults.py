"""Whatever goes wrong inside is an answer in the protocol's form, and leaves the connection in use."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.errors import LinkError, ServingError
from dnnsplit_onnx.serving.wire.exchange import Body, json_response
from dnnsplit_onnx.serving.wire.handler import Send
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import Metrics
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.trace import read_trace
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import Network, inputs, same
from tests.serving.edge.test_answers import DATATYPES, READY, http, ours
from tests.serving.wire.test_hostile import liar
from tests.serving.wire.test_server import read_answer


class Failing:
    """Raises what it is told to; a `Handler`."""

    methods = "GET"

    def __init__(self) -> None:
        self.limits = ServerLimits()
        self.metrics = Metrics()
        self.metrics.counter("responses_total", "Answers, by HTTP status.")
        self.error: BaseException | None = None

    def admit(self, head: RequestHead) -> dict[str, str]:  # noqa: ARG002
        return {"X-Shared": "1"}

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:  # noqa: ARG002
        if self.error is not None:
            raise self.error
        send(json_response({"fine": True}))

    def drain(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def failing() -> Iterator[tuple[Failing, socket.socket]]:
    handler = Failing()
    with Server(handler) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(5)
        yield handler, sock


@pytest.mark.parametrize(
    ("error", "status", "data"),
    [
        (ServingError("busy", status=503), 503, {"error": "busy"}),
        (LinkError("it is gone", link=1), 503, {"error": "it is gone", "link": 1}),
        (InputError("no such slice"), 500, {"error": "no such slice"}),
        *(
            (error, 500, None)
            for error in (
                ValueError("secret"),
                KeyError("secret"),
                OverflowError("secret"),
                MemoryError("secret"),
                RecursionError("secret"),
                OSError(5, "secret"),
                UnicodeDecodeError("utf-8", b"", 0, 1, "secret"),
            )
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_exception_is_an_answer(
    failing: tuple[Failing, socket.socket], error: Exception, status: int, data: dict[str, Any] | None
) -> None:
    handler, sock = failing
    handler.error = error
    for _ in range(2):  # the connection stays
        sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        got, fields, body = read_answer(sock)
        assert (got, fields["x-shared"]) == (status, "1")
        told = json.loads(body)
        assert told == data if data is not None else "log says more" in told["error"]
        assert b"secret" not in body
    handler.error = None
    sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert read_answer(sock)[0] == 200
    assert handler.metrics.value("responses_total", f'code="{status}"') == 2


@pytest.mark.parametrize("timeout", [10**400, 10**18, 1e400, -(10**400), True, "soon"])
def test_a_timeout_beyond_all_numbers_is_none(network: Network, timeout: object) -> None:
    server = network.serve("cloud")
    entries = [
        {"name": n, "datatype": "FP32" if n == "x" else "INT64", "shape": [2, 8], "data": a.ravel().tolist()}
        for n, a in inputs().items()
    ]
    text = json.dumps({"inputs": entries, "parameters": {"dnnsplit_cuts": "0,0", "timeout": timeout}})
    head = f"POST /v2/models/cloud/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall((head + text).encode())
        assert read_answer(sock)[0] == 200


def hostile_trace(**changes: object) -> str:
    good = dict.fromkeys(("queue_ms", "compute_ms", "total_ms", "receive_ms"), 1.0)
    return json.dumps([{"tier": "near", "received_nbytes": 1, "hop": [1.0, 1, 1], **good, **changes}])


TRACES = [
    hostile_trace(received_nbytes=1e400),
    hostile_trace(received_nbytes=10**400),
    hostile_trace(compute_ms=10**400),
    hostile_trace(compute_ms=-1),
    hostile_trace(hop=[float("nan"), 1, 1]),
    hostile_trace(hop=[float("inf"), 1, 1]),
    hostile_trace(hop=[1, -(10**30), 1]),
    hostile_trace(hop=[1, 2]),
    hostile_trace(hop=None),
    "[" * 100_000,
    "null",
]


@pytest.mark.parametrize("trace", TRACES, ids=range(len(TRACES)))
def test_a_hostile_trace_is_no_trace(trace: str) -> None:
    assert read_trace(trace) == ()


def test_a_good_trace_is_read() -> None:
    (trace,) = read_trace(hostile_trace(tier="x" * 1000))
    assert (trace.compute_s, trace.received_nbytes, len(trace.tier)) == (0.001, 1, 256)


def test_an_answer_with_a_hostile_trace_is_an_answer(network: Network, slices: Path) -> None:
    routes = Routes(load_manifest(slices))
    tensors = [
        {"name": port.name, "datatype": DATATYPES[str(port.dtype)], "shape": [2, 8], "data": [1] * 16}
        for port in routes.default.legs[1].answers
    ]
    told = {"outputs": tensors, "parameters": {"dnnsplit_trace": TRACES[1]}}
    with liar([ours(routes), READY, http(told)]) as url:
        answer = network.edge(url).infer(inputs())
    assert answer.cuts == routes.cuts
    assert [tier.tier for tier in answer.tiers] == ["edge"]


def test_no_foreign_exception_leaves_infer(
    network: Network, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = network.edge(network.chain())
    monkeypatch.setattr(edge.chooser, "observe", lambda *_: 1 / 0)
    assert same(edge.infer(inputs()).outputs, whole(inputs()))
    monkeypatch.setattr(edge.stage, "run", lambda *_: 1 / 0)
    with pytest.raises(ServingError, match="a fault of this program") as caught:
        edge.infer(inputs())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    class Odd:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("odd")

    with pytest.raises((ServingError, InputError)):
        edge.infer({**inputs(), "x": Odd()})
    counts = edge.history.to_dict()["counts"]
    assert (counts["answered"], counts["failed"], counts["under_way"]) == (1, 2, 0)
