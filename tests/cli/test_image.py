"""`image`: a model that reads pictures, and what becomes of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.models import write_model
from tests.cli.conftest import Run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    write_model("tiny_residual", path)
    return path


def test_a_picture_runs_through_all_of_it(run: Run, model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'dnnsplit-onnx[images]'")
    out = tmp_path / "photo.onnx"
    ended = run("image", model, "--mean", "127.5", "--scale", "1/127.5", "-o", out, "--json")
    assert (ended.code, ended.json) == (0, {"model": str(out), "input": "picture"}), ended.err
    (reads,) = onnx.load(out).graph.input
    _, height, width, _ = (dim.dim_value for dim in reads.type.tensor_type.shape.dim)
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(
        '[[tier]]\nname = "edge"\ngflops = 1\n[[tier]]\nname = "cloud"\ngflops = 10\n'
        "[[link]]\nbandwidth_mbps = 100\n"
    )
    folder = tmp_path / "photos"
    folder.mkdir()
    for at in range(2):
        pixels = np.random.default_rng(at).integers(0, 256, (2 * height, width, 3), np.uint8)
        image.fromarray(pixels).save(folder / f"{at}.jpg")
    ended = run(
        "split", out, "--tiers", tiers, "--at", "6", "-o", tmp_path / "slices", "--input", folder / "0.jpg"
    )
    assert ended.code == 0, ended.err
    ended = run("verify", tmp_path / "slices", "--input", folder, "--json")
    assert (ended.code, ended.json["bitwise"], ended.json["runs"]) == (0, True, 2)
    ended = run("run", tmp_path / "slices", "--input", folder, "--json")
    assert (ended.code, ended.json["requests"], ended.json["failed"]) == (0, 2, 0), ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scale", "a"), "cannot read `--scale a`"),
        (("--scale", "1/0"), "cannot read `--scale 1/0`"),
        (("--mean", "1,2"), "`mean` is 1.0, 2.0"),
        (("--size", "224"), "cannot read `--size 224`"),
        (("--input", "nothing"), "has no input `nothing`"),
    ],
)
def test_mistakes(run: Run, model: Path, tmp_path: Path, options: tuple[str, str], said: str) -> None:
    ended = run("image", model, "-o", tmp_path / "photo.onnx", *options)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert "hint:" in ended.err
