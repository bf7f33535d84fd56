"""The rooms of the package in their order, and who imports whom.

The order stands here alone: `architecture_picture.py` draws it, and `tests/test_architecture.py`
holds the package against it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "dnnsplit_onnx"
#: Each source folder, and the package that it is installed as.
PARTS = {
    "dnnsplit_onnx": PACKAGE,
    "converters": f"{PACKAGE}.converters",
    "models": f"{PACKAGE}.models",
}


@dataclass(frozen=True, slots=True)
class Room:
    """Folders that are about one thing.

    Attributes:
        title: What it is called.
        about: What it makes of what, in a few words.
        folders: Folders and modules below the package that belong to it.
    """

    title: str
    about: str
    folders: tuple[str, ...]


#: A room imports those before it, and none after it.
ROOMS = (
    Room(
        "errors, files, plugins, views",
        "exceptions, files, plug-ins: for all rooms",
        ("errors", "files", "plugins", "views"),
    ),
    Room("graph", "model.onnx as nodes, values", ("graph",)),
    Room("machines", "tiers, links, devices, profiles", ("machines",)),
    Room("runtime", "onnxruntime: sessions, values", ("runtime",)),
    Room("work", "FLOPs, bytes, memory, order", ("work",)),
    Room("planning", "a plan, and the price of it", ("planning",)),
    Room("slicing", "a model per tier; the manifest", ("slicing",)),
    Room("running", "the slices as one chain", ("running",)),
    Room("measuring", "proof, benchmark, profile", ("measuring",)),
    Room("serving/wire", "bytes between machines", ("serving.wire",)),
    Room("serving/tier", "a tier as a server", ("serving.tier",)),
    Room("serving/edge", "the client that picks the cut", ("serving.edge",)),
    Room("serving/dashboard", "the client, in a browser", ("serving.dashboard",)),
    Room("serving/deploy", "tiers started elsewhere", ("serving.deploy",)),
    Room("serving/web", "a browser as a tier", ("serving.web",)),
    Room("models, converters", "model.onnx from code or files", ("models", "converters")),
    Room("reporting", "tables, pages and plots", ("reporting",)),
    Room("cli", "parses a command, calls the rooms above; with schemas/", ("schemas", "cli", "__main__")),
)
FOUNDATION = ROOMS[0]


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its installed name, and its file."""
    for source, package in PARTS.items():
        for path in sorted((ROOT / source).rglob("*.py")):
            parts = path.relative_to(ROOT / source).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imports_of(path: Path, known: frozenset[str]) -> Iterator[str]:
    """Modules of the package that a file imports: at its top, inside functions, or for types alone.

    Args:
        path: The file.
        known: Names of all modules, which tell a module from a name in one.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module or "" for name in below]
        yield from (name for name in names if name in known)


def import_graph() -> nx.DiGraph[str]:
    """An arrow from each module to every module that it imports, by installed names."""
    paths = dict(modules())
    known = frozenset(paths)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(known)
    graph.add_edges_from((name, other) for name, path in paths.items() for other in imports_of(path, known))
    return graph


def room_of(module: str) -> Room | None:
    """The room of a module by its installed name; None for the package itself and its version."""
    below = f"{module.removeprefix(PACKAGE).removeprefix('.')}."
    homes = (room for room in ROOMS for folder in room.folders if below.startswith(f"{folder}."))
    return next(homes, None)


def flows(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """An arrow from each room to every room that imports it, by titles, without the foundation."""
    rooms: nx.DiGraph[str] = nx.DiGraph()
    for importer, imported in graph.edges:
        target, source = room_of(importer), room_of(imported)
        if source and target and source != target and FOUNDATION not in (source, target):
            rooms.add_edge(source.title, target.title)
    return rooms
