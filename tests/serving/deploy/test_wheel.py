"""The wheel that goes beside a compose file: what is installed here, and nothing from elsewhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.deploy import wheel as wheels
from dnnsplit_onnx.serving.deploy.deploy import plan_deployment, write_deployment
from dnnsplit_onnx.serving.deploy.wheel import wheel_name, write_wheel

FILES = {
    "dnnsplit_onnx/__init__.py": b"",
    "dnnsplit_onnx/_version.py": b"__version__ = '1.2'\n",
    "dnnsplit_onnx/serving/page.html": b"<p>",
    "dnnsplit_onnx-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: dnnsplit-onnx\nVersion: 1.2\n",
    "dnnsplit_onnx-1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "dnnsplit_onnx-1.2.dist-info/entry_points.txt": b"[console_scripts]\n",
}
ADDED = {
    "dnnsplit_onnx/__pycache__/__init__.cpython-312.pyc": b"x",
    "dnnsplit_onnx-1.2.dist-info/INSTALLER": b"pip\n",
    "../../bin/dnnsplit-onnx": b"#!python\n",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as an installer leaves it."""
    place = tmp_path / "lib" / "site-packages"
    for name, content in (FILES | ADDED).items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    info = place / "dnnsplit_onnx-1.2.dist-info"
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in (*FILES, *ADDED, f"{info.name}/RECORD")))
    monkeypatch.setattr(wheels, "distribution", lambda _: Distribution.at(info))
    return info


def test_a_wheel_is_what_was_installed(installed: Path, tmp_path: Path) -> None:
    assert wheel_name() == "dnnsplit_onnx-1.2-py3-none-any.whl"
    write_wheel(tmp_path / wheel_name())
    with zipfile.ZipFile(tmp_path / wheel_name()) as archive:
        record = f"{installed.name}/RECORD"
        assert {name: archive.read(name) for name in archive.namelist() if name != record} == FILES
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        for name, digest, size in rows[:-1]:
            expected = base64.urlsafe_b64encode(hashlib.sha256(FILES[name]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(FILES[name]))
        assert {name for name, *_ in rows} == {*FILES, record}
    first = (tmp_path / wheel_name()).read_bytes()
    write_wheel(tmp_path / "again.whl")
    assert (tmp_path / "again.whl").read_bytes() == first


def test_an_editable_package_is_built_from_its_source(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"url": (tmp_path / "the source").as_uri(), "dir_info": {"editable": True}}
    (installed / "direct_url.json").write_text(json.dumps(told))
    asked = []

    def pip(words: list[str], **_: object) -> object:
        asked.append(words[-1])
        place = Path(words[words.index("-w") + 1])
        (place / "built.whl").write_bytes(b"wheel")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    write_wheel(tmp_path / "out.whl")
    assert (tmp_path / "out.whl").read_bytes() == b"wheel"
    assert asked == [str(tmp_path / "the source")]
    monkeypatch.setattr(
        wheels.subprocess,
        "run",
        lambda *_, **__: type("Done", (), {"returncode": 1, "stderr": "no\nsetuptools"}),
    )
    with pytest.raises(InputError, match=r"cannot build a wheel of .*: setuptools"):
        write_wheel(tmp_path / "out.whl")


def test_what_is_not_installed_has_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Distribution:
        raise PackageNotFoundError

    monkeypatch.setattr(wheels, "distribution", missing)
    with pytest.raises(InputError, match="not installed"):
        wheel_name()


def test_an_image_is_built_of_the_wheel_beside_it(installed: Path, slices: Path, tmp_path: Path) -> None:
    paths = write_deployment(plan_deployment(slices), tmp_path / "out", force=False)
    assert tmp_path / "out" / wheel_name() in paths
    text = (tmp_path / "out" / "Dockerfile").read_text()
    assert f"COPY {wheel_name()} /tmp/" in text
    assert f'pip install --no-cache-dir "/tmp/{wheel_name()}[$RUNTIME]"' in text
    assert "dnnsplit-onnx[" not in text  # no index is asked for the name
    assert installed.is_dir()
