"""Pages of browsers: who may ask, and the files of a site."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.wire.origins import origins_of, read_origin
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.site import Site
from tests.serving.conftest import inputs

PAGE = "https://page.example.org"
TOKEN = "t" * 16
Ask = Callable[..., tuple[int, Mapping[str, str], bytes]]


@pytest.fixture
def serve(slices: Path) -> Iterator[Callable[..., Server[Service]]]:
    with ExitStack() as stack:

        def start(**options: object) -> Server[Service]:
            given = {"port": 0, "session": SessionOptions(threads=1), **options}
            server = open_server(slices / "cloud", ServeOptions(**given))  # type: ignore[arg-type]
            return stack.enter_context(server)

        yield start


@pytest.fixture
def folder(slices: Path, tmp_path: Path) -> Path:
    """A site, made by hand."""
    from dnnsplit_onnx.serving.tier.routes import identity
    from dnnsplit_onnx.slicing.manifest import load_manifest

    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "index.html").write_text(
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    )
    (site / "manifest.json").write_text(json.dumps({"identity": identity(load_manifest(slices))}))
    (site / "deep" / "a b.wasm").write_bytes(b"\0asm")
    (site / "empty.js").write_bytes(b"")
    (tmp_path / "secret").write_text("secret")
    (site / "leak").symlink_to(tmp_path / "secret")
    return site


def ask(
    server: Server[Service], path: str = "/v2", method: str = "GET", **fields: str
) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        connection.putrequest(method, path, skip_host="host" in fields)
        for name, value in fields.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def preflight(server: Server[Service], origin: str, **fields: str) -> tuple[int, Mapping[str, str], bytes]:
    asked = {"origin": origin, "access_control_request_method": "POST", **fields}
    return ask(server, "/v2/models/cloud/infer", "OPTIONS", **asked)


def test_no_page_may_ask_by_default(serve: Callable[..., Server[Service]]) -> None:
    server = serve()
    assert ask(server)[0] == 200
    assert ask(server, origin=PAGE)[0] == 403
    # Not even what calls itself the server's own page: there is none.
    assert ask(server, origin=server.url)[0] == 403
    assert preflight(server, PAGE)[0] == 403


def test_a_page_that_is_named_may_ask(serve: Callable[..., Server[Service]]) -> None:
    server = serve(allow_origins=("https://page.example.org:443", "http://other:8000"))
    status, fields, _ = ask(server, origin=PAGE)
    assert status == 200
    assert fields["Access-Control-Allow-Origin"] == PAGE
    assert fields["Vary"] == "Origin"
    assert "inference-header-content-length" in fields["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in fields
    assert ask(server, origin="http://other:8000")[1]["Access-Control-Allow-Origin"] == "http://other:8000"
    for other in ("http://page.example.org", "https://page.example.org:8443", "null", "https://example.org"):
        assert ask(server, origin=other)[0] == 403, other


def test_errors_reach_the_page_too(serve: Callable[..., Server[Service]]) -> None:
    status, fields, body = ask(serve(allow_origins=(PAGE,)), "/v2/models/none", origin=PAGE)
    assert status == 404
    assert fields["Access-Control-Allow-Origin"] == PAGE
    assert "there is one model here" in json.loads(body)["error"]


def test_a_preflight_names_what_is_needed_and_asks_for_no_token(
    serve: Callable[..., Server[Service]], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    server = serve(allow_origins=(PAGE,), token_file=tmp_path / "token")
    status, fields, body = preflight(server, PAGE, access_control_request_private_network="true")
    assert (status, body) == (200, b"")
    assert fields["Access-Control-Allow-Methods"] == "GET, POST"
    headers = set(fields["Access-Control-Allow-Headers"].split(", "))
    assert headers == {"authorization", "content-type", "inference-header-content-length"}
    assert fields["Access-Control-Allow-Private-Network"] == "true"
    assert ask(server, origin=PAGE)[0] == 401
    assert ask(server, origin=PAGE, authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("missing", ["origin", "access-control-request-method"])
def test_options_are_for_pages_alone(serve: Callable[..., Server[Service]], missing: str) -> None:
    fields = {"origin": PAGE, "access-control-request-method": "GET"}
    del fields[missing]
    assert ask(serve(allow_origins=(PAGE,)), method="OPTIONS", **fields)[0] == 405


def test_any_page_may_ask_if_that_is_meant_and_there_is_no_token(
    serve: Callable[..., Server[Service]], tmp_path: Path
) -> None:
    assert ask(serve(allow_origins=("*",)), origin=PAGE)[1]["Access-Control-Allow-Origin"] == "*"
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(InputError, match="try tokens") as caught:
        serve(allow_origins=("*",), token_file=tmp_path / "token")
    assert "--allow-origin https://example.org" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.0.7", 200),
        ("localhost", 200),
        ("page.example.org", 200),
        ("evil.example.org:8000", 421),
        ("", 421),
    ],
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(
    serve: Callable[..., Server[Service]], host: str, status: int
) -> None:
    assert ask(serve(allow_origins=(PAGE,)), host=host)[0] == status


def test_on_loopback_no_other_name_will_do_without_pages_either(
    serve: Callable[..., Server[Service]],
) -> None:
    assert ask(serve(), host="evil.example.org")[0] == 421


def test_programs_are_asked_for_no_origin(serve: Callable[..., Server[Service]], slices: Path) -> None:
    server = serve(allow_origins=(PAGE,))
    with Edge(slices, server.url) as edge:
        assert edge.remote is not None
        assert [tier["ready"] for tier in edge.remote.probe()] == [False]  # it serves another tier
    assert ask(server, "/v2/models/cloud")[0] == 200


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Example.org/", "https://example.org"),
        ("http://a:80", "http://a"),
        ("https://a:8443", "https://a:8443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "example.org", "null", "ftp://a", "http://a/b", "http://u@a", "http://a:x", "http://"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no origin of a page"):
        read_origin(text)


def test_the_scheme_of_own_pages_is_that_of_the_server() -> None:
    for has_tls, scheme in ((False, "http"), (True, "https")):
        origins = origins_of([], host="h", has_pages=True, has_tls=has_tls, has_token=False)
        assert origins.own == scheme


def test_files_of_a_site_are_handed_out(serve: Callable[..., Server[Service]], folder: Path) -> None:
    server = serve(site=folder)
    status, fields, body = ask(server, "/")
    assert (status, body) == (200, (folder / "index.html").read_bytes())
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    # What a browser asks for before it gives a page threads.
    assert fields["Cross-Origin-Opener-Policy"] == "same-origin"
    assert fields["Cross-Origin-Embedder-Policy"] == "require-corp"
    status, fields, body = ask(server, "/deep/a%20b.wasm?x=1")
    assert (status, fields["Content-Type"], body) == (200, "application/wasm", b"\0asm")
    assert ask(server, "/empty.js")[::2] == (200, b"")
    assert ask(server, "/v2")[0] == 200
    assert ask(server, origin=server.url)[0] == 200
    assert ask(server, origin=PAGE)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/deep",
        "/leak",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "//etc/passwd",
        "/a%00b",
        "/deep/../../secret",
    ],
)
def test_nothing_else_is(serve: Callable[..., Server[Service]], folder: Path, path: str) -> None:
    status, _, body = ask(serve(site=folder), path)
    assert status == 404
    assert b"secret" not in body


def test_a_site_is_open_where_the_tier_asks_for_a_token(
    serve: Callable[..., Server[Service]], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    server = serve(site=folder, token_file=tmp_path / "token")
    assert ask(server, "/")[0] == 200
    assert ask(server, "/v2")[0] == 401
    assert ask(server, "/metrics")[0] == 401


def test_a_site_of_other_slices_is_refused(serve: Callable[..., Server[Service]], folder: Path) -> None:
    (folder / "manifest.json").write_text('{"identity": "other"}')
    with pytest.raises(InputError, match="exported from other slices"):
        serve(site=folder)


@pytest.mark.parametrize("name", ["index.html", "manifest.json"])
def test_a_folder_that_is_no_site_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(InputError, match="is no site"):
        Site(folder)


def test_a_request_from_a_page_is_answered(serve: Callable[..., Server[Service]], slices: Path) -> None:
    from dnnsplit_onnx.serving.tier.routes import Routes
    from dnnsplit_onnx.serving.wire.encoding import encode, to_text
    from dnnsplit_onnx.slicing.manifest import load_manifest

    server = serve(allow_origins=(PAGE,))
    route = Routes(load_manifest(slices)).route((0, 0))
    values = {port.name: inputs()[port.name] for port in route.legs[2].arrives}
    tensors, buffers = encode(values, lambda _: True)
    asked = {"parameters": {"dnnsplit_cuts": "0,0", "binary_data_output": True}}
    text = to_text({"inputs": json.loads(tensors), **asked})
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    headers = {"Origin": PAGE, "Inference-Header-Content-Length": str(len(text))}
    connection.request("POST", "/v2/models/cloud/infer", b"".join([text, *map(bytes, buffers)]), headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    length = int(response.headers["Inference-Header-Content-Length"])
    assert json.loads(body[:length])["outputs"][0]["name"] == "y"
    assert len(body) - length == sum(np.prod((2, 8)) * size for size in (4, 4, 8))
