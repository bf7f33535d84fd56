"""Draws docs/architecture.svg: the rooms of the package, and how data flows from one to the next.

.venv/bin/python scripts/lib/architecture_picture.py

An arrow is an import. One that follows from others is left out: if a room uses a second one, and
that a third, the arrow from the third to the first is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import product
from math import hypot
from pathlib import Path

import networkx as nx
from rooms import FOUNDATION, ROOMS, Room, flows, import_graph

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.svg"

WIDTH, MARGIN, GAP, COLUMNS = 1040, 20, 52, 4
BOX = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
TALL, STEP = 56, 100
#: Row and column of each room, and how many columns it spans.
PLACES = {
    "errors, files, plugins, views": (0, 0, 4),
    "graph": (1, 2, 1),
    "models, converters": (1, 0, 1),
    "machines": (2, 1, 1),
    "work": (2, 2, 1),
    "runtime": (2, 3, 1),
    "planning": (3, 1, 1),
    "serving/wire": (3, 3, 1),
    "slicing": (4, 1, 1),
    "reporting": (5, 0, 1),
    "running": (5, 1, 1),
    "measuring": (6, 1, 1),
    "serving/tier": (6, 2, 1),
    "serving/deploy": (6, 3, 1),
    "serving/edge": (7, 2, 1),
    "serving/dashboard": (8, 2, 1),
    "serving/web": (7, 1, 1),
    "cli": (9, 0, 4),
}
STYLE = """
    text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b2733 }
    .title { font-size: 16px; font-weight: 600 }
    .about { font-size: 12px; fill: #51606e }
    .room { fill: #ffffff; stroke: #7d93a8; stroke-width: 1.2 }
    .serving { fill: #eef5fa }
    .wide { fill: #f0f3f6 }
    .flow { stroke: #2f6f9f; stroke-width: 2; fill: none }
"""

Point = tuple[float, float]
Line = tuple[Point, Point]


def picture() -> str:
    """The SVG."""
    height = max(top + tall for _, top, _, tall in map(box, PLACES)) + MARGIN
    arrows = lines()
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'aria-labelledby="title description">',
            '  <title id="title">How data flows through the package</title>',
            f'  <desc id="description">{escape(description(list(arrows)))}</desc>',
            f"  <style>{STYLE}  </style>",
            '  <defs><marker id="flow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#2f6f9f"/></marker></defs>',
            f'  <rect width="{WIDTH}" height="{height}" rx="8" fill="#fbfcfd"/>',
            *(f"  {_arrow(line)}" for line in arrows.values()),
            *(f"  {part}" for room in ROOMS for part in _room(room)),
            "</svg>",
            "",
        ]
    )


def drawn_flows() -> list[tuple[str, str]]:
    """The flows from room to room from which all others follow, in the order of the rooms."""
    titles = [room.title for room in ROOMS]
    return sorted(
        nx.transitive_reduction(flows(import_graph())).edges,
        key=lambda pair: (titles.index(pair[0]), titles.index(pair[1])),
    )


def description(arrows: list[tuple[str, str]]) -> str:
    """The picture in words, for those who do not see it."""
    told = "; ".join(f"{source} to {target}" for source, target in arrows)
    return f"Data flows from {told}. All rooms use {FOUNDATION.title}."


def box(title: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of a room."""
    row, column, columns = PLACES[title]
    width = columns * BOX + (columns - 1) * GAP
    return MARGIN + column * (BOX + GAP), MARGIN + row * STEP, width, TALL


def lines() -> dict[tuple[str, str], Line]:
    """Where each arrow runs: as short as can be, clear of all rooms and of the ends of other arrows."""
    chosen: dict[tuple[str, str], Line] = {}
    for source, target in drawn_flows():
        others = [title for title in PLACES if title not in (source, target)]
        taken = {end for line in chosen.values() for end in line}
        candidates = [
            line
            for line in product(_ends(source, below=True), _ends(target, below=False))
            if not taken & set(line) and not any(meets(line, title) for title in others)
        ]
        if not candidates:
            raise ValueError(f"no straight way from {source} to {target}: move one of them in PLACES")
        chosen[source, target] = min(candidates, key=lambda line: _badness(line, list(chosen.values())))
    return chosen


def _ends(title: str, below: bool) -> list[Point]:
    """Where an arrow may leave a box (below) or arrive at it (above): a few points along its edge."""
    left, top, width, tall = box(title)
    columns = PLACES[title][2]
    points = [
        left + column * (BOX + GAP) + BOX * part / 8 for column in range(columns) for part in range(1, 8)
    ]
    edge = [(x, top + tall if below else top) for x in points]
    return [*edge, (left, top + tall / 2), (left + width, top + tall / 2)] if columns == 1 else edge


def _badness(line: Line, drawn: list[Line]) -> float:
    """How hard a line is to follow: its length and slant, and what it crosses, as pixels."""
    (x1, y1), (x2, y2) = line
    crossed = sum(_cross(line, other) for other in drawn)
    middle = sum(abs((x - MARGIN) % (BOX + GAP) - BOX / 2) for x in (x1, x2))
    return hypot(x2 - x1, y2 - y1) + abs(x2 - x1) + 0.2 * middle + 400 * crossed


def _cross(line: Line, other: Line) -> bool:
    return (
        _side(line, other[0]) * _side(line, other[1]) < 0
        and _side(other, line[0]) * _side(other, line[1]) < 0
    )


def _side(line: Line, point: Point) -> float:
    """On which side of a line a point lies: positive, negative, or 0 on it."""
    (x1, y1), (x2, y2) = line
    return (x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)


def meets(line: Line, title: str) -> bool:
    """Whether a line comes closer to a room than 8 pixels."""
    left, top, width, tall = box(title)
    left, top, right, bottom = left - 8, top - 8, left + width + 8, top + tall + 8
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    inside = any(left <= x <= right and top <= y <= bottom for x, y in line)
    return inside or any(_cross(line, edge) for edge in edges)


def overlaps() -> list[tuple[str, str]]:
    """Rooms that are drawn over one another."""
    return [
        (one, other)
        for one, other in product(PLACES, repeat=2)
        if one < other and meets((box(one)[:2], (box(one)[0] + box(one)[2], box(one)[1] + TALL)), other)
    ]


def _arrow(line: Line) -> str:
    (x1, y1), (x2, y2) = line
    ends = f'x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
    return f'<line class="flow" {ends} marker-end="url(#flow)"/>'


def _room(room: Room) -> Iterator[str]:
    left, top, width, tall = box(room.title)
    kind = "room wide" if width > BOX else "room serving" if room.title.startswith("serving") else "room"
    yield f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{tall}" rx="6"/>'
    yield f'<text class="title" x="{left + 12}" y="{top + 23}">{escape(room.title)}</text>'
    yield f'<text class="about" x="{left + 12}" y="{top + 42}">{escape(room.about)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
