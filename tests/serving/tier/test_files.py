"""Pictures whose files cross links: decoded by the tier that reads them, on every transport."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.pictures import decode, in_pixels
from dnnsplit_onnx.serving.edge.here import Here
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX, fixed_nbytes, misfit
from dnnsplit_onnx.serving.wire.errors import RefusedError
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse
from tests.runtime.test_pictures import bomb, file_of
from tests.serving.conftest import Network, same, topology
from tests.serving.emulation import Relay

# The picture is read on the second tier and on the third.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (uint8[1, 200, 300, 3] picture, float[4] b) => (float[1, 1, 1, 1] y, float[4] c)
<int64[3] axes = {1, 2, 3}>
{
    c = Relu(b)
    x = Cast <to = 1> (picture)
    s = ReduceMean <keepdims = 1> (x)
    again = Cast <to = 1> (picture)
    t = ReduceMax <keepdims = 1> (again)
    y = Add(s, t)
}
"""
NBYTES = 200 * 300 * 3
SMOOTH = np.add.outer(np.arange(200), np.arange(300))[..., None].repeat(3, axis=2).astype(np.uint8)
JPEG = file_of(SMOOTH, "JPEG", quality=85)
B = np.arange(4, dtype=np.float32) - 2


def folder_of(place: Path, code: str, *, candidates: bool = False) -> Path:
    onnx.save(onnx.parser.parse_model(MODEL), place / "model.onnx")
    said: dict[str, Any] = topology() | {"input": {"picture": {"code": code, "nbytes": len(JPEG)}}}
    analysis = analyse(place / "model.onnx", order="file")
    chosen = plan(analysis, parse_topology(said, "tiers"), cuts=(1, 3))
    if candidates:
        slice_all_candidates(analysis.graph, chosen, (1, 3), place / "out")
    else:
        slice_model(analysis.graph, chosen, place / "out")
    return place / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("files"), "jpeg")


@pytest.fixture
def net(folder: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(folder, stack)


def wanted(folder: Path, data: bytes = JPEG) -> dict[str, np.ndarray]:
    return Chain.open(folder).run({"picture": decode(data, 200, 300)[None], "b": B})


def test_the_manifest_says_so_and_the_slices_are_proven(folder: Path) -> None:
    manifest = load_manifest(folder)
    codes = {port.name: port.code for port in manifest.model.inputs}
    assert codes == {"picture": "jpeg", "b": None}
    assert [[port.code for port in record.inputs] for record in manifest.slices] == [
        [None],
        ["jpeg"],
        ["jpeg", None],
    ]
    sent = manifest.plan["links"][0]["coded"]
    assert sent == [{"value": "picture", "code": "jpeg", "raw_nbytes": NBYTES, "nbytes": len(JPEG)}]
    assert verify(folder).bitwise


@pytest.mark.parametrize("shares_memory", [False, True])
def test_the_file_crosses_and_the_tiers_that_read_it_decode_it(net: Network, shares_memory: bool) -> None:
    url = net.chain()
    if not shares_memory:
        url = net.stack.enter_context(Relay(net.servers["near"].port, 1000.0)).url
    edge = net.edge(url)
    for value in (JPEG, np.frombuffer(JPEG, np.uint8)):
        assert same(edge.infer({"picture": value, "b": B}).outputs, wanted(net.folder))
    assert len(JPEG) < NBYTES / 8
    for sent in (edge.metrics.value("sent_bytes_total") / 2, _sent_on(net) / 2):
        assert len(JPEG) < sent < len(JPEG) + 4000
    pixels = decode(JPEG, 200, 300)[None]  # whoever has no file sends these
    assert same(edge.infer({"picture": pixels, "b": B}).outputs, wanted(net.folder))


def _sent_on(net: Network) -> float:
    metrics = net.servers["near"].service.metrics  # type: ignore[attr-defined]
    return float(metrics.value("sent_bytes_total", label='peer="next"'))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(JPEG[: len(JPEG) // 2], id="half a JPEG"),
        pytest.param(bomb(10_000, 6_000), id="a bomb"),
        pytest.param(b"\xff\xd8\xff" + bytes(3000), id="the beginning of one"),
        pytest.param(np.frombuffer(file_of(SMOOTH, "GIF"), np.uint8), id="a GIF"),
    ],
)
def test_hostile_files_are_refused_and_the_server_goes_on(net: Network, data: Any) -> None:
    edge = net.edge(net.chain())
    edge.infer({"picture": JPEG, "b": B})
    # As a client of any kind sends it: ours looks at the beginning of a file.
    leg = edge.routes.default
    value = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match=r"no JPEG or PNG|too many pixels|pixels; at most"):
            edge._run(leg, {"picture": value, "b": B}, _deadline(), None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert same(edge.infer({"picture": JPEG, "b": B}).outputs, wanted(net.folder))


def _deadline() -> Any:
    from dnnsplit_onnx.serving.wire.stream import Deadline

    return Deadline(30.0)


def test_all_in_one_process_takes_files_too(folder: Path) -> None:
    assert same(Here(folder).infer({"picture": JPEG, "b": B}).outputs, wanted(folder))


def test_slices_of_all_candidates_decode_where_the_cut_says(tmp_path: Path) -> None:
    with ExitStack() as stack:
        net = Network(folder_of(tmp_path, "jpeg", candidates=True), stack)
        edge = net.edge(net.chain())
        want = wanted(net.folder)
        for cuts in ((1, 3), (0, 0), (0, 6), (3, 3), (6, 6)):
            assert same(edge.infer({"picture": JPEG, "b": B}, cuts=cuts).outputs, want)


def test_pixels_cross_where_the_plan_says_uint8_image(tmp_path: Path) -> None:
    with ExitStack() as stack:
        net = Network(folder_of(tmp_path, "uint8-image"), stack)
        edge = net.edge(net.chain())
        assert same(edge.infer({"picture": JPEG, "b": B}).outputs, wanted(net.folder))
        assert edge.metrics.value("sent_bytes_total") > NBYTES


def test_another_server_gets_pixels(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    near = Remote.__dict__["_ask"]
    seen: list[int] = []

    def ask(self: Remote, route: Any, present: Any, *rest: Any) -> Any:
        seen.append(present["picture"].ndim)
        return near(self, route, present, *rest)

    monkeypatch.setattr(Remote, "_ask", ask)
    edge = net.edge(net.chain())
    edge.infer({"picture": JPEG, "b": B})
    assert edge.remote is not None
    edge.remote._is_ours = False
    assert same(edge.infer({"picture": JPEG, "b": B}).outputs, wanted(net.folder))
    assert seen == [1, 1, 4, 4]  # over both links each time


def test_ports_of_files_take_files_and_pixels() -> None:
    port = Port(name="picture", dtype="uint8", shape=(1, 20, 30, 3), code="jpeg")
    uint8 = BY_ONNX["uint8"]
    assert misfit(port, uint8, (12345,)) is None
    assert misfit(port, uint8, (1, 20, 30, 3)) is None
    assert misfit(port, uint8, (20, 30)) is not None
    assert misfit(port, BY_ONNX["float"], (12345,)) is not None
    assert fixed_nbytes(port) is None
    plain = port.model_copy(update={"code": None})
    assert misfit(plain, uint8, (12345,)) is not None
    values = {"picture": np.frombuffer(file_of(np.zeros((20, 30, 3), np.uint8)), np.uint8), "b": B}
    assert in_pixels(values, [port])["picture"].shape == (1, 20, 30, 3)
    assert in_pixels(values, [plain]) is values
