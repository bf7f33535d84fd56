from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.errors import InputError, ManifestError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.running.origin import bindings_of, find_model, random_values, slices_folder
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.running.folders import PERCEPTRON, edit_manifest, split, with_weights


@pytest.fixture
def model(model_text: Callable[..., Path]) -> Path:
    return with_weights(model_text(PERCEPTRON))


def test_finds_the_model_from_anywhere(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = split(model, 1)
    manifest = load_manifest(folder)
    assert find_model(folder, manifest) == model
    monkeypatch.chdir(tmp_path)
    assert find_model(Path("slices"), manifest) == model
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "link").symlink_to(folder)
    assert find_model(tmp_path / "far" / "link", manifest) == model


def test_a_moved_model_has_to_be_named(model: Path, tmp_path: Path) -> None:
    folder = split(model, 1)
    moved = model.rename(tmp_path / "moved.onnx")
    with pytest.raises(ManifestError, match="cannot read the whole model") as caught:
        find_model(folder, load_manifest(folder))
    assert "--model" in (caught.value.hint or "")
    assert find_model(folder, load_manifest(folder), moved) == moved


@pytest.mark.parametrize("named", [True, False])
def test_another_model_is_refused(model: Path, named: bool) -> None:
    folder = split(model, 1)
    with_weights(model, seed=8)
    with pytest.raises(ManifestError, match="not the model that was split"):
        find_model(folder, load_manifest(folder), model if named else None)


def test_bindings(model: Path) -> None:
    folder = split(model, 1)
    assert bindings_of(load_manifest(folder)) == {}

    def bind(size: Any) -> None:
        edit_manifest(folder, lambda data: data["plan"].update(bindings={"batch": size}))

    bind(4)
    assert bindings_of(load_manifest(folder)) == {"batch": 4}
    for wrong in ("4", 0, True, 2.5):
        bind(wrong)
        with pytest.raises(ManifestError, match="not a size"):
            bindings_of(load_manifest(folder))


def test_randomness_flows_downstream(graph_text: Callable[..., Graph]) -> None:
    graph = graph_text(
        """
        n (float[2] x) => (float[2] y, float[2] clean, float[2] seeded) {
            [noise] r = RandomNormalLike(x)
            a = Add(x, r)
            y = Relu(a)
            clean = Neg(x)
            [fixed] s = RandomNormalLike<seed = 1.0>(x)
            seeded = Abs(s)
        }
        """
    )
    assert random_values(graph) == {"r": "noise", "a": "noise", "y": "noise"}
    named = graph.nodes[graph.producer["clean"]].name
    assert random_values(graph, [named])["clean"] == named


def test_folder_or_manifest(model: Path, tmp_path: Path) -> None:
    folder = split(model, 1)
    assert slices_folder(folder) == slices_folder(folder / "manifest.json") == folder
    with pytest.raises(InputError, match="no such folder"):
        slices_folder(tmp_path / "gone")
