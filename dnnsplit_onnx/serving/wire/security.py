"""TLS contexts and bearer tokens, and where they may be left out.

On loopback nothing is asked for. On any other address a server wants both: encryption, and
a way to tell who its clients are (a token, or their certificates).
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from dnnsplit_onnx.errors import InputError

_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM form.

    Attributes:
        cert, key: What this side shows.
        ca: Who may sign what the other side shows. A server that has it asks every client
            for a certificate (mutual TLS); a client without it trusts the system's.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def __bool__(self) -> bool:
        return any((self.cert, self.key, self.ca))


def server_context(files: TlsFiles) -> ssl.SSLContext | None:
    """The TLS context of a server; None if no files are given.

    Raises:
        InputError: A file is missing or unreadable.
    """
    if not files:
        return None
    if files.cert is None or files.key is None:
        raise InputError("a server needs a certificate and its key", hint="pass --tls-cert and --tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The TLS context of a client; the server's name is always checked.

    Raises:
        InputError: A file is missing or unreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca is None:
        context.load_default_certs()
    _load(context, files)
    return context


def read_token(path: Path | None) -> str | None:
    """The token in a file.

    Raises:
        InputError: The file cannot be read, or the token is short or has odd characters.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the token file `{path}`: {error}") from None
    if len(token) < _SHORTEST_TOKEN or not all(33 <= ord(letter) <= 126 for letter in token):
        raise InputError(
            f"the token in `{path}` is not {_SHORTEST_TOKEN} or more visible characters",
            hint="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token


def check_exposure(host: str, context: ssl.SSLContext | None, token: str | None, *, insecure: bool) -> None:
    """Refuses to serve beyond loopback without encryption and authentication.

    Raises:
        InputError: One is missing, and `insecure` does not say that this is meant.
    """
    if insecure or is_loopback(host):
        return
    if context is None:
        missing = "TLS"
    elif token is None and context.verify_mode != ssl.CERT_REQUIRED:
        missing = "a token or client certificates"
    else:
        return
    raise InputError(
        f"serving on `{host}` without {missing}: anyone who can reach it could use it",
        hint="pass --tls-cert, --tls-key and --token-file (or --tls-ca); on a network you trust, --insecure",
    )


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are of this machine alone."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host or "0.0.0.0", None)}
    except OSError:
        return False
    return bool(found) and all(
        ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found
    )


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if files.cert is not None:
            context.load_cert_chain(files.cert, files.key)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        given = ", ".join(f"`{path}`" for path in (files.cert, files.key, files.ca) if path)
        raise InputError(f"cannot load the TLS files {given}: {error}") from None
