"""Draws docs/architecture.svg: the rooms of the package, and how data flows from one to the next.

.venv/bin/python scripts/lib/architecture_picture.py

`tests/test_architecture.py` holds the rooms against the modules there are, and the arrows against
what imports what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.svg"

WIDTH, MARGIN, GAP, COLUMNS = 1040, 20, 84, 3
BOX = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
LINE, HEAD, STEP = 17, 50, 148


@dataclass(frozen=True, slots=True)
class Room:
    """Modules and packages that are about one thing.

    Attributes:
        title: What it is called.
        about: What goes in and what comes out, in a few words.
        modules: Names below the package.
        column, row: Where it is drawn.
        columns: How many columns it spans.
    """

    title: str
    about: str
    modules: tuple[str, ...]
    column: int
    row: float
    columns: int = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """The names, broken into lines that fit."""
        room = (self.columns * BOX + (self.columns - 1) * GAP - 24) / 7.4
        lines = [""]
        for name in self.modules:
            longer = f"{lines[-1]}  {name}" if lines[-1] else name
            if len(longer) > room:
                lines.append(name)
            else:
                lines[-1] = longer
        return tuple(lines)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height."""
        left = MARGIN + self.column * (BOX + GAP)
        width = self.columns * BOX + (self.columns - 1) * GAP
        return left, MARGIN + self.row * STEP, width, HEAD + LINE * len(self.lines) + 8


#: In the order of imports: a room imports those before it, and none after it.
ROOMS = (
    Room(
        "Foundations",
        "errors, bounded reading, whole writing: imported by all",
        ("errors", "reading", "files", "digests", "conforming", "_version"),
        0,
        4.75,
        3,
    ),
    Room(
        "The model file",
        "model.onnx, its weights left on disk",
        ("wire", "bounds", "functions", "modelfile"),
        1,
        0,
    ),
    Room(
        "The graph",
        "nodes, values, shapes, states, names",
        ("states", "graph", "casts", "inference", "shape_values", "shapes", "layers", "cut_names"),
        2,
        0,
    ),
    Room("Work and cuts", "FLOPs of nodes, bytes of cuts", ("flops", "analysis", "cuts", "memory"), 1, 1),
    Room("Order", "an order that has the best cuts", ("maxflow", "envelope", "ordering"), 2, 1),
    Room(
        "Machines",
        "tiers.toml, profiles: seconds",
        ("topology", "presets", "profiles", "costs", "rules"),
        0,
        1,
    ),
    Room(
        "Planning",
        "a Plan: data, priced by one function",
        ("weights", "plans", "objective", "planners", "planning", "sweeping", "comparing", "sensitivity"),
        1,
        2,
    ),
    Room("Slicing", "model.onnx for each tier, manifest.json", ("manifest", "slicing"), 0, 3),
    Room(
        "Running",
        "sessions, the proof, measurements",
        ("runtime", "verification", "benchmark", "profiling"),
        1,
        3,
    ),
    Room("Serving", "the chain across machines", ("serving",), 2, 3),
    Room("Models", "model.onnx from code, Keras, PyTorch", ("models", "converters"), 0, 0),
    Room(
        "What a person sees",
        "parses, calls the rooms above, draws",
        ("schemas", "report", "cli", "__main__"),
        0,
        4,
        3,
    ),
)

#: Data that flows as objects: the second room imports the first.
FLOWS = (
    ("The model file", "The graph"),
    ("The graph", "Work and cuts"),
    ("Work and cuts", "Order"),
    ("Work and cuts", "Machines"),
    ("Machines", "Planning"),
    ("Work and cuts", "Planning"),
    ("Order", "Planning"),
    ("Planning", "Slicing"),
    ("Planning", "Serving"),
    ("Slicing", "Running"),
    ("Running", "Serving"),
    ("Slicing", "What a person sees"),
    ("Running", "What a person sees"),
    ("Serving", "What a person sees"),
)

#: Data that flows through a file alone: the second room does not know the first.
FILES = (("Models", "The model file", "model.onnx"), ("Running", "Machines", "profile"))

STYLE = """
    text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b2733 }
    .title { font-size: 16px; font-weight: 600 }
    .about { font-size: 12px; fill: #51606e }
    .names { font-size: 12px; font-family: ui-monospace, "DejaVu Sans Mono", monospace }
    .room { fill: #ffffff; stroke: #7d93a8; stroke-width: 1.2 }
    .wide { fill: #f0f3f6 }
    .flow { stroke: #2f6f9f; stroke-width: 2; fill: none }
    .file { stroke: #b8641c; stroke-width: 2; stroke-dasharray: 6 4; fill: none }
    .note { font-size: 12px; fill: #b8641c }
"""


def picture() -> str:
    """The SVG."""
    rooms = {room.title: room for room in ROOMS}
    height = max(top + tall for _, top, _, tall in (room.box for room in ROOMS)) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title description">',
        '  <title id="title">How data flows through the package</title>',
        f'  <desc id="description">{escape(description())}</desc>',
        f"  <style>{STYLE}  </style>",
        "  <defs>",
        *(f"    {marker}" for marker in (_marker("flow", "#2f6f9f"), _marker("file", "#b8641c"))),
        "  </defs>",
        f'  <rect width="{WIDTH}" height="{height}" rx="8" fill="#fbfcfd"/>',
    ]
    for source, target in FLOWS:
        parts.append(f"  {_arrow(rooms[source], rooms[target], 'flow')}")
    for source, target, name in FILES:
        parts.append(f"  {_arrow(rooms[source], rooms[target], 'file')}")
        parts.append(f"  {_note(rooms[source], rooms[target], name)}")
    for room in ROOMS:
        parts += (f"  {part}" for part in _room(room))
    return "\n".join([*parts, "</svg>", ""])


def description() -> str:
    """The picture in words, for those who do not see it."""
    flows = "; ".join(f"{source} to {target}" for source, target in FLOWS)
    files = "; ".join(f"{source} to {target} by {name}" for source, target, name in FILES)
    return f"Data flows from {flows}. Through files alone: {files}. All import the foundations."


def _room(room: Room) -> Iterator[str]:
    left, top, width, height = room.box
    kind = "room wide" if room.columns > 1 else "room"
    yield f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>'
    yield f'<text class="title" x="{left + 12}" y="{top + 23}">{escape(room.title)}</text>'
    yield f'<text class="about" x="{left + 12}" y="{top + 41}">{escape(room.about)}</text>'
    for at, line in enumerate(room.lines):
        y = top + HEAD + LINE * (at + 1) - 4
        yield f'<text class="names" xml:space="preserve" x="{left + 12}" y="{y}">{escape(line)}</text>'


def _marker(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
    )


def _arrow(source: Room, target: Room, kind: str) -> str:
    (x1, y1), (x2, y2) = _ends(source, target, 0.43 if kind == "file" else 0.25)
    line = f'x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
    return f'<line class="{kind}" {line} marker-end="url(#{kind})"/>'


def _note(source: Room, target: Room, name: str) -> str:
    (x1, y1), (x2, y2) = _ends(source, target, 0.43)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2 - 8
    level = abs(y1 - y2) < 1
    anchor, x = ("middle", x) if level else ("end", x - 12)
    return f'<text class="note" text-anchor="{anchor}" x="{x:.0f}" y="{y:.0f}">{escape(name)}</text>'


def _ends(source: Room, target: Room, aside: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and meets another: on the sides that face each other.

    Args:
        source: Where it begins.
        target: Where it ends.
        aside: How far from the middle of a box towards the other, as a share of its width.
    """
    (left1, top1, wide1, tall1), (left2, top2, wide2, tall2) = source.box, target.box
    if source.row == target.row:
        y = max(top1, top2) + min(tall1, tall2) / 2
        right = left1 < left2
        return (left1 + wide1 if right else left1, y), (left2 if right else left2 + wide2, y)
    down = top1 < top2
    low1, low2 = (top1 + tall1, top2) if down else (top1, top2 + tall2)
    if target.columns > 1:  # straight down
        return (left1 + wide1 / 2, low1), (left1 + wide1 / 2, low2)
    shift = (source.column - target.column) * BOX * aside
    return (left1 + wide1 / 2 - shift, low1), (left2 + wide2 / 2 + shift, low2)


def overlaps() -> list[tuple[str, str]]:
    """Rooms that are drawn over one another: rows that grew too tall."""
    found = []
    for column in range(COLUMNS):
        stack = sorted(
            (room for room in ROOMS if room.column <= column < room.column + room.columns),
            key=lambda room: room.row,
        )
        for above, below in pairwise(stack):
            if above.box[1] + above.box[3] > below.box[1] - MARGIN:
                found.append((above.title, below.title))
    return found


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
