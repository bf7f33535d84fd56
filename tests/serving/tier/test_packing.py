"""When what goes over a link is packed: where that is quicker, between servers that both know it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier import asking, packing, remote, service
from dnnsplit_onnx.serving.tier.packing import Packing
from dnnsplit_onnx.serving.tier.slots import Admission
from dnnsplit_onnx.serving.wire.encoding import encode, to_text
from dnnsplit_onnx.serving.wire.errors import BusyError
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER, pack
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace
from tests.serving.conftest import Network, cut_model, same
from tests.serving.emulation import Relay
from tests.serving.wire.test_server import ask

pytest.importorskip("zstandard", reason="needs zstandard: pip install 'dnnsplit-onnx[packed]'")

# 65,536 floats cross, half of them 0.
WIDE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 65536] x) => (float[1, 65536] y) { a = Relu(x) b = Neg(a) y = Abs(b) }
"""
NBYTES = 4 * 65536
TIERS = ("edge", "cloud")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_model(WIDE, tmp_path_factory.mktemp("wide"), (1,), tiers=TIERS)


@pytest.fixture
def net(wide: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(wide, stack)


def given(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((1, 65536)).astype(np.float32)}


def edge_over(net: Network, mbps: float) -> Edge:
    relay = net.stack.enter_context(Relay(net.serve("cloud").port, mbps))
    return net.edge(relay.url)


def test_a_slow_link_gets_packed_requests_and_the_answers_stay_the_same(net: Network) -> None:
    edge = edge_over(net, 20.0)
    want = Chain.open(net.folder).run(given())
    for _ in range(4):
        assert same(edge.infer(given()).outputs, want)
    packed, saved = edge.metrics.value("packed_total"), edge.metrics.value("packed_saved_bytes_total")
    assert 1 <= packed <= 3  # the first shows the bandwidth
    assert saved > 0.3 * packed * NBYTES
    assert edge.metrics.value("sent_bytes_total") == pytest.approx(4 * NBYTES - saved, rel=0.01)
    there = net.servers["cloud"].service.metrics  # type: ignore[attr-defined]
    assert there.total("unpack_seconds")[0] == packed


def test_a_fast_link_gets_them_raw(net: Network) -> None:
    edge = net.edge(net.serve("cloud").url)
    for _ in range(4):
        edge.infer(given())
    assert edge.metrics.value("packed_total") == 0


@pytest.mark.parametrize("lacks", ["the server", "the client", "the user's leave"])
def test_who_does_not_know_it_gets_them_raw(
    net: Network, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "the server":
        monkeypatch.setattr(service, "can_pack", lambda: False)
    if lacks == "the client":
        monkeypatch.setattr(remote, "can_pack", lambda: False)
    relay = net.stack.enter_context(Relay(net.serve("cloud").port, 20.0))
    edge = net.edge(Target(relay.url, packs=lacks != "the user's leave"))
    for _ in range(3):
        edge.infer(given())
    assert edge.metrics.value("packed_total") == 0
    assert edge.metrics.value("sent_bytes_total") > 3 * NBYTES


def test_a_server_that_no_longer_knows_it_gets_the_request_again(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = edge_over(net, 20.0)
    want = Chain.open(net.folder).run(given())
    for _ in range(3):
        edge.infer(given())
    before = edge.metrics.value("packed_total")
    assert before > 0
    monkeypatch.setattr("dnnsplit_onnx.runtime.packing._zstandard", lambda: None)
    monkeypatch.setattr(asking, "pack", lambda raw, _itemsize: bytes(len(raw) // 2))
    assert same(edge.infer(given()).outputs, want)
    assert edge.metrics.value("packed_total") == before


def request(net: Network, packed: bytes, shape: tuple[int, ...]) -> tuple[int, str]:
    """What the cloud says to a packed input."""
    entry = {
        "name": "a",
        "datatype": "FP32",
        "shape": list(shape),
        "parameters": {"binary_data_size": len(packed), PARAMETER: METHOD},
    }
    text = to_text({"inputs": [entry]})
    lines = [
        "POST /v2/models/cloud/infer HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(text) + len(packed)}",
        f"Inference-Header-Content-Length: {len(text)}",
    ]
    server = net.servers["cloud"]
    status, _, body = ask(server, "\r\n".join([*lines, "", ""]).encode() + text + packed)
    return status, body.decode("latin-1")


def test_what_is_packed_badly_is_refused_and_the_server_goes_on(net: Network) -> None:
    net.serve("cloud")
    good = pack(memoryview(given()["x"].tobytes()), 4)
    shape = (1, 65536)
    assert request(net, good, shape)[0] == 200
    assert request(net, good[:-9], shape)[0] == 400
    status, told = request(net, pack(memoryview(bytes(64 << 20)), 4), shape)
    assert (status, json.loads(told)["error"]) == (400, f"a packed tensor does not hold {NBYTES} bytes")
    assert request(net, good, shape)[0] == 200


OPEN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, B] x) => (float[1, B] y) { a = Relu(x) b = Neg(a) y = Abs(b) }
"""


def test_a_packed_tensor_may_not_be_longer_than_a_body(tmp_path: Path) -> None:
    folder = cut_model(OPEN, tmp_path, (1,), tiers=TIERS)
    with ExitStack() as stack:
        net = Network(folder, stack)
        net.serve("cloud", body_nbytes=1 << 20)
        bomb = pack(memoryview(bytes(2 << 20)), 4)
        status, told = request(net, bomb, (1, 1 << 19))
        assert (status, "at most 1048576 are taken" in told) == (413, True)
        assert request(net, pack(memoryview(bytes(4000)), 4), (1, 1000))[0] == 200


def test_what_packed_tensors_take_counts_among_all_bodies() -> None:
    admission = Admission(4, 1000)
    with admission.enter(400), admission.enter(100) as grow:
        grow(400)
        with pytest.raises(BusyError):
            grow(200)
    with admission.enter(100) as grow:  # one alone may always come in
        grow(5000)
    with admission.enter(900), admission.enter(100):
        assert admission.count == 2


class Clock:
    """Seconds that packing and unpacking take here, whatever they take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pack_s: float, unpack_s: float) -> None:
        self.now = 0.0

        def slow_pack(raw: memoryview, _itemsize: int) -> bytes:
            self.now += pack_s * raw.nbytes
            return bytes(raw.nbytes // 2)

        def slow_unpack(_packed: memoryview, _itemsize: int, into: np.ndarray) -> None:
            self.now += unpack_s * into.nbytes

        monkeypatch.setattr(packing, "pack", slow_pack)
        monkeypatch.setattr(packing, "unpack", slow_unpack)
        monkeypatch.setattr(packing.time, "perf_counter", lambda: self.now)


def crossed(nbytes: int, bytes_per_s: float, saved: int = 0, **seconds: float) -> Hop:
    receive_s = (nbytes - (1 << 14)) / bytes_per_s
    above = TierTrace("cloud", 0.0, 0.0, receive_s, receive_s=receive_s, received_nbytes=nbytes)
    above.unpack_s = seconds.get("unpack_s", 0.0)
    return Hop(receive_s, nbytes, 0, (above,), saved, seconds.get("pack_s", 0.0))


@pytest.mark.parametrize(
    ("bytes_per_s", "worth"),
    # Half is saved, and 15 ns a byte are spent: worth it below 1 / 30 ns, and a little less.
    [(1e6, True), (28e6, True), (32e6, False), (40e6, False), (1e9, False)],
)
def test_it_pays_where_the_link_is_slower_than_packing(
    monkeypatch: pytest.MonkeyPatch, bytes_per_s: float, worth: bool
) -> None:
    Clock(monkeypatch, 10e-9, 5e-9)
    decides, values = Packing(), {"a": np.zeros(1 << 18, np.float32)}
    assert not decides.is_worth_it("cut", values)  # nothing is known of the link
    decides.learn("cut", crossed(1 << 20, bytes_per_s))
    assert decides.is_worth_it("cut", values) is worth
    assert not decides.is_worth_it("cut", {"a": np.zeros(10, np.float32)})


def test_what_the_other_end_takes_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, 10e-9, 5e-9)
    decides, values, rate = Packing(), {"a": np.zeros(1 << 18, np.float32)}, 20e6
    decides.learn("cut", crossed(1 << 20, rate))
    assert decides.is_worth_it("cut", values)
    for _ in range(20):  # it unpacks ten times as slowly as was thought
        decides.learn("cut", crossed(1 << 19, rate, 1 << 19, pack_s=0.01, unpack_s=0.05))
    assert not decides.is_worth_it("cut", values)
    assert decides.is_worth_it("another cut", values)


class Way:
    """A link and its ends as they really are, whatever the trial of a piece told.

    Args:
        bytes_per_s: Of the link.
        share: Packed bytes over raw ones.
        pack_s, unpack_s: Seconds a raw byte.
        spread: Of the logarithm of each request's seconds.
    """

    NBYTES = 1 << 20

    def __init__(
        self, bytes_per_s: float, share: float, pack_s: float, unpack_s: float, spread: float = 0.0
    ) -> None:
        self.bytes_per_s, self.share = bytes_per_s, share
        self.pack_s, self.unpack_s, self.spread = pack_s, unpack_s, spread
        self.rng = np.random.default_rng(0)

    def seconds(self, *, packs: bool) -> float:
        """What one request takes, without chance."""
        raw_s = self.NBYTES / self.bytes_per_s
        return (self.pack_s + self.unpack_s) * self.NBYTES + self.share * raw_s if packs else raw_s

    def send(self, decides: Packing, requests: int) -> list[bool]:
        """Sends requests, each as is decided, and says which were packed."""
        values, sent = {"a": np.zeros(self.NBYTES // 4, np.float32)}, []
        for _ in range(requests):
            sent.append(packs := decides.is_worth_it("cut", values))
            slower = math.exp(self.spread * self.rng.standard_normal())
            nbytes = round(self.NBYTES * self.share) if packs else self.NBYTES
            hop = crossed(nbytes, self.bytes_per_s / slower, self.NBYTES - nbytes)
            if packs:
                hop.pack_s = self.pack_s * self.NBYTES * slower
                hop.tiers[0].unpack_s = self.unpack_s * self.NBYTES * slower
            decides.learn("cut", hop)
        return sent


# What a trial of a piece says: half is saved, 15 ns a byte are spent.
TRIED = (10e-9, 5e-9)


@pytest.mark.parametrize("mbps", [5, 20, 100, 200, 500, 1000])
@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_it_is_never_slower_than_raw_however_wrong_the_trial_was(
    monkeypatch: pytest.MonkeyPatch, mbps: float, slower: float, spread: float
) -> None:
    Clock(monkeypatch, *TRIED)
    way = Way(mbps * 125e3, 0.5, TRIED[0] * slower, TRIED[1] * slower, spread)
    sent = way.send(Packing(), 1000)
    raw, packed = (way.seconds(packs=packs) for packs in (False, True))
    took = sum(packed if packs else raw for packs in sent)
    assert took <= 1.02 * 1000 * raw
    assert took <= 1.06 * 1000 * min(raw, packed)
    if not 0.95 < packed / raw < 1.05:  # the median request is the quicker one
        assert sent[16:].count(packed < raw) > 0.9 * len(sent[16:])


def test_a_wrong_guess_is_paid_for_in_a_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, *TRIED)
    way = Way(20e6, 0.5, 5 * TRIED[0], 5 * TRIED[1])  # twice as slow as raw, and promised to be 20% quicker
    sent = way.send(Packing(), 1000)
    assert sum(sent[:40]) <= 12
    assert sum(sent[40:]) <= 960 / 100 + 2


@pytest.mark.parametrize("before", [False, True])
def test_another_bandwidth_is_noticed(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    Clock(monkeypatch, *TRIED)
    slow, fast = Way(2e6, 0.5, *TRIED), Way(200e6, 0.5, *TRIED)
    decides = Packing()
    first, then = (slow, fast) if before else (fast, slow)
    sent = first.send(decides, 200)
    assert sent[20:].count(before) > 170
    sent = then.send(decides, 400)
    assert sent[150:].count(before) <= 5


def test_what_does_not_pack_is_tried_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    decides, tried = Packing(), []
    monkeypatch.setattr(packing, "_tried", lambda _: tried.append(1) or packing._Figures(1.0, 1e-9, 1e-9))
    decides.learn("cut", crossed(1 << 20, 1e6))
    for _ in range(1000):
        assert not decides.is_worth_it("cut", {"a": np.zeros(1 << 15, np.float32)})
    assert len(tried) == math.ceil(1000 / 128)


def test_strings_alone_are_left_as_they_are() -> None:
    decides = Packing()
    decides.learn("cut", crossed(1 << 20, 1e6))
    words = np.array(["word"] * 2000, object)
    assert not decides.is_worth_it("cut", {"a": words})
    listed, _ = encode({"a": words}, lambda _: True, lambda raw, _: bytes(len(raw) // 2))
    assert PARAMETER not in json.loads(listed)[0]["parameters"]
