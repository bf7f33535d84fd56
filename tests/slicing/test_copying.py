"""Copying by the kernel, and without its help."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.modelfile import ModelFile
from dnnsplit_onnx.slicing import copying
from dnnsplit_onnx.slicing.copying import Copier
from dnnsplit_onnx.slicing.files import Content
from dnnsplit_onnx.wire import DataRange

DATA = bytes(range(256)) * 4096  # 1 MiB


def written(folder: Path, content: Content) -> bytes:
    (folder / "source").write_bytes(DATA)
    with Copier(ModelFile(folder / "m.onnx", onnx.ModelProto())) as copier:
        digest, crc = copier.sha256(content), copier.crc32(content)
        copier.write(folder / "target", content)
    found = (folder / "target").read_bytes()
    assert digest.result() == hashlib.sha256(found).hexdigest()
    assert crc.result() == f"{zlib.crc32(found):08x}"
    assert len(found) == content.nbytes
    return found


CONTENT = Content.of(
    [
        b"head",
        DataRange("source", 100, 50),
        b"",
        DataRange("source", 7, 900_000),
        b"x" * 70,
        DataRange("source", 0, 1),
    ]
)
EXPECTED = b"head" + DATA[100:150] + DATA[7:900_007] + b"x" * 70 + DATA[:1]


def refuse(code: int) -> object:
    def call(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


def test_pieces_in_order(tmp_path: Path) -> None:
    assert written(tmp_path, CONTENT) == EXPECTED


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL])
def test_sendfile_where_ranges_cannot_be_copied(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(code))
    assert written(tmp_path, CONTENT) == EXPECTED


def test_reads_and_writes_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    monkeypatch.setattr(os, "sendfile", refuse(errno.EINVAL))
    assert written(tmp_path, CONTENT) == EXPECTED


def test_short_copies_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.copy_file_range
    monkeypatch.setattr(
        os,
        "copy_file_range",
        lambda s, t, count, offset_src: whole(s, t, min(count, 1000), offset_src=offset_src),
    )
    assert written(tmp_path, CONTENT) == EXPECTED


def test_a_full_disk_is_not_a_lack_of_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="space"):
        written(tmp_path, CONTENT)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    with pytest.raises(FileExistsError):
        written(tmp_path, CONTENT)


def test_an_interrupt_stops_the_hashes(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    content = Content.of([DataRange("source", 0, len(DATA))] * 1000)
    copier = Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto()))
    copier.report = interrupt
    with pytest.raises(KeyboardInterrupt), copier:
        copier.write(tmp_path / "target", content)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_small_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_BUFFER", 100)
    monkeypatch.setattr(copying, "_SMALL", 60)
    monkeypatch.setattr(copying, "_STEP", 10_000)
    assert written(tmp_path, CONTENT) == EXPECTED
