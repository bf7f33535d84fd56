"""Which modules get faults, and which tests are to notice them.

The tests are those of the module and quick ones that use it; each line is then held by those
among them that run it.
"""

from __future__ import annotations

_PLANS = (
    "tests/planning/test_plans.py",
    "tests/planning/test_choosing.py",
    "tests/planning/planners/test_dag.py",
    "tests/cli/test_plan.py",
    "tests/test_old_files.py",
)
_CUTS = (
    "tests/work/test_cuts.py",
    "tests/graph/test_states.py",
    "tests/planning/test_rules.py",
    "tests/planning/test_costs.py",
)
_TEXTS = ("tests/planning/test_texts.py", "tests/planning/test_drafting.py")
_SLICES = (
    "tests/slicing/test_constructs.py",
    "tests/slicing/test_output.py",
    "tests/slicing/test_types.py",
    "tests/slicing/test_tags.py",
    "tests/slicing/test_survival.py",
)
_FORMULAS = ("tests/work/flops/test_registry.py", "tests/work/flops/test_against_loops.py")

TARGETS: dict[str, tuple[str, ...]] = {
    "dnnsplit_onnx.planning.choosing": ("tests/planning/test_input_nbytes.py", *_PLANS),
    "dnnsplit_onnx.planning.plans": _PLANS,
    "dnnsplit_onnx.planning.phases": _TEXTS,
    "dnnsplit_onnx.planning.sparing": ("tests/planning/test_sparing.py",),
    "dnnsplit_onnx.work.cheap": ("tests/work/test_cheap.py",),
    "dnnsplit_onnx.work.codes": ("tests/work/test_codes.py",),
    "dnnsplit_onnx.work.cuts": _CUTS,
    "dnnsplit_onnx.work.ranges": ("tests/work/test_ranges.py", *_SLICES),
    "dnnsplit_onnx.work.texts": _TEXTS,
    "dnnsplit_onnx.slicing.extract": _SLICES,
    "dnnsplit_onnx.slicing.index": ("tests/slicing/test_index.py", *_SLICES),
    "dnnsplit_onnx.slicing.slicer": ("tests/slicing/test_files.py", *_SLICES),
    "dnnsplit_onnx.slicing.files": (
        "tests/slicing/test_files.py",
        "tests/slicing/test_candidates.py",
        *_SLICES,
    ),
    "dnnsplit_onnx.slicing.copying": ("tests/slicing/test_copying.py", *_SLICES),
    "dnnsplit_onnx.work.flops.matmul": ("tests/work/flops/test_matmul.py", *_FORMULAS),
    "dnnsplit_onnx.work.flops.convolution": ("tests/work/flops/test_convolution.py", *_FORMULAS),
    "dnnsplit_onnx.work.flops.recurrent": ("tests/work/flops/test_recurrent.py", *_FORMULAS),
    "dnnsplit_onnx.work.flops.elementwise": (
        "tests/work/flops/test_elementwise.py",
        "tests/work/flops/test_convolution.py",
        "tests/work/flops/test_matmul.py",
        "tests/work/flops/test_recurrent.py",
        *_FORMULAS,
    ),
    "dnnsplit_onnx.work.flops.registry": _FORMULAS,
}
