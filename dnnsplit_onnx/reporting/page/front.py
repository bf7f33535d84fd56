"""Plans that no other beats: latency against cost, with the plan that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.axes import Scale, bottom_axis, fitted, left_axis
from dnnsplit_onnx.reporting.page.chart import Drawing, chart, is_small
from dnnsplit_onnx.reporting.page.markup import Markup, number, tag
from dnnsplit_onnx.reporting.page.words import cuts_text, short

_HEIGHT, _LEFT, _TOP, _BOTTOM = 300, 70, 26, 46
# Of more points, those least in latency and cost are drawn, and then the first.
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Point:
    """A plan by its latency and cost."""

    latency_s: float
    cost_usd: float
    said: str


def front_points(plan: Plan) -> tuple[list[Point], list[Point]]:
    """The plans of the front, by latency: those that throughput does not excuse, and the others."""
    edge, others = [], []
    cheapest = math.inf
    for one in sorted(plan.pareto, key=lambda p: (p.latency_s, p.cost_usd)):
        said = (
            f"cuts at {cuts_text(one.cuts)}: {units.seconds(one.latency_s)}, {units.usd(one.cost_usd)}, "
            f"{units.per_second(one.throughput_per_s)}"
        )
        point = Point(one.latency_s, one.cost_usd, said)
        if not _is_known(point):
            continue
        if point.cost_usd < cheapest:
            cheapest = point.cost_usd
            edge.append(point)
        else:
            others.append(point)
    return edge, others[:MOST_POINTS]


def has_front(plan: Plan) -> bool:
    """Whether there is anything to draw."""
    return len(plan.pareto) > 0 and _is_known(_chosen(plan))


def front(plan: Plan) -> list[Markup]:
    """The chart."""
    edge, others = front_points(plan)
    label = (
        f"{len(plan.pareto)} plans that no other beats in latency, cost and throughput at once. "
        f"{_chosen(plan).said}"
    )
    return chart(lambda width: _drawn(plan, edge, others, width), label)


def _chosen(plan: Plan) -> Point:
    figures = plan.figures
    said = f"this plan: {units.seconds(figures.latency_s)}, {units.usd(figures.cost_usd)}"
    return Point(figures.latency_s, figures.cost_usd, said)


def _singles(plan: Plan) -> list[Point]:
    rows = [
        Point(
            single.latency_s,
            single.cost_usd,
            f"all on {single.tier}: {units.seconds(single.latency_s)}, {units.usd(single.cost_usd)}",
        )
        for single in plan.single_tier
    ]
    return [row for row in rows if _is_known(row)]


def _is_known(point: Point) -> bool:
    return math.isfinite(point.latency_s) and math.isfinite(point.cost_usd)


def _drawn(plan: Plan, edge: list[Point], others: list[Point], width: int) -> Drawing:
    chosen, singles = _chosen(plan), _singles(plan)
    shown = [*edge, *others, *singles, chosen]
    bottom, right = float(_TOP + _HEIGHT), width - 16.0
    across = fitted([p.latency_s for p in shown], _LEFT, right)
    up = fitted([p.cost_usd for p in shown], bottom, _TOP)
    few = is_small(width)
    line = " ".join(f"{number(across(p.latency_s))},{number(up(p.cost_usd))}" for p in edge)
    return Drawing(
        bottom + _BOTTOM,
        [
            *left_axis(up, _LEFT, 5, units.usd, right),
            *bottom_axis(across, bottom, 4 if few else 7, units.seconds, _TOP),
            tag("polyline", points=line, class_="front"),
            *(_dot(p, across, up, 3.5, "beaten") for p in others),
            *(_dot(p, across, up, 4, "unbeaten") for p in edge),
            *(part for p in singles for part in _single(p, across, up)),
            *_star(chosen, across, up),
            tag("text", "cost of a request", x=4, y=14, class_="said"),
            tag("text", "latency", x=right, y=bottom + 38, text_anchor="end", class_="said"),
        ],
    )


def _dot(point: Point, across: Scale, up: Scale, r: float, kind: str) -> Markup:
    place = {"cx": across(point.latency_s), "cy": up(point.cost_usd), "r": r}
    return tag("circle", tag("title", point.said), **place, class_=kind)


def _single(point: Point, across: Scale, up: Scale) -> list[Markup]:
    """A square with its name."""
    x, y = across(point.latency_s), up(point.cost_usd)
    name = short(point.said.partition(":")[0], 24)
    return [
        tag("rect", tag("title", point.said), x=x - 5, y=y - 5, width=10, height=10, class_="single"),
        _name(name, x, y + 19, across, "said"),
    ]


def _star(point: Point, across: Scale, up: Scale) -> list[Markup]:
    """A diamond with its name, above all others."""
    x, y = across(point.latency_s), up(point.cost_usd)
    shape = f"M{number(x)} {number(y - 9)}l9 9l-9 9l-9 -9z"
    return [
        tag("path", tag("title", point.said), d=shape, class_="chosen"),
        _name("this plan", x, y - 12, across, "cut-label"),
    ]


def _name(name: str, x: float, y: float, across: Scale, kind: str) -> Markup:
    """A name above or below a mark, towards the side that has room."""
    is_left = x > (across.start + across.stop) / 2
    place = {"x": x + 6 if is_left else x - 6, "y": y, "text_anchor": "end" if is_left else "start"}
    return tag("text", name, **place, class_=kind)
