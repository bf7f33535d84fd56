"""The routes that a page may take, written down, so that the page computes none.

ports    every value that the page reads, makes, sends or gets, by name
slices   the page's own
legs     what the other tiers are sent, and give back
routes   by cuts, `12,40`: the slice, the leg, and how many other tiers have a part
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement
from math import comb
from typing import Any

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.tier.cuts import format_cuts
from dnnsplit_onnx.serving.tier.legs import Route
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.slicing.manifest import SliceRecord

#: Beyond as many, the cuts other than the page's own stay where the plan has them.
MOST_ROUTES = 4096


def written_routes(routes: Routes, at: int) -> dict[str, Any]:
    """The routes of a page as JSON-ready data.

    Args:
        routes: Of the manifest.
        at: Which tier the page is: the first or the last.
    """
    ports = {port.name: port for port in (*routes.manifest.model.inputs, *routes.manifest.model.outputs)}
    slices: dict[str, int] = {}
    legs: dict[tuple[tuple[str, ...], ...], int] = {}
    written = {}
    for route in _taken(routes, at):
        record, other = route.legs[at].record, route.legs[0 if at else 1]
        ports |= {port.name: port for port in (*other.arrives, *other.begins, *other.answers)}
        names = tuple(tuple(_names(group)) for group in (other.arrives, other.begins, other.answers))
        leg = legs.setdefault(names, len(legs))
        part = None
        if record is not None and record.file is not None:
            part = slices.setdefault(record.file, len(slices))
        written[format_cuts(route.cuts)] = [part, leg, _links(route, at)]
    by_file = {record.file: record for record in routes.ranges(at)}
    for file in by_file:
        slices.setdefault(file or "", len(slices))
    ports |= {port.name: port for record in by_file.values() for port in (*record.inputs, *record.outputs)}
    return {
        "ports": {name: port.model_dump(mode="json") for name, port in ports.items()},
        "slices": [_slice(routes, by_file[file]) for file in slices],
        "legs": [
            dict(zip(("arrives", "begins", "answers"), map(list, names), strict=True)) for names in legs
        ],
        "routes": written,
    }


def _taken(routes: Routes, at: int) -> Iterator[Route]:
    """The routes for which there are slices."""
    until = at or None
    for cuts in dict.fromkeys(_cuts(routes, at)):
        if routes.has(cuts):
            yield routes.route(cuts, until)


def _cuts(routes: Routes, at: int) -> Iterator[tuple[int, ...]]:
    """All cuts; if those are too many, those that move the page's own, or leave tiers without work."""
    yield routes.cuts
    links = len(routes.cuts)
    positions = sorted(
        {0, routes.size}
        | {end for t in range(links + 1) for r in routes.ranges(t) for end in (r.start, r.stop)}
    )
    if comb(len(positions) + links - 1, links) <= MOST_ROUTES:
        yield from combinations_with_replacement(positions, links)
        return
    for position in positions:
        if at == 0:
            moved = (position, *(max(cut, position) for cut in routes.cuts[1:]))
        else:
            moved = (*(min(cut, position) for cut in routes.cuts[:-1]), position)
        for reach in range(links + 1):
            yield moved
            yield tuple(cut if link < reach else routes.size for link, cut in enumerate(moved))
            yield tuple(moved[min(link, reach - 1)] if reach else 0 for link in range(links))
            yield tuple(0 if link < reach else routes.size for link in range(links))


def _links(route: Route, at: int) -> int:
    """How many other tiers, the nearest first, a route needs."""
    others = [leg.record for leg in route.legs if leg.tier != at]
    return max((count for count, record in enumerate(others, start=1) if record is not None), default=0)


def _slice(routes: Routes, record: SliceRecord) -> dict[str, Any]:
    return {
        "file": record.file,
        "start": record.start,
        "stop": record.stop,
        "inputs": _names(record.inputs),
        "outputs": _names(record.outputs),
        "keeps": [state.input for state in routes.kept(record)],
        "data": [file.file for file in record.data],
    }


def _names(ports: Iterable[Port]) -> list[str]:
    return [port.name for port in ports]
