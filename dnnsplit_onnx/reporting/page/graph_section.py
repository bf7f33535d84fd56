"""The section with the graph: its drawing, the buttons around it, and the same as a table."""

from __future__ import annotations

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.chart import colour
from dnnsplit_onnx.reporting.page.drawing import GraphPicture, draw_graph
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, tag
from dnnsplit_onnx.reporting.page.outline import outline

# What each button does, for `page.js`, and what it says.
_BUTTONS = (
    ("out", "-", "Zoom out"),
    ("in", "+", "Zoom in"),
    ("reset", "100%", "100%, actual size"),
    ("whole", "Whole", "Show the whole graph"),
)


def graph(facts: Facts) -> list[Content]:
    """The graph by tier."""
    picture = draw_graph(facts)
    size = len(facts.inspection.analysis.graph.nodes)
    grouped = (
        f" Its {size:,} nodes are drawn in {picture.rows:,} rows, each of nodes that follow one another."
        if picture.rows < size
        else ""
    )
    caption = (
        "From the model's inputs down, one row a node, in the order that positions count. Lines are values, "
        "from the node that makes them to those that read them: what runs through a cut is what crosses it. "
        "Point at anything for more about it; click a node for its neighbours, and a cut for its tensors."
        + grouped
    )
    box = tag(
        "div",
        picture.svg,
        id="graph",
        class_="graph",
        tabindex=0,
        role="region",
        aria_label="The graph. It scrolls; plus and minus zoom, 0 is actual size.",
    )
    details = tag("details", tag("summary", f"The {units.count(size, 'node')} by block"), outline(facts))
    return [
        tag("figure", _legend(facts), _bar(picture), box, tag("figcaption", caption)),
        tag("div", id="picked", class_="picked", hidden=True),
        details,
    ]


def _legend(facts: Facts) -> Markup:
    """The colours of the tiers."""
    items = []
    for t, stage in enumerate(facts.plan.figures.stages):
        swatch = tag("rect", width=14, height=14, class_=f"fill {colour(t)}")
        items.append(tag("li", tag("svg", swatch, width=14, height=14, aria_hidden="true"), stage.tier))
    return tag("ul", items, class_="legend", aria_label="Colours of the tiers")


def _bar(picture: GraphPicture) -> Markup:
    """Links to the cuts, and what needs a script: zooming and finding, hidden where there is none."""
    jumps = [tag("a", f"Cut {name}", href=f"#{anchor}") for anchor, name in picture.cuts]
    buttons = [
        tag("button", sign, type="button", data_zoom=action, title=says, aria_label=says)
        for action, sign, says in _BUTTONS
    ]
    finder = tag(
        "label",
        "Find ",
        tag("input", type="search", id="find", placeholder="name or operator", autocomplete="off"),
    )
    return tag(
        "div",
        tag(
            "div",
            buttons,
            finder,
            tag("output", id="found", role="status"),
            class_="tools",
            hidden=True,
            id="tools",
        ),
        tag("nav", jumps, aria_label="Cuts in the graph", class_="jumps") if jumps else None,
        class_="tools-bar",
    )
