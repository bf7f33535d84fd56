"""What the next tier may answer, and what becomes of each answer: an error that names it, or a result."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import (
    BusyError,
    DeadlineError,
    LinkError,
    ProtocolError,
    RefusedError,
    ServingError,
)
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.wire.test_hostile import liar

CLOUD = 2
DATATYPES = {"float": "FP32", "int64": "INT64"}


@pytest.fixture(scope="module")
def routes(slices: Path) -> Routes:
    return Routes(load_manifest(slices))


def test_what_there_are_no_slices_for_is_worked_out_once(
    slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes, asked = Routes(load_manifest(slices)), []
    make = Routes._make
    monkeypatch.setattr(Routes, "_make", lambda self, *key: asked.append(key) or make(self, *key))
    lacking = (routes.size + 1,) * len(routes.cuts)
    assert [routes.has(lacking), routes.has(lacking), routes.has(routes.cuts)] == [False, False, True]
    assert len(asked) == 1
    assert routes.route(routes.cuts) is routes.default
    with pytest.raises(ProtocolError, match="are no cuts of this model"):
        routes.route(lacking)


def http(data: object, status: int = 200) -> bytes:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def ours(routes: Routes) -> bytes:
    """How our server describes a tier."""
    return http({"name": "cloud", "parameters": {"dnnsplit_manifest": routes.identity}})


def foreign(routes: Routes, **changes: str) -> bytes:
    """How another server describes a model that reads what would be sent."""
    described = {
        port.name: DATATYPES[str(port.dtype)] for port in routes.default.legs[CLOUD].arrives
    } | changes
    return http({"name": "cloud", "inputs": [{"name": k, "datatype": v} for k, v in described.items()]})


JSON_ONLY = http({"name": "server", "extensions": []})
READY = http(b"")


@contextmanager
def talking(routes: Routes, *answers: bytes) -> Iterator[Remote]:
    """The cloud as seen from below: a server that gives these answers, one after the other."""
    with liar(list(answers)) as url:
        remote = Remote(Target(url), routes, CLOUD)
        try:
            yield remote
        finally:
            remote.close()


def values(routes: Routes, fill: float = 1.0) -> dict[str, np.ndarray]:
    ports = routes.default.legs[CLOUD].arrives
    return {
        port.name: np.full((2, 8), fill, np.float32) if port.dtype == "float" else np.ones((2, 8), np.int64)
        for port in ports
    }


def outputs(routes: Routes, **changes: Any) -> dict[str, Any]:
    """An answer in JSON with all that is asked for."""
    ports = routes.default.legs[CLOUD].answers
    tensors = [
        {
            "name": port.name,
            "datatype": DATATYPES[str(port.dtype)],
            "shape": [2, 8],
            "data": [1] * 16,
        }
        | changes
        for port in ports
    ]
    return {"model_name": "cloud", "outputs": tensors}


def infer(remote: Remote, routes: Routes, fill: float = 1.0) -> dict[str, np.ndarray | None]:
    return remote.infer(routes.default, values(routes, fill), Deadline(5))[0]


def test_a_server_that_reads_json_alone_will_do(routes: Routes) -> None:
    with talking(routes, foreign(routes), JSON_ONLY, READY, http(outputs(routes))) as remote:
        made = infer(remote, routes)
    assert made.keys() == {port.name for port in routes.default.legs[CLOUD].answers}
    assert all(array is not None and array.shape == (2, 8) and (array == 1).all() for array in made.values())


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (http({"error": "no model"}, 404), "does not serve tier `cloud`: no model"),
        (http(b"nonsense"), "does not describe tier `cloud`"),
        (http([1]), "does not describe tier `cloud`"),
        (http({"name": "cloud"}), r"model `cloud` at `.*` reads \[\], not \["),
        (http({"inputs": "x"}), r"reads \[\], not \["),
        (http({"parameters": {"dnnsplit_manifest": "0" * 64}}), "has slices of another manifest"),
    ],
)
def test_a_server_of_something_else_is_no_next_tier(routes: Routes, described: bytes, message: str) -> None:
    with talking(routes, described) as remote, pytest.raises(LinkError, match=message):
        infer(remote, routes)


def test_inputs_of_another_type_are_no_match(routes: Routes) -> None:
    name = routes.default.legs[CLOUD].arrives[0].name
    with talking(routes, foreign(routes, **{name: "BOOL"})) as remote:
        with pytest.raises(LinkError, match="reads") as refused:
            infer(remote, routes)
        assert refused.value.hint == "serve the slice that this manifest lists"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datatype": "INT32"}, "is INT32; it must be "),
        ({"shape": [3, 8]}, "answers wrongly: "),
        ({"shape": [2, 4, 2]}, r"has the shape \[2, 4, 2\]; it must be \[-1, 8\]"),
        ({"shape": [16]}, r"has the shape \[16\]; it must be \[-1, 8\]"),
        ({"shape": [4, 4]}, r"has the shape \[4, 4\]; it must be \[-1, 8\]"),
        ({"shape": [3, 8], "data": [1] * 24}, "dimension `B` of `.*` is 3, and 2 elsewhere"),
        ({"datatype": "BEAUTY"}, "answers wrongly: "),
    ],
)
def test_outputs_that_are_not_what_was_asked_for(
    routes: Routes, changes: dict[str, Any], message: str
) -> None:
    answer = http(outputs(routes, **changes))
    with (
        talking(routes, foreign(routes), JSON_ONLY, READY, answer) as remote,
        pytest.raises(RefusedError, match=message),
    ):
        infer(remote, routes)


def test_an_output_that_is_missing_is_named(routes: Routes) -> None:
    first, *others = outputs(routes)["outputs"]
    answer = http({"outputs": others})
    refused = pytest.raises(RefusedError, match=f"lacks output `{first['name']}`")
    with talking(routes, foreign(routes), JSON_ONLY, READY, answer) as remote, refused:
        infer(remote, routes)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_has_no_words_for_what_is_not_finite(routes: Routes, number: float) -> None:
    with talking(routes, foreign(routes), JSON_ONLY, READY) as remote:
        with pytest.raises(ProtocolError, match="numbers that are not finite") as refused:
            infer(remote, routes, number)
        assert refused.value.status == 422


def test_a_server_that_is_not_ours_knows_no_other_cuts(routes: Routes) -> None:
    other = replace(routes.default, cuts=(0, *routes.cuts[1:]))
    with talking(routes, foreign(routes), JSON_ONLY, READY) as remote:
        with pytest.raises(ProtocolError, match="knows no other cuts than the plan's") as refused:
            remote.infer(other, values(routes), Deadline(5))
        assert refused.value.status == 404


@pytest.mark.parametrize(
    ("status", "kind", "carried"),
    [
        (503, BusyError, 503),
        (429, BusyError, 503),
        (499, RefusedError, 499),
        (422, RefusedError, 422),
        (302, RefusedError, 502),
        (504, DeadlineError, 504),
    ],
)
def test_a_refusal_says_why(routes: Routes, status: int, kind: type[ServingError], carried: int) -> None:
    answer = http({"error": "because"}, status)
    with talking(routes, ours(routes), READY, answer) as remote:
        with pytest.raises(kind, match="because") as refused:
            infer(remote, routes)
        assert refused.value.status == carried


@pytest.mark.parametrize(
    "chain",
    [
        http({"tiers": []}),
        http({"tiers": "cloud"}),
        http({"tiers": [{"tier": "cloud"}]}),
        http({"tiers": [{"tier": "cloud", "ready": True}] * 65}),
        http([1]),
        http({}, 404),
    ],
)
@pytest.mark.parametrize("ready", [True, False])
def test_a_server_without_a_chain_is_asked_whether_it_is_ready(
    routes: Routes, chain: bytes, ready: bool
) -> None:
    with talking(routes, foreign(routes), JSON_ONLY, chain, http(b"", 200 if ready else 400)) as remote:
        assert remote.probe() == [{"tier": "cloud", "ready": ready}]


@pytest.mark.parametrize(
    "answer", [http({}, 404), http([1]), http({"receive_ms": "1"}), http({"receive_ms": -1}), http({})]
)
def test_a_server_that_measures_no_links_says_so(routes: Routes, answer: bytes) -> None:
    refused = pytest.raises(RefusedError, match="the next tier measures no links")
    with talking(routes, ours(routes), answer) as remote, refused:
        remote.measure(100, Deadline(5))


def test_only_ours_opens_other_slices(routes: Routes) -> None:
    with talking(routes, foreign(routes), JSON_ONLY, http({}, 404)) as remote:
        remote.prepare(routes.default, Deadline(5))
    refused = pytest.raises(RefusedError, match="tier `cloud` refuses: no such slice")
    with talking(routes, ours(routes), http({"error": "no such slice"}, 404)) as remote, refused:
        remote.prepare(routes.default, Deadline(5))
