"""Requests through real servers: the right answer for every cut."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.edge.choosing import FixedCuts
from dnnsplit_onnx.serving.edge.edge import Answer
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import LinkError, ServingError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import CUTS, NODES, Network, cut_model, inputs, same

ALL_CUTS = list(itertools.combinations_with_replacement(range(NODES + 1), 2))


def test_the_chain_answers_what_the_whole_model_does(network: Network, whole):
    edge = network.edge(network.chain())
    for seed in range(5):
        answer = edge.infer(inputs(seed))
        assert same(answer.outputs, whole(inputs(seed)))
        assert answer.cuts == CUTS
        assert [tier.tier for tier in answer.tiers] == ["edge", "near", "cloud"]


def test_the_cut_travels_with_the_request(network: Network, whole):
    url = network.chain()
    expected = whole(inputs())
    for cuts in ALL_CUTS:
        edge = network.edge(url, chooser=lambda routes, *_, cuts=cuts: FixedCuts(routes, cuts))
        answer = edge.infer(inputs())
        assert same(answer.outputs, expected), cuts
        assert answer.cuts == cuts


def test_several_requests_at_a_time_keep_their_order(network: Network, whole):
    edge = network.edge(network.chain())
    results = list(edge.infer_all((inputs(seed) for seed in range(30)), concurrency=4))
    for seed, result in enumerate(results):
        assert isinstance(result, Answer)
        assert same(result.outputs, whole(inputs(seed)))


def test_slices_without_candidates_chain_too(network: Network, plain_slices: Path, whole):
    cloud = network.serve("cloud", folder=plain_slices)
    near = network.serve("near", cloud.url, folder=plain_slices)
    assert same(network.edge(near.url, folder=plain_slices).infer(inputs()).outputs, whole(inputs()))


def test_types_that_the_wire_has(network: Network, tmp_path: Path):
    text = """
    <ir_version: 9, opset_import: ["" : 19]>
    g (bool[B] b, float16[B] h, bfloat16[B] f, double[B] d, uint8[B] u, string[B] s, int16[] i)
      => (bool[B] b2, float16[B] h2, bfloat16[B] f2, double[B] d2, uint8[B] u2, string[B] s2, int16[] i2)
    { b1 = Not(b) h1 = Identity(h) f1 = Identity(f) d1 = Identity(d) u1 = Identity(u) s1 = Identity(s)
      i1 = Identity(i) b2 = Not(b1) h2 = Identity(h1) f2 = Identity(f1) d2 = Identity(d1)
      u2 = Identity(u1) s2 = Identity(s1) i2 = Identity(i1) }
    """
    from ml_dtypes import bfloat16

    folder = cut_model(text, tmp_path, (7,), tiers=("edge", "cloud"))
    edge = network.edge(network.serve("cloud", folder=folder).url, folder=folder)
    given = {
        "b": np.array([True, False, True]),
        "h": np.array([1, 2, 3], np.float16),
        "f": np.array([1, 2, 3.5], bfloat16),
        "d": np.array([1, np.nan, np.inf]),
        "u": np.array([0, 1, 255], np.uint8),
        "s": np.array(["", "a\0b", "é"], object),
        "i": np.array(-3, np.int16),
    }
    outputs = edge.infer(given).outputs
    for name, value in given.items():
        made = outputs[f"{name}2"]
        assert made is not None
        assert made.shape == value.shape
        if name == "s":
            assert [e.decode() if isinstance(e, bytes) else e for e in made] == list(value)
        else:
            assert made.dtype == value.dtype
            assert made.tobytes() == value.tobytes()


def test_a_cut_without_slices_is_refused_in_the_protocols_form(network: Network, plain_slices: Path):
    url = network.serve("cloud", folder=plain_slices).url
    body = json.dumps({"inputs": [], "parameters": {"dnnsplit_cuts": "1,1"}}).encode()
    status, error = post(url + "/v2/models/cloud/infer", body)
    assert status == 404
    assert "no slice of nodes 0 to 1" in error["error"]


@pytest.mark.parametrize("cuts", ["3,2", "1", "-1,3", "a,b", "1,2,3", "1,99", "9" * 2000, 7, True])
def test_cuts_that_are_none_are_refused(network: Network, cuts: object):
    url = network.serve("cloud").url
    body = json.dumps({"inputs": [], "parameters": {"dnnsplit_cuts": cuts}}).encode()
    status, error = post(url + "/v2/models/cloud/infer", body)
    assert status == 400
    assert "error" in error


@pytest.mark.parametrize("until", [0, 1, 3, -1, 2.0, True, "2"])
def test_a_client_is_no_tier_but_one_above(network: Network, until: object):
    url = network.serve("near").url
    body = json.dumps({"inputs": [], "parameters": {"dnnsplit_cuts": "0,3", "dnnsplit_until": until}})
    status, error = post(url + "/v2/models/near/infer", body.encode())
    assert status == 400
    assert "is no tier above this one" in error["error"]


@pytest.mark.parametrize("cuts", [(0, 3), (2, 4), (3, 3), (5, 7)])
def test_a_client_that_is_the_last_tier_gets_what_it_reads(network: Network, slices: Path, whole, cuts: Cuts):
    """And nothing that only tiers below it need."""
    edge = network.serve("edge", network.serve("near").url)
    routes = Routes(load_manifest(slices))
    below = Remote(Target(edge.url), routes, 0)
    route = routes.route(cuts, until=2)
    sent = {port.name: inputs()[port.name] for port in route.legs[0].arrives}
    given, _ = below.infer(route, sent, Deadline(5))
    below.close()
    mine = routes.route(cuts).legs[2]
    live = {
        **inputs(),
        **given,
        **network.serve("cloud").service.stage.run(mine, {**inputs(), **given}, Deadline(5)),
    }
    assert same({name: live[name] for name in whole(inputs())}, whole(inputs()))
    assert set(given) <= {port.name for port in (*mine.arrives, *routes.manifest.model.outputs)}


def test_tiers_of_different_manifests_refuse_each_other(network: Network, plain_slices: Path, whole):
    url = network.serve("cloud", folder=plain_slices).url
    near = network.serve("near", url)
    remote = Remote(Target(near.url), near.service.stage.routes, 1)
    with pytest.raises(LinkError, match="another manifest") as caught:
        remote.infer(near.service.stage.routes.default, {**inputs(), **between()}, Deadline(5))
    assert caught.value.link == 1
    remote.close()
    # To the edge that is a link that is down: it goes on without the tier behind it.
    answer = network.edge(near.url).infer(inputs())
    assert answer.cuts == (2, NODES)
    assert same(answer.outputs, whole(inputs()))
    body = json.dumps({"inputs": [], "parameters": {"dnnsplit_manifest": "0" * 64}}).encode()
    status, error = post(url + "/v2/models/cloud/infer", body)
    assert status == 409
    assert "another manifest" in error["error"]


def test_a_tier_that_serves_something_else_is_refused(network: Network):
    edge = network.edge(network.serve("cloud").url, chooser=lambda routes, *_: OnlyThePlan(routes))
    with pytest.raises(LinkError, match="does not serve tier `near`"):
        edge.infer(inputs())


class OnlyThePlan(FixedCuts):
    def choose(self, reach: int):
        return self._cuts if reach == 2 else None


def test_wrong_inputs_are_the_callers_error(network: Network):
    edge = network.edge(network.chain())
    with pytest.raises(InputError, match="missing"):
        edge.infer({"x": inputs()["x"]})
    with pytest.raises(InputError, match="shape"):
        edge.infer({**inputs(), "x": np.zeros((2, 9), np.float32)})


def test_values_that_the_model_refuses_are_refused_by_name(network: Network):
    edge = network.edge(network.chain())
    with pytest.raises((ServingError, InputError), match="`k`"):
        edge.infer({"x": np.zeros((2, 8), np.float32), "k": np.zeros((2, 7), np.int64)})


def test_a_name_of_unequal_sizes_is_taken_where_the_model_runs(network: Network, whole):
    unequal = {"x": inputs()["x"], "k": np.ones((3, 8), np.int64)}
    answer = network.edge(network.chain()).infer(unequal)
    wanted = whole(unequal)
    assert all(np.array_equal(answer.outputs[name], array) for name, array in wanted.items())


def test_metrics_tell_queue_compute_transfer_and_bytes(network: Network):
    url = network.chain()
    network.edge(url).infer(inputs())
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    for family in ("queue_seconds", "compute_seconds", "transfer_seconds", "receive_seconds"):
        assert f"dnnsplit_{family}_count 1" in text
    assert 'dnnsplit_received_bytes_total{peer="client"}' in text
    assert 'dnnsplit_sent_bytes_total{peer="next"}' in text
    assert "dnnsplit_ready 1" in text


def between() -> dict[str, np.ndarray]:
    """What crosses link 0 besides the inputs."""
    a = np.maximum(inputs()["x"], 0)
    return {"a": a, "b": -a}


def post(url: str, body: bytes, **headers: str):
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
