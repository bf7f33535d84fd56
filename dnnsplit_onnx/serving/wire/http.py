"""Heads of HTTP/1.1 messages, parsed strictly.

Only what the protocol needs is understood. Whatever two programs might read differently,
such as repeated lengths, transfer encodings or folded lines, is refused, so that no request
can hide within another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import TypeVar

from dnnsplit_onnx.serving.wire.errors import ProtocolError

#: The header that says how much of a body is its JSON part.
JSON_LENGTH = "inference-header-content-length"

_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_DIGITS = re.compile(r"[0-9]{1,18}")
# As they are written here; the last two are what one request's head has that the next one's has not.
_LENGTH = "content-length"
_LENGTHS = re.compile(rb"(?<=\r\n)(Content-Length|Inference-Header-Content-Length): ([0-9]{1,18})(?=\r\n)")
_MOST_LENGTHS = 2
_MOST_FIELDS = 100
# Heads of one client are much alike, and few are long: so many are remembered.
_REMEMBERED = 256
# Two of these would be two readings of one message.
_ONCE = frozenset({_LENGTH, "host", "transfer-encoding", "content-encoding", "authorization", JSON_LENGTH})


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a message.

    Attributes:
        fields: Header fields, names in lower case.
        length: Bytes of the body; None if the head does not say.
        json_length: Bytes of the JSON part; None if all of the body is.
        keep_alive: Whether the connection stays open.
    """

    fields: Mapping[str, str]
    length: int | None
    json_length: int | None
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class RequestHead(Head):
    """The head of a request; `path` is without its query."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class ResponseHead(Head):
    """The head of a response."""

    status: int


H = TypeVar("H", RequestHead, ResponseHead)


@lru_cache(_REMEMBERED)
def parse_request(raw: bytes) -> RequestHead:
    """Reads the head of a request.

    Raises:
        ProtocolError: It is malformed, or asks for what this server does not do.
    """
    return _parse(raw, _parse_request)


@lru_cache(_REMEMBERED)
def parse_response(raw: bytes) -> ResponseHead:
    """Reads the head of a response.

    Raises:
        ProtocolError: It is malformed.
    """
    return _parse(raw, _parse_response)


def _parse(raw: bytes, read: Callable[[bytes], H]) -> H:
    """Reads a head; of one that was read before but for its lengths, only these."""
    found = _LENGTHS.findall(raw)
    if len(found) != _MOST_LENGTHS:
        return read(raw)
    head = read(_LENGTHS.sub(rb"\1: 0", raw))
    texts = {name.decode().lower(): digits.decode() for name, digits in found}
    length, json_length = int(texts[_LENGTH]), int(texts[JSON_LENGTH])
    _check_part(length, json_length)
    return replace(head, fields={**head.fields, **texts}, length=length, json_length=json_length)


@lru_cache(_REMEMBERED)
def _parse_request(raw: bytes) -> RequestHead:
    line, *rest = raw[:-4].split(b"\r\n")
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise ProtocolError("malformed request line")
    minor = match[3]
    fields, length, json_length = _fields(rest)
    if minor == b"1" and "host" not in fields:
        raise ProtocolError("the request has no `Host`")
    path = match[2].decode().partition("?")[0]
    return RequestHead(
        fields, length, json_length, _keep_alive(fields, minor), method=match[1].decode(), path=path
    )


@lru_cache(_REMEMBERED)
def _parse_response(raw: bytes) -> ResponseHead:
    line, *rest = raw[:-4].split(b"\r\n")
    match = _STATUS.fullmatch(line)
    if match is None:
        raise ProtocolError("the answer is not HTTP", status=502)
    fields, length, json_length = _fields(rest)
    return ResponseHead(fields, length, json_length, _keep_alive(fields, match[1]), status=int(match[2]))


def format_request(method: str, path: str, fields: Mapping[str, str | int]) -> bytes:
    """The head of a request."""
    return _format(f"{method} {path} HTTP/1.1", tuple(fields.items()))


def format_response(status: int, fields: Mapping[str, str | int]) -> bytes:
    """The head of a response."""
    return _format(f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", tuple(fields.items()))


@lru_cache(_REMEMBERED)
def _format(line: str, fields: tuple[tuple[str, str | int], ...]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _fields(lines: list[bytes]) -> tuple[dict[str, str], int | None, int | None]:
    if len(lines) > _MOST_FIELDS:
        raise ProtocolError("too many header fields", status=431)
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise ProtocolError("malformed header field")
        name, value = match[1].decode().lower(), match[2].decode("latin-1").strip(" \t")
        if name in fields:
            if name in _ONCE:
                raise ProtocolError(f"`{name}` is given twice")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    if "transfer-encoding" in fields:
        raise ProtocolError("transfer encodings are not supported: send `Content-Length`", status=501)
    if fields.get("content-encoding", "identity").lower() not in ("", "identity"):
        # A body that grows when it is unpacked has no bound that its length tells.
        raise ProtocolError("content encodings are not supported: send the body as it is", status=415)
    length, json_length = _number(fields, _LENGTH), _number(fields, JSON_LENGTH)
    if json_length is not None:
        _check_part(length or 0, json_length)
    return fields, length, json_length


def _check_part(length: int, json_length: int) -> None:
    if json_length > length:
        raise ProtocolError(f"`{JSON_LENGTH}` is more than the body has")


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if _DIGITS.fullmatch(text) is None:
        raise ProtocolError(f"`{name}` is not a number of bytes")
    return int(text)


def _keep_alive(fields: Mapping[str, str], minor: bytes) -> bool:
    options = {option.strip().lower() for option in fields.get("connection", "").split(",")}
    return "close" not in options and (minor == b"1" or "keep-alive" in options)
