"""Tiles of a folder of slices: put together, they are the slice; and the proof finds a wrong one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.files import file_sha256
from dnnsplit_onnx.machines.tiers import Lan, Machine, Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.measuring.benchmark import bench
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.reporting.console import stdout_console
from dnnsplit_onnx.reporting.proof_view import print_bench
from dnnsplit_onnx.running.slices import open_slice
from dnnsplit_onnx.running.tiles import Arrays, run_tiles
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import Manifest, TileRecord, load_manifest
from tests.slicing.stacks import Stack, image

MACHINES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of convolutions on three machines, and what is above on a cloud."""
    path = tmp_path_factory.mktemp("tiles")
    stack = Stack(np.random.default_rng(4), height=36, width=12)
    for step in (stack.conv, stack.residual, stack.pool, stack.normalise, stack.residual):
        step()
    pooled = stack.add("GlobalAveragePool", [stack.value])[0]
    stack.become(stack.add("Softmax", [pooled], axis=1)[0], (*stack.shape[:2], 1, 1))
    onnx.save(stack.model(), path / "model.onnx")
    machines = [Machine(name=f"m{at}", gflops=0.01) for at in range(MACHINES)]
    edge = Tier("edge", machines=machines, lan=Lan(bandwidth_mbps=1000, delay_ms=0.01))
    topology = Topology(
        tiers=[edge, Tier("cloud", gflops=1)], links=[Link(bandwidth_mbps=0.01, delay_ms=100)]
    )
    made = plan(path / "model.onnx", topology)
    slice_model(path / "model.onnx", made, path / "slices")
    return path / "slices"


def run_one_by_one(folder: Path, manifest: Manifest, values: Arrays) -> Arrays:
    record = manifest.slices[0]

    def compute(region: Sequence[TileRecord], inputs: Sequence[Arrays]) -> list[Arrays]:
        pairs = zip(region, inputs, strict=True)
        return [{**open_slice(folder, record.of_tile(tile)).run_arrays({**given})} for tile, given in pairs]  # type: ignore[dict-item]

    return run_tiles(record, values, compute)


def test_tiles_put_together_are_the_slice(folder: Path) -> None:
    manifest = load_manifest(folder)
    record = manifest.slices[0]
    assert any(len(region) == MACHINES for region in record.regions)
    assert [region[0].start for region in record.regions] == [
        record.start,
        *(region[0].stop for region in record.regions[:-1]),
    ]
    x = image(onnx.load(folder.parent / "model.onnx"), np.random.default_rng(0))
    whole = open_slice(folder, record).run_arrays({"x": x})
    tiled = run_one_by_one(folder, manifest, {"x": x})
    assert tiled.keys() == whole.keys()
    for name, expected in whole.items():
        np.testing.assert_allclose(tiled[name], expected, rtol=1e-5, atol=1e-6)


def test_each_tile_is_proven_and_the_page_says_how(folder: Path) -> None:
    found = verify(folder)
    assert found.passed
    assert len(found.tiles) == len(load_manifest(folder).slices[0].tiles)
    assert all(tile.within_tolerance for tile in found.tiles)
    assert any("tiles are the rows of the whole" in note for note in found.notes)
    assert len(found.to_dict()["tiles"]) == len(found.tiles)


def test_a_tile_that_computes_something_else_is_found(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "slices"
    shutil.copytree(folder, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["model"]["path"] = str(folder.parent / "model.onnx")
    tile = next(one for one in manifest["slices"][0]["tiles"] if one["machine"] == "m1" and one["rows"])
    model = onnx.load(broken / tile["file"], load_external_data=False)
    last = model.graph.output[0].name
    maker = next(node for node in model.graph.node if last in node.output)
    maker.output[list(maker.output).index(last)] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [last]))
    onnx.save(model, broken / tile["file"])
    tile["digests"] = {"sha256": file_sha256(broken / tile["file"])}
    (broken / "manifest.json").write_text(json.dumps(manifest))
    found = verify(broken)
    assert not found.passed
    wrong = [one for one in found.tiles if not one.within_tolerance]
    assert [(one.machine, one.start) for one in wrong] == [("m1", tile["start"])]
    assert any("the tile of machine `m1`" in note for note in found.notes)


def test_a_tile_that_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "slices"
    shutil.copytree(folder, broken)
    tile = load_manifest(broken).slices[0].tiles[-1]
    (broken / tile.file).write_bytes(b"\0")
    with pytest.raises(ManifestError, match="its checksum differs"):
        verify(broken, folder.parent / "model.onnx")


@pytest.mark.parametrize("tier", [None, "edge"])
def test_bench_times_every_tile_and_what_the_machines_take_side_by_side(
    folder: Path, tier: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    record = load_manifest(folder).slices[0]
    found = bench(folder, tier=tier, runs=3, warmup=1)
    data = found.to_dict()
    assert [(row["machine"], row["start"], row["rows"]) for row in data["tiles"]] == [
        (tile.machine, tile.start, None if tile.rows is None else list(tile.rows)) for tile in record.tiles
    ]
    assert all(row["runs"] == 3 for row in data["tiles"])
    (stage,) = data["side_by_side"]
    assert stage["runs"] == 3
    # A run is the slowest tile of each region, so never less than the best run of any one machine.
    for machine in {tile.machine for tile in record.tiles}:
        alone = sum(row["min_ms"] for row in data["tiles"] if row["machine"] == machine)
        assert stage["min_ms"] >= alone
    kinds = [row["kind"] for row in found.records()]
    assert kinds.count("tile") == len(record.tiles)
    print_bench(stdout_console(), data)
    assert "side by side, " in " ".join(capsys.readouterr().out.split())


def test_bench_refuses_a_tile_that_was_changed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "slices")
    record = load_manifest(folder).slices[0]
    with (tmp_path / "slices" / record.tiles[0].file).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ManifestError):
        bench(tmp_path / "slices", model=folder.parent / "model.onnx", runs=1)
