"""The page as text: the template filled in, style and script put inside."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from dnnsplit_onnx.reporting.page import evidence, graph_section, sections
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, joined, tag, text


def render(facts: Facts) -> str:
    """The page, one HTML document that needs nothing else.

    Args:
        facts: What it says. The same facts make the same page.
    """
    style, script = _part("page.css"), _part("page.js")
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
        heading=tag("h1", tag("code", facts.model_name), f" over {tiers}"),
        headline=joined(sections.headline(facts)),
        contents=tag("ol", contents),
        body=joined(body),
        made_by=text(facts.manifest.producer),
    )


def _chapters(facts: Facts) -> list[tuple[str, str, Content]]:
    """The sections: anchor, title and content of each."""
    found: list[tuple[str, str, Content]] = [
        ("time", "Where the time goes", sections.stages(facts)),
        ("rivals", "Against a single tier", sections.rivals(facts)),
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
