"""The state of a client as one JSON object, for the page and for scripts."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.legs import Route
from dnnsplit_onnx.serving.wire.estimate import LinkState

_LOOK_S = 2.0


def state_of(edge: Edge) -> dict[str, Any]:
    """The state now.

    Args:
        edge: The client; requests may be under way.

    Returns:
        JSON-ready data: `model`, `cuts` (None if no slices are left for what can be
        reached), `placement` (the cuts in words), `reason`, `tiers[]` (times are medians of
        the last requests, in milliseconds), `links[]` (`state` is `up`, `down`, or `beyond` one that is down;
        `bandwidth_mbps` and `delay_ms` are None until something is known), and what `History.to_dict` gives.
    """
    edge.health.look(_LOOK_S)  # a link that no request uses may be down, and nobody would know
    history = edge.history.to_dict()
    times = history.pop("tiers")
    cuts, reach = edge.cuts, edge.health.reach
    route = None if cuts is None else edge.routes.route(cuts)
    return {
        "version": __version__,
        "model": PurePath(edge.routes.manifest.model.path).name,
        "cuts": None if route is None else list(route.positions),
        "placement": None if cuts is None else edge.routes.describe(cuts),
        "nodes": edge.routes.size,
        "reason": edge.health.reason or edge.chooser.reason,
        "deadline_ms": 1e3 * edge.deadline_s,
        "tiers": [
            {"name": name, **_range(route, at), **times.get(name, {})}
            for at, name in enumerate(edge.routes.tiers)
        ],
        "links": [
            {
                "from": edge.routes.tiers[at],
                "to": edge.routes.tiers[at + 1],
                "state": "up" if at < reach else "down" if at == reach else "beyond",
                "in_use": route is not None and at < route.links,
                **_link(link),
            }
            for at, link in enumerate(edge.chooser.links)
        ],
        **history,
    }


def _range(route: Route | None, tier: int) -> dict[str, Any]:
    """The nodes that a tier has under the present cuts."""
    if route is None:
        return {"start": None, "stop": None}
    bounds = (0, *route.positions)
    stop = bounds[tier + 1] if tier + 1 < len(bounds) else None
    return {"start": bounds[tier], "stop": stop}


def _link(link: LinkState) -> dict[str, Any]:
    is_known = math.isfinite(link.bandwidth_mbps)
    return {
        "bandwidth_mbps": link.bandwidth_mbps if is_known else None,
        "delay_ms": link.delay_ms if is_known or link.delay_ms else None,
        "samples": link.samples,
        "age_s": link.age_s if math.isfinite(link.age_s) else None,
    }
