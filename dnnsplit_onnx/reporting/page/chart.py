"""What all charts share: a drawing for wide screens, one for narrow ones, and words for who sees neither.

A picture that is scaled down to a phone has text nobody can read. So each chart is drawn
twice, at two widths with the same size of text, and the style sheet shows one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dnnsplit_onnx.reporting.page.markup import Content, Markup, tag

#: Units across a drawing, about pixels: for wide screens and for narrow ones.
WIDE, NARROW = 880, 350
# Below this many units a drawing leaves out what can be missed.
_SMALL = 500

#: How many colours there are for tiers, and for decisions.
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart at one width.

    Attributes:
        height: Units from top to bottom.
        parts: What is on it.
        places: Coordinates that the script needs, by the names of their attributes.
    """

    height: float
    parts: list[Markup]
    places: Mapping[str, float] = field(default_factory=dict)


Draw = Callable[[int], Drawing]


def is_small(width: float) -> bool:
    """Whether a drawing of this width is for a narrow screen."""
    return width < _SMALL


def chart(draw: Draw, label: str) -> list[Markup]:
    """A chart as two pictures of which a screen shows one.

    Args:
        draw: Draws it at a width.
        label: What it shows, for those who do not see it.
    """
    return [_picture(draw(width), width, name, label) for width, name in ((WIDE, "wide"), (NARROW, "narrow"))]


def figure(picture: Content, caption: Content, data: Content = None, summary: str = "The figures") -> Markup:
    """A picture with a caption, and its figures as a table that can be opened."""
    details = tag("details", tag("summary", summary), data) if data else None
    return tag("figure", picture, tag("figcaption", caption), details)


def table(
    caption: str,
    headings: Iterable[str],
    rows: Iterable[Iterable[Content]],
    *,
    class_: str | None = None,
    is_plain: bool = False,
) -> Markup:
    """A table; a heading that starts with `>` is of a column of numbers.

    The first cell of each row is the heading of the row. In a plain one, only headings have a
    class, and the style sheet knows its columns.
    """
    columns = list(headings)
    numeric = [heading.startswith(">") for heading in columns]
    kinds = ["number" if is_number else None for is_number in numeric]
    head = [
        tag("th", heading.removeprefix(">"), scope="col", class_=kind)
        for heading, kind in zip(columns, kinds, strict=True)
    ]
    body = []
    for row in rows:
        first, *others = row
        cells = [tag("th", first, scope="row")]
        cells += [
            tag("td", cell, class_=kind)
            for cell, kind in zip(others, [None] * len(others) if is_plain else kinds[1:], strict=True)
        ]
        body.append(tag("tr", cells))
    made = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        class_=class_,
    )
    # Wide tables scroll in a box of their own, by keyboard too.
    return tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)


def colour(at: int) -> str:
    """The class of a tier's colour, by its index."""
    return f"c{at % COLOURS}"


def _picture(drawing: Drawing, width: int, name: str, label: str) -> Markup:
    box = f"0 0 {width} {drawing.height:g}"
    kind = f"chart {name}"
    return tag("svg", drawing.parts, viewBox=box, role="img", aria_label=label, class_=kind, **drawing.places)
