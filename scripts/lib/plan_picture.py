"""Draws docs/plan.svg: the screen that `plan` ends in, for the README and the site.

.venv/bin/python scripts/lib/plan_picture.py

The plan is the tutorial's. rich draws its terminal; the fonts that it would load from the network are
left to the reader. `tests/test_docs.py` holds the picture against what the program prints.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from dnnsplit_onnx import load_graph, plan
from dnnsplit_onnx.machines.presets import presets, tiers_text
from dnnsplit_onnx.machines.tiers_file import read_topology
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.reporting.plan_view import plan_renderables

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "plan.svg"
MODEL = "random_squeezenet"
COLUMNS = 94

# rich's own form without its window buttons and without fonts from a network.
FORM = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>dnnsplit-onnx plan: SqueezeNet over a Raspberry Pi 4 and an A100</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
 font-size: {char_height}px; line-height: {line_height}px }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
<rect fill="#0c0c0c" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture() -> str:
    """The SVG."""
    known = presets()
    tiers = [("edge", known.device("raspberry-pi-4")), ("cloud", known.device("a100"))]
    text = tiers_text(tiers, [known.connection("broadband")], known.rules)
    topology = read_topology(text.encode(), Path("tiers.toml"))
    graph = load_graph(model_path(MODEL))
    made = plan(graph, topology, pareto=False)
    console = Console(
        width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, highlight=False, markup=False
    )
    console.print("$ dnnsplit-onnx plan model.onnx --tiers tiers.toml", style="green")
    console.print()
    for part in plan_renderables(console, made, graph):
        console.print(part)
    console.print()
    drawn = console.export_svg(theme=MONOKAI, code_format=FORM, unique_id="plan")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def text_of(svg: str) -> str:
    """What a picture says, without its colours and its places."""
    matrix = svg[svg.index("-matrix") :]
    return " ".join(re.sub(r"<[^>]*>", " ", matrix).replace("&#160;", " ").split())


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
