"""Pictures as inputs: JPEG and PNG files, for inputs that are pixels of bytes.

An input takes pictures if it is uint8 of shape [1, height, width, 3]: one picture, row by row, red
before green before blue. A file is turned as its EXIF data say, its colours become RGB, and it is
resized to the input's height and width by bilinear interpolation, its aspect not kept.

Where the plan has such a file cross links, it is the input's value until the tier that reads it decodes
it: uint8 of one dimension, which every transport carries as any other tensor.

A file may come from anyone: its length, its kind and the pixels that it says to have are bounded
before anything of it is decoded. Pillow is an extra.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.graph.ports import Port

#: What files of pictures are called.
SUFFIXES = (".jpg", ".jpeg", ".png")
#: More pictures of a folder are not read.
MOST_FILES = 4096
#: Pixels that a file may have: 150 MB once they are decoded.
MOST_PIXELS = 50_000_000
MOST_NBYTES = 64 << 20

_FORMATS = ("JPEG", "PNG")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
INSTALL = "pip install 'dnnsplit-onnx[images]'"


@cache
def _pillow() -> ModuleType | None:
    try:
        return import_module("PIL.Image")
    except ImportError:
        return None


@dataclass(frozen=True)
class Picture:
    """A file of a picture that is the value of an input, not decoded yet.

    Attributes:
        data: The file.
        height, width: Of the input.
    """

    data: bytes
    height: int
    width: int

    @property
    def code(self) -> str:
        """The kind of file, by its beginning."""
        return "png" if self.data.startswith(_BEGINNINGS[1]) else "jpeg"

    def pixels(self) -> np.ndarray:
        """The input's value.

        Raises:
            InputError: The file is no picture that can be read.
            MissingExtraError: Pillow is not installed.
        """
        return decode(self.data, self.height, self.width)[np.newaxis]

    def file(self) -> np.ndarray:
        """The file as the input's value: uint8 of one dimension.

        Raises:
            InputError: It is too long, or begins as no JPEG or PNG does.
        """
        _check_length(self.data)
        if not self.data.startswith(_BEGINNINGS):
            raise InputError("the file is no JPEG or PNG", hint="save the picture as one of these")
        return np.frombuffer(self.data, np.uint8)


def picture_of(file: bytes | Path, port: Port) -> Picture:
    """A file, or its bytes, as the value of an input.

    Raises:
        InputError: The input does not take pictures, or the file cannot be read.
    """
    if not port.is_picture:
        raise InputError(
            f"input `{port.name}` is no picture: that is uint8 of shape [1, height, width, 3]",
            hint="put the normalisation into the model: dnnsplit-onnx image MODEL -o IMAGE_MODEL",
        )
    _, height, width, _ = port.shape or ()
    assert isinstance(height, int)
    assert isinstance(width, int)
    return Picture(_read(file) if isinstance(file, Path) else file, height, width)


def as_picture(value: Any, port: Port) -> Any:
    """A value; a file, or its bytes, as the picture that it is if its input takes pictures."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.uint8:
        return picture_of(value.tobytes(), port) if port.is_picture else value
    return picture_of(value, port) if isinstance(value, bytes | Path) and port.is_picture else value


def sent(value: Picture, port: Port) -> np.ndarray:
    """A picture as its input's value: the file where that crosses links, else its pixels.

    Raises:
        InputError: It is no picture that can be read, or sent.
        MissingExtraError: Its pixels are wanted, and Pillow is not installed.
    """
    return value.file() if port.is_file else value.pixels()


def in_pixels(values: Mapping[str, Any], ports: Iterable[Port]) -> Mapping[str, Any]:
    """Values with the files among them decoded, for who reads these ports; the same if there are none.

    Raises:
        InputError: A file is no picture that can be read.
        MissingExtraError: Pillow is not installed.
    """
    files = [port for port in ports if port.is_file and np.ndim(values.get(port.name, 0)) == 1]
    if not files:
        return values
    return {**values, **decoded({port.name: as_picture(values[port.name], port) for port in files})}


def need_pillow() -> ModuleType:
    """Pillow.

    Raises:
        MissingExtraError: It is not installed.
    """
    image = _pillow()
    if image is None:
        raise MissingExtraError("pictures need Pillow, which is not installed", hint=INSTALL)
    return image


def decode(data: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """The pixels of a file, shape (height, width, 3), uint8.

    Raises:
        InputError: It is no JPEG or PNG, damaged, or has too many pixels.
        MissingExtraError: Pillow is not installed.
    """
    with _opened(data) as (image, opened):
        opened.load()
        picture = import_module("PIL.ImageOps").exif_transpose(opened).convert("RGB")
        return np.asarray(picture.resize((width, height), image.Resampling.BILINEAR))


@contextmanager
def _opened(data: bytes | memoryview) -> Iterator[tuple[ModuleType, Any]]:
    """A file whose head has been read; what Pillow raises inside is an error of ours."""
    image = need_pillow()
    _check_length(data)
    try:
        with image.open(BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                size = f"{opened.width} x {opened.height}"
                raise InputError(f"the picture has {size} pixels; at most {MOST_PIXELS:,} are read")
            yield image, opened
    # What Pillow raises for files that are damaged in one way or another.
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error):
        raise InputError("the file is no JPEG or PNG that can be read") from None
    except image.DecompressionBombError:
        raise InputError(f"the picture has too many pixels; at most {MOST_PIXELS:,} are read") from None


def is_of_pictures(path: str | Path) -> bool:
    """Whether a path is a picture, or a folder of them."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES or path.is_dir()


def load_pictures(path: str | Path, ports: Sequence[Port]) -> list[tuple[dict[str, Picture], str]]:
    """The pictures of a file or folder, each the value of the one input, with its file's name.

    Args:
        path: The file, or a folder whose pictures are taken in the order of their names.
        ports: What the model reads.

    Raises:
        InputError: The model does not read one picture, or there is none.
    """
    path = Path(path)
    if len(ports) != 1:
        raise InputError(
            f"`{path}` is a picture, and the model reads {len(ports)} inputs",
            hint="give all of them in one file: --input X.npz",
        )
    return [({ports[0].name: picture_of(file, ports[0])}, str(file)) for file in _files(path)]


def median_nbytes(path: str | Path) -> int:
    """How long the files of pictures are, of one or of a folder.

    Raises:
        InputError: There is none, or one cannot be read.
    """
    return round(median(len(_read(file)) for file in _files(Path(path))))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)[:MOST_FILES]
    if not files:
        raise InputError(f"`{path}` has no pictures", hint=f"their names end in {', '.join(SUFFIXES)}")
    return files


def decoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the pictures among them decoded."""
    return {name: value.pixels() if isinstance(value, Picture) else value for name, value in values.items()}


def _check_length(data: bytes | memoryview) -> None:
    if len(data) > MOST_NBYTES:
        raise InputError(f"the picture has {len(data)} bytes; at most {MOST_NBYTES} are read")


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, most_nbytes=MOST_NBYTES)
    except FileNotFoundError:
        raise InputError(f"no such file: `{file}`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read `{file}`: {error}") from None
