"""Both pages in a real browser, by axe: for people who cannot see them, or not well.

axe-core comes from npm: `./scripts/test` installs it, or DNNSPLIT_AXE names an `axe.min.js`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, report, slice_model
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.dashboard.page import open_dashboard
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.web.export import export_web
from tests.serving.web.chromium import Browser, Page
from tests.serving.web.node import axe_core, chromium_program, ort_web

WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = chromium_program()
    if program is None:
        pytest.skip("needs Chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser.page()


@pytest.fixture(scope="module")
def axe() -> str:
    script = axe_core()
    if script is None:
        pytest.skip("needs axe-core: npm install it, and name its axe.min.js in DNNSPLIT_AXE")
    return script.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    write_model("tiny_residual", folder / "m.onnx")
    work = analyse(folder / "m.onnx", {"batch": 1})
    tiers = [Tier("edge", gflops=1, watts=3), Tier("cloud", gflops=20, usd_per_hour=1)]
    machines = Topology(tiers=tiers, links=[Link(bandwidth_mbps=10, delay_ms=1)])
    slice_model(work, plan(work, machines, cuts=(8,)), folder / "out")
    report(folder / "out", folder / "r.html")
    return folder


def faults(tab: Page, axe: str, url: str | None, width: int, features: dict[str, str]) -> list[str]:
    """What axe finds on a page, or on the one that is open, and whether it scrolls sideways."""
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    media = [{"name": name, "value": value} for name, value in features.items()]
    tab.send("Emulation.setEmulatedMedia", features=media)
    if url is not None:
        tab.go(url)
    tab.evaluate(f"{axe}; 1")
    found = tab.evaluate(
        "axe.run().then((all) => all.violations.map((one) => `${one.id}: ${one.nodes[0].html}`))"
    )
    wide = tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return [*found, *(["the page is wider than the screen"] if wide else [])]


MEDIA = [
    {"prefers-color-scheme": "light"},
    {"prefers-color-scheme": "dark"},
    {"forced-colors": "active"},
]


@pytest.mark.parametrize("features", MEDIA, ids=json.dumps)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report(tab: Page, axe: str, slices: Path, width: int, features: dict[str, str]) -> None:
    assert faults(tab, axe, (slices / "r.html").as_uri(), width, features) == []


@pytest.mark.parametrize("features", MEDIA, ids=json.dumps)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_dashboard(tab: Page, axe: str, slices: Path, width: int, features: dict[str, str]) -> None:
    with Edge(slices / "out", None) as edge, open_dashboard(edge, "0") as server:
        assert faults(tab, axe, server.url, width, features) == []


@pytest.fixture(scope="module")
def site(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runtime = ort_web()
    if runtime is None:
        pytest.skip("needs onnxruntime-web: npm install it, and name its dist in DNNSPLIT_ORT_WEB")
    output = tmp_path_factory.mktemp("site") / "site"
    export_web(slices / "out", output, ort_web=runtime, webgpu=False)
    return output


@pytest.mark.parametrize("features", MEDIA, ids=json.dumps)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_whose_browser_is_a_tier(
    tab: Page, axe: str, slices: Path, site: Path, width: int, features: dict[str, str]
) -> None:
    options = ServeOptions(port=0, site=site, session=SessionOptions(threads=1))
    with open_server(slices / "out" / "cloud", options) as server:
        server.service.stage.warm_up()  # the page sends nothing to a tier that is not ready
        tab.go(f"{server.url}/")
        tab.until("!document.getElementById('run').disabled")
        tab.evaluate("document.getElementById('run').click()")
        tab.until("document.getElementById('times').innerText.includes('in all')")
        assert faults(tab, axe, None, width, features) == []
