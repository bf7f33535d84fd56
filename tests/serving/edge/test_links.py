"""Requests over slow links and broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.serving.edge.adaptive import Adaptive, adaptive_edge
from dnnsplit_onnx.serving.edge.edge import Answer
from dnnsplit_onnx.serving.wire.pool import Target
from tests.serving import emulation
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, same
from tests.serving.emulation import Relay

from .test_adaptive import shrinking  # noqa: F401  # a fixture


@pytest.fixture
def link(network: Network):
    def make(port: int, mbps: float, delay_ms: float = 0.0) -> Relay:
        return network.stack.enter_context(Relay(port, mbps, delay_ms))

    return make


def test_a_link_takes_what_it_should(network: Network, link, shrinking: Path):  # noqa: F811
    server = network.serve("cloud", folder=shrinking / "out")
    relay = link(server.port, 20.0, 10.0)
    edge = network.edge(Target(relay.url, packs=False), folder=shrinking / "out")
    x = {"x": np.ones((1, 65536), np.float32)}
    edge.infer(x)
    wires = [edge.infer(x).tiers[0].hop.wire_s for _ in range(3)]  # type: ignore[union-attr]
    assert min(wires) == pytest.approx(8 * 4 * 65536 / 20e6 + 0.02, rel=0.25)


def test_a_link_that_is_cut_costs_no_request(network: Network, link, whole):
    network.chain()
    relay = link(network.servers["near"].port, 100.0)
    edge = network.edge(relay.url)
    assert edge.infer(inputs()).cuts == CUTS
    relay.cut()
    answer = edge.infer(inputs(1))
    assert answer.cuts == (NODES, NODES)
    assert same(answer.outputs, whole(inputs(1)))
    relay.mend()
    start = time.monotonic()
    assert eventually(lambda: edge.infer(inputs(2)).cuts == CUTS, 5)
    assert time.monotonic() - start < 2


def test_a_link_that_goes_silent_costs_no_request(network: Network, link, whole):
    network.chain()
    relay = link(network.servers["near"].port, 100.0)
    edge = network.edge(relay.url, deadline_s=2.0)
    edge.infer(inputs())
    relay.cut(silently=True)
    start = time.monotonic()
    answer = edge.infer(inputs(1))
    assert time.monotonic() - start < 2.0
    assert same(answer.outputs, whole(inputs(1)))
    relay.mend()
    assert eventually(lambda: edge.infer(inputs(2)).cuts == CUTS, 5)


def test_cuts_follow_the_bandwidth_and_no_request_fails(network: Network, link, shrinking: Path):  # noqa: F811
    server = network.serve("cloud", folder=shrinking / "out")
    relay = link(server.port, 50.0, 1.0)
    target = Target(relay.url)
    with adaptive_edge(shrinking / "out", target, shrinking / "tiers.toml") as edge:
        assert isinstance(edge.chooser, Adaptive)
        x = {"x": np.ones((1, 65536), np.float32)}
        for seed in range(3):
            assert isinstance(edge.infer(x), Answer), seed
        before = edge.infer(x).cuts
        edge.chooser._scales[0] = 1.0  # the edge as slow as the tiers file says, not as this machine is
        relay.mbps = 1.0
        start = time.monotonic()
        assert eventually(lambda: edge.infer(x).cuts != before, 10)
        assert time.monotonic() - start < 4
        assert edge.metrics.value("requests_total", 'result="answered"') > 4


def test_a_chain_between_network_namespaces(slices: Path, tmp_path: Path, whole):
    reason = emulation.missing()
    if reason is not None:
        pytest.skip(reason)
    np.savez(tmp_path / "x.npz", **inputs())
    program = [sys.executable, "-m", "tests.serving.program"]
    one = ["--threads", "1", "--json"]
    with emulation.namespaces("t", 20.0) as net, ExitStack() as stack:

        def serve(tier: str, *words: str) -> str:
            command = [*net.command(net.upper), *program, "serve", str(slices / tier), *words, *one]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.terminate)
            assert process.stdout is not None
            url: str = json.loads(process.stdout.readline())["url"]
            return url

        above = serve("cloud", "--port", "0")
        url = serve("near", "--host", net.address, "--port", "8000", "--next", above, "--insecure")
        words = ["run", str(slices), "--input", str(tmp_path / "x.npz"), "--url", url]
        words += ["-o", str(tmp_path / "y.npz"), *one]
        command = [*net.command(net.lower), *program, *words]
        ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
    report = json.loads(ended.stdout)
    assert report["cuts"] == {"2,4": 1}
    with np.load(tmp_path / "y.npz") as made:
        assert same(dict(made), whole(inputs()))
