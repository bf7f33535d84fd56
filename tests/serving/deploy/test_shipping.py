"""Shipping to a real sshd on loopback: sent once, checked there, switched whole, resumed when cut."""

from __future__ import annotations

import getpass
import json
import os
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError, ManifestError, OutputError
from dnnsplit_onnx.serving.deploy import shipping
from dnnsplit_onnx.serving.deploy.shipping import Target, ship
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.running.folders import split

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
needs_sshd = pytest.mark.skipif(
    not Path(SSHD).exists() or shutil.which("ssh") is None,
    reason="no sshd here: apt-get install openssh-server openssh-client",
)
WEIGHT = 1 << 22  # bytes of the weight on tier t1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return split(model(tmp_path / "m.onnx", 0), 1)


def model(path: Path, seed: int) -> Path:
    """x * small, then by some megabytes of weights in a file of their own."""
    large = np.random.default_rng(1).standard_normal((512, WEIGHT // 4 // 512)).astype(np.float32)
    small = np.full(512, seed + 1, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "s"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, large.shape[1]])],
        [numpy_helper.from_array(small, "s"), numpy_helper.from_array(large, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=4096)
    return path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """An sshd, and the command that connects to it, through whatever port."""
    place = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    shutil.copy(place / "user.pub", place / "authorized")
    port = free_port()
    config = f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {place}/host
        AuthorizedKeysFile {place}/authorized
        StrictModes no
        UsePAM no
        PidFile none
        PermitRootLogin yes
        Subsystem sftp internal-sftp
    """
    (place / "config").write_text(config)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", place / "config"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    assert any("listening" in line for line in iter(server.stderr.readline, "")), "sshd does not start"
    drained = threading.Thread(target=server.stderr.read, daemon=True)
    drained.start()

    def command(through: int) -> str:
        known = f"-o UserKnownHostsFile={place}/known -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        return f"ssh -F none -p {through} -i {place}/user {known}"

    command.port = port  # type: ignore[attr-defined]
    yield command
    server.terminate()
    server.wait(10)
    drained.join(10)
    server.stderr.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def target(sshd: Callable[[int], str], path: Path, through: int | None = None) -> Target:
    port = through or sshd.port  # type: ignore[attr-defined]
    return Target.parse(f"{getpass.getuser()}@127.0.0.1:{path}", sshd(port))


@pytest.fixture(params=["rsync", "sftp"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here")
    if request.param == "sftp":
        which = shutil.which
        monkeypatch.setattr(shipping.shutil, "which", lambda name: None if name == "rsync" else which(name))
    return str(request.param)


@needs_sshd
def test_a_tier_is_there_and_whole(
    folder: Path, tmp_path: Path, sshd: Callable[[int], str], way: str
) -> None:
    far = tmp_path / "far side" / "tiers"
    sent = ship(folder, "t1", target(sshd, far))
    there = far / "current"
    manifest = load_manifest(there)
    assert sorted(p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()) == [
        "manifest.json",
        *sorted(name for name, _ in sent.files if name != "manifest.json"),
    ]
    check_files(there, manifest.slices[1])
    assert not (there / "t0").exists()
    assert sent.sent_nbytes > WEIGHT
    again = ship(folder, "t1", target(sshd, far))
    assert (again.is_new, again.sent_nbytes, again.version) == (False, 0, sent.version)


@needs_sshd
def test_unchanged_weights_stay_and_the_last_version_too(
    folder: Path, tmp_path: Path, sshd: Callable[[int], str], way: str
) -> None:
    far = tmp_path / "far"
    first = ship(folder, "t1", target(sshd, far))
    opened = (far / "current" / "t1" / "model.onnx").open("rb")  # as by a tier that runs
    (tmp_path / "next").mkdir()
    other = split(model(tmp_path / "next" / "m.onnx", 1), 1)
    second = ship(other, "t1", target(sshd, far))
    assert second.previous == first.version
    assert second.sent_nbytes < WEIGHT / 4
    assert (far / "previous").resolve().name == first.version
    assert (far / "current").resolve().name == second.version
    check_files(far / "current", load_manifest(far / "current").slices[1])
    with opened:
        assert opened.read() == (far / "previous" / "t1" / "model.onnx").read_bytes()
    # Two versions are kept; going back is a shipment of nothing.
    back = ship(folder, "t1", target(sshd, far))
    assert (back.version, back.sent_nbytes) == (first.version, 0)
    assert len(list((far / "versions").iterdir())) == 2


class Cut:
    """A relay in front of the sshd that hangs up once so many bytes went to the far side."""

    def __init__(self, port: int, most: int) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.left, self.far = most, port
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        self.server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._relay, args=(near,)))
            self.threads[-1].start()

    def _relay(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.far)) as far:
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = source.recv(4096)
                    self.left -= len(data) if source is near else 0
                    if not data or self.left < 0:
                        return
                    (far if source is near else near).sendall(data)


@needs_sshd
def test_a_cut_link_leaves_what_was_there_and_is_resumed(
    folder: Path, tmp_path: Path, sshd: Callable[[int], str], way: str
) -> None:
    far = tmp_path / "far"
    cut = Cut(sshd.port, WEIGHT * 3 // 4)  # type: ignore[attr-defined]
    with closing(cut), pytest.raises(OutputError) as error:
        ship(folder, "t1", target(sshd, far, cut.port))
    assert "resumes" in (error.value.hint or "")
    assert not (far / "current").exists()
    parts = [p for p in (far / "versions").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in parts) > 0
    ship(folder, "t1", target(sshd, far))
    check_files(far / "current", load_manifest(far / "current").slices[1])


@needs_sshd
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which takes root")
def test_a_full_disk(folder: Path, tmp_path: Path, sshd: Callable[[int], str], way: str) -> None:
    far = tmp_path / "small"
    far.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={WEIGHT // 2}", "tmpfs", far], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OutputError) as error:
            ship(folder, "t1", target(sshd, far))
        assert not (far / "current").exists()
        assert "resumes" in (error.value.hint or "")
        if way == "rsync":
            assert "room" in error.value.message or "No space left" in error.value.message
    finally:
        subprocess.run(["umount", "--lazy", far], check=True)


@needs_sshd
def test_a_file_that_arrives_damaged_never_becomes_current(
    folder: Path, tmp_path: Path, sshd: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "far"
    send = shipping._Far.send

    def damaged(self: shipping._Far, place: Path, names: list[str], version: str) -> None:
        send(self, place, names, version)
        path = far / "versions" / f".{version}" / "t1" / "model.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    monkeypatch.setattr(shipping._Far, "send", damaged)
    with pytest.raises(OutputError, match="checksum differs"):
        ship(folder, "t1", target(sshd, far))
    assert not (far / "current").exists()
    monkeypatch.undo()
    assert ship(folder, "t1", target(sshd, far)).is_new


@needs_sshd
def test_measured_there(folder: Path, tmp_path: Path, sshd: Callable[[int], str]) -> None:
    # A stand-in for the program there: what it prints comes home.
    program = tmp_path / "dnnsplit-onnx"
    program.write_text('#!/bin/sh\necho "{\\"words\\": \\"$*\\"}"\n')
    program.chmod(0o755)
    place = target(sshd, tmp_path / "far")
    said = json.loads(shipping.run_there(place, [str(program), "bench", "a b", "--json"]))
    assert said == {"words": "bench a b --json"}
    with pytest.raises(OutputError, match="not found"):
        shipping.run_there(place, ["no-such-program"])


def test_what_is_refused_before_anything_is_sent(folder: Path) -> None:
    for text in ("host", ":path", "-oProxyCommand=x:/p", "host:", "a\nb:/c"):
        with pytest.raises(InputError, match="cannot read the target"):
            Target.parse(text)
    assert Target.parse("pi@[::1]:tiers/").path == "tiers"
    with pytest.raises(InputError, match="tier `t9` has no files"):
        ship(folder, "t9", Target("nowhere", "x"))
    (folder / "t1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ManifestError):
        ship(folder, "t1", Target("nowhere", "x"))
