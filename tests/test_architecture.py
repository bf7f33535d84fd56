"""Who imports whom: rooms in one order, no circles; and the picture of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import pytest

from tests.pages import DOCS, load_script

rooms = load_script("rooms")
drawing = load_script("architecture_picture")
GRAPH = rooms.import_graph()
KNOWN = frozenset(GRAPH)
PACKAGE = rooms.PACKAGE

#: Finer than the order of rooms: the first never imports the second, except for what stands third.
RULES = (
    # A slice is made of a plan and its order, whoever chose it, and runs from its manifest alone.
    ("slicing", "planning", ("planning.plans", "planning.figures", "planning.fitting")),
    ("slicing", "machines", ("machines.providers",)),  # the names of providers alone
    ("running", "planning", ()),
    ("running", "machines", ()),
    ("serving.wire", "slicing", ()),
    ("serving.tier", "planning", ()),
    ("serving.deploy", "planning", ()),
    ("serving.dashboard", "planning", ()),
    # One function prices, and asks no planner.
    ("planning.objective", "planning.planners", ()),
    ("planning.costs", "planning.planners", ()),
    ("planning.planners", "planning.choosing", ()),
    ("planning", "runtime", ()),
    # Sizes that nothing proves are seen in a run.
    ("work", "runtime", ("runtime.observing", "runtime.sizing", "runtime.inputs")),
    # Files to try things with; converters run frameworks, never onnxruntime.
    ("models", "graph", ()),
    ("converters", "runtime", ()),
    # A page draws what it is given, and runs nothing; `report` finds the model of a folder.
    ("reporting", "running", ("running.origin",)),
    ("reporting", "serving", ()),
)


def below(module: str) -> str:
    """A module's name below the package: "" for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".")


def within(module: str, folder: str) -> bool:
    """Whether a module, named below the package, is a folder or lies in it."""
    return f"{module}.".startswith(f"{folder}.")


def runs_back(importer: str, imported: str) -> bool:
    """Whether a module, by its installed name, imports one of a later room, or the public names."""
    mine, theirs = rooms.room_of(importer), rooms.room_of(imported)
    if mine is None:
        return False  # the public names are found lazily in any room
    if theirs is None:
        return imported == PACKAGE
    return bool(rooms.ROOMS.index(theirs) > rooms.ROOMS.index(mine))


def breaks_a_rule(importer: str, imported: str) -> bool:
    """Whether one of `RULES` forbids that a module imports another, by their installed names."""
    mine, theirs = below(importer), below(imported)
    return any(
        within(mine, who) and within(theirs, what) and not any(within(theirs, name) for name in but)
        for who, what, but in RULES
    )


def circles(graph: nx.DiGraph[str]) -> list[list[str]]:
    """Modules that import one another round about."""
    return [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]


def test_every_module_has_one_room() -> None:
    folders = [folder for room in rooms.ROOMS for folder in room.folders]
    assert len(set(folders)) == len(folders)
    roomless = {name for name in KNOWN if rooms.room_of(name) is None}
    assert roomless <= {PACKAGE, f"{PACKAGE}._version", f"{PACKAGE}.serving"}
    for folder in folders:
        assert any(within(below(name), folder) for name in KNOWN), f"{folder} is not there"


def test_no_import_runs_back() -> None:
    assert sorted(pair for pair in GRAPH.edges if runs_back(*pair)) == []


def test_nothing_imports_in_a_circle() -> None:
    assert circles(GRAPH) == []


def test_finer_rules_hold() -> None:
    assert sorted(pair for pair in GRAPH.edges if breaks_a_rule(*pair)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}-{rule[1]}")
def test_a_rule_is_about_folders_that_are_there(rule: tuple[str, str, tuple[str, ...]]) -> None:
    who, what, but = rule
    for folder in (who, what, *but):
        assert any(within(below(name), folder) for name in KNOWN), folder
    assert breaks_a_rule(f"{PACKAGE}.{who}", f"{PACKAGE}.{what}")


@pytest.mark.parametrize(
    "code",
    [
        "from dnnsplit_onnx.planning.planners.exact import exact",
        "def f():\n    import dnnsplit_onnx.planning.planners.exact",
        "from dnnsplit_onnx.planning.planners import exact",
        "if TYPE_CHECKING:\n    from dnnsplit_onnx.planning.planners.exact import exact",
    ],
)
def test_a_wrong_import_is_noticed(tmp_path: Path, code: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    imported = list(rooms.imports_of(tmp_path / "bad.py", KNOWN))
    assert imported == [f"{PACKAGE}.planning.planners.exact"]
    assert breaks_a_rule(f"{PACKAGE}.slicing.bad", *imported)
    assert runs_back(f"{PACKAGE}.work.bad", *imported)
    assert not runs_back(f"{PACKAGE}.cli.bad", *imported)


def test_imports_of_the_public_names_run_back() -> None:
    assert runs_back(f"{PACKAGE}.cli.plan", PACKAGE)
    assert not runs_back(f"{PACKAGE}.cli.plan", f"{PACKAGE}._version")


def test_a_circle_is_noticed() -> None:
    # Among modules of one room, where no order of rooms would tell.
    importer, imported = next(
        pair for pair in GRAPH.edges if len({rooms.room_of(name) for name in pair}) == 1
    )
    graph = GRAPH.copy()
    graph.add_edge(imported, importer)
    assert any({importer, imported} <= set(circle) for circle in circles(graph))


def test_the_picture_is_up_to_date() -> None:
    written = drawing.PICTURE.read_text(encoding="utf-8")
    assert written == drawing.picture(), "run scripts/lib/architecture_picture.py"
    ElementTree.fromstring(written)


def test_the_picture_shows_every_room_and_nothing_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(drawing.PLACES) == {room.title for room in rooms.ROOMS}
    assert drawing.overlaps() == []
    assert not any(
        drawing.meets(line, title)
        for pair, line in drawing.lines().items()
        for title in drawing.PLACES
        if title not in pair
    )
    monkeypatch.setitem(drawing.PLACES, "work", drawing.PLACES["graph"])
    assert drawing.overlaps() == [("graph", "work")]


def test_the_picture_leaves_out_what_follows_from_the_rest() -> None:
    drawn: nx.DiGraph[str] = nx.DiGraph(drawing.drawn_flows())
    flows = rooms.flows(GRAPH)
    assert set(drawn.edges) < set(flows.edges)
    assert all(nx.has_path(drawn, *pair) for pair in flows.edges)


def test_the_page_tells_of_every_room() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    told = [line.split("`")[1::2] for line in page.splitlines() if line.startswith("| `")]
    for room in rooms.ROOMS:
        names = [folder.replace(".", "/") for folder in room.folders]
        names = [name if (rooms.ROOT / PACKAGE / f"{name}.py").exists() else f"{name}/" for name in names]
        assert any(set(names) <= set(row) for row in told), f"{room.title}: {names}"


def test_every_room_says_what_it_is_for() -> None:
    for name, path in rooms.modules():
        if path.name == "__init__.py":
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            assert first.startswith('"""'), name
            assert first.rstrip('"').endswith((".", ":", "?")), f"{name}: {first}"
