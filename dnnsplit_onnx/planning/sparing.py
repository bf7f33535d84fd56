"""What a plan sends that another form of the same model would not have to, and the command that makes it."""

from __future__ import annotations

from dnnsplit_onnx.graph.copies import has_copies
from dnnsplit_onnx.planning.figures import Figures, Transfer
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cheap import cheap_values

_FUSED = frozenset(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"))
# Less than this share of what crosses a link is not worth a sentence.
_LEAST_SHARE = 0.01


def sparing_notes(figures: Figures, analysis: Analysis) -> tuple[str, ...]:
    """A sentence for each link over which sums cross beside their norms, or masks that could be made anew.

    Args:
        figures: A plan's, with the values that cross.
        analysis: Of the model, in the plan's order.
    """
    several = [link for link in figures.links if len(link.values) > 1]
    cheap = cheap_values(analysis) if several and not has_copies(analysis.graph) else {}
    notes = []
    for link in several:
        way = f"of what crosses `{link.source}` to `{link.target}` are"
        if norms := _share(link, analysis, _norms(link, analysis)):
            notes.append(
                f"{norms:.0%} {way} norms of sums that cross too: "
                "`dnnsplit-onnx convert MODEL --split-norms -o FILE` makes a model that sends the sums alone"
            )
        if masks := _share(link, analysis, {value for value in link.values if value in cheap}):
            notes.append(
                f"{masks:.0%} {way} masks and positions: `dnnsplit-onnx convert MODEL --copy-masks -o FILE` "
                "makes a model that makes them anew above, where that sends less"
            )
    return tuple(notes)


def _norms(link: Transfer, analysis: Analysis) -> set[str]:
    """Norms that cross beside the sums that they are of, both made by one fused node."""
    graph = analysis.graph
    made = {value: graph.nodes[graph.producer[value]] for value in link.values if value in graph.producer}
    return {
        value
        for value, node in made.items()
        if node.op_type in _FUSED
        and value == node.outputs[0]
        and not made.keys().isdisjoint(node.outputs[1:])
    }


def _share(link: Transfer, analysis: Analysis, values: set[str]) -> float:
    """Of the bytes that cross raw, the share of some values; 0 if it is little or unknown."""
    sizes = {value: analysis.link_nbytes(value) for value in link.values}
    known = {value: nbytes for value, nbytes in sizes.items() if nbytes is not None}
    total = sum(known.values())
    share = sum(known[value] for value in values) / total if total and len(known) == len(sizes) else 0.0
    return share if share >= _LEAST_SHARE else 0.0
