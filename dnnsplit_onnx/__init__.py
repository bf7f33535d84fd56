"""Split an ONNX model over a line of machines, and prove that the parts are the whole.

    from dnnsplit_onnx import load_graph, load_topology, plan, slice_model, verify

    graph = load_graph("model.onnx")
    topology = load_topology("tiers.toml")
    chosen = plan(graph, topology, objective="latency")
    slice_model(graph, chosen, "out")
    assert verify("out").bitwise

Importing the package loads nothing heavy; each name below loads its module when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx import views
from dnnsplit_onnx._version import __version__

if TYPE_CHECKING:
    from dnnsplit_onnx.errors import DnnsplitError
    from dnnsplit_onnx.graph.graph import Graph, Node, load_graph
    from dnnsplit_onnx.graph.shapes import bind_shapes
    from dnnsplit_onnx.machines.topology import Topology, load_topology
    from dnnsplit_onnx.measuring.benchmark import BenchReport, bench
    from dnnsplit_onnx.measuring.verification import Verification, verify
    from dnnsplit_onnx.planning.choosing import plan
    from dnnsplit_onnx.planning.objective import evaluate
    from dnnsplit_onnx.planning.plans import Plan, load_plan
    from dnnsplit_onnx.reporting.plan_html import plan_html
    from dnnsplit_onnx.reporting.plan_view import plan_renderables
    from dnnsplit_onnx.slicing import slice_model
    from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest

__all__ = [
    "BenchReport",
    "DnnsplitError",
    "Graph",
    "Manifest",
    "Node",
    "Plan",
    "Topology",
    "Verification",
    "__version__",
    "bench",
    "bind_shapes",
    "evaluate",
    "load_graph",
    "load_manifest",
    "load_plan",
    "load_topology",
    "plan",
    "plan_html",
    "plan_renderables",
    "slice_model",
    "verify",
]

# Modules are not named after the functions they hold: an imported submodule becomes an
# attribute of its package and would hide them.
_HOME = {
    "BenchReport": "measuring.benchmark",
    "bench": "measuring.benchmark",
    "DnnsplitError": "errors",
    "Graph": "graph.graph",
    "Node": "graph.graph",
    "load_graph": "graph.graph",
    "Manifest": "slicing.manifest",
    "load_manifest": "slicing.manifest",
    "evaluate": "planning.objective",
    "plan": "planning.choosing",
    "Plan": "planning.plans",
    "load_plan": "planning.plans",
    "plan_html": "reporting.plan_html",
    "plan_renderables": "reporting.plan_view",
    "bind_shapes": "graph.shapes",
    "slice_model": "slicing",
    "Topology": "machines.topology",
    "load_topology": "machines.topology",
    "Verification": "measuring.verification",
    "verify": "measuring.verification",
}


views.register("plan_line", f"{__name__}.planning.plan_text")
views.register("plan_text", f"{__name__}.planning.plan_text")
views.register("plan_html", f"{__name__}.reporting.plan_html")
views.register("plan_renderables", f"{__name__}.reporting.plan_view")


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
