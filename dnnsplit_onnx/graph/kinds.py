"""What a file is that was given as a model and is none, told by its first bytes.

And what is no file: a library of operators that is named by its package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: So many bytes of a file tell all kinds below.
HEAD_NBYTES = 512


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file that people take for a model.

    Attributes:
        what: What it is, after "is".
        hint: What to do about it.
        magic: How it begins, in any of these ways.
        at: Where that stands.
    """

    what: str
    hint: str
    magic: tuple[bytes, ...]
    at: int = 0


_TIERS_HEADER = re.compile(rb"^\s*\[\[(tier|link)\]\]", re.MULTILINE)
_EXPORT = "export the model again, or give the .onnx file that it came from"
TIERS_FILE = Kind(
    "a tiers file, and no model",
    "the model goes first, the tiers file after --tiers: MODEL.onnx --tiers tiers.toml",
    (b"[[tier]]", b"[tier]", b"[[link]]", b"[limits]", b"#:schema ./tiers.schema.json"),
)
_KINDS = (
    Kind(
        "a Git LFS pointer, which stands for the model and does not hold it",
        "fetch the model itself: git lfs pull",
        (b"version https://git-lfs",),
    ),
    Kind("compressed by gzip", "unpack it first: gunzip FILE", (b"\x1f\x8b",)),
    Kind("compressed by zstd", "unpack it first: zstd -d FILE", (b"\x28\xb5\x2f\xfd",)),
    Kind("compressed by xz", "unpack it first: xz -d FILE", (b"\xfd7zXZ\x00",)),
    Kind("compressed by bzip2", "unpack it first: bunzip2 FILE", (b"BZh",)),
    Kind(
        "a zip archive",
        "unpack it, if a model lies in it; Keras files and PyTorch checkpoints go through `convert`",
        (b"PK\x03\x04",),
    ),
    Kind(
        "a web page, and no model",
        "the download went wrong: take the link of the raw file",
        (b"<!doctype html", b"<html"),
    ),
    Kind("an XML file, such as OpenVINO's IR", _EXPORT, (b"<?xml",)),
    Kind(
        "a model in onnxruntime's own format (.ort), which cannot be cut",
        "give the .onnx file that it was made from",
        (b"ORTM",),
        4,
    ),
    Kind("a TensorFlow Lite model", _EXPORT, (b"TFL3",), 4),
    Kind("a GGUF file", _EXPORT, (b"GGUF",)),
    Kind(
        "a pickle, such as an old PyTorch checkpoint",
        "convert it first: `convert`",
        (b"\x80\x02", b"\x80\x04"),
    ),
    Kind("an HDF5 file, as Keras writes", "convert it first: `convert`", (b"\x89HDF\r\n\x1a\n",)),
    Kind(
        "ONNX in its text form (.onnxtxt)",
        "turn it into the binary form first, with onnx.parser.parse_model and onnx.save",
        (b"<ir_version", b"< ir_version", b"ir_version:"),
    ),
    TIERS_FILE,
    Kind("a JSON file", _EXPORT, (b"{",)),
)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that is no binary ONNX model; None where nothing tells.

    Args:
        head: Its first `HEAD_NBYTES` bytes, or all of them.
    """
    # Comments and a name of its own may stand before the first table of a tiers file.
    if _TIERS_HEADER.search(head) and head.isascii():
        return TIERS_FILE
    start = b" ".join(head.removeprefix(b"\xef\xbb\xbf").split()[:2]).lower()
    for kind in _KINDS:
        if head[kind.at :].startswith(kind.magic) or (kind.at == 0 and start.startswith(kind.magic)):
            return kind
    return None


def is_model(head: bytes) -> bool:
    """Whether a file begins as binary ONNX does: with a small number as `ir_version`."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 0x20


#: Named in place of a library of operators, it stands for the library of that package.
EXTENSIONS = "onnxruntime-extensions"


def is_extensions(name: str) -> bool:
    """Whether a library is named by the package that has it."""
    return name.replace("_", "-") == EXTENSIONS
