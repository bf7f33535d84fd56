"""What a request does when a tier above fails: one table of cases for the Python edge and for dnnsplit.js."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import cut_model, eventually
from tests.serving.web.node import NodeClient, NodeError, node_program

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 8] x) => (float[2, 8] last) { first = Identity(x) last = Identity(first) }
"""
CUT, ALL_HERE = [1], [2]
X = np.arange(16, dtype=np.float32).reshape(2, 8)


@dataclass(frozen=True)
class Reply:
    """What the tier above does with a request: a status, or `drop` or `silent`."""

    how: int | Literal["drop", "silent"]
    link: int | None = None
    busy: bool = False
    retry: str | None = None


@dataclass(frozen=True)
class Case:
    """One failure, and what comes of it.

    Attributes:
        name: What is tried.
        replies: What the tier above does with each request, the last one again and again.
        got: `here` or `above`, where it was answered, or the error.
        falls: Whether the link goes down.
        ready: What the tier above says of itself when it is asked.
        has_slices: Whether there are slices to run all of it here.
        is_fixed: Whether the request asks for its cuts and no others.
        deadline_s: How long it may take.
    """

    name: str
    replies: tuple[Reply, ...]
    got: str
    falls: bool = False
    ready: bool = True
    has_slices: bool = True
    is_fixed: bool = False
    deadline_s: float = 20.0


FINE = Reply(200)
BUSY = Reply(503, retry="0")
CASES = (
    Case("an answer", (FINE,), "above"),
    Case("dropped", (Reply("drop"),), "here", falls=True),
    Case("dropped, not ready", (Reply("drop"),), "here", falls=True, ready=False),
    Case("dropped, no slices", (Reply("drop"),), "LinkError", falls=True, has_slices=False),
    Case("dropped, fixed", (Reply("drop"),), "LinkError", falls=True, is_fixed=True),
    Case("silent", (Reply("silent"),), "here", deadline_s=1.0),
    Case("silent, not ready", (Reply("silent"),), "here", falls=True, ready=False, deadline_s=1.0),
    Case("silent, no slices", (Reply("silent"),), "DeadlineError", has_slices=False, deadline_s=0.5),
    Case("silent, fixed", (Reply("silent"),), "DeadlineError", is_fixed=True, deadline_s=0.5),
    Case("504", (Reply(504),), "here"),
    Case("504 of a link", (Reply(504, link=0),), "here"),
    Case("504, not ready", (Reply(504, link=0),), "here", falls=True, ready=False),
    Case("504, fixed", (Reply(504, link=0), FINE), "DeadlineError", is_fixed=True),
    Case("503 of a link", (Reply(503, link=0),), "here", falls=True),
    Case("503 of no such link", (Reply(503, link=7),), "here", falls=True),
    Case("503 of a link, fixed", (Reply(503, link=0), FINE), "LinkError", falls=True, is_fixed=True),
    Case("503 of no link", (Reply(503),), "here"),
    Case("busy", (Reply(503, link=0, busy=True),), "here"),
    Case("429", (Reply(429),), "here"),
    Case("busy, then not, no slices", (BUSY, BUSY, FINE), "above", has_slices=False),
    Case("busy, then not, fixed", (BUSY, FINE), "above", is_fixed=True),
    Case("busy for longer", (Reply(503, retry="30"),), "BusyError", has_slices=False),
    Case("500", (Reply(500),), "RefusedError"),
    Case("502 of a link", (Reply(502, link=0),), "RefusedError"),
    Case("400", (Reply(400),), "RefusedError"),
)


class Above:
    """A tier above that fails as a case says."""

    def __init__(self, case: Case, identity: str) -> None:
        self._case, self._identity = case, identity
        self.asked = 0
        self._over = threading.Event()
        above = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                above.describe(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                above.answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def describe(self, to: http.server.BaseHTTPRequestHandler) -> None:
        chain = {"tiers": [{"tier": "cloud", "ready": self._case.ready}]}
        model = {"name": "cloud", "parameters": {"dnnsplit_manifest": self._identity}, "inputs": []}
        send(to, 200, json.dumps(chain if to.path == "/v2/chain" else model).encode())

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        reply = self._case.replies[min(self.asked, len(self._case.replies) - 1)]
        self.asked += 1
        if reply.how == "silent":
            self._over.wait(60)
        if isinstance(reply.how, str):
            to.close_connection = True
        elif reply.how == 200:
            size = {"binary_data_size": X.nbytes}
            output = {"name": "last", "datatype": "FP32", "shape": list(X.shape), "parameters": size}
            text = json.dumps({"model_name": "cloud", "outputs": [output]}).encode()
            send(to, 200, text + X.tobytes(), {"Inference-Header-Content-Length": str(len(text))})
        else:
            told: dict[str, Any] = {"error": "as the case says"}
            told |= {} if reply.link is None else {"link": reply.link}
            told |= {"busy": True} if reply.busy else {}
            fields = {} if reply.retry is None else {"Retry-After": reply.retry}
            send(to, reply.how, json.dumps(told).encode(), fields)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def send(
    to: http.server.BaseHTTPRequestHandler, status: int, body: bytes, fields: dict[str, str] | None = None
) -> None:
    to.send_response(status)
    for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
        to.send_header(name, value)
    to.end_headers()
    to.wfile.write(body)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Folders of slices, with and without those for the whole model here."""
    made = {}
    for has_slices in (False, True):
        folder = tmp_path_factory.mktemp("failures")
        made[has_slices] = cut_model(
            MODEL, folder, tuple(CUT), candidates=has_slices, tiers=("edge", "cloud")
        )
    return made


def in_python(slices: Path, case: Case, url: str, stack: ExitStack) -> tuple[str, Callable[[], bool]]:
    """Where a request was answered or its error, and whether the link ever fell."""
    edge = stack.enter_context(Edge(slices, url))
    fell = threading.Event()
    edge.health.on_change = lambda _link, is_up, _reason: None if is_up else fell.set()
    cuts = tuple(CUT) if case.is_fixed else None
    try:
        answer = edge.infer({"x": X}, deadline_s=case.deadline_s, cuts=cuts)
    except ServingError as error:
        return type(error).__name__, fell.is_set
    np.testing.assert_array_equal(answer.outputs["last"], X)  # type: ignore[arg-type]
    return "here" if list(answer.cuts) == ALL_HERE else "above", fell.is_set


def in_javascript(slices: Path, case: Case, url: str, stack: ExitStack) -> tuple[str, Callable[[], bool]]:
    """The same, by the client library under Node."""
    if node_program() is None:
        pytest.skip("needs Node 18 or newer")
    stub = Path(__file__).with_name("stub")
    client = stack.enter_context(NodeClient(slices.parent / "site", url, ort=stub))
    how = {"deadline_s": case.deadline_s} | ({"cuts": CUT} if case.is_fixed else {})

    def fell() -> bool:
        return int(client.call("fell")) > 0

    try:
        outputs, answer = client.infer({"x": X}, **how)
    except NodeError as error:
        return error.name, fell
    np.testing.assert_array_equal(outputs["last"], X)
    return "here" if answer["cuts"] == ALL_HERE else "above", fell


@pytest.fixture(scope="module")
def sites(folders: dict[bool, Path], no_runtime: Path) -> None:
    for slices in folders.values():
        export_web(slices, slices.parent / "site", ort_web=no_runtime)


@pytest.mark.usefixtures("sites")
@pytest.mark.parametrize("ask", [in_python, in_javascript])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_above(
    case: Case,
    ask: Callable[[Path, Case, str, ExitStack], tuple[str, Callable[[], bool]]],
    folders: dict[bool, Path],
) -> None:
    slices = folders[case.has_slices]
    above = Above(case, Routes(load_manifest(slices)).identity)
    with ExitStack() as stack:
        stack.callback(above.close)
        got, fell = ask(slices, case, above.url, stack)
        assert got == case.got
        assert eventually(fell) if case.falls else not fell()
        assert above.asked >= len(case.replies) or case.is_fixed


@pytest.mark.usefixtures("sites", "node")
def test_webgpu_that_fails_leaves_wasm(folders: dict[bool, Path]) -> None:
    stub, site = Path(__file__).with_name("stub"), folders[True].parent / "site"
    with NodeClient(site, ort=stub, backend="webgpu") as client:
        outputs, _ = client.infer({"x": X})
        np.testing.assert_array_equal(outputs["last"], X)
        assert client.call("backend") == "wasm"
        assert client.call("notes") == ["WebGPU failed, so all runs in WASM: no adapter answers"]
