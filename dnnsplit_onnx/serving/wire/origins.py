"""Which pages of browsers may use a server.

A browser sends the `Origin` of the page that asks; no other client has one. Without leave, a
page of any site that a person happens to visit could send requests to a server on that
person's own machine, so every origin is refused that was not named.

Once there are pages, and on loopback always, the `Host` is looked at too: a name that leads
here from elsewhere (DNS rebinding) would make someone else's page one of this server's own.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.exchange import Response
from dnnsplit_onnx.serving.wire.http import JSON_LENGTH

ANY = "*"
# Clients call a server by few names.
_REMEMBERED = 64
_FORMS = frozenset({"text/plain", "multipart/form-data", "application/x-www-form-urlencoded"})
_PORTS = {"http": 80, "https": 443}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": f"authorization, content-type, {JSON_LENGTH}",
    # Chromium remembers it for two hours at most.
    "Access-Control-Max-Age": "7200",
}


@dataclass(frozen=True, slots=True)
class Origins:
    """Decides about the pages that ask.

    Attributes:
        allowed: Origins that may use the server, `https://example.org`; `*` is any.
        names: What the server may be called, besides addresses and `localhost`.
        own: The scheme of pages that the server itself hands out; None if it has none.
        is_local: Whether the server listens on loopback alone, where every page of this
            machine's browsers could reach it.
    """

    allowed: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    own: str | None = None
    is_local: bool = False

    def admit(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Lets a request in.

        Args:
            fields: Its header fields, names in lower case.

        Returns:
            Header fields for the answer, without which a browser keeps it from the page.

        Raises:
            ProtocolError: The page may not ask (403), or calls this server by another's name (421).
        """
        host = fields.get("host", "").lower()
        kind = fields.get("content-type", "").partition(";")[0].strip().lower()
        if self.is_local and kind in _FORMS:  # what a page may send anywhere, without leave
            raise ProtocolError(f"`{kind}` is what forms send: send application/json", status=415)
        looks = bool(self.allowed or self.own or self.is_local)
        if looks and ANY not in self.allowed and not self._is_mine(host):
            raise ProtocolError(
                f"no page here is served as `{host}`: serve --allow-origin with that name", status=421
            )
        origin = fields.get("origin")
        if origin is None or (self.own is not None and origin == f"{self.own}://{host}"):
            return {}
        if ANY not in self.allowed and origin not in self.allowed:
            raise ProtocolError(f"pages of `{origin[:255]}` may not ask: serve --allow-origin", status=403)
        return {
            "Access-Control-Allow-Origin": ANY if ANY in self.allowed else origin,
            "Access-Control-Expose-Headers": f"{JSON_LENGTH}, retry-after",
            "Vary": "Origin",
        }

    def preflight(self, fields: Mapping[str, str]) -> Response:
        """The answer to a browser that asks whether a page may ask.

        Args:
            fields: Header fields of the question, from an origin that was admitted.

        Raises:
            ProtocolError: No page asks (405).
        """
        if "origin" not in fields or "access-control-request-method" not in fields:
            raise ProtocolError("method OPTIONS is for pages alone", status=405)
        private = fields.get("access-control-request-private-network") == "true"
        more = {"Access-Control-Allow-Private-Network": "true"} if private else {}
        return Response(200, {**_PREFLIGHT, **more})

    def _is_mine(self, authority: str) -> bool:
        """Whether nobody can have sent a browser here by a name of theirs."""
        name, _, port = authority.rpartition(":")
        host = (name if name and port.isdigit() else authority).strip("[]")
        if host == "localhost" or host.endswith(".localhost") or host in self.names:
            return True
        return _is_address(host)


@lru_cache(_REMEMBERED)
def _is_address(host: str) -> bool:
    """Whether this is an address, and no name that anyone could have point anywhere."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def origins_of(
    allowed: Iterable[str],
    *,
    host: str,
    has_pages: bool,
    has_tls: bool,
    has_token: bool,
    is_local: bool = False,
) -> Origins:
    """What is decided about pages on a server.

    Args:
        allowed: The origins that a person has named.
        host: The address or name that is listened on.
        has_pages: Whether the server hands out pages of its own.
        has_tls: Whether it speaks TLS.
        has_token: Whether clients must show a token.
        is_local: Whether it listens on loopback alone.

    Raises:
        InputError: One is no origin, or all are let in and a token is asked for.
    """
    origins = frozenset(origin if origin == ANY else read_origin(origin) for origin in allowed)
    if ANY in origins and has_token:
        raise InputError(
            "`--allow-origin *` would let every page try tokens",
            hint="name the pages that may ask: --allow-origin https://example.org",
        )
    machine = {socket.gethostname().lower(), socket.getfqdn().lower()} if origins or has_pages else set()
    names = {host.lower(), *machine, *(urlsplit(origin).hostname or "" for origin in origins)}
    own = ("https" if has_tls else "http") if has_pages else None
    return Origins(origins, frozenset(names - {""}), own, is_local)


def read_origin(text: str) -> str:
    """An origin as browsers write it: lower case, without the port that its scheme has anyway.

    Raises:
        InputError: It is none.
    """
    try:
        parts = urlsplit(text.lower().rstrip("/"))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    extra = parts.path or parts.query or parts.fragment or parts.username
    if parts.scheme not in _PORTS or not host or not host.isascii() or extra:
        raise InputError(
            f"`{text}` is no origin of a page", hint="write it as the browser does: https://example.org:8443"
        )
    shown = f"[{host}]" if ":" in host else host
    is_default = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}" + ("" if is_default else f":{port}")
