"""The client library under Node, against real servers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.cuts import Cuts
from tests.serving.conftest import NODES, Network, eventually, inputs, same
from tests.serving.emulation import Relay
from tests.serving.web.conftest import ODD
from tests.serving.web.node import NodeClient, NodeError

pytestmark = pytest.mark.usefixtures("node")

ALL_ABOVE = [0, 0]
Open = Callable[..., NodeClient]


class Recorder:
    """Stands between a client and a server, and keeps what the client sends."""

    def __init__(self, target: int) -> None:
        self.sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def bodies(self) -> list[bytes]:
        """The bodies of inference requests, in the order of connections and requests."""
        found = []
        for stream in self.sent:
            left = bytes(stream)
            while left:
                head, _, left = left.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                length = int(fields.get(b"content-length", 0))
                if b"/infer " in head:
                    found.append(fields[b"inference-header-content-length"] + b"|" + left[:length])
                left = left[length:]
        return found

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            kept = bytearray()
            self.sent.append(kept)
            self._sockets += [client, server]
            for source, sink, copy in ((client, server, kept), (server, client, None)):
                threading.Thread(target=self._pump, args=(source, sink, copy), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, copy: bytearray | None) -> None:
        with contextlib.suppress(OSError):  # the other side has gone
            while data := source.recv(1 << 16):
                if copy is not None:
                    copy += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def recorder(typed_network: Network) -> Iterator[Recorder]:
    made = Recorder(typed_network.serve("cloud").port)
    yield made
    made.close()


def typed_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "x": rng.standard_normal((2, 3)).astype(np.float32),
        "h": np.array([1.5, -65504.0, np.nan], np.float16),
        "d": np.array([np.pi, -0.0, np.inf]),
        ODD["i"]: np.array([-(1 << 63), (1 << 63) - 1, 0]),
        "q": np.array([-128, 127, 0], np.int8),
        "u": np.array([65535, 1, 2], np.uint16),
        "p": np.array([[1, 255], [0, 2], [3, 4]], np.uint8),
        "b": np.array([True, False, True]),
        "s": np.array(["", "grün \N{SNOWMAN}\N{GRINNING FACE}", "\ufeffbom"], dtype=object),
        "z": np.array((1 << 64) - 1, np.uint64),
    }


def test_the_bytes_on_the_wire_are_those_of_the_python_edge(
    client: Open, typed_site: Path, typed_slices: Path, recorder: Recorder
) -> None:
    values = typed_inputs()
    outputs, answer = client(typed_site, recorder.url).infer(values, cuts=[0])
    theirs = recorder.bodies()
    with Edge(typed_slices, recorder.url) as edge:
        ours = edge.infer(values, cuts=(0,))
    assert answer["cuts"] == list(ours.cuts) == [0]
    assert len(theirs) == 1
    assert [*theirs, *theirs] == recorder.bodies()
    assert list(outputs) == list(ours.outputs)
    for name, array in ours.outputs.items():
        assert array is not None
        assert outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(outputs[name], array)


def test_packing_is_negotiated_away(client: Open, typed_site: Path, recorder: Recorder) -> None:
    """The server offers it, and a page, which has no zstandard, neither packs nor asks for it."""
    offered = json.load(urllib.request.urlopen(f"{recorder.url}/v2/models/cloud"))
    assert offered["parameters"]["dnnsplit_packed"]
    values = {name: np.resize(array, (1 << 14, *array.shape[1:])) for name, array in typed_inputs().items()}
    values |= {name: typed_inputs()[name] for name in "xz"}
    page = client(typed_site, recorder.url)
    for _ in range(3):  # the Python edge packs once it knows the link
        outputs, _ = page.infer(values, cuts=[0])
    assert not any(b"packed" in body for body in recorder.bodies())
    assert outputs["d2"].tobytes() == values["d"].tobytes()


def test_all_types_come_back_as_they_are(client: Open, typed_site: Path, recorder: Recorder) -> None:
    values = typed_inputs()
    outputs, _ = client(typed_site, recorder.url).infer(values, cuts=[0])
    for name, array in values.items():
        if name in ("x", "s"):
            continue
        given = outputs[ODD["i2"] if name == ODD["i"] else f"{name}2"]
        assert (given.dtype, given.tobytes()) == (array.dtype, array.tobytes()), name
    assert [text.decode() for text in outputs["s2"]] == list(values["s"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 8), np.float64)}, "input `x` is double; it must be float"),
        ({"x": np.zeros((2, 9), np.float32)}, "input `x` has the shape [2, 9]; it must be [B, 8]"),
        ({"k": None}, "input `k` is missing"),
        ({"w": np.zeros(1, np.float32)}, "unknown input `w`"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    client: Open, site: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    given = {name: array for name, array in {**inputs(), **change}.items() if array is not None}
    with pytest.raises(NodeError, match=message.replace("[", r"\[")) as caught:
        client(site).infer(given)
    assert caught.value.name == "InputError"


def test_all_above_is_the_whole_model(client: Open, site: Path, network: Network, whole: object) -> None:
    outputs, answer = client(site, network.chain()).infer(inputs(), cuts=ALL_ABOVE)
    assert same(dict(outputs), whole(inputs()))  # type: ignore[operator]
    assert [tier["tier"] for tier in answer["tiers"]] == ["edge", "near", "cloud"]
    assert answer["hop"]["sent_nbytes"] > 0


def test_a_device_that_cannot_run_a_slice_has_it_done_above(
    client: Open, site: Path, network: Network, whole: object
) -> None:
    # There is no runtime at all here, so that the plan's cut cannot be run.
    outputs, answer = client(site, network.chain()).infer(inputs())
    assert same(dict(outputs), whole(inputs()))  # type: ignore[operator]
    assert (answer["cuts"], answer["attempts"]) == (ALL_ABOVE, 2)


def test_a_device_that_cannot_run_a_slice_alone_says_why(client: Open, site: Path) -> None:
    with pytest.raises(NodeError, match=r"slice `edge/0-7.onnx` cannot be opened here") as caught:
        client(site).infer(inputs())
    assert caught.value.name == "DeviceError"


def test_slices_of_another_manifest_are_refused(
    client: Open, typed_site: Path, site: Path, network: Network
) -> None:
    cloud = network.serve("cloud")
    broken = client(typed_site, cloud.url)
    with pytest.raises(NodeError, match="slices of another manifest") as caught:
        broken.infer(typed_inputs(), cuts=[0])
    assert caught.value.name == "LinkError"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"schema_version": 1, "slices": []}', '{"schema_version": 3}']
)
def test_what_is_no_manifest_of_a_site_is_refused(client: Open, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(NodeError) as caught:
        client(tmp_path).call("choices")
    assert caught.value.name == "ManifestError"


def test_a_tampered_slice_is_not_opened(client: Open, site: Path, tmp_path: Path) -> None:
    for path in site.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(site)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    with (tmp_path / "edge" / "0-7.onnx").open("r+b") as file:
        file.seek(10)
        file.write(b"\xff")
    with pytest.raises(NodeError, match="its checksum differs") as caught:
        client(tmp_path).infer(inputs())
    assert caught.value.name == "ManifestError"


def test_a_server_that_is_not_there_is_an_error_in_time(client: Open, site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        port = unheard.getsockname()[1]
    with pytest.raises(NodeError, match="cannot reach") as caught:
        client(site, f"http://127.0.0.1:{port}").infer(inputs(), cuts=ALL_ABOVE)
    assert (caught.value.name, caught.value.link) == ("LinkError", 0)


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(client: Open, site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NodeError, match="did not answer in time") as caught:
            client(site, url).infer(inputs(), cuts=ALL_ABOVE, deadline_s=0.3)
    assert caught.value.name == "DeadlineError"


def test_a_token_is_shown_and_asked_for(client: Open, site: Path, network: Network) -> None:
    cloud = network.serve("cloud", token="t" * 16)
    near = network.serve("near", cloud.url, token="t" * 16)
    assert client(site, near.url, token="t" * 16).infer(inputs(), cuts=ALL_ABOVE)[1]["attempts"] == 1
    with pytest.raises(NodeError, match="bearer token is missing or wrong") as caught:
        client(site, near.url, token="u" * 16).infer(inputs(), cuts=ALL_ABOVE)
    assert (caught.value.name, caught.value.status) == ("RefusedError", 401)


def test_a_link_that_is_cut_is_probed_and_taken_back(client: Open, site: Path, network: Network) -> None:
    with Relay(int(network.chain().rpartition(":")[2]), 1000.0) as relay:
        edge = client(site, relay.url)
        edge.infer(inputs(), cuts=ALL_ABOVE)
        relay.cut()
        with pytest.raises(NodeError):
            edge.infer(inputs(), cuts=ALL_ABOVE)
        assert edge.call("reach") == 0
        relay.mend()
        assert eventually(lambda: edge.call("reach") == 2)
        assert edge.infer(inputs(), cuts=ALL_ABOVE)[1]["attempts"] == 1


def test_the_tier_above_that_is_lost_is_named(client: Open, site: Path, network: Network) -> None:
    edge = client(site, network.chain())
    edge.infer(inputs(), cuts=ALL_ABOVE)
    network.servers["cloud"].close()
    with pytest.raises(NodeError) as caught:
        edge.infer(inputs(), cuts=[0, 3])
    assert (caught.value.name, caught.value.link) == ("LinkError", 1)


def answer_with(body: bytes, json_length: int | None) -> bytes:
    extra = "" if json_length is None else f"Inference-Header-Content-Length: {json_length}\r\n"
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def output(**changes: object) -> dict[str, object]:
    return {
        "name": "y",
        "datatype": "FP32",
        "shape": [2, 8],
        "parameters": {"binary_data_size": 64},
    } | changes


def answers(*outputs: dict[str, object] | None, tail: int = 64) -> bytes:
    text = json.dumps({"outputs": list(outputs)}).encode()
    return answer_with(text + bytes(tail), len(text))


def lie(listener: socket.socket, real_port: int, answer: bytes) -> None:
    """Greets as a real server does, and answers requests with something else."""
    closing = b"HTTP/1.1 200 OK\r\nConnection: close"
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, socket.create_connection(("127.0.0.1", real_port)) as real:
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1 << 16)
            if head.startswith(b"GET"):
                real.sendall(head)
                said = real.recv(1 << 16)
            else:
                head, _, body = head.lower().partition(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                while len(body) < int(length[15:]):
                    body += sock.recv(1 << 16)
                said = answer
            sock.sendall(said.replace(b"HTTP/1.1 200 OK", closing))
            sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (answers(output(), tail=63), "not binary data of the body"),
        (answers(output(), tail=65), "bytes follow"),
        (answers(output(), output(), tail=128), "output `y` was not asked for, or comes twice"),
        (answers(output(shape=[3, 8])), "has 64 bytes for [3,8]"),
        (answers(output(shape=[-2, -8])), "is not a list of sizes"),
        (answers(output(datatype="FP31")), "is FP31; it must be FP32"),
        (answers(output(datatype="INT32")), "is INT32; it must be FP32"),
        (answers(output(shape=[16])), "has the shape [16]; it must be [B, 8]"),
        (answers(output(name="z")), "it lacks `y`"),
        (answers(output(name="w")), "output `w` was not asked for"),
        (answers(None), "was not asked for"),
        (answers(tail=0), "it lacks `y`"),
        (answer_with(b"{", None), "is not JSON"),
        (answer_with(b"{}", 3), "is not JSON"),
        (answer_with(b"[1]", None), "`outputs` is not a list"),
    ],
)
def test_answers_that_are_wrong_are_refused(
    client: Open, site: Path, network: Network, answer: bytes, message: str
) -> None:
    near = network.serve("near", network.serve("cloud").url)
    liar = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lie, args=(liar, near.port, answer), daemon=True).start()
    # Cuts that have `y` alone made above the page.
    cuts: Cuts = (0, NODES)
    try:
        with pytest.raises(NodeError, match=message.replace("[", r"\[").replace("`", ".")) as caught:
            client(site, f"http://127.0.0.1:{liar.getsockname()[1]}").infer(inputs(), cuts=list(cuts))
    finally:
        liar.shutdown(socket.SHUT_RDWR)
        liar.close()
    assert caught.value.name == "RefusedError"
