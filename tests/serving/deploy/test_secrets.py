"""The certificates that `secrets.sh` makes, seen as whoever checks them sees them, and attacked."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from dnnsplit_onnx.serving.deploy.deploy import plan_deployment, secrets_script
from dnnsplit_onnx.serving.wire.security import TlsFiles, client_context, server_context

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("sh") is None, reason="needs the programs sh and openssl"
)

HOSTS = "near=DNS:near.example.org,IP:10.0.0.7"


def openssl(*words: object, folder: Path) -> str:
    done = subprocess.run(
        ["openssl", *map(str, words)], check=True, capture_output=True, text=True, cwd=folder
    )
    return done.stdout


@pytest.fixture(scope="module")
def made(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    # A machine whose own configuration makes every certificate an authority, as most do.
    (folder / "openssl.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=CA:TRUE\n"
    )
    script = folder / "secrets.sh"
    script.write_text(secrets_script(plan_deployment(slices)))
    settings = {**os.environ, "HOSTS": HOSTS, "OPENSSL_CONF": str(folder / "openssl.cnf")}
    subprocess.run(["sh", str(script)], check=True, capture_output=True, env=settings)
    before = {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()}
    subprocess.run(["sh", str(script)], check=True, capture_output=True, env=settings)
    assert {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()} == before
    return folder / "secrets"


def extensions(made: Path, name: str) -> dict[str, str]:
    text = openssl("x509", "-in", f"{name}.pem", "-noout", "-text", folder=made)
    pairs = re.findall(r"X509v3 (?!extensions)([\w ]+?): *(?:critical)? *\n +(.+)", text)
    return {key: " ".join(value.split()) for key, value in pairs}


def test_there_is_what_each_tier_needs_and_no_more(made: Path) -> None:
    expected = {"ca.pem", "ca.key", "token"}
    expected |= {f"{name}.{end}" for name in ("edge", "near", "cloud") for end in ("pem", "key")}
    assert {path.name for path in made.iterdir()} == expected
    assert len((made / "token").read_text().strip()) == 64
    assert (made / "ca.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "usage", "hosts"),
    [
        ("edge", "TLS Web Client Authentication", None),
        (
            "near",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "DNS:near, DNS:near.example.org, IP Address:10.0.0.7",
        ),
        ("cloud", "TLS Web Server Authentication, TLS Web Client Authentication", "DNS:cloud"),
    ],
)
def test_a_certificate_is_for_one_tier_and_signs_nothing(
    made: Path, name: str, usage: str, hosts: str | None
) -> None:
    found = extensions(made, name)
    assert found["Basic Constraints"] == "CA:FALSE"
    assert found["Key Usage"] == "Digital Signature"
    assert found["Extended Key Usage"] == usage
    assert found.get("Subject Alternative Name") == hosts
    purpose = "sslclient" if name == "edge" else "sslserver"
    openssl(*("verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", f"{name}.pem"), folder=made)


def test_the_authority_signs_certificates_and_no_authorities(made: Path) -> None:
    found = extensions(made, "ca")
    assert found["Basic Constraints"] == "CA:TRUE, pathlen:0"
    assert found["Key Usage"] == "Certificate Sign, CRL Sign"


def greets(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """Joins a server and a client; what the client says against it, None if nothing."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as tls:
                tls.sendall(b"hello")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as tls:
            return None if tls.recv(5) == b"hello" else "nothing came"
    except OSError as error:
        return str(error)
    finally:
        ours.close()
        thread.join(10)


def files(made: Path, name: str) -> TlsFiles:
    return TlsFiles(made / f"{name}.pem", made / f"{name}.key", made / "ca.pem")


def context(made: Path, name: str) -> ssl.SSLContext:
    made_context = server_context(files(made, name))
    assert made_context is not None
    return made_context


def test_a_tier_is_who_it_says_and_nobody_else(made: Path) -> None:
    edge = client_context(files(made, "edge"))
    assert greets(context(made, "cloud"), edge, "cloud") is None
    assert greets(context(made, "near"), edge, "near.example.org") is None
    for host in ("near", "localhost", "cloud.example.org"):
        assert "match" in (greets(context(made, "cloud"), edge, host) or "")
    # A stolen edge serves nothing, not even under its own name.
    stolen = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stolen.load_cert_chain(made / "edge.pem", made / "edge.key")
    assert "verify failed" in (greets(stolen, edge, "edge") or "")


def forge(folder: Path, made: Path, signer: str) -> ssl.SSLContext:
    """What a thief of a tier's key would serve: a cloud that the stolen certificate signs."""
    (folder / "ext").write_text("basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:cloud\n")
    new = ("-newkey", "rsa:2048", "-nodes", "-keyout", "forged.key", "-out", "forged.csr")
    openssl("req", "-new", *new, "-subj", "/CN=cloud", folder=folder)
    signed = ("-CA", made / f"{signer}.pem", "-CAkey", made / f"{signer}.key", "-set_serial", "7")
    openssl("x509", "-req", "-in", "forged.csr", *signed, "-extfile", "ext", "-out", "leaf", folder=folder)
    chain = (folder / "leaf").read_bytes() + (made / f"{signer}.pem").read_bytes()
    (folder / "chain.pem").write_bytes(chain)
    forged = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    forged.load_cert_chain(folder / "chain.pem", folder / "forged.key")
    return forged


@pytest.mark.parametrize("signer", ["edge", "near"])
def test_a_stolen_key_signs_no_cloud(made: Path, tmp_path: Path, signer: str) -> None:
    edge = client_context(files(made, "edge"))
    assert "verify failed" in (greets(forge(tmp_path, made, signer), edge, "cloud") or "")


def test_the_attack_works_on_certificates_that_are_authorities(tmp_path: Path) -> None:
    """As they were once made: otherwise the test above would show nothing."""
    new = ("-newkey", "rsa:2048", "-nodes", "-days", "1")
    openssl("req", "-x509", *new, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", folder=tmp_path)
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-CA", "ca.pem", "-CAkey", "ca.key")
    (tmp_path / "empty.cnf").write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    openssl(
        *("req", "-x509", *new, "-config", "empty.cnf", "-subj", "/CN=edge", *authority),
        *("-keyout", "edge.key", "-out", "edge.pem"),
        folder=tmp_path,
    )
    client = client_context(TlsFiles(ca=tmp_path / "ca.pem"))
    assert greets(forge(tmp_path, tmp_path, "edge"), client, "cloud") is None
