"""Cuts that move when links do, and only then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import load_topology, parse_topology
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.coding import choices_at
from dnnsplit_onnx.serving.edge.adaptive import Adaptive, adaptive_edge
from dnnsplit_onnx.serving.edge.choosing import Prepare
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.cuts import positions
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import LinkError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.trace import TierTrace
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import measure
from tests.serving.conftest import Network, eventually, open_files, same
from tests.serving.wire.test_estimate import hop

# The tensor shrinks as it goes up and the work lies above: on a fast link all of it is sent,
# on a slow one the small tensor, and on a very slow one nothing.
SHRINKING = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 65536] x) => (float[1, 8] y)
{
    a = MatMul(x, w)
    y = MatMul(a, v)
}
"""


@pytest.fixture(scope="module")
def shrinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shrinking")
    rng = np.random.default_rng(0)
    w = rng.standard_normal((65536, 16)).astype(np.float32)
    v = rng.standard_normal((16, 8)).astype(np.float32)
    model = onnx.parser.parse_model(SHRINKING)
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(v, "v")]
    )
    onnx.save(model, folder / "model.onnx")
    (folder / "tiers.toml").write_text(TIERS)
    graph = load_graph(folder / "model.onnx")
    chosen = plan(analyse(graph, order="file"), parse_topology(TOPOLOGY, "t"), cuts=(0,), pareto=False)
    slice_all_candidates(graph, chosen, range(3), folder / "out")
    return folder


TOPOLOGY = {
    "tier": [{"name": "edge", "gflops": 0.02}, {"name": "cloud", "gflops": 100.0}],
    "link": [{"bandwidth_mbps": 50.0, "delay_ms": 1.0}],
}
TIERS = """
[[tier]]
name = "edge"
gflops = 0.02
[[tier]]
name = "cloud"
gflops = 100
[[link]]
bandwidth_mbps = 50
delay_ms = 1
"""
NBYTES = 4 * 65536


@contextmanager
def adaptive(folder: Path, prepare: Prepare = lambda _: None) -> Iterator[Adaptive]:
    graph = load_graph(folder / "model.onnx")
    analysis = measure(graph, bind_shapes(graph))
    problem = problem_of(analysis, parse_topology(TOPOLOGY, "t"), "latency")
    chooser = Adaptive(Routes(load_manifest(folder / "out")), problem, prepare=prepare)
    try:
        yield chooser
    finally:
        chooser.close()


def show(chooser: Adaptive, mbps: float, delay_ms: float = 1.0) -> None:
    told = hop(NBYTES, mbps, delay_ms)
    chooser.observe((0,), (TierTrace("edge", 0, 0, told.total_s, hop=told), *told.tiers), told)


def test_the_plans_cuts_are_kept_while_nothing_changes(shrinking: Path):
    with adaptive(shrinking) as chooser:
        for _ in range(20):
            show(chooser, 50)
        assert chooser.choose(1) == (0,)
        assert chooser.reason == "the plan"


def test_a_slow_link_moves_the_cut_and_a_fast_one_moves_it_back(shrinking: Path):
    with adaptive(shrinking) as chooser:
        show(chooser, 2)
        assert eventually(lambda: chooser.choose(1) != (0,), 2)
        assert "better at 2 Mbit/s" in chooser.reason
        show(chooser, 50)
        assert eventually(lambda: chooser.choose(1) == (0,), 2)


def test_cuts_change_only_once_their_slices_are_open(shrinking: Path):
    asked, may_open = threading.Event(), threading.Event()

    def prepare(_: object) -> None:
        asked.set()
        assert may_open.wait(10)

    with adaptive(shrinking, prepare) as chooser:
        show(chooser, 2)
        assert asked.wait(2)
        assert chooser.choose(1) == (0,)
        may_open.set()
        assert eventually(lambda: chooser.choose(1) != (0,), 2)


def test_cuts_whose_slices_cannot_be_opened_are_not_used_and_tried_again(shrinking: Path):
    tries: list[object] = []

    def prepare(cuts: object) -> None:
        tries.append(cuts)
        if len(tries) == 1:
            raise LinkError("gone")

    with adaptive(shrinking, prepare) as chooser:
        show(chooser, 2)
        assert eventually(lambda: len(tries) == 1, 2)
        assert chooser.choose(1) == (0,)
        assert eventually(lambda: show(chooser, 2) or chooser.choose(1) != (0,), 5)  # type: ignore[func-returns-value]
        assert len(tries) == 2


def test_a_link_that_wavers_does_not_make_the_cuts_flap(shrinking: Path):
    with adaptive(shrinking) as chooser:
        seen = set()
        for mbps in (45, 55, 48, 52, 40, 60) * 5:
            show(chooser, mbps)
            seen.add(chooser.choose(1))
        assert seen == {(0,)}


def test_a_transfer_that_is_overdue_moves_the_cut_before_it_is_over(shrinking: Path):
    with adaptive(shrinking) as chooser, chooser.under_way(NBYTES):
        assert eventually(lambda: chooser.choose(1) != (0,), 8)


def test_with_the_link_down_everything_runs_below_it(shrinking: Path):
    with adaptive(shrinking) as chooser:
        assert chooser.choose(0) == (2,)


def test_requests_adapt_from_end_to_end(shrinking: Path, slices: Path, network: Network):
    server = network.serve("cloud", folder=shrinking / "out")
    with ExitStack() as stack:
        edge = stack.enter_context(
            adaptive_edge(shrinking / "out", Target(server.url), shrinking / "tiers.toml")
        )
        assert isinstance(edge, Edge)
        x = {"x": np.ones((1, 65536), np.float32)}
        first = edge.infer(x)
        assert isinstance(edge.chooser, Adaptive)
        for _ in range(30):
            show(edge.chooser, 2)
        assert eventually(lambda: edge.chooser.choose(1) != (0,), 2)  # type: ignore[operator]
        # Everything is open before the first request that needs it.
        legs = edge.routes.route(edge.chooser.choose(1) or ()).legs
        for leg, stage in zip(legs, (edge.stage, server.service.stage), strict=True):
            assert leg.record is None or leg.record.file in open_files(stage)
        second = edge.infer(x)
        assert second.cuts != first.cuts
        np.testing.assert_allclose(second.outputs["y"], first.outputs["y"], rtol=1e-4)
        assert edge.metrics.value("switches_total") >= 1
        assert same(edge.infer(x).outputs, {"y": second.outputs["y"]})  # type: ignore[dict-item]


def test_a_link_without_traffic_is_measured(network: Network):
    url = network.chain()
    edge = network.edge(url)
    assert edge.remote is not None
    from dnnsplit_onnx.serving.wire.stream import Deadline

    told = edge.remote.measure(200_000, Deadline(5))
    assert told.sent_nbytes == 200_000
    assert told.wire_s >= 0
    network.servers["near"].close()
    with pytest.raises(LinkError):
        edge.remote.measure(200_000, Deadline(5))


def test_slices_of_one_plan_cannot_adapt(plain_slices: Path, shrinking: Path):
    with pytest.raises(InputError, match="one plan only"):
        adaptive_edge(plain_slices, None, shrinking / "tiers.toml")


def test_tiers_of_another_name_are_refused(slices: Path, shrinking: Path):
    with pytest.raises(InputError, match="the slices are of edge, near, cloud"):
        adaptive_edge(slices, None, shrinking / "tiers.toml")


def test_what_is_sent_are_tensors_whatever_an_encoded_input_would_take(shrinking: Path, tmp_path: Path):
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(f"{TIERS}\n[input_nbytes]\nx = 100\n")
    with ExitStack() as stack:
        edge = stack.enter_context(adaptive_edge(shrinking / "out", None, tiers))
        chooser = edge.chooser
        assert isinstance(chooser, Adaptive)
        for _ in range(30):
            show(chooser, 2)
        # 100 bytes would go to the cloud at any speed; what is sent would take a second.
        assert eventually(lambda: chooser.choose(1) != (0,), 2)


def test_the_code_changes_with_the_network(tmp_path: Path):
    # All work above: only what crosses can change, 4096 floats or as many bytes.
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4096] x) => (float[1, 4096] y) '
        "{ a = Relu(x) y = Sigmoid(a) }"
    )
    onnx.save(model, tmp_path / "model.onnx")
    tiers = TIERS.replace("gflops = 0.02", "gflops = 1e-5\nmemory_gb_per_s = 1")
    (tmp_path / "tiers.toml").write_text(tiers)
    machines = load_topology(tmp_path / "tiers.toml").with_codes(("uint8",))
    analysis = analyse(tmp_path / "model.onnx", order="file")
    chosen = plan(analysis, machines, cuts=(0,), pareto=False)
    choices = choices_at(analysis, machines, range(3))
    slice_all_candidates(analysis.graph, chosen, range(3), tmp_path / "out", codes=choices)
    edge = adaptive_edge(tmp_path / "out", None, tmp_path / "tiers.toml")
    chooser = edge.chooser
    assert isinstance(chooser, Adaptive)

    def has_come_to(code: str, mbps: float) -> bool:
        """Whether requests over a link of such a bandwidth end in a code; each tells of the link."""

        def told() -> bool:
            show(chooser, mbps, 0.01)
            return edge.routes.codes(chooser.choose(1) or ()) == (code,)

        return eventually(told)

    try:
        assert has_come_to("uint8", 2)
        assert has_come_to("raw", 10_000)
        assert has_come_to("uint8", 2)
        assert positions(chooser.choose(1) or ()) == (0,)
    finally:
        edge.close()
