"""A file that is no model: the message says what it is."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.kinds import kind_of
from tests.conftest import light

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) { y = Relu (x) }'


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS", "git lfs pull"),
        (gzip.compress(b"model" * 100, mtime=0), "gzip", "gunzip"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html>\n<html><body>404</body></html>", "web page", "raw file"),
        (b"<HTML >", "web page", "raw file"),
        (b"\x18\x00\x00\x00ORTM\x00\x00", ".ort", ".onnx file"),
        (b"\x1c\x00\x00\x00TFL3\x00\x00", "TensorFlow Lite", "export"),
        (TEXT.encode(), ".onnxtxt", "onnx.save"),
        (b"<\n  ir_version: 8\n>", ".onnxtxt", "onnx.save"),
        (b"PK\x03\x04" + bytes(100), "zip", "convert"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "convert"),
        (b'{"a": 1}', "JSON", "export"),
    ],
)
def test_the_message_names_the_kind(content: bytes, said: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_graph(path)
    assert said in error.value.message
    assert hint in (error.value.hint or "")


def test_models_are_of_no_other_kind() -> None:
    assert kind_of(light("squeezenet").read_bytes()[:512]) is None
    assert kind_of(onnx.parser.parse_model(TEXT).SerializeToString()[:512]) is None
    assert kind_of(b"") is None
