"""The model in a folder, as exporters and hubs lay it down.

A folder is taken for the model that it is of:

1. the decoder that `genai_config.json` names, as onnxruntime-genai writes it;
2. a file of a name that exporters give (`decoder_model_merged.onnx`, `model.onnx`, ...), in the
   folder or in its `onnx`, as Hugging Face has it;
3. its only ONNX file.
"""

from __future__ import annotations

import json
from pathlib import Path

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.files import read_bounded

_GENAI = "genai_config.json"
# A decoder with both branches comes before its halves.
_NAMES = ("decoder_model_merged.onnx", "model.onnx", "decoder_with_past_model.onnx", "decoder_model.onnx")
_PLACES = (".", "onnx")
_LARGEST_NBYTES = 1 << 24
_MOST_LISTED = 5


def model_in(path: Path) -> Path:
    """The model's file: the one in a folder, or the path itself where it is none.

    Raises:
        ModelError: The folder has no model, or several and nothing that says which.
    """
    if not path.is_dir():
        return path
    if (config := path / _GENAI).is_file():
        return path / _named_by(config)
    for place in _PLACES:
        for name in _NAMES:
            if (file := path / place / name).is_file():
                return file
    files = sorted(file for place in _PLACES for file in (path / place).glob("*.onnx") if file.is_file())
    if len(files) == 1:
        return files[0]
    if not files:
        raise ModelError(f"folder `{path}` has no ONNX model", hint="name the model's file")
    listed = ", ".join(f"`{file.relative_to(path)}`" for file in files[:_MOST_LISTED])
    more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
    raise ModelError(f"folder `{path}` has several models: {listed}{more}", hint="name one of them")


def _named_by(config: Path) -> str:
    """The decoder's file, as onnxruntime-genai's configuration has it."""
    try:
        name = json.loads(read_bounded(config, most_nbytes=_LARGEST_NBYTES))["model"]["decoder"]["filename"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ModelError(
            f"`{config}` names no decoder in its folder",
            hint="it should have model.decoder.filename; or name the model's file",
        )
    return name
