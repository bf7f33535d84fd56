"""The section to explore: sliders for every tier and link, and the plan that follows them.

`explore.js` shows it; without a script it stays hidden, and the section on links stands in for it.
"""

from __future__ import annotations

import math

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, tag

_AIMS = (
    ("latency", "latency"),
    ("cost", "cost of a request"),
    ("throughput", "throughput"),
    ("energy", "energy of a request"),
)
# A slider of a factor goes from a hundredth to a hundredfold; one of a delay from 0.01 ms to 1 s.
_FACTOR, _DELAY = 200, 400


def can_explore(facts: Facts) -> bool:
    """Whether there is anything to move: tiers that are known, and a link between them."""
    return facts.problem is not None and facts.topology is not None and len(facts.topology.links) > 0


def what_if(facts: Facts) -> list[Content]:
    """The controls, and the places that the script fills."""
    assert facts.topology is not None, "the section is there where the tiers are known"
    tiers = [_of_tier(t, tier) for t, tier in enumerate(facts.topology.tiers)]
    names = facts.topology.names
    links = [_of_link(t, link, names) for t, link in enumerate(facts.topology.links)]
    first = facts.topology.tiers[0]
    coded = any(link.codes for link in facts.topology.links)
    notes = [
        "A tier's slider scales all its times at once.",
        "Values cross as they are here, in no code." if coded else None,
        f"The machines of {first.name} keep their shares." if len(first.machines) > 1 else None,
    ]
    return [
        tag("p", "This part needs JavaScript.", id="no-script"),
        tag(
            "div",
            tag("p", " ".join(note for note in notes if note)),
            tag("div", _aim(facts), tag("div", tiers, links, class_="sliders"), id="sliders"),
            tag("p", id="best", class_="verdict", role="status"),
            tag("div", id="bars"),
            tag("div", id="plans"),
            tag("div", id="crossing"),
            id="what-if-box",
            hidden=True,
        ),
    ]


def _aim(facts: Facts) -> Markup:
    """What is to be best, and whether outputs come back."""
    plan = facts.plan
    aims = [*_AIMS, *([("weighted", "the weighted sum")] if plan.weights is not None else [])]
    chosen = "latency" if plan.objective in ("custom", "ttft", "tpot") else plan.objective
    options = [tag("option", said, value=name, selected=name == chosen) for name, said in aims]
    back = facts.topology is not None and facts.topology.limits.returns
    return tag(
        "div",
        tag("label", "Best ", tag("select", options, id="aim")),
        tag(
            "label",
            tag("input", type="checkbox", id="back", checked=back),
            " outputs return to the lowest tier",
        ),
        tag(
            "button",
            "As in the plan",
            type="button",
            id="reset",
            aria_label="As in the plan, all of it",
        ),
        tag("button", "Keep to compare", type="button", id="keep", aria_label="Keep to compare: this plan"),
        class_="tools",
    )


def _of_tier(t: int, tier: Tier) -> Markup:
    said = f"{tier.gflops:g}" if tier.cost_model == "gflops" and tier.gflops else ""
    return tag("fieldset", tag("legend", tier.name), _slider("speed", f"speed-{t}", t, "speed", said))


def _of_link(t: int, link: Link, names: tuple[str, ...]) -> Markup:
    rows = [_slider("bandwidth", f"mbps-{t}", t, "mbps", f"{link.bandwidth_mbps:.17g}")]
    if link.down_mbps is not None:
        rows.append(_slider("bandwidth back", f"down-{t}", t, "down_mbps", f"{link.down_mbps:.17g}"))
    rows.append(_slider("delay", f"delay-{t}", t, "delay_ms", f"{link.delay_ms:.17g}"))
    return tag("fieldset", tag("legend", f"{names[t]} → {names[t + 1]}"), rows)


def _slider(said: str, name: str, t: int, kind: str, base: str) -> Markup:
    """A slider; `explore.js` turns its places into figures, and its starting place into `base` itself."""
    is_delay = kind == "delay_ms"
    now = round(80 * math.log10(max(float(base), 0.01) / 0.01)) if is_delay else 0
    return tag(
        "div",
        tag("label", said, for_=name),
        tag(
            "input",
            type="range",
            id=name,
            min=0 if is_delay else -_FACTOR,
            max=_DELAY if is_delay else _FACTOR,
            value=min(now, _DELAY),
            data_kind=kind,
            data_at=t,
            data_base=base,
        ),
        tag("output", for_=name),
        class_="slider",
    )
