"""What goes with a release: the citation, the changelog, the archive's list, honest lower bounds."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dnnsplit_onnx

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()  # what the format demands
    assert cited["version"] == dnnsplit_onnx.__version__
    assert cited["license"] == "Apache-2.0"
    paper = cited["preferred-citation"]
    assert paper["doi"] == "10.1109/ACCESS.2024.3409057"
    assert [author["family-names"] for author in paper["authors"]] == ["Kayal", "Leon-Garcia"]


def test_the_changelog_has_what_is_to_come() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", head) for head in heads[1:])
    kinds = set(re.findall(r"^### (.+)", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_archive_takes_what_it_needs() -> None:
    needed = runpy.run_path(str(ROOT / "scripts" / "release"))["NEEDED"]
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split()
    for name in needed:
        assert (ROOT / name).is_file()
        # setuptools takes these by itself.
        itself = name in {"pyproject.toml", "README.md", "LICENSE"}
        assert itself or name in lines or name.split("/")[0] in lines, name


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for wanted in (*project["dependencies"], *project["optional-dependencies"]["cpu"]):
        assert re.match(r"[\w-]+>=\d", wanted), wanted


def test_this_python_is_found() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "compatibility"))
    base = getattr(sys, "_base_executable", sys.executable)
    found = script["find_pythons"]([base, "/nothing/python3"], (3, 11))
    version = ".".join(map(str, sys.version_info[:3]))
    if script["version_of"](base) is None:
        pytest.skip("this Python cannot make environments")
    assert found == {version: base}
    assert script["find_pythons"]([base], (99, 0)) == {}
