"""Slices are opened ahead of the requests that need them, once, and not too many at a time."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import LinkError, ProtocolError
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import NODES, Network, open_files


def test_all_tiers_open_the_slices_of_cuts_ahead_of_requests(network: Network):
    edge = network.edge(network.chain())
    cuts = (1, 5)
    edge.prepare(cuts)
    stages = [edge.stage, *(network.servers[name].service.stage for name in ("near", "cloud"))]
    for stage, (start, stop) in zip(stages, ((0, 1), (1, 5), (5, NODES)), strict=True):
        record = edge.routes.route(cuts).legs[stage.tier].record
        assert record is not None
        assert (record.start, record.stop) == (start, stop)
        assert record.file in open_files(stage)
    assert edge.routes.route((2, 4)).legs[0].record.file not in open_files(edge.stage)  # type: ignore[union-attr]


def test_cuts_that_a_tier_cannot_open_are_an_error(network: Network, tmp_path: Path):
    edge = network.edge(network.chain())
    with pytest.raises(ProtocolError, match="no cuts"):
        edge.prepare((5, 1))
    network.servers["cloud"].close()
    with pytest.raises(LinkError) as caught:
        edge.prepare((1, 5))
    assert caught.value.link == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 413),
        (b"x" * 5000, 413),
        (b"[]", 400),
        (b"nonsense", 400),
        (b'{"dnnsplit_cuts": "2,4"}', 409),
        (b'{"dnnsplit_manifest": "IDENTITY", "dnnsplit_cuts": 7}', 400),
        (b'{"dnnsplit_manifest": "IDENTITY", "dnnsplit_cuts": "4,2"}', 400),
        (b'{"dnnsplit_manifest": "IDENTITY", "dnnsplit_cuts": "2,4"}', 200),
    ],
)
def test_bad_requests_to_open_cuts_are_refused(network: Network, body: bytes, status: int):
    server = network.serve("cloud")
    identity = server.service.stage.routes.identity.encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v2/cuts", body.replace(b"IDENTITY", identity))
    answer = connection.getresponse()
    assert answer.status == status
    assert json.loads(answer.read())
    connection.close()


def test_a_slice_is_opened_once_however_many_ask_for_it(slices: Path, monkeypatch: pytest.MonkeyPatch):
    stage = Stage(slices, Routes(load_manifest(slices)), 2, SessionOptions(threads=1))
    leg = stage.routes.default.legs[2]
    opened: list[str] = []
    real = stage._open

    all_ask = threading.Event()

    def slowly(record):
        opened.append(record.file)
        assert all_ask.wait(10)
        return real(record)

    monkeypatch.setattr(stage, "_open", slowly)
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(stage.open, leg) for _ in range(8)]
        all_ask.set()
        for done in asking:
            done.result(10)
    assert opened == [leg.record.file]  # type: ignore[union-attr]


def test_a_slice_that_cannot_be_opened_is_tried_again(slices: Path, monkeypatch: pytest.MonkeyPatch):
    stage = Stage(slices, Routes(load_manifest(slices)), 2, SessionOptions(threads=1))
    leg = stage.routes.default.legs[2]
    real = stage._open

    def fails(record):
        raise ModelError("no")

    monkeypatch.setattr(stage, "_open", fails)
    with pytest.raises(ModelError):
        stage.open(leg)
    monkeypatch.setattr(stage, "_open", real)
    stage.open(leg)
    assert leg.record.file in open_files(stage)  # type: ignore[union-attr]


def test_few_slices_stay_open(slices: Path):
    stage = Stage(slices, Routes(load_manifest(slices)), 0, SessionOptions(threads=1), most_sessions=2)
    for stop in (1, 2, 3):
        stage.open(stage.routes.route((stop, stop)).legs[0])
    names = [stage.routes.route((stop, stop)).legs[0].record.file for stop in (2, 3)]  # type: ignore[union-attr]
    assert list(open_files(stage)) == names
