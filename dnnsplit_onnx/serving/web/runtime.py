"""Where onnxruntime-web comes from: a folder that a person names, or npm.

A page loads nothing from other hosts, so that its files are copied into every site.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dnnsplit_onnx.errors import InputError, MissingExtraError

PACKAGE = "onnxruntime-web"
#: The release that is asked of npm, and that tests run.
VERSION = "1.30.0"
#: What a page loads on WASM, and on WebGPU in its place.
WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_NPM_S = 300


@contextmanager
def runtime_folder(given: Path | None, names: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """A folder with some files of onnxruntime-web, and its release.

    Args:
        given: A `dist` folder of the package, or the package itself; None asks npm.
        names: The files.

    Raises:
        InputError: The folder lacks a file.
        MissingExtraError: There is no npm to ask, or it fails.
    """
    if given is None:
        with tempfile.TemporaryDirectory(prefix="dnnsplit-web-") as scratch:
            yield _from_npm(Path(scratch)), VERSION
        return
    folder = given / "dist" if (given / "dist" / names[0]).is_file() else given
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"`{given}` is no folder of {PACKAGE}: it lacks `{name}`",
                hint=f"npm install {PACKAGE}@{VERSION}, then --ort-web node_modules/{PACKAGE}/dist",
            )
    yield folder, _version(folder)


def _version(folder: Path) -> str:
    try:
        return str(json.loads((folder.parent / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def _from_npm(scratch: Path) -> Path:
    """The package's `dist`, as npm has it."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtraError(
            f"there is no npm to get {PACKAGE} with",
            hint=f"name a folder that has it: --ort-web node_modules/{PACKAGE}/dist",
        )
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(scratch)]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=_NPM_S, check=False
        )
        said = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        said = [f"it took more than {_NPM_S} s"]
    archives = list(scratch.glob("*.tgz"))
    if not archives:
        raise MissingExtraError(
            f"npm cannot get {PACKAGE}@{VERSION}: {said[-1] if said else 'it says nothing'}",
            hint=f"name a folder that has it: --ort-web node_modules/{PACKAGE}/dist",
        )
    return _unpacked(archives[0], scratch / "dist")


def _unpacked(archive: Path, target: Path) -> Path:
    target.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            content = tar.extractfile(member) if path.parent.name == "dist" else None
            if content is not None:
                with content, (target / path.name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    return target
