"""Sequences of clients that do not number their steps: sent again or not, no step is applied twice."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.serving.tier.sequences import Numbering, Sequence
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ProtocolError
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.work.analysing import analyse
from tests.serving.conftest import TIERS, Network, eventually, topology
from tests.serving.emulation import Relay

# Two sums, one on each tier above the edge: a step that is applied twice to one of them shows.
SUMS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1] x, float[1] near_in, float[1] cloud_in) => (float[1] y, float[1] near_out, float[1] cloud_out) {
    a = Identity(x)
    b = Add(near_in, a)
    near_out = Identity(b)
    cloud_out = Add(cloud_in, a)
    y = Add(b, cloud_out)
}
"""


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    onnx.save(onnx.parser.parse_model(SUMS), folder / "model.onnx")
    graph = load_graph(folder / "model.onnx", ["near_in=near_out", "cloud_in=cloud_out"])
    chosen = plan(
        analyse(graph, order="file"), parse_topology(topology(TIERS), "tiers"), cuts=(1, 3), pareto=False
    )
    slice_model(graph, chosen, folder / "out")
    return folder / "out"


def add(url: str, value: float, **flags: bool) -> float:
    """One request of a client that sends no number, as Triton's do not."""
    inputs = [{"name": "a", "datatype": "FP32", "shape": [1], "data": [value]}]
    body = json.dumps({"inputs": inputs, "parameters": {"sequence_id": 7, **flags}}).encode()
    with urllib.request.urlopen(f"{url}/v2/models/near/infer", body, timeout=20) as answer:
        return float(json.loads(answer.read())["outputs"][0]["data"][0])


def test_a_connection_that_breaks_between_tiers_applies_no_step_twice(sums: Path) -> None:
    with ExitStack() as stack:
        network = Network(sums, stack)
        link = stack.enter_context(Relay(network.serve("cloud").port, mbps=1000))
        near = network.serve("near", link.url)
        found = [add(near.url, 1, sequence_start=True)]
        link.lose_answer()  # the cloud has computed it, and it is sent again
        found += [add(near.url, 1) for _ in range(4)]
    assert found == [2, 4, 6, 8, 10]


def test_a_request_that_failed_leaves_no_trace(sums: Path) -> None:
    """Whether or not the cloud had computed it, and whatever comes next."""
    with ExitStack() as stack:
        network = Network(sums, stack)
        link = stack.enter_context(Relay(network.serve("cloud").port, mbps=1000))
        near = network.serve("near", link.url)
        assert add(near.url, 1, sequence_start=True) == 2
        for _ in range(2):
            link.lose_answer()  # of the used connection, and of the fresh one
        with pytest.raises(urllib.error.HTTPError) as caught:
            add(near.url, 100)
        caught.value.close()
        assert eventually(lambda: near.service.remote.health.reach == 2)  # type: ignore[attr-defined]
        assert [add(near.url, 1) for _ in range(2)] == [4, 6]


def test_a_tier_without_states_numbers_too(sums: Path) -> None:
    numbering = Numbering()
    place = Sequence("a", start=True)
    with numbering.numbered(place, Deadline(1)) as numbered:
        assert numbered == Sequence("a", start=True, step=0)
    for step in (1, 2):
        with numbering.numbered(Sequence("a"), Deadline(1)) as numbered:
            assert numbered == Sequence("a", step=step)
    with pytest.raises(ZeroDivisionError), numbering.numbered(Sequence("a"), Deadline(1)):
        raise ZeroDivisionError
    with numbering.numbered(Sequence("a", end=True), Deadline(1)) as numbered:
        assert numbered == Sequence("a", end=True, step=3)
    with pytest.raises(ProtocolError, match="start it again"), numbering.numbered(Sequence("a"), Deadline(1)):
        pass
    for untouched in (None, Sequence("a", step=9)):
        with numbering.numbered(untouched, Deadline(1)) as numbered:
            assert numbered == untouched


def test_a_start_that_failed_must_be_sent_again() -> None:
    """Some tiers may have begun anew, and others not."""
    numbering = Numbering()
    with numbering.numbered(Sequence("a", start=True), Deadline(1)):
        pass
    with pytest.raises(ZeroDivisionError), numbering.numbered(Sequence("a", start=True), Deadline(1)):
        raise ZeroDivisionError
    with pytest.raises(ProtocolError, match="start it again"), numbering.numbered(Sequence("a"), Deadline(1)):
        pass


def test_requests_of_one_sequence_take_turns() -> None:
    numbering = Numbering()
    with (
        numbering.numbered(Sequence("a", start=True), Deadline(1)),
        pytest.raises(DeadlineError, match="sequence `a` took too long"),
        numbering.numbered(Sequence("a"), Deadline(0.01)),
    ):
        pass
