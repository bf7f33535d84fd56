"""Whatever ends a run, and whoever runs beside it: an output is whole, or as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dnnsplit_onnx.errors import OutputError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import slice_model
from tests.slicing.chain import plan_at
from tests.slicing.test_output import tree
from tests.slicing.weights import layers, save

Mount = Callable[[str], Path]


def killing(what: str, source: Path, out: Path) -> dict[str, int]:
    """Runs a trial of `killing.py`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.slicing.killing", what, source, out],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize(
    "external", [pytest.param(False, marks=pytest.mark.slow), True], ids=["inline", "external"]
)
def test_a_run_killed_at_any_step_loses_nothing(external: bool, tmp_path: Path) -> None:
    states = killing("steps", save(layers(), tmp_path / "source.onnx", external=external), tmp_path / "out")
    # All that can happen did happen: before, between and after the two renames.
    assert states["old"] > 5
    assert states["restored"] >= 1
    assert states["new"] > 1


def test_a_run_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    states = killing("moments", save(layers(40), tmp_path / "source.onnx", external=True), tmp_path / "out")
    assert sum(states.values()) == 24


def test_of_runs_that_meet_one_wins(tmp_path: Path) -> None:
    codes = killing("meeting", save(layers(40), tmp_path / "source.onnx", external=True), tmp_path / "out")
    assert codes == {"0": 8, "2": 24}


def test_of_runs_that_replace_each_other_one_is_left_whole(tmp_path: Path) -> None:
    codes = killing("forcing", save(layers(40), tmp_path / "source.onnx", external=True), tmp_path / "out")
    assert codes == {"0": 32}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts file systems in memory, with options of one's own."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(disk)
        return disk

    yield make
    for disk in mounted:
        subprocess.run(["umount", disk], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def test_a_folder_that_cannot_be_written_is_named(mount: Mount, tmp_path: Path) -> None:
    disk = mount("size=1m")
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=True))
    slice_model(graph, plan_at(graph, (2,)), disk / "out")
    before = tree(disk)
    remount(disk, "ro")
    for name, force in (("out", True), ("new", False)):
        with pytest.raises(OutputError, match="Read-only file system"):
            slice_model(graph, plan_at(graph, (3,)), disk / name, force=force)
    assert tree(disk) == before


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; a read-only file system is tested above")
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=True))
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        slice_model(graph, plan_at(graph, (2,)), tmp_path / "closed" / "out")


def test_a_model_on_a_read_only_disk_is_cut_as_any_other(mount: Mount, tmp_path: Path) -> None:
    disk = mount("size=1m")
    save(layers(), disk / "source.onnx", external=True)
    remount(disk, "ro")
    graph = load_graph(disk / "source.onnx")
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_full_disk_leaves_the_old_output(mount: Mount, tmp_path: Path) -> None:
    disk = mount("size=1m")
    graph = load_graph(save(layers(40), tmp_path / "source.onnx", external=True))
    slice_model(graph, plan_at(graph, (2,)), disk / "out")
    fill(disk / "filler", leave=40 << 10)
    before = tree(disk)
    with pytest.raises(OutputError, match="the disk is full"):
        slice_model(graph, plan_at(graph, (20,)), disk / "out", force=True)
    assert tree(disk) == before


def test_a_full_disk_leaves_the_old_file(mount: Mount) -> None:
    disk = mount("size=64k")
    (disk / "plan.json").write_text("old")
    fill(disk / "filler", leave=8 << 10)
    with (
        pytest.raises(OutputError, match="No space left"),
        written_whole(disk / "plan.json", force=True) as file,
    ):
        file.write(bytes(32 << 10))
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "plan.json"]
    assert (disk / "plan.json").read_text() == "old"


def fill(path: Path, leave: int) -> None:
    """Fills the disk that a file lies on, up to some bytes."""
    info = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, info.f_bavail * info.f_frsize - leave)))
