"""A conversion in a process of its own.

Keras fixes its backend when it is first imported, frameworks write to the terminal as they
like, and memory is best measured where nothing else runs. So the converting process is a
fresh Python that gets a JSON request and writes a JSON answer; what frameworks print goes
to a log, of which a crash shows the end.

    python -m dnnsplit_onnx.converters.child REQUEST ANSWER
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from dnnsplit_onnx import errors
from dnnsplit_onnx.converters.conversion import Conversion, Options
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import Source
from dnnsplit_onnx.errors import DnnsplitError, InputError

_BACKEND = {"keras-tf": "tensorflow", "keras-torch": "torch", "pytorch": "torch"}
_LOG_TAIL = 4000


def convert_in_child(
    source: Source, output: Path, route: Route, options: Options, path: Sequence[str]
) -> Conversion:
    """Runs the conversion in a fresh process. See `dispatch.convert`.

    Args:
        source: What to convert; not a live model.
        output: Where to write.
        route: The route.
        options: How.
        path: Where modules are looked for, as in this process.
    """
    with tempfile.TemporaryDirectory(prefix="dnnsplit-convert-") as folder:
        request, answer, log = (Path(folder) / name for name in ("request.json", "answer.json", "log"))
        request.write_text(
            json.dumps(
                {
                    "source": {"text": source.text, "kind": source.kind},
                    "output": str(output),
                    "route": asdict(route),
                    "options": {**asdict(options), "sizes": dict(options.sizes)},
                    "path": _search_path(source, path),
                }
            )
        )
        command = [sys.executable, "-P", "-m", __name__, str(request), str(answer)]
        # -P: nothing in the current folder stands in for a module of this package.
        with log.open("wb") as out:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(route),
                check=False,
            )
        if not answer.exists():
            raise _crash(source, done.returncode, log.read_text(errors="replace"))
        result = json.loads(answer.read_text())
    if "error" in result:
        raise _rebuilt(result["error"])
    return Conversion.from_dict(result)


def _search_path(source: Source, path: Sequence[str]) -> list[str]:
    """Where the child looks for modules; a user's own first in the folder they are in."""
    here = str(Path.cwd())
    entries = [entry or here for entry in path]
    return [here, *entries] if source.kind == "callable" and here not in entries else entries


def _environment(route: Route) -> dict[str, str]:
    """The child's environment: its Keras backend, and no network for hub libraries."""
    return {
        **os.environ,
        "KERAS_BACKEND": _BACKEND[route.name],
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        # Nothing is downloaded, ever: libraries that know a hub are told to stay off it.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def _crash(source: Source, code: int, log: str) -> DnnsplitError:
    killed = code == -signal.SIGKILL
    reason = "was killed, most likely for lack of memory" if killed else f"ended with exit code {code}"
    error = InputError(
        f"the process that converts `{source.text}` {reason}",
        hint="try another --route, or a machine with more memory"
        if killed
        else "--debug shows its last words",
    )
    error.add_note(log[-_LOG_TAIL:])
    return error


def _rebuilt(data: dict[str, Any]) -> DnnsplitError:
    """The error that the child met, as the class it had there."""
    kind = getattr(errors, data["type"], InputError)
    error: DnnsplitError = kind(data["message"], hint=data["hint"], context=data["context"])
    error.add_note(data["traceback"])
    return error


def main(request: str, answer: str) -> int:
    """The child's side: one request, one answer."""
    from dnnsplit_onnx.converters.loading import convert_here

    job = json.loads(Path(request).read_text())
    sys.path[:] = job["path"]
    if job["route"]["name"] != "keras-tf":
        sys.meta_path[:] = [_WithoutTensorFlow if f is PathFinder else f for f in sys.meta_path]
    source = Source(**job["source"])
    result: dict[str, Any]
    try:
        options = Options(**job["options"])
        result = convert_here(source, Path(job["output"]), Route(**job["route"]), options).to_dict()
    except DnnsplitError as error:
        result = {"error": _described(error, error.message, error.hint, error.context)}
    except Exception as error:  # a framework's own; the parent shows it as one line
        message = f"converting `{source.text}` failed: {type(error).__name__}: {error}"
        hint = "try another --route; --debug shows where it failed"
        result = {"error": _described(error, message.splitlines()[0], hint, None)}
    Path(answer).write_text(json.dumps(result))
    return 0


class _WithoutTensorFlow(PathFinder):
    """Finds modules as ever, and no TensorFlow.

    Keras looks for it on every backend and would load all of it, only to see whether a
    tensor is one of its own.
    """

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, None if it is not there."""
        return None if fullname == "tensorflow" else PathFinder.find_spec(fullname, path, target)


def _described(error: Exception, message: str, hint: str | None, context: str | None) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": message,
        "hint": hint,
        "context": context,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
