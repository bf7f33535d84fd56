"""The pages of the documentation: their code runs, their links lead somewhere, all are listed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.schemas import schema_text
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord
from tests.pages import DOCS, blocks, load_script, run_page

ROOT = DOCS.parent
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


# Pages that tests of their own run: the tutorial, and what needs frameworks.
ELSEWHERE = {"tutorial": "test_tutorial.py", "converting": "converters/test_page.py"}


def has_python(path: Path) -> bool:
    """Whether a page has Python that can be run."""
    found = blocks(path.read_text(encoding="utf-8"))
    return any(block.language == "python" and block.mark != "not run" for block in found)


RUN = sorted({"choosing-tiers"} | {path.stem for path in PAGES if has_python(path)} - set(ELSEWHERE))


@pytest.mark.parametrize("name", RUN)
def test_the_code_on_a_page_runs(name: str, tmp_path: Path) -> None:
    run_page((DOCS / f"{name}.md").read_text(encoding="utf-8"), tmp_path)


def test_every_page_with_python_is_run() -> None:
    assert {"choosing-tiers", "extending", "python", "states"} <= set(RUN)
    for name, test in ELSEWHERE.items():
        assert f"{name}.md" in (Path(__file__).parent / test).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links, on GitHub and on the site."""
    found = set()
    for heading in _HEADING.findall(prose(path.read_text(encoding="utf-8"))):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
        found.add(re.sub(r"[\s]+", "-", words.strip()))
    return found


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Relative links that lead to no file, or to no heading of a page."""
    for target in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name) if name else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            yield target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path, path.read_text(encoding="utf-8"))) == []


def test_a_broken_link_is_noticed() -> None:
    text = "[a](tutorial.md) [b](tutorial.md#cut-it) [c](tutorial.md#no) [d](no.md) `x[1](2)`"
    assert list(broken_links(DOCS / "index.md", text)) == ["tutorial.md#no", "no.md"]


def pages_of(nav: Any) -> Iterator[str]:
    """The pages that a site's navigation lists."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav if isinstance(nav, list) else nav.values():
            yield from pages_of(part)


def test_the_site_lists_every_page() -> None:
    listed = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == [path.name for path in PAGES]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_pages_name_no_place_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:work|tmp|root|home)/\S*", text) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_tiers_files_on_pages_are_right(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "toml" and "[[link]]" in block.text:  # others are parts of one
            parse_topology(tomllib.loads(block.text), path.name)


def test_the_picture_of_a_plan_is_what_the_program_prints() -> None:
    drawing = load_script("plan_picture")
    svg = drawing.PICTURE.read_text(encoding="utf-8")
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    shown = drawing.text_of(svg)
    assert shown == drawing.text_of(drawing.picture()), "run scripts/lib/plan_picture.py"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = next(line for line in readme.splitlines() if line.endswith("(docs/plan.svg)"))
    assert all(figure in shown and figure in told for figure in ("32.4 kB", "38.5 ms", "1.27"))


def test_the_page_of_files_has_every_key() -> None:
    page = (DOCS / "files.md").read_text(encoding="utf-8")
    keys = (
        (name, field.alias)
        for table in (Tier, Link, Limits, InputCode, Topology)
        for name, field in table.model_fields.items()
    )
    tiers = {alias or name for name, alias in keys}
    tables = {"tier", "link", "limits", "input_nbytes"}
    manifest = {*Manifest.model_fields, *SliceRecord.model_fields} - {"nbytes"}
    plan = set(json.loads(schema_text("plan"))["properties"])
    told = set(re.findall(r"`\[*([a-z_0-9]+)(?:\[\])?\]*`", page))
    assert (tiers | manifest | plan) - tables - told == {"input"}
    assert tables <= told
    assert "`[input.NAME]`" in page


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_scripts_and_tests_that_pages_name_are_there(path: Path) -> None:
    named = re.findall(r"`(?:\./)?((?:scripts|tests|examples)/[\w./-]+)", path.read_text(encoding="utf-8"))
    made = ("scripts/paper/results", "tests/data/vN")
    assert [name for name in named if not (ROOT / name).exists() and not name.startswith(made)] == []
