"""The scripts of a client's page, run by a real browser while requests, tiers and figures change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dnnsplit_onnx.reporting.colours import plan_colours
from dnnsplit_onnx.serving.dashboard import page as pages
from dnnsplit_onnx.serving.dashboard import state as states
from dnnsplit_onnx.serving.dashboard.page import open_dashboard
from dnnsplit_onnx.serving.edge.edge import Edge
from tests.serving.conftest import Network, inputs
from tests.serving.web.chromium import Browser, Page
from tests.serving.web.node import chromium_program


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium_program()
    if program is None:
        pytest.skip("needs the browser Chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def edge(network: Network) -> Edge:
    return network.edge(network.chain())


@pytest.fixture
def tab(browser: Browser, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(states, "_LOOK_S", 0.05)
    with open_dashboard(edge, "0") as server:
        page = browser.page(server.url)
        page.until("document.getElementById('status').dataset.state === 'live'")
        yield page
        page.send("Page.navigate", url="about:blank")  # the page asks no more


def texts(page: Page, selector: str) -> list[str]:
    """What the elements say that a selector finds."""
    found: list[str] = page.evaluate(f"[...document.querySelectorAll('{selector}')].map((e) => e.innerText)")
    return found


def classes(page: Page, selector: str) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll('{selector}')].map((e) => e.getAttribute('class'))"
    )
    return found


def test_a_dead_tier_is_never_shown_as_up(tab: Page, edge: Edge, network: Network):
    edge.infer(inputs())
    tab.until("document.getElementById('chain').innerText.includes('nodes 4 to 7')")
    assert classes(tab, "#chain li") == ["tier", "link", "tier", "link", "tier"]
    network.servers["cloud"].close()  # and nobody asks for it
    tab.until("document.getElementById('status').dataset.state === 'down'")
    assert texts(tab, "#status") == ["near to cloud is down"]
    assert classes(tab, "#chain li")[3:] == ["link down", "tier idle"]
    assert "out of reach" in texts(tab, "#chain li")[4]
    network.servers["near"].close()
    tab.until("document.getElementById('status').innerText === 'edge to near is down'")
    edge.infer(inputs())
    tab.until("document.getElementById('cuts').innerText.startsWith('All on edge')")
    assert classes(tab, "#chain li") == ["tier", "link down", "tier idle", "link unused", "tier idle"]
    for gone in texts(tab, "#chain li")[2::2]:
        assert "out of reach" in gone
        assert "compute" not in gone
    # Each way has its colour, and says which it is.
    tab.until("document.querySelectorAll('#chart circle').length === 2")
    ways = plan_colours(["2,4", "all on edge"])
    assert sorted(classes(tab, "#chart circle")) == sorted(f"dot cut{at}" for at, _ in ways.values())
    assert tab.evaluate("[...document.querySelectorAll('#chart title')].map((e) => e.textContent)") == [
        "2,4",
        "all on edge",
    ]
    assert tab.complaints == []


def test_a_client_that_ends_is_not_shown_as_live(browser: Browser, edge: Edge):
    with open_dashboard(edge, "0") as server:
        page = browser.page(server.url)
        page.until("document.getElementById('status').dataset.state === 'live'")
    page.until("document.getElementById('status').dataset.state === 'down'")
    assert texts(page, "#status") == ["the client does not answer; these are its last figures"]
    page.send("Page.navigate", url="about:blank")


@pytest.fixture
def shown(browser: Browser, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page with figures that are hard to say."""
    edge.infer(inputs())

    def state_of(_: Edge) -> dict[str, Any]:
        state = states.state_of(edge)
        state["tiers"][0] |= {"compute_ms": 999.7, "queue_ms": 0.0, "link_ms": 1234.5, "sent_nbytes": 999_999}
        state["tiers"][1] |= {"link_ms": 0.00123, "sent_nbytes": 3}
        state["links"][0] |= {"bandwidth_mbps": 0.0004, "delay_ms": 65_000.0}
        state["links"][1] |= {"bandwidth_mbps": 999.99, "delay_ms": None}
        state["latency_ms"] |= {"p50": 0.0, "p95": 99.96}
        state["recent"] = [[0.5, 8000.0, "a"], [0.6, 1.0, "b"], [0.7, 2.0, "a"]]
        state["uptime_s"] = 7200.0
        return state

    monkeypatch.setattr(pages, "state_of", state_of)
    with open_dashboard(edge, "0") as server:
        page = browser.page(server.url)
        page.until("document.getElementById('status').dataset.state === 'live'")
        yield page
        page.send("Page.navigate", url="about:blank")


def test_figures_have_the_unit_that_reads_best(shown: Page):
    chain = texts(shown, "#chain li")
    assert "1 s compute" in chain[0]
    assert "0 ms queue" in chain[0]
    assert [text for text in ("0.4 kbit/s", "65 s delay", "1 MB in 1.23 s") if text not in chain[1]] == []
    assert [text for text in ("1 Gbit/s", "3 B in 1.23 µs") if text not in chain[3]] == []
    figures = texts(shown, "#figures > div")
    assert any("0 ms" in text for text in figures)
    assert any("100 ms" in text for text in figures)
    labels = shown.evaluate("[...document.querySelectorAll('#chart text')].map((e) => e.textContent)")
    assert labels == ["0 ms", "5 s", "10 s", "2.0 h ago", "now"]
    colours = plan_colours(["a", "b"])
    assert classes(shown, "#chart circle") == [f"dot cut{colours[way][0]}" for way in "aba"]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("ms(999.4)", "999 ms"),
        ("ms(999.5)", "1 s"),
        ("ms(null)", "\N{EN DASH}"),
        ("ms(3.6e6)", "3600 s"),
        ("bytes(0)", "0 B"),
        ("bytes(999)", "999 B"),
        ("bytes(1e15)", "1000000 GB"),
        ("rate(0)", "0 kbit/s"),
        ("rate(0.9996)", "1 Mbit/s"),
        ("rate(54.321)", "54.3 Mbit/s"),
        ("rate(25000)", "25 Gbit/s"),
        ("ago(59.6)", "60 s ago"),
        ("ago(0)", "now"),
    ],
)
def test_units(shown: Page, call: str, text: str):
    assert shown.evaluate(call) == text
