"""The manifest: read back as written, and refused where it cannot be trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.graph.digests import Algorithm
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import checking, slice_model
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from tests.slicing.chain import plan_at
from tests.slicing.constructs import CONSTRUCTS
from tests.slicing.weights import layers, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=True))
    slice_model(graph, plan_at(graph, (2, 2)), tmp_path / "out")
    return tmp_path / "out"


def edit(folder: Path, change: Any) -> Path:
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder


def test_keys_that_scripts_rely_on(folder: Path) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    assert data["schema_version"] == 2
    assert set(data["model"]) >= {"path", "digests"}
    assert [part["tier"] for part in data["slices"]] == ["t0", "t1", "t2"]
    assert data["slices"][1]["file"] is None
    for part in data["slices"]:
        assert set(part) >= {"tier", "file", "digests", "inputs", "outputs"}
    assert data["slices"][0]["inputs"] == [
        {"name": "x", "dtype": "float", "shape": ["N", 32], "kind": "tensor"}
    ]


def test_read_back_as_written(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert load_manifest(folder / "manifest.json") == manifest
    assert manifest.to_json() == (folder / "manifest.json").read_text()


def test_names_of_any_script(tmp_path: Path) -> None:
    built, _ = CONSTRUCTS["skip_connections"]()
    built.graph.input[0].name = "прибор/图:0"
    for node in built.graph.node:
        node.input[:] = ["прибор/图:0" if name == "x" else name for name in node.input]
    onnx.save(built, tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    made = slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert load_manifest(tmp_path / "out") == made


@pytest.mark.parametrize("path", ["../x.onnx", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b"])
def test_no_path_leaves_the_folder(folder: Path, path: str) -> None:
    for change in (
        lambda data: data["slices"][0].update(file=path),
        lambda data: data["slices"][0]["data"][0].update(file=path),
    ):
        with pytest.raises(ManifestError, match="leaves the folder"):
            load_manifest(edit(folder, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema_version=3), "schema version 3"),
        (lambda data: data.pop("slices"), "slices"),
        (lambda data: data["slices"][0]["digests"].update(sha256="abc"), "sha256"),
        (lambda data: data["slices"][0]["digests"].update(md5="0" * 32), "md5"),
        (lambda data: data["model"].update(digests={}), "model.digests"),
        (lambda data: data["slices"][0]["data"][0].update(nbytes=-1), "nbytes"),
        (lambda data: data["slices"][0].update(start="zero"), "start"),
    ],
)
def test_broken_manifests(folder: Path, change: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(edit(folder, change))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ud800", "[" * 100_000])
def test_files_that_are_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


def test_no_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest") as caught:
        load_manifest(tmp_path)
    assert "split" in str(caught.value.hint)


def test_checksums_hold_files_to_what_was_written(folder: Path) -> None:
    manifest = load_manifest(folder)
    for record in manifest.slices:
        check_files(folder, record)
    for name in ("model.onnx", "model.onnx.data"):
        path = folder / "t0" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ManifestError, match="checksum differs"):
            check_files(folder, manifest.slices[0])
        path.write_bytes(whole[:-1])
        with pytest.raises(ManifestError, match="is not the file that was written"):
            check_files(folder, manifest.slices[0])
        path.unlink()
        with pytest.raises(ManifestError, match="cannot read slice file"):
            check_files(folder, manifest.slices[0])
        path.write_bytes(whole)


def test_a_file_is_read_once_until_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = load_manifest(folder).slices[0]
    read: list[Path] = []
    real = checking.file_digest

    def counted(path: Path, algorithm: Algorithm) -> str:
        if path.name == "model.onnx.data":
            read.append(path)
        return real(path, algorithm)

    monkeypatch.setattr(checking, "file_digest", counted)
    # Just written: it could be written again within a tick of the clock, and is read each time.
    check_files(folder, record)
    check_files(folder, record)
    assert len(read) == 2
    monkeypatch.setattr(checking, "_SETTLED_NS", -(10**18))
    check_files(folder, record)
    check_files(folder, record)
    assert len(read) == 3
    path = folder / record.data[0].file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, ns=(0, 0))
    with pytest.raises(ManifestError, match="checksum differs"):
        check_files(folder, record)


def test_unknown_keys_of_later_releases_are_ignored(folder: Path) -> None:
    assert isinstance(load_manifest(edit(folder, lambda data: data.update(new=1))), Manifest)
