"""What may be converted."""

from __future__ import annotations

import zipfile

import pytest

from dnnsplit_onnx.converters.sources import parse_source
from dnnsplit_onnx.errors import InputError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m.keras", "keras-file"),
        ("m.h5", "keras-file"),
        ("M.HDF5", "keras-file"),
        ("m.pt2", "exported-program"),
    ],
)
def test_files_are_told_by_their_names(tmp_path, name, kind):
    path = tmp_path / name
    path.touch()
    assert parse_source(path).kind == kind
    assert parse_source(str(path)).path == path


def test_a_keras_archive_is_known_under_any_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.bin2", "w") as archive:
        archive.writestr("config.json", "{}")
    assert parse_source(tmp_path / "model.bin2").kind == "keras-file"


def test_a_saved_model_is_a_folder(tmp_path):
    with pytest.raises(InputError, match="no saved_model"):
        parse_source(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    assert parse_source(tmp_path).kind == "saved-model"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("zoo:keras_resnet50", "zoo"), ("pkg.models:build", "callable"), ("models:Net.make", "callable")],
)
def test_names_are_told_by_their_form(text, kind):
    assert parse_source(text).kind == kind


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.keras", "no such file"),
        ("folder/nothing", "no such file"),
        ("nothing", "cannot tell"),
        ("a b:c", "cannot tell"),
        (3, "cannot convert a int"),
        ((1, 2), "cannot convert a tuple"),
    ],
)
def test_anything_else_is_refused_with_a_list_of_what_goes(source, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_source(source)
    assert ".keras" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"), [("m.onnx", "ONNX model already"), ("m.pth", "pickled"), ("m.txt", "cannot tell")]
)
def test_files_of_other_kinds_say_what_to_do(tmp_path, name, message):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=message) as caught:
        parse_source(tmp_path / name)
    assert caught.value.hint
