"""The nodes of a model as blocks that fold, each with its sums; the blocks hold the tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.blocks import Block, blocks_of
from dnnsplit_onnx.reporting.page.chart import table
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, tag

_HEADINGS = ("position", "node", "operator", "tier", ">work", ">makes", ">weights", ">live after it")


def outline(facts: Facts) -> list[Markup]:
    """The blocks, the outermost open to be opened."""
    whole = blocks_of(facts.inspection.analysis.graph)
    tiers, stage_of = [stage.tier for stage in facts.plan.figures.stages], facts.stage_of
    return _inner(facts, whole, [tiers[t] for t in stage_of])


def _inner(facts: Facts, block: Block, tier_of: Sequence[str]) -> list[Markup]:
    """What a block holds: blocks that fold, and nodes between them, by their first positions."""
    parts: list[tuple[int, Markup]] = []
    if block.nodes:
        caption = f"Nodes of {block.name}." if block.name else "Nodes in order."
        parts.append((block.nodes[0], _nodes(facts, block.nodes, tier_of, caption)))
    for one in block.blocks.values():
        positions = one.positions
        said = tag("summary", tag("strong", units.clean(one.name)), f": {_sums(facts, positions, tier_of)}")
        parts.append((positions[0], tag("details", said, _inner(facts, one, tier_of), class_="block")))
    return [part for _, part in sorted(parts, key=lambda pair: pair[0])]


def _sums(facts: Facts, positions: list[int], tier_of: Sequence[str]) -> str:
    analysis = facts.inspection.analysis
    tiers = " and ".join(dict.fromkeys(tier_of[at] for at in positions))
    work = sum(int(analysis.flops[at]) for at in positions)
    weights = {name for at in positions for name in analysis.graph.nodes[at].weights}
    nbytes = [analysis.types.nbytes(name) for name in weights]
    held = None if None in nbytes else sum(one or 0 for one in nbytes)
    span = f"{positions[0]} to {positions[-1]}"
    said = [units.count(len(positions), "node"), f"positions {span}", f"on {tiers}", units.flops(work)]
    return ", ".join([*said, *([f"{units.nbytes(held)} of weights"] if held != 0 else [])])


def _nodes(facts: Facts, positions: Sequence[int], tier_of: Sequence[str], caption: str) -> Markup:
    analysis, nbytes = facts.inspection.analysis, facts.cut_nbytes
    prefix = _common([analysis.graph.nodes[at].name for at in positions])
    rows: list[list[Content]] = []
    for at in positions:
        node = analysis.graph.nodes[at]
        work = "?" if analysis.work[at] is None else units.flops(int(analysis.flops[at]))
        sizes = (analysis.output_nbytes(at), analysis.weight_nbytes(at), int(nbytes[at + 1]))
        rows.append(
            [str(at), _within(node.name, prefix), node.op_type, tier_of[at], work, *map(units.nbytes, sizes)]
        )
    return table(caption, _HEADINGS, rows, class_="long", is_plain=True)


def _common(names: Sequence[str]) -> str:
    """The path that names begin with, its `/` included; none where they are no paths."""
    steps = zip(*(name.split("/")[:-1] for name in names), strict=False)
    shared = [step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps)]
    return "".join(f"{step}/" for step in shared) if len(names) > 1 else ""


def _within(name: str, prefix: str) -> str:
    """A node's name within its block."""
    rest = name.removeprefix(prefix)
    return rest or name
