"""Copying by the kernel, and without its help."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.protobuf import DataRange
from dnnsplit_onnx.slicing import copying
from dnnsplit_onnx.slicing.copying import Copier
from dnnsplit_onnx.slicing.files import Content

DATA = bytes(range(256)) * 4096  # 1 MiB


def written(folder: Path, content: Content) -> bytes:
    """The bytes that were written, after a look at all that is said and left of it."""
    (folder / "source").write_bytes(DATA)
    opened, told = set(Path("/proc/self/fd").iterdir()), []
    with Copier(ModelFile(folder / "m.onnx", onnx.ModelProto())) as copier:
        copier.report = told.append
        digests = copier.digests(content)
        copier.write(folder / "target", content)
    assert set(Path("/proc/self/fd").iterdir()) == opened
    assert sum(told) == content.nbytes
    found = (folder / "target").read_bytes()
    assert digests.result() == {"sha256": hashlib.sha256(found).hexdigest()}
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


SPARSE_PIECES = [
    DataRange("sparse", 0, 1 << 20),  # a hole, data, a hole
    b"head",
    DataRange("sparse", 3 << 20, 5 << 20),  # a hole alone, and it is the end
]


def sparse_source(folder: Path) -> bytes:
    """8 MiB of which 4 KiB were written, and what it reads as."""
    with (folder / "sparse").open("wb") as file:
        file.seek(512 << 10)
        file.write(DATA[:4096])
        file.truncate(8 << 20)
    return (folder / "sparse").read_bytes()


@pytest.mark.parametrize("can_tell", [True, False])
def test_holes_stay_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_tell: bool) -> None:
    whole = sparse_source(tmp_path)
    if not can_tell:  # as on other systems
        monkeypatch.delattr(os, "SEEK_DATA")
        monkeypatch.delattr(os, "SEEK_HOLE")
    content, told = Content.of(SPARSE_PIECES), []
    with Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto())) as copier:
        copier.report = told.append
        copier.write(tmp_path / "target", content)
    expected = whole[: 1 << 20] + b"head" + whole[3 << 20 :]
    assert (tmp_path / "target").read_bytes() == expected
    assert sum(told) == content.nbytes == len(expected)
    if can_tell and (tmp_path / "sparse").stat().st_blocks * 512 < 1 << 20:
        assert (tmp_path / "target").stat().st_blocks * 512 < 1 << 20


def test_a_sparse_source_cut_short_is_no_hole(tmp_path: Path) -> None:
    sparse_source(tmp_path)
    os.truncate(tmp_path / "sparse", 4 << 20)
    with (
        pytest.raises(ModelError, match="became shorter"),
        Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto())) as copier,
    ):
        copier.write(tmp_path / "target", Content.of(SPARSE_PIECES))


@pytest.mark.parametrize("nbytes", [100, 100_000])
def test_a_source_that_became_shorter_is_named(nbytes: int, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    content = Content.of([DataRange("source", len(DATA) - nbytes + 1, nbytes)])
    copier = Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto()))
    with pytest.raises(ModelError) as refused, copier:
        copier.write(tmp_path / "target", content)
    assert refused.value.message == f"`{tmp_path / 'source'}` became shorter while it was read"
    assert refused.value.hint == "something else writes to the model: let it finish, and try again"
    with pytest.raises(ModelError, match="became shorter"), Copier(copier._source) as again:
        again.digests(content).result()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    content = Content.of([DataRange("none", 0, 10)])
    with Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto())) as copier:
        with pytest.raises(ModelError, match=f"cannot read `{tmp_path / 'none'}`: No such file"):
            copier.digests(content)
        with pytest.raises(ModelError, match=f"cannot read `{tmp_path / 'none'}`: No such file"):
            copier.write(tmp_path / "target", Content.of([DataRange("none", 0, 1 << 20)]))


@pytest.mark.parametrize(("mask", "mode"), [(0, 0o666), (0o027, 0o640)])
def test_others_may_do_what_the_users_mask_lets_them(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        written(tmp_path, CONTENT)
    finally:
        os.umask(before)
    assert (tmp_path / "target").stat().st_mode & 0o777 == mode


def test_content_without_ranges_needs_no_source(tmp_path: Path) -> None:
    assert written(tmp_path, Content.of([b"a", b"", b"b" * 100])) == b"a" + b"b" * 100
    assert Content.of([]).nbytes == 0


def test_a_copier_may_go_without_being_asked_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with Copier(ModelFile(tmp_path / "m.onnx", onnx.ModelProto())) as copier:
        copier.write(tmp_path / "target", CONTENT)
    assert (tmp_path / "target").read_bytes() == EXPECTED


def test_a_file_that_cannot_tell_its_holes_is_all_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.lseek

    def lseek(descriptor: int, at: int, what: int) -> int:
        if what in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "no holes here")
        return whole(descriptor, at, what)

    monkeypatch.setattr(os, "lseek", lseek)
    assert written(tmp_path, CONTENT) == EXPECTED
