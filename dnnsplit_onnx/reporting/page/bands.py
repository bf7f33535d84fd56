"""How the best plan depends on a link: its figure over bandwidth, and which plan it is."""

from __future__ import annotations

from collections.abc import Sequence

from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.sensitivity import Decision, Sample
from dnnsplit_onnx.reporting.colours import plan_colours, plan_key
from dnnsplit_onnx.reporting.comparison import figure
from dnnsplit_onnx.reporting.page.axes import Scale, bottom_axis, fitted, left_axis
from dnnsplit_onnx.reporting.page.chart import Drawing, chart, colour, is_small
from dnnsplit_onnx.reporting.page.facts import LinkStudy
from dnnsplit_onnx.reporting.page.markup import Markup, number, tag
from dnnsplit_onnx.reporting.page.words import cuts_text, mbps, tiers_text

_CURVE, _BAND, _TOP, _LEFT, _BOTTOM = 170, 26, 28, 70, 46
# A band narrower than this, in units, has no room for its letter.
_LETTER = 14


def letter(at: int) -> str:
    """The name of a decision: A to Z, then AA, AB and so on."""
    return chr(65 + at) if at < 26 else letter(at // 26 - 1) + letter(at % 26)


def bands(study: LinkStudy, objective: Objective, name: str) -> list[Markup]:
    """The chart of one link.

    Args:
        study: What was found.
        objective: What the values are.
        name: The link's name.
    """
    said = "; ".join(
        f"{letter(at)} from {mbps(one.low_mbps)} to {mbps(one.high_mbps)}: cuts {cuts_text(one.cuts)}"
        for at, one in enumerate(study.found.decisions)
    )
    label = f"The best plan as the bandwidth of {name} changes. {said}"
    return chart(lambda width: _drawn(study, objective, width), label)


def _drawn(study: LinkStudy, objective: Objective, width: int) -> Drawing:
    found, few = study.found, is_small(width)
    decisions, right = found.decisions, width - 16.0
    across = Scale(decisions[0].low_mbps, decisions[-1].high_mbps, _LEFT, right, is_log=True)
    top, middle = float(_TOP), float(_TOP + _CURVE)
    bottom = middle + 10 + _BAND
    parts = []
    figures = [
        value for sample in study.samples for value in (sample.value, sample.single) if value is not None
    ]
    if figures:
        up = fitted(figures, middle, top)
        parts += left_axis(up, _LEFT, 4, lambda value: figure(objective, value), right)
        parts.append(tag("path", d=_line(study.samples, across, up, single=True), class_="rival"))
        parts.append(tag("path", d=_line(study.samples, across, up, single=False), class_="curve"))
    now = across(found.now_mbps)
    return Drawing(
        bottom + _BOTTOM,
        [
            *bottom_axis(across, bottom, 4 if few else 7, mbps, top),
            *parts,
            *(
                part
                for at, (one, kind) in enumerate(zip(decisions, _colours(decisions), strict=True))
                for part in _band(at, one, kind, across, bottom - _BAND)
            ),
            tag("line", x1=now, y1=top - 4, x2=now, y2=middle + 10, class_="cut"),
            tag("text", "now", x=now, y=top - 8, text_anchor="middle", class_="cut-label"),
            tag("text", objective, x=4, y=14, class_="said"),
            tag("text", "bandwidth", x=right, y=bottom + 38, text_anchor="end", class_="said"),
        ],
    )


def _line(samples: Sequence[Sample], across: Scale, up: Scale, *, single: bool) -> str:
    """A curve through the figures that are known."""
    path, is_down = [], False
    for sample in samples:
        value = sample.single if single else sample.value
        if value is None:
            is_down = False
            continue
        path.append(f"{'L' if is_down else 'M'}{number(across(sample.mbps))} {number(up(value))}")
        is_down = True
    return "".join(path)


def _colours(decisions: Sequence[Decision]) -> list[str]:
    """The class of each decision's colour."""
    keys = ["" if one.cuts is None else plan_key(one.cuts, one.tiers) for one in decisions]
    colours = plan_colours(filter(None, keys))
    return [colour(colours[key][0]) if key else "none" for key in keys]


def _band(at: int, decision: Decision, kind: str, across: Scale, y: float) -> list[Markup]:
    """A decision's stretch of the axis, and its letter where it has room."""
    x = across(decision.low_mbps)
    width = across(decision.high_mbps) - x
    said = f"{letter(at)}: cuts {cuts_text(decision.cuts)}, {tiers_text(decision.tiers)}"
    parts = [
        tag(
            "rect",
            tag("title", said),
            x=x,
            y=y,
            width=max(width, 1.0),
            height=_BAND,
            class_=f"decision {kind}",
        )
    ]
    if width >= _LETTER:
        parts.append(
            tag("text", letter(at), x=x + width / 2, y=y + 18, text_anchor="middle", class_="letter")
        )
    return parts
