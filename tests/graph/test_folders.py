"""A folder as a model: what exporters lay down."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx import load_graph
from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.models.decoder import decoder


def _write(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(decoder(), file)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.onnx"], "model.onnx"),
        (["onnx/model.onnx", "onnx/model_q4.onnx"], "onnx/model.onnx"),
        (["onnx/decoder_model.onnx", "onnx/decoder_model_merged.onnx"], "onnx/decoder_model_merged.onnx"),
        (["decoder_model.onnx", "decoder_with_past_model.onnx"], "decoder_with_past_model.onnx"),
        (["anything.onnx"], "anything.onnx"),
        (["onnx/anything.onnx"], "onnx/anything.onnx"),
    ],
)
def test_the_model_of_a_folder(tmp_path: Path, names: list[str], chosen: str) -> None:
    _write(*(tmp_path / name for name in names))
    (tmp_path / "config.json").write_text("{}")
    assert load_graph(tmp_path).file.path == tmp_path / chosen


def test_a_genai_folder_names_its_decoder(tmp_path: Path) -> None:
    _write(tmp_path / "model.onnx", tmp_path / "text.onnx")
    config = {"model": {"decoder": {"filename": "text.onnx"}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    assert load_graph(str(tmp_path)).file.path == tmp_path / "text.onnx"


@pytest.mark.parametrize(
    "text", ["{}", "[]", "no json", '{"model": {"decoder": {"filename": "../text.onnx"}}}']
)
def test_a_configuration_that_names_no_decoder_is_refused(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "model.onnx")
    (tmp_path / "genai_config.json").write_text(text)
    with pytest.raises(ModelError, match="names no decoder in its folder"):
        load_graph(tmp_path)


def test_a_folder_without_a_model_or_with_several(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no ONNX model"):
        load_graph(tmp_path)
    _write(tmp_path / "one.onnx", tmp_path / "onnx" / "two.onnx")
    with pytest.raises(ModelError, match=r"several models: `one\.onnx`, `onnx/two\.onnx`") as raised:
        load_graph(tmp_path)
    assert raised.value.hint == "name one of them"
