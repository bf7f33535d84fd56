"""The page that looks at pictures, in a headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.serving.wire.server import Server
from tests.serving.web.chromium import Browser, run, text_of


def test_the_page_runs_and_says_where_the_time_went(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    page = browser.page(f"{serve(picture_slices, site=picture_site).url}/")
    answer = run(page)
    assert "scores: float [1, 3]" in answer
    assert text_of(page, "line") == "4 nodes over page (this page) → cloud"
    assert re.search(r"onnxruntime-web 1\.\d+\.\d+ on WASM .*, \d threads?$", text_of(page, "device"))
    assert "ready" in text_of(page, "server")
    assert "cloud: computing" in text_of(page, "times")
    assert "Cut at 2." in text_of(page, "times")
    page.evaluate("const cut = document.getElementById('cut'); cut.value = cut.max; cut.oninput()")
    assert text_of(page, "cut-text") == "4 of 4 nodes run here; nothing crosses."
    assert run(page) == answer
    assert "cloud" not in text_of(page, "times")
    # The policy holds, and nothing on the page needs more than it allows.
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_picture_becomes_the_tensor(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    page = browser.page(f"{serve(picture_slices, site=picture_site).url}/")
    page.until("!document.getElementById('run').disabled")
    page.evaluate(
        """(async () => {
          const drawing = new OffscreenCanvas(40, 20).getContext("2d");
          drawing.fillStyle = "rgb(51, 102, 204)";
          drawing.fillRect(0, 0, 40, 20);
          const chosen = new DataTransfer();
          const picture = await drawing.canvas.convertToBlob();
          chosen.items.add(new File([picture], "blue.png", { type: "image/png" }));
          const file = document.getElementById("file");
          file.files = chosen.files;
          await file.onchange();
        })()"""
    )
    shown = dict(re.findall(r"element (\d)\s+([\d.]+)", run(page)))
    assert {at: round(float(value), 3) for at, value in shown.items()} == {"0": 0.2, "1": 0.4, "2": 0.8}


FAILING = """
Object.defineProperty(navigator, "gpu", { value: {
  wgslLanguageFeatures: new Set(),
  getPreferredCanvasFormat: () => "bgra8unorm",
  requestAdapter: async () => ({
    features: new Set(),
    limits: {},
    info: {},
    isFallbackAdapter: false,
    requestDevice: async () => { throw new Error("the driver is gone"); },
  }),
} });
"""


def test_webgpu_that_fails_is_said_and_wasm_goes_on(
    browser: Browser,
    picture_slices: Path,
    runtime: Path,
    tmp_path: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    """A browser here has no adapter, so the worker is given one whose device cannot be had."""
    site = tmp_path / "site"
    export_web(picture_slices, site, ort_web=runtime)
    (site / "failing.js").write_text(FAILING)
    worker = (site / "worker.js").read_text()
    (site / "worker.js").write_text(f'import "./failing.js";\n{worker}')
    page = browser.page(f"{serve(picture_slices, site=site).url}/")
    page.until("!document.getElementById('run').disabled")
    assert re.search(r"onnxruntime-web \S+ on WebGPU", text_of(page, "device"))
    for _ in range(2):
        assert "scores: float [1, 3]" in run(page)
        assert "on WASM (WebGPU failed), " in text_of(page, "device")
        assert "WebGPU failed, so all runs in WASM: " in text_of(page, "notes")


def test_a_profile_is_saved_from_the_page(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    page = browser.page(f"{serve(picture_slices, site=picture_site).url}/")
    page.until("!document.getElementById('measure').disabled")
    page.evaluate("document.getElementById('budget').value = 1; document.getElementById('measure').click()")
    page.until("!document.getElementById('toml').hidden")
    assert 'profile = "page.profile.json"\nprovider = "web"' in text_of(page, "toml")
    saved = page.evaluate(
        "fetch(document.querySelector('#measured a').href).then((file) => file.json()).catch(String)"
    )
    # The policy keeps scripts from reading what the person saves.
    assert isinstance(saved, str)
    assert page.evaluate("document.querySelector('#measured a').download") == "page.profile.json"


def test_a_token_is_asked_for_on_the_page(
    browser: Browser,
    picture_site: Path,
    picture_slices: Path,
    tmp_path: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    (tmp_path / "token").write_text("t" * 16)
    server = serve(picture_slices, site=picture_site, token_file=tmp_path / "token")
    page = browser.page(f"{server.url}/")
    page.until("!document.getElementById('token-row').hidden")
    assert "token" in text_of(page, "server")
    page.evaluate(
        f"const token = document.getElementById('token'); token.value = {'t' * 16!r}; token.onchange()"
    )
    page.until("document.getElementById('server').innerText.includes('ready')")
    run(page)
    assert "cloud: computing" in text_of(page, "times")


def test_a_server_that_is_not_there_is_named_and_all_runs_in_the_page(
    browser: Browser,
    picture_slices: Path,
    runtime: Path,
    tmp_path: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    gone = serve(picture_slices)
    url = gone.url
    gone.close()
    export_web(picture_slices, tmp_path / "site", ort_web=runtime, webgpu=False, urls=[url])
    page = browser.page(f"{serve(picture_slices, site=tmp_path / 'site').url}/")
    page.until("document.getElementById('server').innerText.includes('down: ')")
    assert f"cannot reach `{url}`" in text_of(page, "server")
    assert "scores: float [1, 3]" in run(page)
    page.evaluate("document.getElementById('fixed').checked = true")
    assert "cannot reach" in run(page)


def test_a_slice_that_was_changed_on_the_host_is_not_opened(
    browser: Browser,
    picture_site: Path,
    picture_slices: Path,
    tmp_path: Path,
    serve: Callable[..., Server[Service]],
) -> None:
    site = tmp_path / "site"
    shutil.copytree(picture_site, site)
    for path in site.glob("page/*.onnx"):
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    page = browser.page(f"{serve(picture_slices, site=site).url}/")
    assert re.search(r"`page/\S+.onnx` is not the file that was exported: its checksum differs", run(page))


def test_a_tab_that_is_frozen_under_a_request_gets_one_answer(
    browser: Browser, picture_site: Path, picture_slices: Path, serve: Callable[..., Server[Service]]
) -> None:
    server = serve(picture_slices, site=picture_site)
    page = browser.page(f"{server.url}/")
    run(page)
    page.evaluate(
        """globalThis.answers = 0;
        const count = new MutationObserver(() => { answers += 1; });
        count.observe(document.getElementById("answer"), { childList: true });
        document.getElementById("run").click();"""
    )
    page.send("Page.setWebLifecycleState", state="frozen")
    page.send("Page.setWebLifecycleState", state="active")
    page.until("!document.getElementById('run').disabled")
    assert page.evaluate("answers") == 1
    assert "scores" in text_of(page, "answer")
