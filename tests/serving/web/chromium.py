"""A headless Chromium, driven over the DevTools protocol through a pipe."""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tests.serving.web.node import NodeError, from_json, to_json

_ANSWER_S = 120.0


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self.target = browser, session, target
        self._events_before = len(browser.events)
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """A command and its result."""
        return self._browser.send(method, self._session, **params)

    def go(self, url: str) -> None:
        """Opens a page, and waits until it is loaded."""
        self._events_before = len(self._browser.events)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> Any:
        """Waits in the page until an expression is true; its value."""
        said = json.dumps(f"{condition} stays false: ")
        return self.evaluate(
            f"""new Promise((resolve, reject) => {{
              const end = Date.now() + {seconds * 1e3};
              const look = () => {{
                const value = (() => {{ try {{ return {condition}; }} catch {{ return null; }} }})();
                if (value) resolve(value);
                else if (Date.now() < end) setTimeout(look, 20);
                else reject(new Error({said} + document.body.innerText.slice(0, 800)));
              }};
              look();
            }})"""
        )

    def screenshot(self, path: Path, width: int, *, dark: bool = False) -> None:
        """A picture of the whole page."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False
        )
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def complaints(self) -> list[str]:
        """What this tab has logged as errors since its page was opened, policies broken among it."""
        found = []
        for event in self._browser.events[self._events_before :]:
            params = event["params"]
            # Tabs of earlier tests look for servers that are gone.
            if event.get("sessionId") != self._session:
                continue
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["text"])
        return found


class Browser:
    """The program."""

    def __init__(self, program: str, profile: Path, *more: str) -> None:
        read_theirs, write_ours = os.pipe()
        read_ours, write_theirs = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            *more,
        ]
        # Chromium reads descriptor 3 and writes to 4.
        shell = f'exec "$@" 3<&{read_theirs} 4>&{write_theirs}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", program, *flags, "about:blank"],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self._out = os.fdopen(write_ours, "wb", buffering=0)
        self._in = os.fdopen(read_ours, "rb")
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        """A command and its result."""
        number = next(self._ids)
        answer = self._waiting[number] = queue.Queue()
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        said = answer.get(timeout=_ANSWER_S)
        del self._waiting[number]
        if "error" in said:
            raise AssertionError(f"{method}: {said['error']['message']}")
        return said["result"]

    def page(self, url: str = "about:blank") -> Page:
        """A new tab."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        if url != "about:blank":
            page.go(url)
        return page

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._reader.join(20)
        self._out.close()
        self._in.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        left = b""
        while data := self._in.read1(1 << 16):  # type: ignore[attr-defined]
            *whole, left = (left + data).split(b"\0")
            for text in whole:
                message = json.loads(text)
                if message.get("id") in self._waiting:
                    self._waiting[message["id"]].put(message)
                elif "method" in message:
                    self.events.append(message)


_OPEN = """(async (options) => {
  const { TYPES, open } = await import("./dnnsplit.js");
  const { Conversation } = await import("./states.js");
  const { choices, profile } = await import("./measure.js");
  const ort = await import(options.webgpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = options.threads ?? 1;
  const client = await open("manifest.json", { ...options, ort });
  const read = ({ dtype, shape, data }) => {
    if (dtype === "string") return { dtype, shape, data };
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    return { dtype, shape, data: new TYPES[dtype][2](bytes.buffer) };
  };
  const write = ({ dtype, shape, data }) => {
    if (dtype === "string") return { dtype, shape, data };
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    let text = "";
    const step = 8192;
    for (let at = 0; at < bytes.length; at += step) {
      text += String.fromCharCode(...bytes.subarray(at, at + step));
    }
    return { dtype, shape, data: btoa(text) };
  };
  const each = (all, how) => Object.fromEntries(
    Object.entries(all).filter(([, one]) => one).map(([name, one]) => [name, how(one)]));
  const talks = new Map();
  globalThis.tab = {
    client,
    read: (inputs) => each(inputs, read),
    infer: async ({ inputs, how }) => {
      const answer = await client.infer(each(inputs, read), how);
      return { ...answer, outputs: each(answer.outputs, write) };
    },
    talk: async ({ inputs, who = "", cuts, how }) => {
      if (!talks.has(who)) talks.set(who, new Conversation(client, cuts));
      const answer = await talks.get(who).infer(each(inputs, read), how);
      return { ...answer, outputs: each(answer.outputs, write) };
    },
    profile: ({ budget_s }) => profile(client, { budget_s }),
    choices: () => choices(client.routes),
  };
})"""


class TabClient:
    """The client library in a tab that has a site open; as `NodeClient`."""

    def __init__(self, page: Page, **options: Any) -> None:
        self._page = page
        page.evaluate(f"{_OPEN}({json.dumps(options)})")

    def call(self, call: str, **given: Any) -> Any:
        """One call and its answer; an error of the library is a `NodeError`."""
        caught = "({ name, message, status, link }) => ({ error: { name, message, status, link } })"
        said = self._page.evaluate(
            f"(async () => ({{ ok: await tab[{json.dumps(call)}]({json.dumps(given)}) }}))().catch({caught})"
        )
        if "error" in said:
            raise NodeError(said["error"])
        return said["ok"]

    def infer(
        self, inputs: dict[str, np.ndarray], **how: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Outputs, and what else the answer says."""
        answer = self.call("infer", inputs=to_json(inputs), how=how)
        return from_json(answer.pop("outputs")), answer

    def talk(
        self, inputs: dict[str, np.ndarray], cuts: list[int] | None = None, who: str = "", **how: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The same for the next request of a conversation, of which there may be several."""
        answer = self.call("talk", inputs=to_json(inputs), cuts=cuts, who=who, how=how)
        return from_json(answer.pop("outputs")), answer


def text_of(page: Page, name: str) -> str:
    text: str = page.evaluate(f"document.getElementById('{name}').innerText")
    return text


def run(page: Page) -> str:
    """Presses the button, and waits for the answer."""
    page.until("!document.getElementById('run').disabled")
    page.evaluate("document.getElementById('run').click()")
    page.until("!document.getElementById('run').disabled")
    return text_of(page, "answer")
