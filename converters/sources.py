"""What a user may hand to `convert`, told apart without importing a framework."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dnnsplit_onnx.errors import InputError

Kind = Literal[
    "keras-file",
    "saved-model",
    "exported-program",
    "torch-script",
    "hugging-face",
    "callable",
    "zoo",
    "keras-model",
    "torch-module",
]

ZOO = "zoo:"
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*\))?$")
_HINT = (
    "pass a .keras or .h5 file, a SavedModel or Hugging Face folder, a .pt2 exported program, a TorchScript "
    "file, zoo:NAME, or package.module:function that returns the model"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A model to convert.

    Attributes:
        text: How the user named it.
        kind: What it is.
        live: The model itself, where the caller handed one over.
    """

    text: str
    kind: Kind
    live: Any = None

    @property
    def path(self) -> Path:
        """The file or folder, for kinds that are one."""
        return Path(self.text)


def parse_source(source: Any) -> Source:
    """Says what `source` is.

    Args:
        source: A path, `zoo:NAME`, `package.module:callable`, or a live Keras or PyTorch
            model (PyTorch: a module with example inputs as a pair).

    Raises:
        InputError: It is none of these, or the file is not there.
    """
    if not isinstance(source, str | Path):
        return _live(source)
    text = str(source)
    if text.startswith(ZOO):
        return Source(text, "zoo")
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if _CALLABLE.match(text):
        return Source(text, "callable")
    if path.suffix or "/" in text:
        raise InputError(f"no such file: `{text}`", hint=_HINT)
    raise InputError(f"cannot tell what `{text}` is", hint=_HINT)


def _folder(path: Path) -> Source:
    if (path / "saved_model.pb").is_file():
        return Source(str(path), "saved-model")
    if (path / "config.json").is_file():
        return Source(str(path), "hugging-face")
    raise InputError(f"the folder `{path}` holds no saved_model.pb and no config.json", hint=_HINT)


def _file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".keras", ".h5", ".hdf5"):
        return Source(str(path), "keras-file")
    if suffix == ".onnx":
        raise InputError(f"`{path}` is an ONNX model already", hint="use it as it is: inspect, plan, split")
    if suffix == ".pt2":
        return Source(str(path), "exported-program")
    if _is_script(path):
        return Source(str(path), "torch-script")
    if suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        raise InputError(
            f"`{path}` holds weights or pickled code, not a model that can be exported",
            hint="write a function that builds the module and loads them, and pass package.module:function",
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                return Source(str(path), "keras-file")
    raise InputError(f"cannot tell what `{path}` is", hint=_HINT)


def _is_script(path: Path) -> bool:
    """Whether a file is what torch.jit.save writes: an archive with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        parts = {name.split("/")[1] for name in archive.namelist() if name.count("/")}
    return "code" in parts


def _live(source: Any) -> Source:
    """A model object, recognised by its class so that no framework is imported for it."""
    model = source[0] if isinstance(source, tuple | list) and source else source
    bases = {f"{base.__module__.split('.')[0]}.{base.__name__}" for base in type(model).__mro__}
    name = getattr(model, "name", None) or type(model).__name__
    if "keras.Model" in bases:
        return Source(str(name), "keras-model", model)
    if "torch.Module" in bases or "torch.ExportedProgram" in bases:
        return Source(str(name), "torch-module", source)
    raise InputError(f"cannot convert a {type(source).__name__}", hint=_HINT)
