"""The graph as a drawing that grows downwards with the order, a band of colour a tier.

Cuts are lines right across, and what crosses them is what runs through them. The drawing
scrolls in a box of its own; `page.js` adds zooming to what works without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.chart import colour
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.layout import MOST_SINGLE, Layout, Row, Wire, lay_out
from dnnsplit_onnx.reporting.page.markup import Markup, lines, number, tag
from dnnsplit_onnx.reporting.page.words import made_by, shape_of, short

# Units: height of a row, of a cut and of a band's heading; width of a lane, of margins, and
# of what is written beside the lanes.
_ROW, _CUT, _HEAD = 20, 40, 30
_LANE, _LEFT, _WRITTEN = 15, 50, 720
# Where columns of text are, right of the lanes: operators, work, bytes made, names. Behind
# work and bytes there are bars, so long at most.
_WORK, _MADE, _NAME, _BAR = 270, 385, 400, 105
# Letters that fit: of operators, of a name, of a line.
_OPERATORS, _NAME_LETTERS, _LINE_LETTERS = 24, 46, 90
# A drawing higher than this is squeezed onto a printed page, and its text left out.
_SHEET = 1000
# Nodes of a row that are told one by one where it is pointed at.
_NAMED = 8
# The same in a graph so large that its page would grow.
_FEW = 1


@dataclass(frozen=True)
class GraphPicture:
    """The drawing of a graph.

    Attributes:
        svg: The drawing.
        rows: How many rows stand for the nodes.
        cuts: The ids of cuts in the drawing, each with the names of the tiers it lies between.
    """

    svg: Markup
    rows: int
    cuts: tuple[tuple[str, str], ...]


def draw_graph(facts: Facts) -> GraphPicture:
    """Draws the graph of a model with the cuts of its plan."""
    graph = facts.inspection.analysis.graph
    layout = lay_out(graph, facts.stage_of)
    canvas = _Canvas(facts, layout)
    bands = canvas.place()
    wires = [canvas.wire(wire) for wire in layout.wires]
    nodes = [canvas.node(at, row) for at, row in enumerate(layout.rows)]
    width, height = canvas.width, canvas.bottom
    svg = tag(
        "svg",
        [*bands, tag("g", wires, class_="wires"), *nodes],
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        preserveAspectRatio="none",  # far away, rows get flat and columns stay
        id="graph-svg",
        class_="deep" if height > _SHEET else None,
        role="img",
        aria_label=f"The graph of {facts.model_name}, from its inputs at the top to its outputs; "
        "the table of nodes below says the same",
    )
    links = facts.plan.figures.links
    cuts = tuple((f"graph-cut-{t}", f"{link.source} → {link.target}") for t, link in enumerate(links))
    return GraphPicture(svg, sum(not row.value for row in layout.rows), cuts)


class _Canvas:
    """Where rows are, and how what stands on them is drawn."""

    def __init__(self, facts: Facts, layout: Layout) -> None:
        self.facts, self.layout = facts, layout
        self.analysis = facts.inspection.analysis
        self.graph: Graph = self.analysis.graph
        self.text_x = _LEFT + layout.lanes * _LANE + 6
        self.width = self.text_x + _WRITTEN
        self.y = [0.0] * len(layout.rows)
        self.bottom = 0.0
        flops, spans = (
            self.analysis.flops_below,
            [(row.start, row.stop) for row in layout.rows if not row.value],
        )
        self.most_work = max((int(flops[stop] - flops[start]) for start, stop in spans), default=0) or 1
        self.most_made = (
            max((self.analysis.output_nbytes(stop - 1) or 0 for _, stop in spans), default=0) or 1
        )

    def place(self) -> list[Markup]:
        """Gives every row its height on the page, and draws tiers and cuts."""
        rows, at = self.layout.rows, 0
        self.bottom = float(_HEAD)
        parts = [tag("g", self._columns(_HEAD / 2, "operator", "work", "makes", "node"), class_="heads")]
        while at < len(rows) and rows[at].value:
            at = self._put(at)
        stages, links = self.facts.plan.figures.stages, self.facts.plan.figures.links
        for t in range(len(stages)):
            top = self.bottom
            self.bottom += _HEAD
            while at < len(rows) and rows[at].stage == t:
                at = self._put(at)
            self.bottom += 6
            parts += self._band(t, top)
            if t < len(links):
                parts.append(self._cut(t))
        return parts

    def _put(self, at: int) -> int:
        self.y[at] = self.bottom + _ROW / 2
        self.bottom += _ROW
        return at + 1

    def _band(self, t: int, top: float) -> list[Markup]:
        stage = self.facts.plan.figures.stages[t]
        work = f"{units.count(stage.stop - stage.start, 'node')}, {units.flops(stage.flops)}"
        said = f"{stage.tier}: {work if stage.stop > stage.start else 'no work'}"
        box = {"x": 0, "y": top, "width": self.width}
        return [
            tag("rect", **box, height=self.bottom - top, class_=f"band {colour(t)}"),
            tag("rect", x=0, y=top, width=5, height=self.bottom - top, class_=f"fill {colour(t)}"),
            tag("text", said, x=self.text_x, y=top + 20, class_="tier"),
        ]

    def _cut(self, t: int) -> Markup:
        link = self.facts.plan.figures.links[t]
        y = self.bottom + _CUT / 2
        self.bottom += _CUT
        sent = "nothing crosses" if link.position == len(self.graph.nodes) else units.nbytes(link.nbytes)
        said = f"cut {link.position}, {link.source} → {link.target}: {sent}"
        return tag(
            "g",
            tag("title", f"{said}: {units.listed(link.values, 20)}" if link.values else said),
            tag("line", x1=0, y1=y, x2=self.width, y2=y, class_="cut"),
            tag("text", short(said, _LINE_LETTERS), x=self.text_x, y=y - 6, class_="cut-label"),
            id=f"graph-cut-{t}",
            data_cut=link.position,
        )

    def x(self, lane: int) -> float:
        return _LEFT + lane * _LANE + _LANE / 2

    def wire(self, wire: Wire) -> Markup:
        """A line down the lane, with a turn to each reader."""
        x, last = self.x(wire.lane), self.y[wire.readers[-1]]
        path = [f"M{number(self.x(self.layout.rows[wire.source].lane))} {number(self.y[wire.source])}"]
        if wire.lane != self.layout.rows[wire.source].lane:
            y = self.y[wire.source] + _ROW
            path.append(f"C{number(self.x(self.layout.rows[wire.source].lane))} {number(y)} ")
            path.append(f"{number(x)} {number(y - _ROW)} {number(x)} {number(y)}")
        path.append(f"V{number(last - _ROW)}" if last - _ROW > self.y[wire.source] else "")
        for reader in wire.readers:
            y, target = self.y[reader], self.x(self.layout.rows[reader].lane)
            start = max(y - _ROW, self.y[wire.source])
            path.append(f"M{number(x)} {number(start)}C{number(x)} {number(y)} ")
            path.append(f"{number(target)} {number(start)} {number(target)} {number(y)}")
        names = units.listed(wire.values, _NAMED)
        sizes = [self.analysis.types.nbytes(value) for value in wire.values]
        size = None if None in sizes else sum(size or 0 for size in sizes)
        return tag("path", tag("title", f"{names}: {units.nbytes(size)}"), d="".join(path))

    def node(self, at: int, row: Row) -> Markup:
        """A row's mark and what is written beside it."""
        x, y = self.x(row.lane), self.y[at]
        if row.value:
            size = units.nbytes(self.analysis.types.nbytes(row.value))
            mark = tag("rect", x=x - 5, y=y - 5, width=10, height=10, class_="input")
            said = tag("text", short(f"input {row.value}, {size}", _LINE_LETTERS), x=self.text_x, y=y + 4)
            return tag("g", tag("title", f"model input {row.value}: {size}"), mark, said, class_="row")
        radius = 5 if row.stop - row.start == 1 else 7
        flops = self.analysis.flops_below
        work, made = int(flops[row.stop] - flops[row.start]), self.analysis.output_nbytes(row.stop - 1)
        operators = [node.op_type for node in self.graph.nodes[row.start : row.stop]]
        return tag(
            "g",
            tag("title", self._hint(row)),
            self._bar(_WORK, y, work / self.most_work, row),
            self._bar(_MADE, y, (made or 0) / self.most_made, row),
            tag("text", str(row.start), x=_LEFT - 6, y=y + 4, class_="at"),
            tag("circle", cx=x, cy=y, r=radius, class_=f"fill {colour(row.stage)}"),
            *self._columns(
                y,
                short(shape_of(operators), _OPERATORS),
                units.flops(work) if work else "",
                units.nbytes(made),
                short(self._name(row), _NAME_LETTERS),
            ),
            class_="row",
            data_start=row.start,
            data_stop=row.stop,
        )

    def _bar(self, column: int, y: float, share: float, row: Row) -> Markup:
        """A bar behind a figure, from the column's right edge."""
        long = share * _BAR
        x = self.text_x + column + 4 - long
        return tag("rect", x=x, y=y - 8, width=long, height=16, class_=f"bar {colour(row.stage)}")

    def _columns(self, y: float, operators: str, work: str, made: str, name: str) -> list[Markup]:
        """What is written beside a row."""
        x = self.text_x
        return [
            tag("text", operators, x=x, y=y + 4, class_="op"),
            tag("text", work, x=x + _WORK, y=y + 4, class_="work"),
            tag("text", made, x=x + _MADE, y=y + 4, class_="work"),
            tag("text", name, x=x + _NAME, y=y + 4, class_="name"),
        ]

    def _name(self, row: Row) -> str:
        more = row.stop - row.start - 1
        first = self.graph.nodes[row.start].name
        return f"{short(first, _NAME_LETTERS - 12)} and {more} more" if more else first

    def _hint(self, row: Row) -> Markup:
        """What is said of a row where one points at it."""
        stage = self.facts.plan.figures.stages[row.stage].tier
        most = _NAMED if len(self.graph.nodes) <= MOST_SINGLE else _FEW
        shown = [made_by(self.analysis, at) for at in range(row.start, min(row.stop, row.start + most))]
        more = row.stop - row.start - len(shown)
        return lines("\n".join([*shown, *([f"and {more} more"] if more else []), f"on {stage}"]))
