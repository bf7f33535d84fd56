"""The sections of the page about what was run: measurements, the proof, and how to make it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.graph.digests import Algorithm
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.axes import Scale, bottom_axis
from dnnsplit_onnx.reporting.page.chart import Drawing, chart, colour, figure, is_small, table
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Content, Markup, lines, sentence, tag
from dnnsplit_onnx.reporting.page.measured import Bench, Timing
from dnnsplit_onnx.reporting.page.proof import Proof
from dnnsplit_onnx.reporting.page.tiers_file import tiers_toml
from dnnsplit_onnx.reporting.page.words import short
from dnnsplit_onnx.reporting.proof_view import caveats, headline
from dnnsplit_onnx.work.analysis import CUSTOM

_STEP, _BAR = 58, 13


def measured(facts: Facts, bench: Bench) -> list[Content]:
    """What a plan predicts of each tier beside what was measured."""
    predicted = {stage.tier: stage.seconds for stage in facts.plan.figures.stages}
    rows: list[list[Content]] = []
    for timing in bench.slices:
        expected = predicted[timing.tier]
        rows.append([timing.tier, units.seconds(expected), *_timing(timing), _ratio(timing, expected)])
    for name, whole in (("chain", bench.chain), ("whole model", bench.whole)):
        if whole is not None:
            rows.append([name, "", *_timing(whole), ""])
    headings = [
        "what", ">predicted", ">median", ">p95", ">p99", ">runs", "provider", ">measured / predicted",
    ]  # fmt: skip
    machine = ", ".join(
        f"{key} {value}" for key, value in bench.machine.items() if isinstance(value, str | int | float)
    )
    said = (
        f"All slices were measured on one machine ({machine or 'unknown'}), without links. A prediction is "
        "for the tier's own machine, so the two can be compared only where that is this one."
    )
    order = [stage.tier for stage in facts.plan.figures.stages]
    pairs = [(t.tier, order.index(t.tier), predicted[t.tier], t.p50_ms / 1e3) for t in bench.slices]
    label = "; ".join(
        f"{tier}: predicted {units.seconds(one)}, measured {units.seconds(two)}"
        for tier, _, one, two in pairs
    )
    picture = chart(lambda width: _pairs(pairs, width), f"Predicted and measured time of each slice. {label}")
    return [
        tag("p", said),
        figure(picture, "Above, in outline, what the plan predicts; below it the measured median.", None),
        table("Predicted and measured.", headings, rows),
        tag("ul", [tag("li", sentence(note)) for note in bench.notes]) if bench.notes else None,
    ]


def _timing(timing: Timing) -> list[str]:
    percentiles = (timing.p50_ms, timing.p95_ms, timing.p99_ms)
    return [*map(units.milliseconds, percentiles), f"{timing.runs:,}", timing.provider]


def _ratio(timing: Timing, expected: float) -> str:
    return units.times(timing.p50_ms / 1e3 / expected) if expected > 0 else units.UNKNOWN


def _pairs(pairs: list[tuple[str, int, float, float]], width: int) -> Drawing:
    """Two bars a tier."""
    longest = max((max(one, two) for _, _, one, two in pairs if one == one), default=1.0)
    scale = Scale(0.0, longest or 1.0, 2.0, width - 30.0)
    parts = []
    for row, (tier, at, one, two) in enumerate(pairs):
        y = row * _STEP
        parts.append(tag("text", short(tier, 40), x=2, y=y + 14, class_="said"))
        for place, (seconds, kind) in enumerate(((one, "sent"), (two, f"fill {colour(at)}"))):
            long = max(scale(seconds) - 2, 1.5) if seconds == seconds else 0
            top = y + 20 + place * (_BAR + 2)
            parts.append(tag("rect", x=2, y=top, width=long, height=_BAR, class_=kind))
    bottom = len(pairs) * _STEP + 4
    axis = bottom_axis(scale, bottom, 3 if is_small(width) else 7, units.seconds, 0)
    return Drawing(bottom + 24, [*axis, *parts])


def proof(found: Proof | None) -> list[Markup]:
    """What `verify` found when the slices were made."""
    if found is None:
        unproven = "Not verified when the slices were made, or not recorded: "
        return [tag("p", unproven, tag("code", "dnnsplit-onnx verify DIR"), " does it.")]
    data = found.model_dump()
    rows = [[one.name, "yes" if one.bitwise else "no", _distance(one.max_abs_diff)] for one in found.outputs]
    caption = "Outputs of the chain against those of the whole model."
    return [
        tag("p", sentence(headline(data)), class_="passed" if found.passed else "broken"),
        table(caption, ["output", "bit for bit", ">largest difference"], rows),
        *_codes(found),
        *(tag("p", sentence(said)) for said in caveats(data)),
    ]


def _codes(found: Proof) -> list[Markup]:
    """What codes lose, value by value, and in the outputs."""
    if not found.codes:
        return []
    rows: list[list[Content]] = [
        [
            tag("code", one.value),
            one.code,
            one.tier,
            units.times(one.ratio),
            _distance(one.largest_error),
            _distance(one.bound),
            "yes" if one.kept else "no",
        ]
        for one in found.codes
    ]
    headings = ["value", "code", "from", ">smaller by", ">largest error", ">bound", "kept"]
    said = (
        f"With codes, outputs err by at most {_distance(found.output_error)} of their largest element; it "
        f"stands where it stood on {found.agreement or 0:.0%} of {units.count(found.samples or 0, 'sample')}."
    )
    return [table("Coded values, where they are read.", headings, rows), tag("p", said)]


def _digests(name: str, digests: Mapping[Algorithm, str]) -> list[tuple[str, str]]:
    said = {
        "sha256": "SHA-256",
        "graph-sha256": "SHA-256 of the graph",
        "xxh3-128": "XXH3",
        "crc32": "CRC-32",
    }
    return [(f"{said[algorithm]} of {name}", digest) for algorithm, digest in digests.items()]


def _distance(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2g}"


def again(facts: Facts) -> list[Markup]:
    """Everything that is needed to make these slices again."""
    manifest, plan = facts.manifest, facts.plan
    pairs = [
        ("model", manifest.model.path),
        *_digests("the model", manifest.model.digests),
        ("slices made by", manifest.producer),
        ("this report made by", f"dnnsplit-onnx {__version__}"),
        ("order of the nodes", plan.order),
        ("what a cut is charged", plan.accounting),
        *(pair for one in manifest.slices if one.file for pair in _digests(one.file, one.digests)),
    ]
    listed = tag(
        "dl", [[tag("dt", name), tag("dd", tag("code", value))] for name, value in pairs], class_="facts"
    )
    parts = [
        tag("pre", tag("code", shlex.join(command(facts))), tabindex=0, role="region", aria_label="Command"),
        listed,
    ]
    if plan.order == CUSTOM and plan.planner == "at":
        parts.insert(0, tag("p", "The cuts were named by hand; give the names of these nodes to --at again."))
    if facts.topology is not None:
        parts.append(_opened("tiers.toml", tiers_toml(facts.topology)))
    written = json.dumps(manifest.plan, indent=2, ensure_ascii=False)
    return [*parts, _opened("The plan, as the manifest has it", written)]


def _opened(name: str, content: str) -> Markup:
    """A file's text that can be opened."""
    code = tag("pre", tag("code", lines(content)), tabindex=0, role="region", aria_label=name)
    return tag("details", tag("summary", name), code)


def command(facts: Facts) -> list[str]:
    """The command that makes these slices again, in a folder with the model and `tiers.toml`."""
    plan = facts.plan
    words = ["dnnsplit-onnx", "split", facts.model_name, "--tiers", "tiers.toml"]
    for dim, size in plan.bindings.items():
        words += ["--bind", f"{dim}={size}"]
    if plan.objective != "latency":
        words += ["--objective", plan.objective]
    if plan.objective == "weighted" and plan.weights is not None:
        weighed = [f"{name}={weight:g}" for name, weight in plan.weights.to_dict().items() if weight]
        words += [word for one in weighed for word in ("--weight", one)]
    if plan.planner == "at":
        words += ["--at", ",".join(map(str, plan.cuts))]
    elif plan.planner != "exact":
        words += ["--planner", plan.planner]
    if plan.accounting != "live":
        words += ["--cut-size", plan.accounting]
    if plan.order not in ("envelope", CUSTOM):
        words += ["--order", plan.order]
    if facts.manifest.candidates:
        words.append("--all-candidates")
    return [*words, "-o", "slices"]
