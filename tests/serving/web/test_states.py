"""Pages that keep states: each tier those of its slices, from one request of a sequence to the next."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.serving.edge.choosing import FixedCuts
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.running.stateful import Arrays, Decoder, merged_decoder, random_model, saved, sliced_everywhere
from tests.serving.conftest import Network
from tests.serving.web.chromium import Browser, TabClient, run
from tests.serving.web.node import NodeClient, NodeError, near
from tests.serving.web.test_node import Recorder

Open = Callable[..., NodeClient]
STEPS = 4
# A state that another one is next, one that an input is next, and one that is read above where it is made.
ODD = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 8] x, float[B, 8] past_0, float[B, 8] older)
  => (float[B, 8] y, float[B, 8] present_0, float[B, 8] past_0) {
    present_0 = Add(x, past_0)
    a = Mul(present_0, older)
    b = Neg(a)
    y = Add(b, present_0)
}
"""


def odd(folder: Path) -> tuple[list[tuple[int, ...]], Callable[[int], Arrays]]:
    graph = saved(onnx.parser.parse_model(ODD), ["past_0=present_0", "older=past_0"], folder)
    cuts = sliced_everywhere(graph, folder / "out", sizes={"B": 2})
    rng = np.random.default_rng(5)
    return cuts, lambda _: {"x": rng.standard_normal((2, 8)).astype(np.float32)}


def attending(folder: Path) -> tuple[list[tuple[int, ...]], Callable[[int], Arrays]]:
    """Caches of an encoder, which the first request brings."""
    graph = saved(Decoder().model(), (), folder)
    cuts = sliced_everywhere(graph, folder / "out", sizes={"batch": 1, "encoder": 6, "past_decoder": 5})
    rng = np.random.default_rng(5)
    staying = {
        f"past_key_values.{at}.encoder.key": rng.standard_normal((1, 6, 8)).astype(np.float32)
        for at in range(2)
    }
    return cuts, lambda at: {"input_ids": np.array([[3 * at % 16]])} | ({} if at else staying)


def merged(folder: Path) -> tuple[list[tuple[int, ...]], Callable[[int], Arrays]]:
    """Caches that come back empty where they stay as they were."""
    graph = saved(merged_decoder(), (), folder)
    sizes = {"batch": 1, "encoder": 6, "past": 2, "past_encoder": 6}
    cuts = sliced_everywhere(graph, folder / "out", sizes=sizes)
    encoder = np.random.default_rng(3).standard_normal((1, 6, 4)).astype(np.float32)

    def inputs(at: int) -> Arrays:
        given = {"input_ids": np.array([[3 * at % 16]]), "use_cache_branch": np.array([at > 0])}
        return given if at else given | {"encoder_hidden_states": encoder}

    return cuts, inputs


def drawn(seed: int) -> Callable[[Path], tuple[list[tuple[int, ...]], Callable[[int], Arrays]]]:
    """A model whose states are renewed in whatever ways there are."""

    def make(folder: Path) -> tuple[list[tuple[int, ...]], Callable[[int], Arrays]]:
        rng = np.random.default_rng(seed)
        model, states = random_model(rng)
        cuts = sliced_everywhere(saved(model, states, folder), folder / "out")
        manifest = load_manifest(folder / "out")

        def inputs(at: int) -> Arrays:
            ports = manifest.fresh_inputs if at else (*manifest.fresh_inputs, *manifest.staying_inputs)
            return {port.name: rng.standard_normal((1, 4)).astype(np.float32) for port in ports}

        return cuts, inputs

    return make


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("tier", ["edge", "cloud"])
@pytest.mark.parametrize("made", [odd, attending, merged, drawn(0), drawn(1), drawn(2)])
def test_each_tier_keeps_its_states(
    client: Open,
    runtime: Path,
    tmp_path: Path,
    made: Callable[[Path], tuple[list[tuple[int, ...]], Callable[[int], Arrays]]],
    tier: str,
) -> None:
    cuts, inputs = made(tmp_path)
    folder = tmp_path / "out"
    export_web(folder, tmp_path / "site", tier=tier, ort_web=runtime, webgpu=False)
    manifest = load_manifest(folder)
    assert manifest.states
    given = [inputs(at) for at in range(STEPS)]
    steps = Steps.of_whole(tmp_path / "model.onnx", manifest)
    expected = [steps(one) for one in given]
    with ExitStack() as stack:
        network = Network(folder, stack)
        others = ("near", "cloud") if tier == "edge" else ("edge", "near")
        url = network.serve(others[0], network.serve(others[1]).url).url
        page = client(tmp_path / "site", url, ort=runtime)
        for chosen in cuts[:: max(1, len(cuts) // 12)]:
            for one, whole in zip(given, expected, strict=True):
                outputs, answer = page.talk(one, cuts=list(chosen), who=str(chosen))
                assert near(outputs, {n: v for n, v in whole.items() if v is not None}), chosen
                assert answer["cuts"] == list(chosen)


@pytest.mark.usefixtures("node")
def test_a_sequence_is_sent_as_the_python_edge_sends_it(
    client: Open, no_runtime: Path, tmp_path: Path
) -> None:
    _, inputs = odd(tmp_path)
    export_web(tmp_path / "out", tmp_path / "site", ort_web=no_runtime)
    given = [inputs(at) for at in range(3)]
    with ExitStack() as stack:
        recorder = Recorder(int(Network(tmp_path / "out", stack).chain().rpartition(":")[2]))
        stack.callback(recorder.close)
        page = client(tmp_path / "site", recorder.url)
        talk = Conversation(stack.enter_context(Edge(tmp_path / "out", recorder.url, chooser=all_above)))
        for at, one in enumerate(given):
            page.talk(one, cuts=[0, 0], isLast=at == 2)
        for at, one in enumerate(given):
            talk.infer(one, last=at == 2)
        named = [re.sub(rb'"sequence_id":"[0-9a-f]{32}"', b"", body) for body in recorder.bodies()]
    assert len(named) == 6
    assert sorted(named[:3]) == sorted(named[3:])  # the page may use several connections


def all_above(routes: Routes, *_: object) -> FixedCuts:
    return FixedCuts(routes, (0, 0))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of three blocks, cut after the first one: two tiers, `edge` and `near`."""
    folder = tmp_path_factory.mktemp("decoder")
    write_model("tiny_decoder", folder / "model.onnx")
    graph = in_file_order(load_graph(folder / "model.onnx"))
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 8}
    sliced_everywhere(graph, folder / "out", 2, sizes=sizes)
    return folder


@pytest.mark.parametrize("tier", ["edge", "near"])
def test_a_decoder_in_the_page_writes_the_whole_models_text(
    browser: Browser, decoder: Path, runtime: Path, tmp_path: Path, tier: str
) -> None:
    export_web(decoder / "out", tmp_path / "site", tier=tier, ort_web=runtime, webgpu=False)
    other = "near" if tier == "edge" else "edge"
    steps = Steps.of_whole(decoder / "model.onnx", load_manifest(decoder / "out"))
    with open_server(decoder / "out" / other, ServeOptions(port=0, site=tmp_path / "site")) as server:
        page = browser.page(f"{server.url}/")
        tab = TabClient(page, url=server.url)
        new = np.array([[5, 17, 3, 42]])
        for at in range(12):
            outputs, answer = tab.talk({"input_ids": new})
            expected = steps({"input_ids": new})["logits"]
            assert expected is not None
            assert near(outputs, {"logits": expected})
            assert answer["hop"] is not None
            assert answer["hop"]["sent_nbytes"] < 3000 if at else True  # no cache crosses
            new = expected[:, -1:].argmax(axis=-1)
        assert page.complaints == []


def test_the_page_goes_on_with_a_sequence_and_begins_a_new_one(
    browser: Browser, decoder: Path, runtime: Path, tmp_path: Path
) -> None:
    export_web(decoder / "out", tmp_path / "site", ort_web=runtime, webgpu=False)
    with open_server(decoder / "out" / "near", ServeOptions(port=0, site=tmp_path / "site")) as server:
        page = browser.page(f"{server.url}/")
        kept = "document.getElementById('kept').innerText"
        first = run(page)
        assert page.evaluate(kept).startswith("Request 1 of a sequence")
        assert run(page) != first
        assert page.evaluate(kept).startswith("Request 2 of a sequence")
        page.evaluate("document.getElementById('forget').click()")
        page.until(f"{kept} === ''")
        assert run(page) == first
        assert page.complaints == []


@pytest.mark.usefixtures("node")
def test_states_that_a_tier_has_lost_are_told(
    client: Open, decoder: Path, runtime: Path, tmp_path: Path
) -> None:
    export_web(decoder / "out", tmp_path / "site", ort_web=runtime, webgpu=False)
    new = {"input_ids": np.array([[5, 17]])}
    with ExitStack() as stack:
        network = Network(decoder / "out", stack)
        server = network.serve("near")
        page = client(tmp_path / "site", server.url, ort=runtime)
        first, _ = page.talk(new, who="one")
        port = server.port
        server.close()
        network.serve("near", port=port)
        with pytest.raises(NodeError, match="start it again") as caught:
            page.talk(new, who="one")
        assert (caught.value.name, caught.value.status) == ("RefusedError", 409)
        again, _ = page.talk(new, who="two")
    assert near(again, first)
