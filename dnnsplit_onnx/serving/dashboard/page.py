"""Serves the page of a client, its state, and its metrics, on loopback alone.

    GET /              the page; its files beside it
    GET /state.json    what `state_of` gives
    GET /metrics       for Prometheus

It reads and changes nothing. It is bound to loopback because nobody is asked who they are;
from another machine it is reached through a tunnel (`ssh -L`). A name that leads to loopback
from elsewhere (DNS rebinding) is refused by the `Host` that comes with it.
"""

from __future__ import annotations

import ipaddress
from importlib.resources import files

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.dashboard.state import state_of
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.exchange import Body, Response, json_response
from dnnsplit_onnx.serving.wire.handler import Send
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import CONTENT_TYPE, Metrics, process_metrics
from dnnsplit_onnx.serving.wire.security import is_loopback
from dnnsplit_onnx.serving.wire.server import Server

#: The page's files, by path.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_LIMITS = ServerLimits(connections=16, requests=16, idle_s=30.0, drain_s=1.0)
_GUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def open_dashboard(edge: Edge, address: str) -> Server[Page]:
    """A server of a client's page that listens, and has not begun to accept.

    Args:
        edge: The client.
        address: `PORT` or `HOST:PORT`; port 0 is any free one.

    Raises:
        InputError: The address is none, cannot be listened on, or is not of this machine.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(f"`{address}` is no address of a page", hint="write PORT or HOST:PORT")
    if not is_loopback(host):
        raise InputError(
            f"the page asks nobody for a token, so it is not served on `{host}`",
            hint=f"serve it on loopback, and reach it by `ssh -L {port}:127.0.0.1:{port} HOST`",
        )
    return Server(Page(edge), host, int(port))


class Page:
    """Answers the requests of browsers; a `Handler`.

    Args:
        edge: The client whose state is shown.

    Attributes:
        limits: What is too much.
        metrics: Of the page's own server.
    """

    methods = "GET, HEAD"

    def __init__(self, edge: Edge) -> None:
        self.limits = _LIMITS
        self.metrics = Metrics("dnnsplit_dashboard_")
        self.metrics.counter("responses_total", "Answers, by HTTP status.")
        self._edge = edge
        folder = files("dnnsplit_onnx.serving.dashboard") / "static"
        self._files = {
            path: Response(200, {"Content-Type": kind, **_GUARDS}, [(folder / name).read_bytes()])
            for path, (name, kind) in FILES.items()
        }

    def admit(self, head: RequestHead) -> dict[str, str]:
        """Refuses a browser that was sent here by another's name for this machine."""
        if not _is_local(head.fields.get("host", "")):
            raise ProtocolError("the page is served to this machine alone", status=421)
        return {}

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:  # noqa: ARG002
        """Answers one request."""
        send(self._get(head))

    def drain(self) -> None:
        """Waits for nothing: a page that is not answered loses nothing."""

    def close(self) -> None:
        """Leaves the client as it is."""

    def _get(self, head: RequestHead) -> Response:
        if head.method not in ("GET", "HEAD"):
            raise ProtocolError(f"method {head.method} is not supported", status=405)
        if head.path in self._files:
            return self._files[head.path]
        if head.path == "/state.json":
            return json_response(state_of(self._edge), 200, **_GUARDS)
        if head.path == "/metrics":
            text = self._edge.metrics.render() + self.metrics.render() + process_metrics()
            return Response(200, {"Content-Type": CONTENT_TYPE}, [text.encode()])
        raise ProtocolError("there is nothing at this path", status=404)


def _is_local(authority: str) -> bool:
    """Whether a browser that names this host cannot have been sent here by another's name."""
    name, _, port = authority.rpartition(":")
    host = (name if name and port.isdigit() else authority).strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
