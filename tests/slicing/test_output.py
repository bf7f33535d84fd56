"""The output folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.errors import DnnsplitError, ModelError, OutputError, PlanError
from dnnsplit_onnx.files import file_sha256
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.slicing import copying, slice_model, staging
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.slicing.chain import plan_at
from tests.slicing.weights import layers, save


@pytest.fixture(params=[False, True], ids=["inline", "external"])
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Graph:
    return load_graph(save(layers(), tmp_path / "source.onnx", external=request.param))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_output_is_the_same_for_the_same_input(graph: Graph, tmp_path: Path) -> None:
    plan = plan_at(graph, (2, 5))
    slice_model(graph, plan, tmp_path / "one")
    slice_model(load_graph(graph.file.path), plan, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_manifest_is_what_was_returned(graph: Graph, tmp_path: Path) -> None:
    made = slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert load_manifest(tmp_path / "out") == made
    assert made.model.path == "../source.onnx"
    assert made.model.sha256 == graph.file.sha256() == file_sha256(graph.file.path)


def test_progress_reaches_the_total(graph: Graph, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out", progress=lambda *call: calls.append(call))
    sizes = sum(
        p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix != ".json"
    )
    assert calls[-1] == (sizes, sizes)
    assert sorted(calls) == calls


def test_a_failed_check_leaves_nothing(graph: Graph, tmp_path: Path) -> None:
    seen: list[dict[str, bytes | None]] = []

    def refuse(folder: Path) -> None:
        seen.append(tree(folder))
        raise RuntimeError("no")

    before = tree(tmp_path)
    with pytest.raises(RuntimeError):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "out", check=refuse)
    assert tree(tmp_path) == before
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert seen == [tree(tmp_path / "out")]


def test_existing_output_needs_force(graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError, match="output exists") as caught:
        slice_model(graph, plan_at(graph, (2,)), out)
    assert "--force" in str(caught.value.hint)
    slice_model(graph, plan_at(graph, (2,)), out, force=True)  # empty: nothing is lost
    slice_model(graph, plan_at(graph, (3,)), out, force=True)
    assert load_manifest(out).slices[0].stop == 3


def test_force_replaces_nothing_but_slices(graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("all of it")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="holds no manifest"):
        slice_model(graph, plan_at(graph, (2,)), out, force=True)
    with pytest.raises(OutputError, match="is a file"):
        slice_model(graph, plan_at(graph, (2,)), out / "thesis.tex", force=True)
    assert tree(tmp_path) == before


def test_force_does_not_delete_the_model(graph: Graph, tmp_path: Path) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    for path in (p for p in tmp_path.iterdir() if p.is_file()):
        shutil.copy(path, tmp_path / "out")
    inside = load_graph(tmp_path / "out" / "source.onnx")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="the model itself lies in it"):
        slice_model(inside, plan_at(inside, (2,)), tmp_path / "out", force=True)
    assert tree(tmp_path) == before


def test_parents_are_made_and_removed_again(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "manifest.json").is_file()
    monkeypatch.setattr(copying, "_write_all", _full)
    with pytest.raises(OutputError):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "c" / "d" / "out")
    assert not (tmp_path / "c").exists()


def test_a_link_to_the_output_stays_a_link(graph: Graph, tmp_path: Path) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    slice_model(graph, plan_at(graph, (3,)), tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert load_manifest(tmp_path / "real").slices[0].stop == 3


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_leaves_nothing(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    before = tree(tmp_path)
    monkeypatch.setattr(copying, "_write_all", _full)
    for name in ("out", "new"):
        with pytest.raises(OutputError, match="the disk is full"):
            slice_model(graph, plan_at(graph, (3,)), tmp_path / name, force=True)
    assert tree(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    for external in (False, True):
        graph = load_graph(save(layers(40), tmp_path / "big.onnx", external=external))
        with pytest.raises(OutputError, match="the disk is full"):
            slice_model(graph, plan_at(graph, (20,)), small_disk / "out")
        assert list(small_disk.iterdir()) == []


def test_an_interrupt_leaves_nothing(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = tree(tmp_path)
    monkeypatch.setattr(copying, "_write_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert tree(tmp_path) == before


def test_the_old_output_comes_back_if_the_new_one_cannot(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    before = tree(tmp_path)
    rename = Path.rename

    def fails_for_new(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_for_new)
    with pytest.raises(OutputError, match="Input/output error"):
        slice_model(graph, plan_at(graph, (3,)), tmp_path / "out", force=True)
    monkeypatch.undo()
    assert tree(tmp_path) == before


_KILLED = """
import os, signal, sys
from pathlib import Path
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import slice_model, staging
from tests.slicing.chain import plan_at

rename = Path.rename
def die(path, target):
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)

Path.rename = die
graph = load_graph(sys.argv[1])
slice_model(graph, plan_at(graph, (3,)), Path(sys.argv[1]).parent / "out", force=True)
"""


@pytest.mark.parametrize("when", ["out", "new"], ids=["before the swap", "in the middle of the swap"])
def test_a_killed_run_is_cleared_away_by_the_next(graph: Graph, when: str, tmp_path: Path) -> None:
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", _KILLED, graph.file.path, when], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".out.tmp-*"))) == 1
    if when == "new":  # the old output is put back, so that --force is still asked for
        with pytest.raises(OutputError, match="output exists"):
            slice_model(graph, plan_at(graph, (4,)), tmp_path / "out")
        assert load_manifest(tmp_path / "out").slices[0].stop == 2
    slice_model(graph, plan_at(graph, (4,)), tmp_path / "out", force=True)
    assert load_manifest(tmp_path / "out").slices[0].stop == 4
    assert not list(tmp_path.glob(".out.tmp-*"))


def test_a_run_under_way_is_left_alone(tmp_path: Path) -> None:
    def folder() -> AbstractContextManager[Path]:
        return staging.staged_folder(tmp_path / "out", force=False, ours=lambda _: False, keep=())

    def two_at_once() -> None:
        with folder() as first:
            with folder() as second:  # must not take the first for a stale one
                (second / "mine").touch()
            assert first.is_dir()

    with pytest.raises(OutputError, match="output exists"):
        two_at_once()
    assert (tmp_path / "out" / "mine").is_file()


def test_what_comes_between_check_and_rename_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, target = staging._check_target, tmp_path / "out"

    def overtaken(*given: Any) -> None:
        checked(*given)
        if list(tmp_path.glob(".out.tmp-*/new/mine")):  # all is written, and about to be put in its place
            target.mkdir()
            (target / "theirs").touch()

    monkeypatch.setattr(staging, "_check_target", overtaken)
    with (
        pytest.raises(OutputError, match="output exists"),
        staging.staged_folder(target, force=False, ours=lambda _: True, keep=()) as new,
    ):
        (new / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


@pytest.mark.parametrize("tier", ["..", "a/b", "", "manifest.json", "Manifest.JSON", "x\0y"])
def test_a_tier_is_no_path(graph: Graph, tier: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="tier name"):
        slice_model(graph, plan_at(graph, (2,), ("edge", tier)), tmp_path / "out")


def test_a_plan_for_another_model(graph: Graph, tmp_path: Path) -> None:
    for cuts in ((4, 2), (99,)):
        with pytest.raises(PlanError, match="does not fit"):
            slice_model(graph, plan_at(graph, cuts), tmp_path / "out")


def test_a_model_that_changed_since_it_was_read(graph: Graph, tmp_path: Path) -> None:
    with graph.file.path.open("ab") as file:
        file.write(b"\0" * 10)
    with pytest.raises(ModelError, match="has changed"):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    graph.file.path.unlink()
    with pytest.raises(ModelError, match="cannot read"):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_cut_short_while_they_are_read(tmp_path: Path) -> None:
    graph = load_graph(save(layers(40), tmp_path / "source.onnx", external=True))
    os.truncate(tmp_path / "source.bin", 5000)
    with pytest.raises(ModelError, match="became shorter"):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_are_all_our_own(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DnnsplitError, match="cannot write"):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "file" / "out")
