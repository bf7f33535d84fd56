"""Heads of HTTP messages: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.http import format_request, format_response, parse_request, parse_response


def head(*lines: str, start: str = "POST /v2/models/m/infer HTTP/1.1") -> bytes:
    return "\r\n".join([start, "Host: h", *lines, "", ""]).encode("latin-1")


def test_a_request_is_read():
    found = parse_request(head("Content-Length: 12", "Inference-Header-Content-Length:  8 ", "X: a", "x: b"))
    assert (found.method, found.path, found.length, found.json_length) == (
        "POST",
        "/v2/models/m/infer",
        12,
        8,
    )
    assert found.fields["x"] == "a, b"
    assert found.keep_alive


@pytest.mark.parametrize(
    ("lines", "start", "keep"),
    [
        ((), "GET / HTTP/1.1", True),
        (("Connection: close",), "GET / HTTP/1.1", False),
        (("Connection: Foo, CLOSE",), "GET / HTTP/1.1", False),
        ((), "GET / HTTP/1.0", False),
        (("Connection: keep-alive",), "GET / HTTP/1.0", True),
    ],
)
def test_connections_stay_open_as_the_head_says(lines, start, keep):
    assert parse_request(head(*lines, start=start)).keep_alive is keep


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (head("Content-Length: 5", "Content-Length: 5"), 400),
        (head("Content-Length: 5", "content-length: 6"), 400),
        (head("Content-Length: -5"), 400),
        (head("Content-Length: +5"), 400),
        (head("Content-Length: 5, 5"), 400),
        (head("Content-Length: 0x5"), 400),
        (head("Content-Length: \xb2"), 400),
        (head("Content-Length: " + "9" * 30), 400),
        (head("Content-Length:"), 400),
        (head("Transfer-Encoding: chunked"), 501),
        (head("Content-Length: 5", "Transfer-Encoding: chunked"), 501),
        (head("Host: other"), 400),
        (head("A: b", " folded"), 400),
        (head("A : b"), 400),
        (head("A"), 400),
        (head("A: b\0c"), 400),
        (head("A: b\nX: y"), 400),
        (head("Content-Length: 5", "Inference-Header-Content-Length: 6"), 400),
        (head("Inference-Header-Content-Length: 6"), 400),
        (head(*["A: b"] * 200), 431),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw, status):
    with pytest.raises(ProtocolError) as caught:
        parse_request(raw)
    assert caught.value.status == status


def test_what_is_formatted_is_read():
    request = parse_request(format_request("POST", "/v2", {"Host": "h", "Content-Length": 3}))
    assert (request.method, request.path, request.length) == ("POST", "/v2", 3)
    response = parse_response(format_response(503, {"Content-Length": 3, "Connection": "close"}))
    assert (response.status, response.length, response.keep_alive) == (503, 3, False)


@pytest.mark.parametrize(
    "raw", [b"\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n", b"HTTP/1.1 999 x\r\n\r\n", b"SSH-2.0\r\n\r\n"]
)
def test_an_answer_that_is_not_http_is_refused(raw):
    with pytest.raises(ProtocolError):
        parse_response(raw)


@given(st.binary(max_size=200))
def test_any_head_is_read_or_refused(raw):
    for parse in (parse_request, parse_response):
        try:
            parse(raw + b"\r\n\r\n")
        except ProtocolError:
            continue


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.booleans())
def test_a_head_that_was_read_before_but_for_its_lengths_is_read_the_same(length, json_length, first):
    fields = [f"Content-Length: {length}", f"Inference-Header-Content-Length: {json_length}"]
    lines = ["Host: here", *(fields if first else reversed(fields)), "X-Length: 7"]
    raw = "\r\n".join(["POST /v2 HTTP/1.1", *lines, "", ""]).encode()
    # In lower case no head is taken for one that was read before.
    other = raw.replace(b"Content-Length", b"content-length").replace(b"Inference-H", b"inference-H")
    if json_length > length:
        for head in (raw, other):
            with pytest.raises(ProtocolError, match="is more than the body has"):
                parse_request(head)
        return
    assert parse_request(raw) == parse_request(other)
    assert (parse_request(raw).length, parse_request(raw).json_length) == (length, json_length)
    assert parse_request(raw).fields["content-length"] == str(length)
    twice = raw.replace(b"Inference-Header-Content-Length", b"Content-Length")
    with pytest.raises(ProtocolError, match="given twice"):
        parse_request(twice)
