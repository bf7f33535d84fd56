"""A tier's libraries of operators: loaded where its slice is opened, and only with leave."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx import Chain, InputError, MissingExtraError, ModelError, bench, custom_ops, verify
from dnnsplit_onnx.cli import main
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.runtime import custom_ops as registry
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.running.folders import PERCEPTRON, edit_manifest, split, with_weights

# A library without operators that counts how often it is registered.
SOURCE = """
int registrations = 0;
void *RegisterCustomOps(void *options, const void *api) { registrations++; return 0; }
"""


@pytest.fixture(autouse=True)
def none_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_libraries", {})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to make a library")
    folder = tmp_path_factory.mktemp("library")
    (folder / "ops.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "ops.so", folder / "ops.c"], check=True)
    return folder / "ops.so"


@pytest.fixture
def library(built: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, which is kept loaded so that it goes on counting when sessions have closed it."""
    copy = Path(shutil.copy(built, tmp_path / "ops.so"))
    held = ctypes.CDLL(str(copy))
    yield copy
    del held


def count(library: Path) -> int:
    return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "registrations").value


@pytest.fixture
def folder(model_text: Any, library: Path) -> Path:
    """Slices of two tiers, the upper of which names the library."""
    made = split(with_weights(model_text(PERCEPTRON)), 2)
    edit_manifest(made, lambda data: data["slices"][1].update(custom_ops=[str(library)]))
    return made


def test_nothing_is_loaded_without_leave(folder: Path, library: Path) -> None:
    for use in (Chain.open, verify, bench):
        with pytest.raises(InputError, match=r"tier `t1` names the library .* nobody allowed it") as caught:
            use(folder)
        assert (
            caught.value.hint == f"pass --custom-ops {library}, or --custom-ops tier for all that tiers name"
        )
    assert count(library) == 0


def test_a_tier_s_library_is_registered_for_its_slice_alone(folder: Path, library: Path) -> None:
    custom_ops("tier")
    Chain.open(folder)
    assert count(library) == 1
    bench(folder, tier="t0", runs=1)
    assert count(library) == 1
    bench(folder, tier="t1", runs=1)
    assert count(library) == 2


def test_the_whole_model_has_the_libraries_of_all_tiers(folder: Path, library: Path) -> None:
    custom_ops("tier")
    before = count(library)
    assert verify(folder).bitwise
    assert count(library) - before >= 4  # whole and upper slice, with optimisations and without


def test_a_server_of_a_tier_registers_it(folder: Path, library: Path) -> None:
    routes = Routes(load_manifest(folder))
    with pytest.raises(InputError, match="nobody allowed it"):
        Stage(folder, routes, 1, SessionOptions(provider=TIER)).warm_up()
    Stage(folder, routes, 1, SessionOptions(provider=TIER, custom_ops=("tier",))).warm_up()
    assert count(library) == 1


def test_a_library_of_the_same_name_elsewhere_stands_for_it(
    folder: Path, library: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    moved = Path(shutil.move(library, tmp_path / "here" / "ops.so"))
    custom_ops("tier")
    with pytest.raises(InputError, match="no such library of operators"):
        Chain.open(folder)
    custom_ops(moved)
    Chain.open(folder)
    assert count(moved) == 2  # each slice has what is given for the process, once


def test_a_failed_registration_says_so(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    edit_manifest(folder, lambda data: data["slices"][1].update(custom_ops=[str(broken)]))
    custom_ops("tier")
    with pytest.raises(ModelError, match=r"cannot register the operators of `.*broken.so`"):
        Chain.open(folder)


def test_the_package_needs_no_leave(folder: Path, monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    edit_manifest(folder, lambda data: data["slices"][1].update(custom_ops=["onnxruntime-extensions"]))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_extensions", None)
    with pytest.raises(MissingExtraError):
        Chain.open(folder)
    module = type("Extensions", (), {"get_library_path": staticmethod(lambda: str(library))})
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_extensions", module)
    Chain.open(folder)
    assert count(library) == 1


def test_from_the_tiers_file_to_the_proof(
    model_text: Any, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(
        '[[tier]]\nname = "edge"\ngflops = 1\ncustom_ops = ["ops.so", "onnxruntime-extensions"]\n'
        '[[tier]]\nname = "cloud"\ngflops = 100\n[[link]]\nbandwidth_mbps = 1\n'
    )
    assert load_topology(tiers).tiers[0].custom_ops == (str(library), "onnxruntime-extensions")
    tiers.write_text(tiers.read_text().replace(', "onnxruntime-extensions"', ""))
    model, slices = str(with_weights(model_text(PERCEPTRON))), str(tmp_path / "out")
    words = ["split", model, "--tiers", str(tiers), "--at", "1", "-o", slices]
    assert main(words) == 2
    assert "nobody allowed it to run here" in capsys.readouterr().err
    assert main([*words, "--custom-ops", "tier"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [record["custom_ops"] for record in manifest["slices"]] == [[str(library)], []]
    assert main(["verify", slices]) == 0  # what was allowed is, in this process
    profiled = ["profile", model, "--tier", "edge", "--tiers", str(tiers), "--runs", "2"]
    registry._libraries.clear()
    assert main([*profiled, "-o", str(tmp_path / "p.json")]) == 2
    before = count(library)
    assert main([*profiled, "-o", str(tmp_path / "p.json"), "--custom-ops", "tier"]) == 0
    assert count(library) > before
    assert np.isfinite(json.loads((tmp_path / "p.json").read_text())["whole_s"])
