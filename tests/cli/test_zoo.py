"""The zoo: what it lists is true, and what it makes runs and is the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from dnnsplit_onnx.errors import MissingExtraError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.models import ENTRIES, model_path, write_model
from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES
from dnnsplit_onnx.models.weights import uniform
from dnnsplit_onnx.work.analysis import measure
from tests.cli.conftest import Run

LARGE = {"random_vgg19", "random_zfnet512", "random_bvlc_alexnet"}
QUICK = ["random_squeezenet", "random_shufflenet", "tiny_residual", "tiny_squeeze_excite", "tiny_transformer"]


def test_the_nine_of_onnx_are_there() -> None:
    assert sum(name.startswith("light_") for name in ENTRIES) == 9


@pytest.mark.parametrize("name", [name for name in ENTRIES if not name.startswith("random_")])
def test_recorded_figures_are_true(name: str, tmp_path: Path) -> None:
    check_figures(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENTRIES if name.startswith("random_")])
def test_recorded_figures_of_built_ones_are_true(name: str, tmp_path: Path) -> None:
    check_figures(name, tmp_path)


def check_figures(name: str, folder: Path) -> None:
    entry = ENTRIES[name]
    write_model(name, folder / "m.onnx")
    graph = load_graph(folder / "m.onnx")
    analysis = measure(graph, bind_shapes(graph, dict.fromkeys(free_dimensions(graph, {}), 1)))
    assert analysis.uncounted == {}
    found = (len(graph.nodes), int(analysis.macs.sum()), analysis.total_weight_nbytes)
    assert found == (entry.nodes, entry.macs, entry.weight_nbytes)
    (folder / "m.onnx").unlink()


@pytest.mark.parametrize("name", QUICK)
def test_outputs_depend_on_the_input(name: str, tmp_path: Path) -> None:
    outputs_vary(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if name.startswith("random_") and name not in QUICK]
)
def test_outputs_of_large_ones_depend_on_the_input(name: str, tmp_path: Path) -> None:
    outputs_vary(name, tmp_path)


def outputs_vary(name: str, folder: Path) -> None:
    path = folder / "m.onnx"
    write_model(name, path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    one, other = (session.run(None, {port.name: image})[0] for image in images)
    assert np.isfinite(one).all()
    assert one.std() > 0
    assert np.abs(one - other).max() > 1e-6 * np.abs(one).max()
    del session
    path.unlink()


def test_building_twice_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_model("random_squeezenet", tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_weights_are_the_same_on_every_machine() -> None:
    # Raw draws of PCG64 and exact arithmetic: no release of numpy may change these.
    drawn = uniform("a name", (3,), -1.0, 1.0)
    assert drawn.tolist() == [-0.7604109048843384, 0.4758267402648926, -0.027044177055358887]
    assert uniform("another", (3,), -1.0, 1.0).tolist() != drawn.tolist()


def test_built_models_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = model_path("tiny_residual")
    assert first.is_relative_to(tmp_path)
    made = first.stat().st_mtime_ns
    assert model_path("tiny_residual").stat().st_mtime_ns == made


def test_light_models_need_no_copy() -> None:
    assert model_path("light_resnet50").parent.name == "light"


def test_an_onnx_without_its_test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnnsplit_onnx.models.light.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="does not hold `light_resnet50`"):
        model_path("light_resnet50")


def test_list(run: Run) -> None:
    assert [model["name"] for model in run("zoo", "list", "--json").json["models"]] == [
        *ENTRIES,
        *FRAMEWORK_ENTRIES,
    ]
    shown = run("zoo", "list")
    assert all(name in shown.out for name in ENTRIES)


def test_get_writes_the_file_and_does_not_overwrite(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "m.onnx"
    ended = run("zoo", "get", "light_squeezenet", "-o", file)
    assert (ended.code, ended.out, ended.err) == (0, "", f"wrote {file}\n")
    assert file.read_bytes() == model_path("light_squeezenet").read_bytes()
    assert run("zoo", "get", "tiny_residual", "-o", file).code == 2
    assert file.read_bytes() == model_path("light_squeezenet").read_bytes()
    assert run("zoo", "get", "tiny_residual", "-o", file, "--force").code == 0
    assert run("zoo", "get", "no_such_thing", "-o", file).code == 2


def test_get_cannot_write_to_a_folder(run: Run, tmp_path: Path) -> None:
    ended = run("zoo", "get", "tiny_residual", "-o", tmp_path)
    assert ended.code == 2
    assert ended.err == f"error: `{tmp_path}` is a folder\nhint: name a file\n"


def test_a_full_disk_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnnsplit_onnx.files.Path.replace", full)
    ended = run("zoo", "get", "tiny_residual", "-o", tmp_path / "m.onnx")
    assert ended.code == 2
    assert ended.err == f"error: cannot write `{tmp_path / 'm.onnx'}`: No space left on device\n"
    assert list(tmp_path.iterdir()) == []
