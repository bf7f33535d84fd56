"""The page of a client, over real sockets and in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.dashboard import state as states
from dnnsplit_onnx.serving.dashboard.page import FILES, open_dashboard
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.edge.history import History
from dnnsplit_onnx.serving.wire.errors import RefusedError
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace

from .conftest import CUTS, NODES, Network, cut_model, eventually, inputs

STATIC = Path(open_dashboard.__code__.co_filename).parent / "static"


def get(url: str, path: str = "/", *, method: str = "GET", host: str | None = None) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def state(url: str) -> dict[str, Any]:
    status, _, body = get(url, "/state.json")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.fixture
def edge(network: Network) -> Edge:
    return network.edge(network.chain())


@pytest.fixture
def url(edge: Edge) -> Iterator[str]:
    with open_dashboard(edge, "0") as server:
        yield server.url


def test_the_page_and_its_files_are_served_with_guards(url: str):
    for path, (name, kind) in FILES.items():
        status, fields, body = get(url, path)
        assert (status, fields["Content-Type"]) == (200, kind)
        assert body == (STATIC / name).read_bytes()
        assert "default-src 'none'" in fields["Content-Security-Policy"]
        assert fields["X-Content-Type-Options"] == "nosniff"
    assert {name for name, _ in FILES.values()} == {path.name for path in STATIC.iterdir()}


def test_the_state_follows_the_requests(edge: Edge, url: str):
    before = state(url)
    assert before["counts"] == {"answered": 0, "failed": 0, "under_way": 0, "retried": 0, "switches": 0}
    assert before["cuts"] == list(CUTS)
    assert before["latency_ms"]["p50"] is None
    for seed in range(5):
        edge.infer(inputs(seed))
    after = state(url)
    assert after["counts"]["answered"] == 5
    assert after["per_s"] > 0
    assert len(after["recent"]) == 5
    tiers = after["tiers"]
    assert [(tier["name"], tier["start"], tier["stop"]) for tier in tiers] == [
        ("edge", 0, 2),
        ("near", 2, 4),
        ("cloud", 4, None),
    ]
    assert all(tier["compute_ms"] > 0 for tier in tiers)
    assert tiers[0]["link_ms"] > 0
    assert tiers[2]["link_ms"] is None
    assert [link["state"] for link in after["links"]] == ["up", "up"]
    assert after["links"][0]["delay_ms"] is not None


def test_a_lost_tier_and_the_change_of_cuts_are_shown(edge: Edge, url: str, network: Network):
    edge.infer(inputs())
    port = network.servers["near"].port
    network.servers["near"].close()
    edge.infer(inputs())
    lost = state(url)
    assert lost["cuts"] == [NODES, NODES]
    assert [link["state"] for link in lost["links"]] == ["down", "beyond"]
    kinds = [(event["kind"], event["text"]) for event in lost["events"]]
    assert kinds == [("cuts", "2,4 → all on edge"), ("link", "edge → near is down")]
    assert all(event["reason"] for event in lost["events"])
    assert (lost["counts"]["switches"], lost["counts"]["retried"]) == (1, 1)
    network.serve("near", network.servers["cloud"].url, port=port)
    assert eventually(lambda: state(url)["links"][0]["state"] == "up")
    assert state(url)["events"][0]["text"] == "edge → near is back"


def test_a_tier_that_dies_while_nobody_asks_it_is_not_shown_as_up(
    edge: Edge, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(states, "_LOOK_S", 0.05)
    edge.infer(inputs())
    network.servers["cloud"].close()
    assert eventually(lambda: [link["state"] for link in state(url)["links"]] == ["up", "down"])
    assert state(url)["placement"] != ",".join(map(str, CUTS))


def test_requests_say_by_which_cuts_they_ran(edge: Edge, url: str, network: Network):
    edge.infer(inputs())
    network.servers["near"].close()
    edge.infer(inputs())
    assert [cuts for *_, cuts in state(url)["recent"]] == ["2,4", "all on edge"]
    assert state(url)["placement"] == "all on edge"


def test_failed_requests_are_shown(plain_slices: Path, network: Network):
    edge = network.edge("http://127.0.0.1:1", folder=plain_slices)
    with open_dashboard(edge, "localhost:0") as server:
        with pytest.raises(Exception, match="link 0 is down"):
            edge.infer(inputs())
        shown = state(server.url)
        assert shown["counts"]["failed"] == 1
        assert shown["counts"]["under_way"] == 0
        assert shown["cuts"] is None
        assert shown["tiers"][0]["start"] is None
        assert "link 0 is down" in shown["events"][0]["text"]


def test_metrics_of_the_client_are_served(edge: Edge, url: str):
    edge.infer(inputs())
    text = get(url, "/metrics")[2].decode()
    assert 'dnnsplit_edge_requests_total{result="answered"} 1' in text
    assert "dnnsplit_dashboard_connections" in text


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/../page.py", None, 404),
        ("GET", "/static/dashboard.js", None, 404),
        ("POST", "/state.json", None, 405),
        ("GET", "/state.json", "attacker.example", 421),
        ("GET", "/", "127.0.0.1.attacker.example:80", 421),
        ("GET", "/state.json", "localhost:1", 200),
        ("GET", "/state.json", "[::1]:8080", 200),
    ],
)
def test_what_is_not_the_page_is_refused(url: str, method: str, path: str, host: str | None, status: int):
    assert get(url, path, method=method, host=host)[0] == status


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:8080", "[::]:0", "", "x", "1:65536", "1:-1"])
def test_other_addresses_than_loopback_are_refused(edge: Edge, address: str):
    with pytest.raises(InputError):
        open_dashboard(edge, address)


def test_the_history_is_bounded_and_its_rate_is_of_now():
    history = History()
    for _ in range(1000):
        history.began()
        history.answered(0.01, [TierTrace("t", 0, 0.01, 0.01, hop=Hop(0.02, 5, 6))], attempts=1)
        history.began()
        history.failed("no")
    shown = history.to_dict()
    assert shown["counts"]["answered"] == shown["counts"]["failed"] == 1000
    assert len(shown["recent"]) == 240
    assert len(shown["events"]) == 50
    assert shown["tiers"]["t"]["requests"] == 100
    assert shown["per_s"] > 0
    assert json.dumps(shown, allow_nan=False)


class Tags(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_from_elsewhere():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z]", text), path.name
        assert "innerHTML" not in text
        assert "eval(" not in text
    page = Tags()
    page.feed((STATIC / "index.html").read_text(encoding="utf-8"))
    # Scripts and styles inside the page, and handlers in attributes, are what the policy forbids.
    assert not any(
        key.startswith("on") or key == "style" for _, attributes in page.tags for key in attributes
    )
    assert all("src" in attributes for tag, attributes in page.tags if tag == "script")
    assert not any(tag == "style" for tag, _ in page.tags)


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs the browser Chromium")
    return found


def rendered(url: str, profile: Path) -> Tags:
    """The page as the browser has it after its scripts ran for some seconds of its own time."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [browser(), *words, "--virtual-time-budget=5000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = Tags()
    page.feed(done.stdout)
    return page


def test_a_browser_shows_the_chain(edge: Edge, url: str, tmp_path: Path):
    for seed in range(3):
        edge.infer(inputs(seed))
    page = rendered(url, tmp_path)
    ids = {attributes.get("id"): attributes for _, attributes in page.tags}
    assert ids["status"]["data-state"] == "live"
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "li"]
    assert classes == ["tier", "link", "tier", "link", "tier"]
    assert sum(tag == "circle" for tag, _ in page.tags) == 3
    assert "Cuts at 2, 4 of 7 nodes" in page.text
    assert "nodes 4 to 7" in page.text


EVIL = "<img src=x onerror=alert(1)>"


def test_names_and_messages_are_text_in_the_browser(tmp_path: Path, network: Network):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[B] x) => (float[B] y) { a = Relu(x) y = Neg(a)}'
    folder = cut_model(text, tmp_path, (1,), tiers=("edge", "cloud"))
    edge = network.edge(None, folder=folder)
    edge.routes.tiers = ("edge", EVIL)
    edge.history.began()
    edge.history.failed(RefusedError(f"<script>{EVIL}</script>").message)
    with open_dashboard(edge, "0") as server:
        page = rendered(server.url, tmp_path / "profile")
    tags = [tag for tag, _ in page.tags]
    assert "img" not in tags
    assert tags.count("script") == 2
    assert page.text.count(EVIL) == 3  # the tier, the link that leads to it, and the error
