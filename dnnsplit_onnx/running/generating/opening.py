"""From what a person named to a decoder, and what the files beside it say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.checks import positions_of
from dnnsplit_onnx.running.generating.decoder import Decoder
from dnnsplit_onnx.running.generating.folder import ModelFolder, read_folders
from dnnsplit_onnx.running.generating.local import LocalDecoder
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.slicing.manifest import FILE_NAME, load_manifest


def open_decoder(place: Path, session: SessionOptions | None = None) -> Decoder:
    """A decoder in this process.

    Args:
        place: A folder of slices, or a model's file.
        session: How to run it.

    Raises:
        InputError: There is neither, or it cannot be opened.
    """
    if not is_sliced(place):
        return LocalDecoder.of_model(place, session)
    options: Callable[[str], SessionOptions] | None = None if session is None else lambda _: session
    return LocalDecoder.of_slices(place, options)


def is_sliced(place: Path) -> bool:
    """Whether it is a folder of slices.

    Raises:
        InputError: It is another folder.
    """
    if not place.is_dir():
        return place.name == FILE_NAME
    if not (place / FILE_NAME).is_file():
        raise InputError(
            f"`{place}` is a folder without {FILE_NAME}",
            hint="name a folder that `split` made, or a model's file",
        )
    return True


def folder_of(place: Path, tokenizer: Path | None = None) -> ModelFolder:
    """What the files beside a model, or beside slices and the model they were cut from, say.

    Raises:
        InputError: A file is no JSON.
    """
    folders = [place.parent]
    if is_sliced(place):
        folder = _home(place)
        folders = [folder, (folder.resolve() / load_manifest(folder).model.path).parent]
    return _with_positions(read_folders(folders, tokenizer), models_of(place))


def models_of(place: Path) -> list[Path]:
    """The file of a model, or those of its slices that are here."""
    if not is_sliced(place):
        return [place]
    folder = _home(place)
    files = (folder / record.file for record in load_manifest(folder).slices if record.file is not None)
    return [file for file in files if file.is_file()]


def _home(place: Path) -> Path:
    return place if place.is_dir() else place.parent


def _with_positions(said: ModelFolder, models: list[Path]) -> ModelFolder:
    """The same, with the rows of a table of positions where these are fewer."""
    rows = positions_of(models)
    if rows is None or (said.longest is not None and said.longest <= rows):
        return said
    return replace(said, longest=rows)
