"""Digests computed in the background, once a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dnnsplit_onnx import files


def test_the_digest_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", 1000)
    for data in (b"", b"abc", bytes(range(256)) * 40):
        (tmp_path / "f").write_bytes(data)
        version = files.stamp(tmp_path / "f")
        assert files.pending_sha256(tmp_path / "f", version).result() == hashlib.sha256(data).hexdigest()
        assert files.pending_sha256(tmp_path / "f", version) is files.pending_sha256(tmp_path / "f", version)


def test_begin_reads_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    files.begin_sha256(tmp_path / "f")
    hits = files.pending_sha256.cache_info().hits
    files.pending_sha256(tmp_path / "f", files.stamp(tmp_path / "f")).result()
    assert files.pending_sha256.cache_info().hits == hits + 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    files.begin_sha256(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        files.pending_sha256(tmp_path / "gone", (0, 0)).result()
