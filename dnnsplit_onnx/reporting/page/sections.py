"""The sections of the page about the plan: verdict, stages, links, trade-offs, sensitivity."""

from __future__ import annotations

from dnnsplit_onnx.planning.figures import Transfer
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import rivals_view, units
from dnnsplit_onnx.reporting.comparison import figure as value_text
from dnnsplit_onnx.reporting.page.bands import bands, letter
from dnnsplit_onnx.reporting.page.chart import figure, table
from dnnsplit_onnx.reporting.page.curves import curves, positions_shown
from dnnsplit_onnx.reporting.page.facts import Facts, LinkStudy
from dnnsplit_onnx.reporting.page.front import MOST_POINTS, front, has_front
from dnnsplit_onnx.reporting.page.markup import Content, Markup, sentence, tag
from dnnsplit_onnx.reporting.page.timeline import timeline
from dnnsplit_onnx.reporting.page.words import cuts_text, mbps, tiers_text
from dnnsplit_onnx.reporting.verdict import against, basis, verdict
from dnnsplit_onnx.work.codes import RAW
from dnnsplit_onnx.work.cuts import UNKNOWN

# Rows of the table of unbeaten plans; a chart's points may be more.
_MOST_ROWS = 100
# Two figures this close are the same one.
_SAME = 1e-6


def headline(facts: Facts) -> list[Markup]:
    """Whether splitting pays, and the figures of a request."""
    plan = facts.plan
    first, *why = verdict(plan)
    broken = [tag("li", "This plan breaks a limit: ", sentence(said), ".") for said in plan.violations]
    return [
        tag("p", sentence(first), class_="verdict"),
        *(tag("p", sentence(said)) for said in why),
        tag("ul", broken, class_="broken") if broken else Markup(""),
        tag("dl", _key_figures(plan), class_="figures"),
    ]


def assumptions(facts: Facts) -> list[Markup]:
    """What the figures assume, what is proven, and what this page lacks."""
    said = [*basis(facts.plan, facts.inspection.analysis.uncounted), *facts.notes]
    return [tag("ul", [tag("li", sentence(line)) for line in said])]


def _key_figures(plan: Plan) -> list[Markup]:
    figures = plan.figures
    pairs = [
        ("latency", units.seconds(figures.latency_s)),
        ("cost of a request", units.usd(figures.cost_usd)),
        ("a million requests", units.per_million(figures.cost_usd)),
        ("throughput", units.per_second(figures.throughput_per_s)),
    ]
    if figures.energy_j is not None:
        pairs.append(("energy", units.joules(figures.energy_j)))
    gain, best = plan.speedup_vs_best_single_tier, plan.best_single_tier
    if gain is not None and best is not None:
        ratio = f"{units.times(gain)} better" if gain >= 1 else f"{units.times(1 / gain)} worse"
        same = abs(gain - 1) <= _SAME
        pairs.append((f"{plan.objective} against all on {best.tier}", "the same" if same else ratio))
    return [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]


def stages(facts: Facts) -> list[Content]:
    """Bars of a request's time, and the tables of tiers and links."""
    figures = facts.plan.figures
    picture = figure(
        timeline(figures), "What each tier computes and each link sends, one after the other.", None
    )
    return [picture, _tiers(facts), *_machines(facts), _links(facts) if figures.links else None]


def _tiers(facts: Facts) -> Markup:
    rows = [
        [
            stage.tier,
            f"{stage.stop - stage.start:,}",
            units.flops(stage.flops),
            units.nbytes(_weights(facts, stage.start, stage.stop)),
            units.nbytes(stage.memory_nbytes),
            units.seconds(stage.seconds),
            units.usd(stage.cost_usd),
            units.joules(stage.energy_j),
            record.file or "none",
        ]
        for stage, record in zip(facts.plan.figures.stages, facts.manifest.slices, strict=True)
    ]
    headings = [
        "tier", ">nodes", ">work", ">weights", ">memory", ">time", ">cost", ">energy", "slice",
    ]  # fmt: skip
    return table("Tiers: memory is weights and the most bytes live at once.", headings, rows)


def _weights(facts: Facts, start: int, stop: int) -> int | None:
    """Bytes of the weights that a stage reads, each once; None if one is unknown."""
    analysis = facts.inspection.analysis
    names = {name for node in analysis.graph.nodes[start:stop] for name in node.weights}
    sizes = [analysis.types.nbytes(name) for name in names]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _machines(facts: Facts) -> list[Markup]:
    """Who computes which rows, for each tier that several machines share."""
    return [
        table(
            f"Machines of {stage.tier}: who computes which rows of each run of nodes, halo included.",
            ["machine", ">nodes", "rows", ">work", ">time", ">is sent", ">sends back"],
            [
                [
                    share.machine,
                    f"{share.start} to {share.stop}",
                    "all of it" if share.rows is None else f"{share.rows[0]} to {share.rows[1]}",
                    units.flops(share.flops),
                    units.seconds(share.seconds),
                    units.nbytes(share.sent_nbytes),
                    units.nbytes(share.back_nbytes),
                ]
                for share in stage.machines
            ],
        )
        for stage in facts.plan.figures.stages
        if stage.machines
    ]


def _links(facts: Facts) -> Markup:
    coded = bool(facts.coded_nbytes) or any(link.written != RAW for link in facts.plan.figures.links)
    rows = [
        [
            f"{link.source} → {link.target}",
            str(link.position),
            units.sent(link, len(facts.cut_nbytes) - 1),
            *([units.code(link)] if coded else []),
            units.seconds(link.seconds),
            units.usd(link.cost_usd),
            _values(facts, link),
        ]
        for link in facts.plan.figures.links
    ]
    headings = ["link", ">cut at", ">sends", *(["as"] if coded else []), ">time", ">cost"]
    headings.append("values that cross")
    return table("Links: what crosses each, and what that takes.", headings, rows)


def _values(facts: Facts, link: Transfer) -> Content:
    """The values that cross, each with its type and size."""
    types = facts.inspection.analysis.types
    if not link.values:
        return "none"
    items, coded = [], {one.value: one for one in link.coded}
    for name in link.values:
        kind = types[name]
        shape = "?" if kind.shape is None else " x ".join("?" if d is None else str(d) for d in kind.shape)
        said = f" {kind.dtype_name or kind.kind} {shape or 'scalar'}, {units.nbytes(types.nbytes(name))}"
        if (code := coded.get(name)) is not None:
            said += f", written as {code.code} in {units.nbytes(code.nbytes)}"
        items.append(tag("li", tag("code", name), said))
    return tag("ul", items, class_="values")


def rivals(facts: Facts) -> Markup:
    """The plan against everything on each single tier."""
    plan, figures = facts.plan, facts.plan.figures
    rows: list[list[Content]] = [
        [
            tag("strong", "this plan"),
            units.seconds(figures.latency_s),
            units.usd(figures.cost_usd),
            units.per_second(figures.throughput_per_s),
            units.joules(figures.energy_j),
            "",
        ]
    ]
    for single in plan.single_tier:
        note = against(plan, single)
        rows.append(
            [
                f"all on {single.tier}",
                units.seconds(single.latency_s),
                units.usd(single.cost_usd),
                units.per_second(single.throughput_per_s),
                units.joules(single.energy_j),
                note if single.feasible else f"{note}, breaks a limit".removeprefix(", "),
            ]
        )
    headings = ["where", ">latency", ">cost", ">throughput", ">energy", f"{plan.objective} against this plan"]
    return table("This plan and every single tier.", headings, rows)


def in_place(facts: Facts) -> list[Content]:
    """What could be done in place of a split, each by the same price, and what it takes for granted."""
    assert facts.rivals is not None, "the section is left out without them"
    found: list[list[Content]] = []
    for row in facts.rivals.rows:
        figures: list[Content] = [
            units.seconds(row.latency_s),
            units.usd(row.cost_usd),
            units.per_second(row.throughput_per_s),
            units.joules(row.energy_j),
            rivals_view.gap(row),
        ]
        found.append([row.name, *(["", "", "", "", "none"] if row.reason else figures), row.answers])
    headings = ["what", ">latency", ">cost", ">throughput", ">energy", "against the best", "answers"]
    said = [tag("li", sentence(line)) for line in rivals_view.remarks(facts.rivals)]
    return [
        *(tag("p", sentence(line)) for line in rivals_view.verdict(facts.rivals)),
        table("What could be done in place of this plan.", headings, found),
        tag("details", tag("summary", "What each takes for granted"), tag("ul", said)) if said else "",
    ]


def order(facts: Facts) -> Markup:
    """Live bytes and work along the order."""
    inspection, below = facts.inspection, facts.inspection.analysis.flops_below
    chosen, coded = facts.plan.cuts, facts.coded_nbytes
    rows = [
        [
            str(at),
            units.nbytes(int(facts.cut_nbytes[at])),
            *(units.nbytes(int(nbytes[at]) if nbytes[at] != UNKNOWN else None) for nbytes in coded.values()),
            units.percent(int(below[at]), int(below[-1])),
            inspection.analysis.graph.nodes[at - 1].name if at else "(the input)",
            "chosen" if at in chosen else "candidate",
        ]
        for at in positions_shown(inspection.candidates, chosen)
    ]
    data = table(
        "Candidate and chosen cuts.",
        ["cut at", ">live bytes", *(f">as {code}" for code in coded), ">work below", "after node", "what"],
        rows,
    )
    caption = (
        "Each position is the cut after so many nodes of the order. Dots are the candidates: cuts that need "
        "fewer bytes than all before them. Lines are the cuts of this plan; behind them, the tiers."
    )
    return figure(curves(facts), caption, data, f"The {units.count(len(rows), 'cut')} as a table")


def trade_offs(facts: Facts) -> Content:
    """The Pareto front."""
    plan = facts.plan
    if not has_front(plan):
        return tag("p", "No plans to compare: their figures are unknown.")
    ordered = sorted(plan.pareto, key=lambda p: (p.latency_s, p.cost_usd))
    rows = [
        [
            cuts_text(point.cuts),
            units.seconds(point.latency_s),
            units.usd(point.cost_usd),
            units.per_second(point.throughput_per_s),
            units.joules(point.energy_j),
        ]
        for point in ordered[:_MOST_ROWS]
    ]
    count = units.count(len(ordered), "unbeaten plan")
    shown = count if len(ordered) <= _MOST_ROWS else f"The first {_MOST_ROWS} of {count}"
    data = table(
        f"{shown}, from the fastest.", ["cuts at", ">latency", ">cost", ">throughput", ">energy"], rows
    )
    caption = (
        "Each point is a plan that no other beats in latency, cost and throughput at once; the line joins "
        "those that none beats in latency and cost, open ones win in throughput. Squares are single tiers."
    )
    if len(ordered) > MOST_POINTS:
        caption += f" Of {len(ordered):,} plans, about {MOST_POINTS} are drawn."
    return figure(front(plan), caption, data, f"{count} as a table")


def sensitivity(facts: Facts) -> list[Content]:
    """How the plan depends on each link."""
    if not facts.links:
        return [tag("p", "There is no link to vary, or nothing to plan with: see what this report lacks.")]
    return [part for study in facts.links for part in _link(facts, study)]


def _link(facts: Facts, study: LinkStudy) -> list[Content]:
    plan, found = facts.plan, study.found
    link = plan.figures.links[found.link]
    name = f"{link.source} → {link.target}"
    changes = found.breakpoints_mbps
    said = (
        f"The best plan changes at {', '.join(map(mbps, changes))}."
        if changes
        else "The best plan is the same over the whole range."
    )
    proof = (
        "Nothing else is best anywhere in the range "
        f"({'as far as is known' if plan.unknowns else 'proven'}, over cuts along the order)."
        if found.is_complete
        else "Found on a grid of bandwidths: plans that are best over a narrow range only may be missing."
    )
    rows: list[list[Content]] = [
        [
            letter(at),
            mbps(one.low_mbps),
            mbps(one.high_mbps),
            cuts_text(one.cuts),
            tiers_text(one.tiers),
            "here now" if one.low_mbps <= found.now_mbps < one.high_mbps else "",
        ]
        for at, one in enumerate(found.decisions)
    ]
    data = table(
        f"Best plans over the bandwidth of {name}.", ["plan", ">from", ">to", "cuts at", "tiers", "now"], rows
    )
    now = _best_now(facts, study)
    caption = f"Solid: the best plan. Dashed: the best single tier. Now {mbps(found.now_mbps)}{now}."
    return [
        tag("h3", name),
        tag("p", f"{said} {proof}"),
        figure(bands(study, plan.objective, name), caption, None),
        data,
    ]


def _best_now(facts: Facts, study: LinkStudy) -> str:
    """The best figure at the bandwidth there is, for the caption."""
    known = [s for s in study.samples if s.value is not None]
    if not known:
        return ""
    nearest = min(known, key=lambda s: abs(s.mbps - study.found.now_mbps))
    return f", about {value_text(facts.plan.objective, nearest.value)} at best"
