"""Slices that really run in onnxruntime-web: the client under Node, and in a tab of Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx import analyse, plan
from dnnsplit_onnx.machines.profiles import load_profile
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.serving.wire.server import Server
from tests.serving.conftest import CUTS, Network, cut_model, eventually, inputs
from tests.serving.tier.test_codes import coded
from tests.serving.web.chromium import Browser, TabClient
from tests.serving.web.conftest import ODD
from tests.serving.web.node import NodeClient, NodeError, near
from tests.serving.web.test_node import typed_inputs


@pytest.fixture(scope="session")
def real_site(slices: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("real") / "site"
    export_web(slices, output, ort_web=runtime, webgpu=False)
    return output


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("cuts", [[2, 4], [0, 3], [7, 7], [3, 3], [5, 7]])
def test_every_cut_gives_the_whole_models_answer_under_node(
    client: Callable[..., NodeClient],
    real_site: Path,
    runtime: Path,
    network: Network,
    whole: Callable[..., dict[str, np.ndarray]],
    cuts: list[int],
) -> None:
    outputs, answer = client(real_site, network.chain(), ort=runtime).infer(inputs(), cuts=cuts)
    assert near(outputs, whole(inputs()))
    assert answer["tiers"][0]["tier"] == "edge"
    assert answer["cuts"] == cuts


@pytest.mark.usefixtures("node")
def test_all_types_go_through_a_slice(
    client: Callable[..., NodeClient], typed_slices: Path, runtime: Path, tmp_path: Path
) -> None:
    export_web(typed_slices, tmp_path / "site", ort_web=runtime, webgpu=False)
    values = typed_inputs()
    outputs, _ = client(tmp_path / "site", ort=runtime).infer(values, cuts=[11])
    for name, array in values.items():
        given = outputs["y" if name == "x" else ODD["i2"] if name == ODD["i"] else f"{name}2"]
        if name == "s":
            assert [text.decode() for text in given] == list(array)
        elif name == "x":
            assert np.array_equal(given, -np.maximum(array, 0))
        else:
            assert (given.dtype, given.tobytes()) == (array.dtype, array.tobytes()), name


@pytest.mark.usefixtures("node")
def test_without_a_link_all_runs_here_and_the_link_is_taken_back(
    client: Callable[..., NodeClient],
    real_site: Path,
    runtime: Path,
    network: Network,
    whole: Callable[..., dict[str, np.ndarray]],
) -> None:
    from tests.serving.emulation import Relay

    with Relay(int(network.chain().rpartition(":")[2]), 1000.0) as relay:
        edge = client(real_site, relay.url, ort=runtime)
        assert edge.infer(inputs())[1]["cuts"] == [2, 4]
        relay.cut()
        outputs, answer = edge.infer(inputs())
        assert near(outputs, whole(inputs()))
        assert (answer["cuts"], answer["attempts"]) == ([7, 7], 2)
        assert edge.infer(inputs())[1]["attempts"] == 1
        relay.mend()
        assert eventually(lambda: edge.infer(inputs())[1]["cuts"] == [2, 4])


@pytest.mark.usefixtures("node")
def test_the_last_of_two_tiers_runs_what_a_server_begins(
    client: Callable[..., NodeClient], runtime: Path, tmp_path: Path, serve: Callable[..., Server[Service]]
) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[B, 8] x, float[B, 8] point) => (float[B, 8] y, float[B, 8] early) {
        early = Neg(x)
        b = Exp(early)
        y = Mul(b, point)
    }"""
    folder = cut_model(text, tmp_path, (2,), candidates=True, tiers=("cloud", "page"))
    export_web(folder, tmp_path / "site", tier="page", ort_web=runtime, webgpu=False)
    server = serve(folder)
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((2, 8)).astype(np.float32) for name in ("x", "point")}
    expected = open_session(tmp_path / "model.onnx", SessionOptions(threads=1)).run_arrays(given)
    page = client(tmp_path / "site", server.url, ort=runtime)
    for cuts in ([2], [1], [0], [3]):
        outputs, answer = page.infer(given, cuts=cuts)
        assert near(outputs, expected), cuts
        assert answer["tiers"][-1]["tier"] == "page"
        assert (answer["hop"] is None) is (cuts == [0])
    server.close()
    outputs, answer = page.infer(given)
    assert near(outputs, expected)
    assert answer["cuts"] == [0]


@pytest.mark.usefixtures("node")
def test_the_last_of_three_tiers_gets_what_it_reads_and_falls_back_on_who_is_left(
    client: Callable[..., NodeClient],
    slices: Path,
    runtime: Path,
    tmp_path: Path,
    network: Network,
    whole: Callable[..., dict[str, np.ndarray]],
) -> None:
    export_web(slices, tmp_path / "site", tier="cloud", ort_web=runtime, webgpu=False)
    near_server = network.serve("near")
    page = client(tmp_path / "site", network.serve("edge", near_server.url).url, ort=runtime)
    tiers = {(2, 4): 2, (0, 3): 2, (3, 3): 1, (5, 7): 2, (7, 7): 1, (0, 0): 0}
    for cuts, links in tiers.items():
        outputs, answer = page.infer(inputs(), cuts=list(cuts))
        assert near(outputs, whole(inputs())), cuts
        names = [tier["tier"] for tier in answer["tiers"]]
        assert names == [*("edge", "near")[:links], "cloud"]
    # What the page takes up when a tier is lost: at first that one's part, and at last all of it.
    near_server.close()
    outputs, answer = page.infer(inputs())
    assert near(outputs, whole(inputs()))
    assert (answer["cuts"], answer["attempts"]) == ([2, 2], 2)
    assert page.call("reach") == 1
    network.servers["edge"].close()
    outputs, answer = page.infer(inputs())
    assert near(outputs, whole(inputs()))
    assert answer["cuts"] == [0, 0]
    assert page.call("reach") == 0


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("code", "bound"), [("fp16", 1e-3), ("uint8", 0.02), ("uint8-channel", 0.02)])
def test_what_crosses_in_a_code_is_written_in_the_page(
    client: Callable[..., NodeClient],
    network: Network,
    runtime: Path,
    tmp_path: Path,
    code: str,
    bound: float,
) -> None:
    folder = coded(tmp_path, CUTS, code)
    export_web(folder, tmp_path / "site", ort_web=runtime, webgpu=False)
    edge = client(tmp_path / "site", network.chain(folder=folder), ort=runtime)
    outputs, answer = edge.infer(inputs())
    assert answer["hop"] is not None
    # WASM's last bit may turn a step of the code, and no more.
    for name, value in Chain.open(folder).run(inputs()).items():
        if value.dtype.kind == "f":
            assert np.allclose(outputs[name], value, rtol=0, atol=bound * float(np.abs(value).max()))
        else:
            assert np.array_equal(outputs[name], value)
    bad = {
        name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array
        for name, array in inputs().items()
    }
    with pytest.raises(NodeError, match=f"holds what {code} cannot: NaN") as caught:
        edge.infer(bad)
    assert (caught.value.name, caught.value.status) == ("InputError", 422)


@pytest.mark.usefixtures("node")
def test_a_profile_is_one_that_plan_takes(
    client: Callable[..., NodeClient],
    picture_site: Path,
    picture_slices: Path,
    runtime: Path,
    tmp_path: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    server = serve(picture_slices)
    found = client(picture_site, server.url, ort=runtime).call("profile", budget_s=0.2)
    (tmp_path / "page.json").write_text(json.dumps(found))
    profile = load_profile(tmp_path / "page.json")
    assert (profile.tier, profile.provider, profile.nodes) == ("page", "web", 4)
    assert profile.machine["backend"] == "wasm"
    assert set(profile.versions) == {"onnxruntime-web"}
    assert [part.position for part in profile.parts] == [1, 2, 3]
    net_s = sum(segment.seconds for segment in profile.segments)
    assert net_s == pytest.approx(max(profile.whole_s - profile.overhead_s, 0), abs=1e-9)
    assert found["link"]["bandwidth_mbps"] > 0
    assert found["link"]["delay_ms"] >= 0
    # Nothing takes less than a run of nothing, however busy the machine was.
    assert profile.overhead_s <= profile.whole_s
    (tmp_path / "tiers.toml").write_text(
        '[[tier]]\nname = "page"\nprofile = "page.json"\nprovider = "web"\n'
        '[[tier]]\nname = "cloud"\ngflops = 100\n'
        "[[link]]\nbandwidth_mbps = 100\ndelay_ms = 1\n"
    )
    analysis = analyse(picture_slices.parent / "model.onnx", order="file")
    made = plan(analysis, load_topology(tmp_path / "tiers.toml"), cuts=(2,), pareto=False)
    below_s = max(part.below_s for part in profile.parts if part.position <= 2)
    # On a busy machine a part may have taken less than a run of nothing, or more than the whole.
    expected = min(max(below_s, profile.overhead_s), profile.whole_s)
    assert made.figures.stages[0].seconds == pytest.approx(expected, rel=0.05)


def test_threads_need_isolation_which_serve_gives(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    url = serve(picture_slices, site=picture_site).url
    page = browser.page(f"{url}/")
    assert page.evaluate("crossOriginIsolated") is True
    tab = TabClient(page, url=url, threads=2)
    given = {"picture": np.ones((1, 3, 16, 16), np.float32)}
    outputs, _ = tab.infer(given)
    assert np.array_equal(outputs["scores"], np.ones((1, 3), np.float32))
    assert page.evaluate("tab.client.runner.ort.env.wasm.numThreads") == 2
    assert page.complaints == []


def test_a_page_of_another_origin_needs_leave(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    """The same name on another port is another origin; the policy has to know it too."""
    host = serve(picture_slices, site=picture_site)
    page = browser.page(f"{host.url}/")
    page.send("Page.setBypassCSP", enabled=True)
    page.go(f"{host.url}/?again")
    given = {"picture": np.ones((1, 3, 16, 16), np.float32)}
    refused = TabClient(page, url=serve(picture_slices).url)
    with pytest.raises(NodeError, match="cannot reach") as caught:
        refused.infer(given, cuts=[2])
    assert caught.value.name == "LinkError"
    allowed = TabClient(page, url=serve(picture_slices, allow_origins=(host.url,)).url)
    assert allowed.infer(given, cuts=[2])[1]["hop"]["received_nbytes"] > 12


def test_a_server_of_another_manifest_is_named_and_all_runs_in_the_page(
    browser: Browser,
    picture_site: Path,
    picture_slices: Path,
    typed_slices: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    host = serve(picture_slices, site=picture_site)
    page = browser.page()
    page.send("Page.setBypassCSP", enabled=True)
    page.go(f"{host.url}/")
    tab = TabClient(page, url=serve(typed_slices, allow_origins=(host.url,)).url)
    given = {"picture": np.ones((1, 3, 16, 16), np.float32)}
    with pytest.raises(NodeError, match="has slices of another manifest: export again") as caught:
        tab.infer(given, cuts=[2])
    assert caught.value.name == "LinkError"
    outputs, answer = tab.infer(given)
    assert np.array_equal(outputs["scores"], np.ones((1, 3), np.float32))
    assert answer["cuts"] == [4]


WRONG = """(before, after) => {
  const real = globalThis.fetch;
  globalThis.fetch = async (url, init) => {
    const response = await real(url, init);
    if (!String(url).endsWith("/infer")) return response;
    const text = new TextDecoder("latin1").decode(await response.arrayBuffer()).replace(before, after);
    return new Response(Uint8Array.from(text, (letter) => letter.charCodeAt(0)), response);
  };
}"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"FP32"', '"BF16"', "output `scores` is BF16; it must be FP32"),
        ("[1,3]", "[3,1]", r"`scores` has the shape \[3, 1\]; it must be \[1, 3\]"),
        ('_size":12', '_size":11', "output `scores` has 11 bytes for"),
        ('"scores"', '"shores"', "output `shores` was not asked for"),
        ("{", "[", "its JSON part is not JSON"),
    ],
)
def test_answers_of_another_shape_or_type_are_refused(
    browser: Browser,
    picture_site: Path,
    picture_slices: Path,
    serve: Callable[..., Server[Service]],
    before: str,
    after: str,
    message: str,
) -> None:
    url = serve(picture_slices, site=picture_site).url
    page = browser.page(f"{url}/")
    page.evaluate(f"({WRONG})({json.dumps(before)}, {json.dumps(after)})")
    with pytest.raises(NodeError, match=message) as caught:
        TabClient(page, url=url).infer({"picture": np.ones((1, 3, 16, 16), np.float32)}, cuts=[2])
    assert caught.value.name == "RefusedError"


def test_a_full_disk_costs_the_cache_and_not_the_answer(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    url = serve(picture_slices, site=picture_site).url
    page = browser.page(f"{url}/")
    page.evaluate("caches.delete('dnnsplit-onnx')")
    page.send("Storage.overrideQuotaForOrigin", origin=url, quotaSize=1)
    try:
        tab = TabClient(page, url=url)
        assert tab.infer({"picture": np.ones((1, 3, 16, 16), np.float32)})[1]["attempts"] == 1
        notes = page.evaluate("[...tab.client.runner.notes].join()")
        assert notes.startswith("slices are fetched again each time: ")
    finally:
        page.send("Storage.overrideQuotaForOrigin", origin=url)


def test_a_tampered_slice_in_the_cache_is_fetched_again(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    url = serve(picture_slices, site=picture_site).url
    page = browser.page(f"{url}/")
    given = {"picture": np.ones((1, 3, 16, 16), np.float32)}
    TabClient(page, url=url).infer(given, cuts=[2])
    changed = page.evaluate(
        """(async () => {
          const cache = await caches.open("dnnsplit-onnx");
          const keys = await cache.keys();
          for (const key of keys) await cache.put(key, new Response(new Uint8Array(3)));
          return keys.length;
        })()"""
    )
    assert changed > 0
    assert TabClient(page, url=url).infer(given, cuts=[2])[1]["attempts"] == 1
