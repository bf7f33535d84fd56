"""The client library under Node, as an object; and where Node, Chromium and what npm brings are."""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX, datatype_of

ROOT = Path(__file__).parents[3]
LIBRARY = Path(str(files("dnnsplit_onnx.serving.web") / "static"))
SCRIPT = Path(__file__).with_name("client.mjs")
#: Where `scripts/test` lets npm put its packages.
MODULES = ROOT / ".venv/web/node_modules"
_ANSWER_S = 120.0
#: How far the values of WASM's kernels may be from those of the CPU's, over the largest.
BOUND = 1e-5


def node_program() -> str | None:
    """Node of at least release 18, the first with `fetch`; None if there is none."""
    found = shutil.which("node")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().lstrip("v").partition(".")[0]
    return found if major.isdigit() and int(major) >= 18 else None


def ort_web() -> Path | None:
    """The files of onnxruntime-web, where `scripts/test` puts them or a person says they are."""
    named = os.environ.get("DNNSPLIT_ORT_WEB")
    folder = Path(named) if named else MODULES / "onnxruntime-web/dist"
    return folder if (folder / "ort.node.min.mjs").is_file() else None


def axe_core() -> Path | None:
    """The script of axe-core, where `scripts/test` puts it or a person says it is."""
    named = os.environ.get("DNNSPLIT_AXE")
    script = Path(named) if named else MODULES / "axe-core/axe.min.js"
    return script if script.is_file() else None


def chromium_program() -> str | None:
    """A Chromium, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


def near(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    """Whether outputs are equal within the bound, and exactly where they are no reals."""
    return list(ours) == list(theirs) and all(
        np.array_equal(ours[name], value)
        if value.dtype.kind != "f"
        else np.allclose(ours[name], value, rtol=0, atol=BOUND * float(np.abs(value).max()))
        for name, value in theirs.items()
    )


class NodeError(Exception):
    """What the client library threw."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.name, self.status, self.link = error["name"], error.get("status"), error.get("link")


class NodeClient:
    """A client of a site, in a Node process."""

    def __init__(
        self,
        site: Path,
        url: str | None = None,
        *,
        ort: Path | None = None,
        library: Path = LIBRARY,
        **options: Any,
    ) -> None:
        program = node_program()
        assert program is not None
        config = {
            "library": str(library),
            "site": str(site),
            "url": url,
            "ort": None if ort is None else str(ort),
            "options": options,
        }
        self._process = subprocess.Popen(
            [program, str(SCRIPT), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._ids = itertools.count()
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        #: How many answers each call got, by its number.
        self.answers: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, call: str, **given: Any) -> Any:
        """One call and its answer."""
        return self.wait(self.begin(call, **given))

    def begin(self, call: str, **given: Any) -> int:
        """A call whose answer is waited for later."""
        number = next(self._ids)
        self._waiting[number] = queue.Queue()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "call": call, **given}) + "\n")
        self._process.stdin.flush()
        return number

    def wait(self, number: int, seconds: float = _ANSWER_S) -> Any:
        """The answer of a call."""
        said = self._waiting[number].get(timeout=seconds)
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

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        self._process.stdout.close()

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.answers[said["id"]] = self.answers.get(said["id"], 0) + 1
            self._waiting[said["id"]].put(said)
        gone = {"error": {"name": "Gone", "message": "the process of Node has ended"}}
        for waiting in list(self._waiting.values()):
            waiting.put(gone)


def to_json(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Tensors as lines of JSON carry them."""
    written = {}
    for name, array in arrays.items():
        datatype = datatype_of(array)
        assert datatype is not None
        if datatype.onnx == "string":
            data: Any = [str(element) for element in array.reshape(-1)]
        else:
            data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        written[name] = {"dtype": datatype.onnx, "shape": list(array.shape), "data": data}
    return written


def from_json(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """And back; strings as `bytes`, as everywhere here."""
    read = {}
    for name, tensor in tensors.items():
        if tensor["dtype"] == "string":
            flat = np.array([text.encode() for text in tensor["data"]], dtype=object)
        else:
            flat = np.frombuffer(base64.b64decode(tensor["data"]), BY_ONNX[tensor["dtype"]].numpy)
        read[name] = flat.reshape(tensor["shape"])
    return read
