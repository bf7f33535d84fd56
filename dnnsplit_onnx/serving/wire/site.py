"""A folder of files that a server hands to browsers, as `export web` writes it.

Pages that are handed out here are isolated from all others (`Cross-Origin-Opener-Policy` and
`-Embedder-Policy`): that is what a browser asks for before it gives a page threads that share
memory. The page's own content security policy holds for its workers too.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path
from urllib.parse import unquote

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.files import open_regular, read_bounded
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.exchange import Response

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_ANYTHING = "application/octet-stream"
_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
_GUARDS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site:
    """The files of a folder.

    Args:
        folder: The folder; it holds `index.html` and `manifest.json`.

    Attributes:
        identity: Of the slices that the site was exported from.

    Raises:
        InputError: It is no folder that `export web` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))
        try:
            policy = _POLICY.search(read_bounded(folder / "index.html").decode())
            self.identity = str(json.loads(read_bounded(folder / "manifest.json"))["identity"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            policy = None
        if policy is None:
            raise InputError(
                f"`{folder}` is no site: it lacks a page or a manifest",
                hint="make one: dnnsplit-onnx export web DIR -o SITE",
            )
        self._guards = {**_GUARDS, "Content-Security-Policy": f"{policy[1]}; frame-ancestors 'none'"}

    def get(self, path: str) -> Response:
        """The file at a path.

        Raises:
            ProtocolError: There is none (404).
        """
        name = unquote(path.lstrip("/")) or "index.html"
        target = Path(os.path.realpath(self._folder / name)) if "\0" not in name else self._folder
        # No link and no `..` leads out of the folder.
        if not target.is_relative_to(self._folder):
            raise ProtocolError("there is nothing at this path", status=404)
        try:
            content = _content(target)
        except (OSError, ValueError):
            raise ProtocolError("there is nothing at this path", status=404) from None
        kind = _KINDS.get(target.suffix, _ANYTHING)
        return Response(200, {"Content-Type": kind, **self._guards}, [content])


def _content(path: Path) -> memoryview:
    """A file's bytes; they are not read before they are sent.

    An exported folder is replaced as a whole, never written to, so that they stay as they are.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
