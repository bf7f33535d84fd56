"""The page as text: the template filled in, style and script put inside."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from dnnsplit_onnx.reporting.page import evidence, graph_section, sections
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, joined, tag, text
from dnnsplit_onnx.reporting.page.study import as_script, study_of, tensors_of
from dnnsplit_onnx.reporting.page.what_if import can_explore, what_if

# In the order that they run in; the first says how strict all are.
_SCRIPTS = ("page.js", "pricing.js", "explore.js")


def render(facts: Facts) -> str:
    """The page, one HTML document that needs nothing else.

    Args:
        facts: What it says. The same facts make the same page.
    """
    style, script = _part("page.css"), Markup("\n".join(map(_part, _SCRIPTS)))
    chapters = _chapters(facts)
    contents = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title, _ in chapters]
    body = [
        tag("section", tag("h2", title, id=anchor), content, aria_labelledby=anchor)
        for anchor, title, content in chapters
    ]
    tiers = ", ".join(stage.tier for stage in facts.plan.figures.stages)
    return Template(_part("page.html")).substitute(
        policy=text(_policy(style, script)),
        title=text(f"{facts.model_name} over {tiers}"),
        style=style,
        script=script,
        data=joined(_data(facts)),
        heading=tag("h1", tag("code", facts.model_name), f" over {tiers}"),
        headline=joined(sections.headline(facts)),
        contents=tag("ol", contents),
        body=joined(body),
        made_by=text(facts.manifest.producer),
    )


def _chapters(facts: Facts) -> list[tuple[str, str, Content]]:
    """The sections: anchor, title and content of each."""
    found: list[tuple[str, str, Content]] = [("time", "Where the time goes", sections.stages(facts))]
    if can_explore(facts):
        found.append(("what-if", "What if", what_if(facts)))
    found += [
        ("rivals", "Against a single tier", sections.rivals(facts)),
    ]
    if facts.rivals is not None:
        found.append(("in-place", "In place of a split", sections.in_place(facts)))
    found += [
        ("order", "The model along its order", sections.order(facts)),
        ("nodes", "The graph", graph_section.graph(facts)),
        ("trade-offs", "Latency against cost", sections.trade_offs(facts)),
    ]
    if facts.plan.figures.links:
        found.append(("sensitivity", "If a link changes", sections.sensitivity(facts)))
    if facts.bench is not None:
        found.append(("measured", "Predicted and measured", evidence.measured(facts, facts.bench)))
    return [
        *found,
        ("proof", "Proof", evidence.proof(facts.proof)),
        ("assumed", "What this assumes", sections.assumptions(facts)),
        ("again", "Make it again", evidence.again(facts)),
    ]


def _data(facts: Facts) -> list[Markup]:
    """What the script explores."""
    data = {"tensors": tensors_of(facts.inspection.analysis)}
    if facts.problem is not None and can_explore(facts):
        data["study"] = study_of(facts.problem, facts.plan)
    return [tag("script", as_script(of), type="application/json", id=name) for name, of in data.items()]


def _part(name: str) -> Markup:
    """A file of this package."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8").strip())


def _policy(style: str, script: str) -> str:
    """What the page may load and run: its own style and script, and nothing else at all."""
    allowed = (
        "default-src 'none'",
        "img-src data:",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(allowed)


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
