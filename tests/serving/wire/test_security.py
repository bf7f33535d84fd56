"""TLS, certificates of clients, tokens, and where they may be left out."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.security import (
    TlsFiles,
    check_exposure,
    is_loopback,
    read_token,
    server_context,
)
from dnnsplit_onnx.serving.wire.server import Server
from tests.serving.conftest import CUTS, NODES, Network, inputs, same


def serve(network: Network, tier: str, tls: TlsFiles, **options: object) -> Server:
    session = SessionOptions(threads=1)
    server = open_server(network.folder / tier, ServeOptions(port=0, session=session, tls=tls, **options))  # type: ignore[arg-type]
    network.stack.enter_context(server)
    server.service.stage.warm_up()
    return server


def edge_to(network: Network, url: str, tls: TlsFiles) -> Edge:
    return network.edge(Target(url, tls=tls))  # type: ignore[arg-type]


def test_a_chain_over_tls_with_certificates_on_both_sides(network: Network, certificates, whole):
    files = certificates("ours")
    cloud = serve(network, "cloud", files)
    near = serve(network, "near", files, next_url=cloud.url)
    assert near.url.startswith("https://")
    edge = edge_to(network, near.url, files)
    for seed in range(3):
        answer = edge.infer(inputs(seed))
        assert answer.cuts == CUTS
        assert same(answer.outputs, whole(inputs(seed)))


def test_a_client_without_a_certificate_is_not_let_in(network: Network, certificates):
    files = certificates("ours")
    near = serve(network, "near", files)
    assert edge_to(network, near.url, TlsFiles(ca=files.ca)).infer(inputs()).cuts == (NODES, NODES)


def test_a_server_that_a_stranger_signed_for_is_not_trusted(network: Network, certificates):
    ours, strange = certificates("ours"), certificates("strange")
    near = serve(network, "near", TlsFiles(strange.cert, strange.key))
    edge = edge_to(network, near.url, TlsFiles(ca=ours.ca))
    assert edge.infer(inputs()).cuts == (NODES, NODES)
    assert "no TLS with" in edge.health.reason


def test_plain_bytes_on_a_tls_port_do_no_harm(network: Network, certificates, whole):
    files = certificates("ours")
    cloud = serve(network, "cloud", TlsFiles(files.cert, files.key))
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=10) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        with suppress(ConnectionResetError):
            while sock.recv(1000):
                pass
    context = ssl.create_default_context(cafile=files.ca)
    plain = socket.create_connection(("127.0.0.1", cloud.port))
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert secure.recv(1000).startswith(b"HTTP/1.1 200")


def test_beyond_loopback_both_encryption_and_identity_are_wanted(certificates):
    files = certificates("ours")
    one_way, mutual = server_context(TlsFiles(files.cert, files.key)), server_context(files)
    token = "a-token-of-some-length"
    for host in ("0.0.0.0", "::", ""):
        for tls, shown in ((None, None), (None, token), (one_way, None)):
            with pytest.raises(InputError, match="anyone who can reach it"):
                check_exposure(host, tls, shown, insecure=False)
            check_exposure(host, tls, shown, insecure=True)
        check_exposure(host, one_way, token, insecure=False)
        check_exposure(host, mutual, None, insecure=False)
    check_exposure("127.0.0.1", None, None, insecure=False)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("", False)]
)
def test_loopback_is_recognised(host: str, expected: bool):
    assert is_loopback(host) is expected


@pytest.mark.parametrize("content", [b"", b"short", b"with blanks within it, and long", b"\xff" * 40])
def test_tokens_that_are_none_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(InputError, match="token"):
        read_token(path)


def test_a_token_file_may_end_in_a_line_break(tmp_path: Path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_token(tmp_path / "token") == "0123456789abcdef"


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="no-such"):
        read_token(tmp_path / "no-such")
    with pytest.raises(InputError, match="no-such"):
        server_context(TlsFiles(tmp_path / "no-such", tmp_path / "no-such"))
    with pytest.raises(InputError, match="certificate and its key"):
        server_context(TlsFiles(tmp_path / "cert"))


@pytest.mark.parametrize("url", ["", "near:8000", "ftp://near", "http://", "http://h:99999", "http://h/?q"])
def test_urls_that_are_none_are_refused(url: str):
    with pytest.raises(InputError, match="is not the URL"):
        Target(url)


def test_a_url_may_have_a_path_and_an_ipv6_address():
    target = Target("https://[::1]:8000/behind/a/proxy/")
    assert (target.host, target.port, target.path, target.authority) == (
        "::1",
        8000,
        "/behind/a/proxy",
        "[::1]:8000",
    )
    assert Target("http://near").port == 80


def test_an_unreachable_server_is_named(network: Network):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    edge = network.edge(f"http://127.0.0.1:{port}")
    edge.open()
    assert f"127.0.0.1:{port}" in edge.health.reason
