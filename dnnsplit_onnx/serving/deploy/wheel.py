"""A wheel of this very package, so that an image is built of it and not of whoever has its name."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dnnsplit_onnx.errors import InputError, OutputError

NAME = "dnnsplit-onnx"
# What an installer adds to what it unpacks.
_ADDED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_SINCE = (1980, 1, 1, 0, 0, 0)  # the same content is the same file


def wheel_name() -> str:
    """The file name of a wheel of the package as it is installed.

    Raises:
        InputError: It is not installed.
    """
    return f"{NAME.replace('-', '_')}-{_installed().version}-py3-none-any.whl"


def write_wheel(path: Path) -> None:
    """Writes a wheel of the package as it runs here.

    Raises:
        InputError: It is not installed, or an editable source tree that cannot be built.
        OutputError: The file cannot be written.
    """
    installed = _installed()
    source = _source_of(installed)
    try:
        if source is None:
            _pack(installed, path)
        else:
            _build(source, path)
    except OSError as error:
        raise OutputError(f"cannot write `{path}`: {error.strerror or error}") from None


def _installed() -> Distribution:
    try:
        return distribution(NAME)
    except PackageNotFoundError:
        raise InputError(
            f"`{NAME}` is not installed, so there is no wheel to make of it",
            hint="install it: pip install .",
        ) from None


def _source_of(installed: Distribution) -> Path | None:
    """The source tree of an editable installation; None if it is no such one."""
    told = installed.read_text("direct_url.json")
    data = json.loads(told) if told else {}
    if not data.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(data["url"]).path))


def _build(source: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
        done = subprocess.run(
            [sys.executable, *words, str(source)], capture_output=True, text=True, check=False
        )
        made = list(Path(folder).glob("*.whl"))
        if done.returncode or len(made) != 1:
            lines = done.stderr.strip().splitlines() or ["pip made no wheel"]
            raise InputError(f"cannot build a wheel of `{source}`: {lines[-1]}")
        path.write_bytes(made[0].read_bytes())


def _pack(installed: Distribution, path: Path) -> None:
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in sorted(_files(installed)):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
            wheel.writestr(zipfile.ZipInfo(name, _SINCE), content, zipfile.ZIP_DEFLATED)
        place = f"{NAME.replace('-', '_')}-{installed.version}.dist-info/RECORD"
        wheel.writestr(zipfile.ZipInfo(place, _SINCE), "".join([*record, f"{place},,\n"]))


def _files(installed: Distribution) -> Iterator[tuple[str, bytes]]:
    """What the wheel had that it was installed from."""
    for file in installed.files or ():
        inside = ".." not in file.parts and not file.is_absolute()
        if inside and "__pycache__" not in file.parts and file.name not in _ADDED:
            yield file.as_posix(), Path(str(file.locate())).read_bytes()
