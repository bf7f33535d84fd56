"""Digests: which a file has, of which bytes, computed in the background, once a file."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import zlib
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx import files
from dnnsplit_onnx.errors import ManifestError, MissingExtraError, ModelError
from dnnsplit_onnx.graph import digests
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import copying, slice_model
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.copying import Copier
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from tests.slicing.chain import plan_at
from tests.slicing.weights import layers, save

xxhash = pytest.importorskip("xxhash", reason="a dependency, whose absence is tested too")


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file counts as a large one."""
    monkeypatch.setattr(digests, "LARGE_NBYTES", 0)
    digests._kept.clear()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 40])
def test_each_algorithm_is_of_all_bytes(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", 1000)
    (path := tmp_path / "f").write_bytes(data)
    assert digests.file_digest(path, "sha256") == sha256(data)
    assert digests.file_digest(path, "crc32") == f"{zlib.crc32(data):08x}"
    assert digests.file_digest(path, "xxh3-128") == xxhash.xxh3_128_hexdigest(data)


def test_size_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "f").write_bytes(b"abcd")
    monkeypatch.setattr(digests, "LARGE_NBYTES", 4)
    assert digests.file_digests(path) == {"sha256": sha256(b"abcd")}
    assert digests.file_digests(path, is_model=True) == {"sha256": sha256(b"abcd")}
    path.write_bytes(b"abcde")
    assert digests.file_digests(path) == {"xxh3-128": xxhash.xxh3_128_hexdigest(b"abcde")}
    with pytest.raises(ModelError):
        digests.file_digests(path, is_model=True)


@pytest.mark.usefixtures("all_large")
def test_the_graph_has_an_identity_of_its_own(tmp_path: Path) -> None:
    whole = onnx.load(save(layers(), tmp_path / "m.onnx", external=False))
    known = digests.file_digests(tmp_path / "m.onnx", is_model=True)
    assert known.keys() == {"xxh3-128", "graph-sha256"}
    assert digests.identity(known) == known["graph-sha256"]

    def changed(model: onnx.ModelProto) -> set[str]:
        (tmp_path / "moved").mkdir(exist_ok=True)
        onnx.save(model, tmp_path / "moved" / "n.onnx")
        found = digests.file_digests(tmp_path / "moved" / "n.onnx", is_model=True)
        return {name for name, digest in found.items() if digest != known[name]}

    def edited(what: str) -> onnx.ModelProto:
        model = onnx.ModelProto.FromString(whole.SerializeToString())
        if what == "node":
            model.graph.node[0].name = "another"
        else:
            large = next(one for one in model.graph.initializer if len(one.raw_data) >= 1024)
            large.raw_data = bytes([large.raw_data[0] ^ 1]) + large.raw_data[1:]
        return model

    assert changed(whole) == set()
    assert changed(edited("weight")) == {"xxh3-128"}
    assert changed(edited("node")) == {"xxh3-128", "graph-sha256"}


@pytest.mark.usefixtures("all_large")
def test_large_slices_are_held_against_both(tmp_path: Path) -> None:
    graph = load_graph(save(layers(), tmp_path / "m.onnx", external=False))
    made = slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert made.model.digests == digests.file_digests(tmp_path / "m.onnx", is_model=True)
    for record in made.slices:
        path = tmp_path / "out" / str(record.file)
        assert record.digests == digests.file_digests(path, is_model=True)
        check_files(tmp_path / "out", record)
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(ManifestError, match="checksum differs"):
            check_files(tmp_path / "out", record)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("seed", range(12))
def test_what_is_copied_is_hashed_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Weights in any order, cut anywhere, read by any buffer: each digest is that of the file."""
    rng = random.Random(seed)
    monkeypatch.setattr(copying, "_BUFFER", rng.choice([100, 5000, 1 << 20]))
    monkeypatch.setattr(copying, "_SMALL", rng.choice([1000, 1 << 16]))
    model = layers(6)
    if seed % 3:
        weights = rng.sample(list(model.graph.initializer), 6)
        model.graph.ClearField("initializer")
        model.graph.initializer.extend(weights)
    path = save(model, tmp_path / "m.onnx", external=False)
    cuts = sorted(rng.sample(range(1, 12), rng.choice([1, 2, 3])))
    if seed % 4 == 0:
        digests.begin_digests(path)  # as the command line does
    graph = load_graph(path)
    made = slice_model(graph, plan_at(graph, cuts), tmp_path / "out")
    assert made.model.digests == digests.file_digests(path, is_model=True)
    for record in made.slices:
        assert record.digests == digests.file_digests(tmp_path / "out" / str(record.file), is_model=True)
        check_files(tmp_path / "out", record)


@pytest.mark.usefixtures("all_large")
def test_a_model_that_holds_its_weights_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = save(layers(40), tmp_path / "m.onnx", external=False), 0

    def preadv(descriptor: int, buffers: list[memoryview], at: int) -> int:
        nonlocal read
        count = real(descriptor, buffers, at)
        read += count
        return count

    real = os.preadv
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(copying, "_SMALL", 1000)
    graph = load_graph(path)
    slice_model(graph, plan_at(graph, [40]), tmp_path / "out")
    assert path.stat().st_size <= read < 1.1 * path.stat().st_size  # the first weight is used twice


@pytest.mark.usefixtures("all_large")
def test_a_model_that_is_gone_meanwhile_is_told(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "m.onnx", external=False)
    file = load_graph(path).file
    with Copier(file) as copier:
        path.unlink()
        with pytest.raises(ModelError, match=r"cannot read .*m\.onnx`: No such file"):
            copier.settle()
    path.write_bytes(b"short")
    with Copier(file) as copier, pytest.raises(ModelError, match="became shorter"):
        copier.settle()


def test_a_model_is_known_by_what_earlier_releases_call_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load_graph(save(layers(), tmp_path / "m.onnx", external=False))
    of_all = sha256((tmp_path / "m.onnx").read_bytes())
    assert graph.file.sha256() == of_all
    monkeypatch.setattr(digests, "LARGE_NBYTES", 0)
    monkeypatch.setattr("dnnsplit_onnx.graph.modelfile.LARGE_NBYTES", 0)
    digests._kept.clear()
    assert graph.file.sha256() != of_all
    assert graph.file.is_named(of_all)
    assert graph.file.is_named(graph.file.sha256())
    assert not graph.file.is_named("0" * 64)


@pytest.mark.usefixtures("all_large")
def test_without_xxhash_all_is_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(layers(), tmp_path / "m.onnx", external=False)
    with_it = digests.file_digests(path, is_model=True)
    monkeypatch.setitem(sys.modules, "xxhash", None)
    without = digests.file_digests(path, is_model=True)
    assert without["sha256"] == sha256(path.read_bytes())
    assert digests.identity(without) == digests.identity(with_it)
    with pytest.raises(MissingExtraError) as missing:
        digests.file_digest(path, "xxh3-128")
    assert missing.value.hint == "pip install xxhash"


def test_digests_of_schema_version_1_are_read() -> None:
    old = Path(__file__).parents[1] / "data" / "v1" / "slices"
    manifest: Manifest = load_manifest(old)
    assert manifest.model.digests.keys() == {"sha256"}
    assert {name for one in manifest.slices for data in one.data for name in data.digests} == {"crc32"}
    for record in (*manifest.slices, *manifest.candidates):
        check_files(old, record)


def test_a_model_is_read_once(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "m.onnx", external=False)
    version = files.stamp(path)
    digests.begin_digests(path)
    assert digests.are_begun(path, version)
    begun = digests.pending_digests(path, version)
    assert begun.result() == {"sha256": sha256(path.read_bytes())}
    assert digests.pending_digests(path, version) is begun
    for at in range(8):  # and no more than a few are kept
        digests.settle_digests(path, (at, at), {"sha256": ""})
    assert not digests.are_begun(path, version)
    assert digests.are_begun(path, (7, 7))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    digests.begin_digests(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        digests.pending_digests(tmp_path / "gone", (0, 0)).result()
