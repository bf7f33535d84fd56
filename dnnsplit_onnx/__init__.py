"""Split an ONNX model over a line of machines, and prove that the parts are the whole.

    from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, slice_model, verify

    work = analyse("model.onnx")
    machines = Topology(
        tiers=[Tier("edge", gflops=13.5), Tier("cloud", gflops=19500)],
        links=[Link(bandwidth_mbps=50, delay_ms=10)],
    )
    best = plan(work, machines, objective="latency")
    slice_model(work, best, "out")
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
    from dnnsplit_onnx.errors import (
        CutError,
        DnnsplitError,
        InfeasibleError,
        InputError,
        ManifestError,
        MissingExtraError,
        ModelError,
        OutputError,
        PlanError,
        ProfileError,
        RequestError,
        ShapeError,
        TopologyError,
        VerificationError,
    )
    from dnnsplit_onnx.graph.graph import Graph, Node, load_graph
    from dnnsplit_onnx.graph.shapes import bind_shapes
    from dnnsplit_onnx.machines.predictors import Predictor
    from dnnsplit_onnx.machines.profiles import Profile, load_profile
    from dnnsplit_onnx.machines.tiers import Tier
    from dnnsplit_onnx.machines.tiers_file import load_topology
    from dnnsplit_onnx.machines.topology import Limits, Link, Topology, Workload
    from dnnsplit_onnx.measuring.benchmark import BenchReport, bench
    from dnnsplit_onnx.measuring.profiling.predicting import fit_predictor
    from dnnsplit_onnx.measuring.profiling.whole import profile
    from dnnsplit_onnx.measuring.verification import Verification, verify
    from dnnsplit_onnx.planning.cascades import SmallModel
    from dnnsplit_onnx.planning.choosing import plan
    from dnnsplit_onnx.planning.comparing import Comparison, compare
    from dnnsplit_onnx.planning.objective import evaluate
    from dnnsplit_onnx.planning.plans import Plan, load_plan
    from dnnsplit_onnx.planning.problem import Problem, Solution
    from dnnsplit_onnx.planning.rivalry import rivals
    from dnnsplit_onnx.planning.rivals import Rivals
    from dnnsplit_onnx.planning.sweeping import Sweep, sweep
    from dnnsplit_onnx.planning.weights import Weights
    from dnnsplit_onnx.reporting.plan_html import plan_html
    from dnnsplit_onnx.reporting.plan_view import plan_renderables
    from dnnsplit_onnx.reporting.reports import report
    from dnnsplit_onnx.running.chain import Chain
    from dnnsplit_onnx.running.generating.generator import Completion, Generator
    from dnnsplit_onnx.running.generating.sampling import Sampling
    from dnnsplit_onnx.running.steps import Steps
    from dnnsplit_onnx.runtime.options import SessionOptions
    from dnnsplit_onnx.serving.edge.aio import AsyncEdge
    from dnnsplit_onnx.serving.edge.conversation import Conversation
    from dnnsplit_onnx.serving.edge.edge import Edge
    from dnnsplit_onnx.serving.edge.talking import ServedDecoder
    from dnnsplit_onnx.serving.tier.launch import ServeOptions
    from dnnsplit_onnx.serving.tier.served import serve
    from dnnsplit_onnx.serving.wire.errors import (
        DeadlineError,
        LinkError,
        ProtocolError,
        RefusedError,
        ServingError,
    )
    from dnnsplit_onnx.slicing import slice_model
    from dnnsplit_onnx.slicing.annotating import annotate
    from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
    from dnnsplit_onnx.work.analysing import analyse
    from dnnsplit_onnx.work.analysis import Analysis
    from dnnsplit_onnx.work.inspection import Inspection, inspect

__all__ = [
    "Analysis",
    "AsyncEdge",
    "BenchReport",
    "Chain",
    "Comparison",
    "Completion",
    "Conversation",
    "CutError",
    "DeadlineError",
    "DnnsplitError",
    "Edge",
    "Generator",
    "Graph",
    "InfeasibleError",
    "InputError",
    "Inspection",
    "Limits",
    "Link",
    "LinkError",
    "Manifest",
    "ManifestError",
    "MissingExtraError",
    "ModelError",
    "Node",
    "OutputError",
    "Plan",
    "PlanError",
    "Predictor",
    "Problem",
    "Profile",
    "ProfileError",
    "ProtocolError",
    "RefusedError",
    "RequestError",
    "Rivals",
    "Sampling",
    "ServeOptions",
    "ServedDecoder",
    "ServingError",
    "SessionOptions",
    "ShapeError",
    "SmallModel",
    "Solution",
    "Steps",
    "Sweep",
    "Tier",
    "Topology",
    "TopologyError",
    "Verification",
    "VerificationError",
    "Weights",
    "Workload",
    "__version__",
    "analyse",
    "annotate",
    "bench",
    "bind_shapes",
    "compare",
    "custom_ops",
    "evaluate",
    "fit_predictor",
    "inspect",
    "load_graph",
    "load_manifest",
    "load_plan",
    "load_profile",
    "load_topology",
    "plan",
    "plan_html",
    "plan_renderables",
    "profile",
    "report",
    "rivals",
    "serve",
    "slice_model",
    "sweep",
    "verify",
]

# Modules are not named after the functions they hold: an imported submodule becomes an
# attribute of its package and would hide them.
_HOME = {
    "Solution": "planning.problem",
    "Problem": "planning.problem",
    "Comparison": "planning.comparing",
    "Sweep": "planning.sweeping",
    "Inspection": "work.inspection",
    "inspect": "work.inspection",
    "analyse": "work.analysing",
    "custom_ops": "runtime.custom_ops",
    "CutError": "errors",
    "DnnsplitError": "errors",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "ManifestError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "PlanError": "errors",
    "ProfileError": "errors",
    "RequestError": "errors",
    "ShapeError": "errors",
    "TopologyError": "errors",
    "VerificationError": "errors",
    "Graph": "graph.graph",
    "Node": "graph.graph",
    "load_graph": "graph.graph",
    "bind_shapes": "graph.shapes",
    "Predictor": "machines.predictors",
    "Profile": "machines.profiles",
    "load_profile": "machines.profiles",
    "Limits": "machines.topology",
    "Link": "machines.topology",
    "Tier": "machines.tiers",
    "Topology": "machines.topology",
    "load_topology": "machines.tiers_file",
    "BenchReport": "measuring.benchmark",
    "bench": "measuring.benchmark",
    "fit_predictor": "measuring.profiling.predicting",
    "profile": "measuring.profiling.whole",
    "Verification": "measuring.verification",
    "verify": "measuring.verification",
    "plan": "planning.choosing",
    "compare": "planning.comparing",
    "Rivals": "planning.rivals",
    "rivals": "planning.rivalry",
    "SmallModel": "planning.cascades",
    "evaluate": "planning.objective",
    "Plan": "planning.plans",
    "load_plan": "planning.plans",
    "sweep": "planning.sweeping",
    "Weights": "planning.weights",
    "Workload": "machines.topology",
    "plan_html": "reporting.plan_html",
    "report": "reporting.reports",
    "plan_renderables": "reporting.plan_view",
    "Chain": "running.chain",
    "Completion": "running.generating.generator",
    "Generator": "running.generating.generator",
    "Sampling": "running.generating.sampling",
    "Steps": "running.steps",
    "SessionOptions": "runtime.options",
    "AsyncEdge": "serving.edge.aio",
    "Conversation": "serving.edge.conversation",
    "Edge": "serving.edge.edge",
    "ServeOptions": "serving.tier.launch",
    "ServedDecoder": "serving.edge.talking",
    "serve": "serving.tier.served",
    "DeadlineError": "serving.wire.errors",
    "LinkError": "serving.wire.errors",
    "ProtocolError": "serving.wire.errors",
    "RefusedError": "serving.wire.errors",
    "ServingError": "serving.wire.errors",
    "annotate": "slicing.annotating",
    "slice_model": "slicing",
    "Manifest": "slicing.manifest",
    "load_manifest": "slicing.manifest",
    "Analysis": "work.analysis",
}


views.register("records_html", f"{__name__}.reporting.records_html")
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
