"""Conversions in a process of their own, and the errors that come back from there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.child import convert_in_child
from dnnsplit_onnx.converters.conversion import Options
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import Source
from dnnsplit_onnx.errors import InputError, OutputError, VerificationError


def in_child(text, tmp_path):
    return convert_in_child(
        Source(text, "callable"), tmp_path / "m.onnx", Route("pytorch", "asked for"), Options(), sys.path
    )


def test_importing_the_converters_imports_no_framework():
    code = (
        "import sys, dnnsplit_onnx.converters; "
        "heavy = {'torch', 'keras', 'tensorflow', 'tf2onnx', 'onnxruntime', 'transformers', 'h5py'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(): raise ValueError('no such file: weights.bin')", "no such file: weights.bin"),
        ("import not_a_module_at_all\ndef build(): pass", "not_a_module_at_all"),
        ("built = 3", "has no `build`"),
        ("build = 3", "is a int, not a function"),
        ("def build(): return 3", "cannot convert a int"),
    ],
)
def test_what_goes_wrong_in_a_function_comes_back_as_one_line(importable, tmp_path, source, message):
    with pytest.raises(InputError) as caught:
        in_child(f"{importable('broken', source)}:build", tmp_path)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert "Traceback" in caught.value.__notes__[0]


def test_errors_keep_their_class_hint_and_context(importable, tmp_path):
    source = """
from dnnsplit_onnx.errors import VerificationError
def build():
    raise VerificationError("apart", hint="the fix", context="at node x")
"""
    with pytest.raises(VerificationError) as caught:
        in_child(f"{importable('apart', source)}:build", tmp_path)
    error = caught.value
    assert (error.message, error.hint, error.context, error.exit_code) == ("apart", "the fix", "at node x", 1)


@pytest.mark.parametrize(
    ("death", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "for lack of memory"),
        ("import os; print('last words', flush=True); os._exit(3)", "exit code 3"),
    ],
)
def test_a_process_that_dies_is_an_error_with_its_last_words(importable, tmp_path, death, message):
    with pytest.raises(InputError, match=message) as caught:
        in_child(f"{importable('deadly', f'def build(): {death}')}:build", tmp_path)
    assert ("last words" in caught.value.__notes__[0]) == ("last words" in death)


def test_an_output_that_is_there_is_kept(tmp_path):
    (tmp_path / "m.keras").touch()
    (tmp_path / "m.onnx").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        convert(tmp_path / "m.keras", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "precious"


def test_sizes_are_checked_before_anything_starts(tmp_path):
    (tmp_path / "m.keras").touch()
    with pytest.raises(InputError, match="`batch` cannot be 0"):
        convert(tmp_path / "m.keras", tmp_path / "m.onnx", batch=0)


def test_a_function_that_wants_tensorflow_learns_of_its_route(importable, tmp_path):
    with pytest.raises(InputError) as caught:
        in_child(f"{importable('wanting', 'import tensorflow')}:build", tmp_path)
    assert "--route keras-tf" in caught.value.hint


def test_a_module_that_is_not_there_says_where_to_run(tmp_path):
    with pytest.raises(InputError, match="not_a_module_here") as caught:
        in_child("not_a_module_here.models:build", tmp_path)
    assert "PYTHONPATH" in caught.value.hint


def test_modules_of_the_current_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text("def build(): raise ValueError('found')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="ValueError: found"):
        in_child("beside_me:build", tmp_path)
