"""A tier of several machines: rows scattered and gathered over real sockets, and machines that die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.tiers import Lan, Machine, Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.tiles import cut_out
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.tier.tiles import Machines, parse_peers
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing import slice_model
from tests.slicing.stacks import Stack

MACHINES = ("pi-a", "pi-b", "pi-c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of convolutions on three machines, its pool and what follows on the cloud."""
    path = tmp_path_factory.mktemp("tiles")
    stack = Stack(np.random.default_rng(4), height=36, width=12)
    for step in (stack.conv, stack.residual, stack.pool, stack.normalise, stack.residual):
        step()
    pooled = stack.add("GlobalAveragePool", [stack.value])[0]
    stack.become(stack.add("Softmax", [pooled], axis=1)[0], (*stack.shape[:2], 1, 1))
    onnx.save(stack.model(), path / "model.onnx")
    machines = [Machine(name=name, gflops=0.01) for name in MACHINES]
    edge = Tier("edge", machines=machines, lan=Lan(bandwidth_mbps=1000, delay_ms=0.01))
    link = Link(bandwidth_mbps=0.01, delay_ms=100)
    topology = Topology(tiers=[edge, Tier("cloud", gflops=1)], links=[link])
    slice_model(path / "model.onnx", plan(path / "model.onnx", topology), path / "slices")
    return path / "slices"


@pytest.fixture
def servers(folder: Path) -> Iterator[dict[str, Server[Service]]]:
    """`serve` of the machines that are not the first."""
    with ExitStack() as stack:
        running = {}
        for name in MACHINES[1:]:
            server = open_server(folder / "edge", ServeOptions(port=0, machine=name))
            running[name] = stack.enter_context(server)
            server.service.stage.warm_up()
        yield running


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((2, 4, 36, 12)).astype(np.float32)}


def same(outputs: object, expected: dict[str, np.ndarray]) -> None:
    assert isinstance(outputs, dict)
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-6)


def urls(servers: dict[str, Server[Service]]) -> dict[str, str]:
    return {name: server.url for name, server in servers.items()}


def received(server: Server[Service]) -> int:
    """Bytes that a server was sent."""
    return int(server.service.metrics.value("received_bytes_total", 'peer="client"'))


def test_each_machine_computes_its_rows(folder: Path, servers: dict[str, Server[Service]]) -> None:
    with Edge(folder, peers=urls(servers)) as edge:
        edge.open()
        answer = edge.infer(inputs())
    same(answer.outputs, Chain.open(folder).run(inputs()))
    assert all(received(server) > 0 for server in servers.values())


def test_a_tier_of_machines_is_a_server_like_any_other(
    folder: Path, servers: dict[str, Server[Service]]
) -> None:
    peers = tuple(f"{name}={url}" for name, url in urls(servers).items())
    with open_server(folder / "edge", ServeOptions(port=0, machine="pi-a", peers=peers)) as first:
        first.service.stage.warm_up()
        assert isinstance(first.service.stage, Machines)
        routes = first.service.stage.routes
        remote = Remote(Target(first.url), routes, 0)
        tile = routes.manifest.slices[0].tiles[0]
        rows, _ = remote.infer(routes.tile(0, tile.file), cut_out(tile, inputs()), Deadline(10))
        assert {name for name, array in rows.items() if array is not None} == {
            port.name for port in tile.assemble
        }
        with pytest.raises(ProtocolError, match="has no tile"):
            routes.tile(0, "edge/none.onnx")
        remote.close()


def test_rows_of_a_machine_that_is_not_there_are_computed_by_the_others(
    folder: Path, servers: dict[str, Server[Service]]
) -> None:
    expected = Chain.open(folder).run(inputs())
    gone = {"pi-b": "http://127.0.0.1:9"}
    with Edge(folder, peers={**urls(servers), **gone}) as edge:
        same(edge.infer(inputs()).outputs, expected)
    with Edge(folder, peers=gone) as edge:  # and where nobody else is left, here
        same(edge.infer(inputs()).outputs, expected)


def test_machines_that_die_under_requests_cost_no_request(
    folder: Path, servers: dict[str, Server[Service]]
) -> None:
    """Each request is answered once, and rightly, while machines are stopped one after the other."""
    chain = Chain.open(folder)
    expected = {seed: chain.run(inputs(seed)) for seed in range(4)}
    answers: list[tuple[int, dict[str, np.ndarray | None]]] = []
    with Edge(folder, peers=urls(servers)) as edge:
        edge.open()

        def ask(seed: int) -> None:
            answers.extend((seed, edge.infer(inputs(seed)).outputs) for _ in range(12))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for server in servers.values():
            while len(answers) < 8:  # under way
                threads[0].join(0.01)
            server.close()
        for thread in threads:
            thread.join()
    assert len(answers) == 48
    for seed, outputs in answers:
        same(outputs, expected[seed])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["pi-b"], "names no machine"),
        (["a=http://x", "a=http://y"], "given twice"),
        (["=x"], "names no machine"),
    ],
)
def test_peers_are_names_and_addresses(text: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_peers(text)


def test_a_machine_that_the_tier_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no machine of tier `edge` is named `pi-z`"):
        open_server(folder / "edge", ServeOptions(port=0, machine="pi-z"))
    with pytest.raises(InputError, match="no machine of tier `cloud`") as raised:
        open_server(folder / "cloud", ServeOptions(port=0, peers=("pi-b=http://127.0.0.1:1",)))
    assert "it was not planned for several" in (raised.value.hint or "")
