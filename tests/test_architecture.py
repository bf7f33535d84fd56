"""The picture of the architecture shows the package that there is."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest

from tests.pages import DOCS, load_script
from tests.test_package import broken_rules, imports_of, modules

drawing = load_script("architecture_picture")
ROOM_OF = {name: room.title for room in drawing.ROOMS for name in room.modules}
ORDER = [room.title for room in drawing.ROOMS]


def names() -> set[str]:
    """The modules and packages right below the package; the package itself is public names alone."""
    return {name.split(".")[1] for name, _ in modules() if name != "dnnsplit_onnx"}


def imports() -> set[tuple[str, str]]:
    """Who imports whom, by the names right below the package that have a room."""
    found = {
        (name.split(".")[1], imported.partition(".")[0])
        for name, path in modules()
        if name != "dnnsplit_onnx"
        for imported in imports_of(path)
    }
    return {pair for pair in found if ROOM_OF.keys() >= set(pair)}


def test_the_picture_is_up_to_date() -> None:
    written = drawing.PICTURE.read_text(encoding="utf-8")
    assert written == drawing.picture(), "run scripts/lib/architecture_picture.py"
    ElementTree.fromstring(written)
    assert drawing.overlaps() == []


def test_every_module_has_a_room() -> None:
    placed = Counter(name for room in drawing.ROOMS for name in room.modules)
    assert set(placed) == names(), "place it in scripts/lib/architecture_picture.py"
    assert set(placed.values()) == {1}


def test_rooms_import_in_one_direction() -> None:
    back = [
        f"{importer} ({ROOM_OF[importer]}) imports {imported} ({ROOM_OF[imported]})"
        for importer, imported in sorted(imports())
        if ORDER.index(ROOM_OF[importer]) < ORDER.index(ROOM_OF[imported])
    ]
    assert back == []


@pytest.mark.parametrize(("source", "target"), drawing.FLOWS)
def test_an_arrow_is_an_import_that_is_allowed(source: str, target: str) -> None:
    found = [
        (importer, imported)
        for importer, imported in imports()
        if (ROOM_OF[importer], ROOM_OF[imported]) == (target, source)
    ]
    assert found
    assert not any(broken_rules(importer, imported) for importer, imported in found)


@pytest.mark.parametrize(("source", "target"), [(source, target) for source, target, _ in drawing.FILES])
def test_rooms_that_share_a_file_do_not_know_each_other(source: str, target: str) -> None:
    assert not any((ROOM_OF[a], ROOM_OF[b]) == (target, source) for a, b in imports())


def test_the_page_tells_of_every_room_and_module() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for room in drawing.ROOMS:
        assert f"| {room.title} |" in page
        for name in room.modules:
            assert f"`{name}`" in page
