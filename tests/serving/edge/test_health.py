"""Which link is to blame, what that means for others, and when it is used again."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier import remote as remotes
from dnnsplit_onnx.serving.tier.health import Health
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import BusyError, DeadlineError, LinkError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, same
from tests.serving.emulation import Relay
from tests.serving.wire.test_server import request_for

NEAR_ALONE = (CUTS[0], NODES)


@pytest.fixture
def upper(network: Network) -> Iterator[tuple[Relay, str]]:
    """The link between near and cloud, and the URL of near."""
    with Relay(network.serve("cloud").port, mbps=10_000) as link:
        yield link, network.serve("near", link.url).url


def test_a_frozen_cloud_is_not_blamed_on_the_link_below_it(
    network: Network, upper: tuple[Relay, str], whole: Any
) -> None:
    link, url = upper
    edge = network.edge(url, deadline_s=1.0)
    assert edge.infer(inputs()).cuts == CUTS
    link.cut(silently=True)  # nothing is refused and nothing comes: as of a process that is stopped
    for seed in range(3):
        assert same(edge.infer(inputs(seed)).outputs, whole(inputs(seed)))
    assert eventually(lambda: edge.health.reach == 1)
    assert edge.infer(inputs()).cuts == NEAR_ALONE
    assert edge.infer(inputs()).attempts == 1
    link.mend()
    assert eventually(lambda: edge.infer(inputs()).cuts == CUTS)


def test_a_request_that_took_too_long_says_where(network: Network, upper: tuple[Relay, str]) -> None:
    link, url = upper
    network.edge(url).infer(inputs())
    near = network.servers["near"]
    body = {"inputs": [], "parameters": {"dnnsplit_cuts": "0,0", "timeout": 300_000}}
    routes = near.service.stage.routes  # type: ignore[attr-defined]
    for port in routes.route((0, 0)).legs[1].arrives:
        tensor = {"name": port.name, "datatype": "FP32" if port.name == "x" else "INT64", "shape": [2, 8]}
        body["inputs"].append({**tensor, "data": [1] * 16})  # type: ignore[attr-defined]
    link.cut(silently=True)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/v2/models/near/infer", json.dumps(body).encode(), timeout=10)
    with caught.value as answer:
        assert answer.code == 504
        assert json.loads(answer.read())["link"] == 1


def test_the_answer_of_a_probe_comes_before_the_probe_below_gives_up(
    network: Network, upper: tuple[Relay, str]
) -> None:
    link, url = upper
    edge = network.edge(url)
    edge.infer(inputs())
    link.cut(silently=True)
    assert edge.remote is not None
    near, cloud = edge.remote.probe()
    assert (near["ready"], cloud["ready"]) == (True, False)


def test_one_caller_in_a_hurry_costs_the_others_nothing(network: Network, whole: Any) -> None:
    with Relay(0, mbps=10_000, delay_ms=20) as link:
        cloud = network.serve("cloud")
        link.target = network.serve("near", cloud.url).port
        edge = network.edge(link.url)
        edge.infer(inputs())
        stop, hurried = threading.Event(), []

        def hurry() -> None:
            while not stop.is_set():
                try:
                    edge.infer(inputs(), deadline_s=0.01)
                except (DeadlineError, LinkError, BusyError) as error:
                    hurried.append(error)

        thread = threading.Thread(target=hurry)
        thread.start()
        answers = [edge.infer(inputs(seed)) for seed in range(20)]
        stop.set()
        thread.join()
        assert {answer.cuts for answer in answers} == {CUTS}
        assert {answer.attempts for answer in answers} == {1}
        assert edge.health.reach == 2
        assert edge.metrics.value("link_changes_total") == 0


def test_a_hurried_first_connection_tells_nothing_of_the_link(slices: Path) -> None:
    routes = Routes(load_manifest(slices))
    # An address that swallows what is sent to it: connecting takes as long as one waits.
    remote = Remote(Target("http://192.0.2.1:9"), routes, 2)
    try:
        with pytest.raises((DeadlineError, LinkError)) as caught:
            remote.infer(routes.default, {}, Deadline(0.05))
        if isinstance(caught.value, DeadlineError):  # elsewhere there may be no way there at all
            assert remote.health.reach == 2
        assert caught.value.link == 1
    finally:
        remote.close()


def hold(network: Network, tier: str) -> Any:
    """Takes the only place of a tier."""
    service = network.servers[tier].service
    assert eventually(lambda: service.admission.count == 0)  # type: ignore[attr-defined]
    return service.admission.enter(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("tier", "cuts"), [("near", (NODES, NODES)), ("cloud", NEAR_ALONE)])
def test_what_a_busy_tier_has_no_room_for_runs_below_it(
    network: Network, whole: Any, tier: str, cuts: tuple[int, ...]
) -> None:
    edge = network.edge(network.chain(requests=1))
    edge.infer(inputs())
    with hold(network, tier):
        answer = edge.infer(inputs(1))
    assert (answer.cuts, answer.attempts) == (cuts, 2)
    assert same(answer.outputs, whole(inputs(1)))
    assert edge.health.reach == 2  # it is no failure
    assert edge.infer(inputs()).cuts == CUTS
    assert edge.metrics.value("switches_total") == 0


def busy_edge(network: Network, folder: Path, **options: float) -> Edge:
    cloud = network.serve("cloud", folder=folder, requests=1)
    edge = network.edge(network.serve("near", cloud.url, folder=folder).url, folder=folder, **options)
    edge.infer(inputs())
    return edge


def test_where_nothing_runs_below_a_busy_tier_is_asked_again(
    network: Network, plain_slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "_retry_s", lambda _: 0.05)
    edge = busy_edge(network, plain_slices)
    held = hold(network, "cloud")
    held.__enter__()
    timer = threading.Timer(0.2, lambda: held.__exit__(None, None, None))
    timer.start()
    answer = edge.infer(inputs())
    timer.join()
    assert answer.attempts > 1
    assert answer.cuts == CUTS


def test_a_busy_tier_that_is_no_sooner_free_is_an_error(network: Network, plain_slices: Path) -> None:
    edge = busy_edge(network, plain_slices, deadline_s=0.5)
    with (
        hold(network, "cloud"),
        pytest.raises(BusyError, match="tier `cloud` refuses: the server is busy") as it,
    ):
        edge.infer(inputs())
    assert (it.value.status, it.value.link, it.value.retry_s) == (503, 1, 1.0)


class Tiers:
    """What the tiers above say when they are asked."""

    def __init__(self, *ready: bool) -> None:
        self.ready = list(ready)
        self.asked = threading.Semaphore(0)

    def __call__(self) -> list[dict[str, Any]]:
        self.asked.release()
        return [{"tier": str(at), "ready": ready} for at, ready in enumerate(self.ready)]


def test_a_doubt_is_settled_by_asking() -> None:
    tiers, changes = Tiers(True, True), []
    health = Health(tiers, 1, 3, pause_s=0.01)
    health.on_change = lambda link, is_up, _: changes.append((link, is_up))
    health.doubt()
    assert tiers.asked.acquire(timeout=5)
    assert eventually(lambda: health._prober is None)
    assert (health.reach, changes) == (3, [])
    tiers.ready = [True, False]
    health.doubt()
    assert eventually(lambda: health.reach == 2)
    with pytest.raises(LinkError, match="not ready") as caught:
        health.check(3)
    assert caught.value.link == 2
    health.check(2)
    tiers.ready = [False, False]
    assert eventually(lambda: health.reach == 1)
    tiers.ready = [True, True]
    assert eventually(lambda: health.reach == 3)
    assert changes == [(2, False), (1, False), (1, True), (2, True)]
    health.close()


def test_a_failure_is_believed_at_once() -> None:
    tiers = Tiers(False)
    health = Health(tiers, 0, 1, pause_s=0.01)
    health.down(0, "gone")
    with pytest.raises(LinkError, match="gone"):
        health.check(1)
    tiers.ready = [True]
    assert eventually(lambda: health.reach == 1)
    health.check(1)
    health.close()


def test_a_tier_that_is_down_is_not_tried_by_those_below_it(network: Network) -> None:
    """Each tier knows of the links above it: its clients need not find out one by one."""
    url = network.chain()
    network.edge(url).infer(inputs())
    near, cloud = network.servers["near"], network.servers["cloud"]
    cloud.close()
    remote = near.service.remote  # type: ignore[attr-defined]
    edge = network.edge(url)
    assert edge.infer(inputs()).cuts == NEAR_ALONE
    assert remote.health.reach == 1
    with pytest.raises(LinkError) as caught:
        remote.infer(remote._routes.default, {}, Deadline(5))
    assert caught.value.link == 1
    assert request_for(near)
