"""What a verification finds, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dnnsplit_onnx.graph.saturation import warning
from dnnsplit_onnx.measuring.coded import CodeCheck, OutputError
from dnnsplit_onnx.views import Tabled


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One output of the chain against the same output of the whole model.

    Attributes:
        name: The output.
        bitwise: With optimisations off: same type, shape and bits.
        max_abs_diff, max_rel_diff: With optimisations off.
        optimized_max_abs_diff, optimized_max_rel_diff: With optimisations on.
        whole_optimization_shift: How far the whole model itself moves when optimisations
            are turned on.
        within_tolerance: Whether the optimised chain is near enough to the optimised whole.
        vacuous: Why agreement on this output proves little, or None.

    Distances are infinite where types or shapes differ, or NaN meets a number.
    """

    name: str
    bitwise: bool
    max_abs_diff: float
    max_rel_diff: float
    optimized_max_abs_diff: float
    optimized_max_rel_diff: float
    whole_optimization_shift: float
    within_tolerance: bool
    vacuous: str | None


@dataclass(frozen=True, slots=True)
class BoundaryCheck:
    """A value that leaves a slice against the same value inside the whole model."""

    name: str
    tier: str
    bitwise: bool
    max_abs_diff: float
    vacuous: str | None


@dataclass(frozen=True, slots=True)
class TileCheck:
    """One machine's tile against the same rows inside the whole model.

    Attributes:
        tier: The tier whose machines share rows.
        machine: The machine.
        start, stop: The nodes.
        rows: First row and one past the last; None where the machine computes the nodes alone.
        bitwise: With optimisations off: the same bits.
        max_abs_diff: With optimisations off.
        optimized_bitwise, optimized_max_abs_diff: With optimisations on.
        within_tolerance: Whether rounding explains the distance, at both levels.
    """

    tier: str
    machine: str
    start: int
    stop: int
    rows: tuple[int, int] | None
    bitwise: bool
    max_abs_diff: float
    optimized_bitwise: bool
    optimized_max_abs_diff: float
    within_tolerance: bool


@dataclass(frozen=True, slots=True)
class NotComparable:
    """An output that differs from run to run.

    Attributes:
        name: The output.
        reason: Why it differs.
        same_type: Whether at least type and number of dimensions agree.
    """

    name: str
    reason: str
    same_type: bool


@dataclass(frozen=True, slots=True)
class RandomInName:
    """An output that depends on a random node and was the same in every run, so that it was compared.

    Attributes:
        name: The output.
        node: The random node.
        runs: How many runs of the whole model, on each set of inputs, agreed in every bit.
    """

    name: str
    node: str
    runs: int


@dataclass(frozen=True, slots=True)
class ForcedRounding:
    """What the chain was compared with, where the runtime leaves roundings out of the whole.

    Attributes:
        values: Values of half precision that cross a cut; each was forced to round in the whole
            model, for its readers beyond the cut, as it rounds on its way.
        whole_max_abs_diff, whole_max_rel_diff: How far the whole model as it is lies from that,
            optimisations off.
    """

    values: tuple[str, ...]
    whole_max_abs_diff: float
    whole_max_rel_diff: float


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """Where a slice of the optimised chain ran.

    Attributes:
        tier: Its tier.
        provider: `cpu` or `cuda`.
        cpu_nodes: Nodes that ran on the CPU although another provider was asked for; None if
            this onnxruntime cannot tell.
        memcpy_nodes: Nodes that onnxruntime put in to copy between host and device on every
            run; None if nobody looked.
    """

    tier: str
    provider: str
    cpu_nodes: tuple[str, ...] | None = ()
    memcpy_nodes: int | None = 0


@dataclass(frozen=True)
class Verification(Tabled):
    """What `verify` found.

    Attributes:
        passed: Bitwise on every comparable output and boundary, within the tolerance with
            optimisations on, and no slice failed.
        bitwise: Whether outputs were compared and all agreed in every bit.
        outputs: The comparable outputs.
        boundaries: Values that cross the cuts, where they were compared.
        not_comparable: Outputs that depend on random numbers.
        random_in_name: Outputs that depend on random nodes and are the same all the same: noise
            that is scaled by 0, say. They are among the comparable ones.
        forced_rounding: Which roundings were forced in the whole model; None if it was compared
            as it is.
        tolerance: What was allowed with optimisations on.
        model: The whole model's path.
        source: Where inputs came from: "generated", "given" or a path.
        seed: Of generated inputs.
        runs: How many sets of inputs.
        bindings: Sizes of symbolic dimensions.
        assumed: Sizes of dimensions that nobody gave.
        provider: Where the optimised chain ran; all of them joined by `+` if it mixes them.
        slices: Where each slice of it ran.
        error: Why the chain did not run, or None.
        disagreements: Names of dimensions that the inputs gave unequal sizes, each as a phrase: the model
            runs all the same.
        tiles: Each machine's tiles, where machines of a tier share rows.
        codes: The values that cross in codes. All else is of the slices with their codes taken
            out.
        coded_output: How far the chain with its codes is from the whole; None if it has none.
        saturating: Nodes whose sums of eight-bit products saturate on some processors and not on others
            (`graph.saturation`).
    """

    passed: bool
    bitwise: bool
    outputs: tuple[OutputCheck, ...]
    boundaries: tuple[BoundaryCheck, ...]
    not_comparable: tuple[NotComparable, ...]
    tolerance: Mapping[str, float]
    model: str
    source: str
    seed: int
    runs: int
    bindings: Mapping[str, int]
    assumed: Mapping[str, int]
    provider: str = "cpu"
    slices: tuple[SlicePlace, ...] = ()
    error: str | None = None
    disagreements: tuple[str, ...] = ()
    forced_rounding: ForcedRounding | None = None
    random_in_name: tuple[RandomInName, ...] = ()
    tiles: tuple[TileCheck, ...] = ()
    codes: tuple[CodeCheck, ...] = ()
    coded_output: OutputError | None = None
    saturating: tuple[str, ...] = ()

    def worst(self, figure: str) -> float:
        """The largest of a figure of `OutputCheck` over all outputs; 0 if there are none."""
        return max((getattr(output, figure) for output in self.outputs), default=0.0)

    @property
    def max_abs_diff(self) -> float:
        """Largest distance of an element, optimisations off."""
        return self.worst("max_abs_diff")

    @property
    def max_rel_diff(self) -> float:
        """Largest distance over the larger magnitude, optimisations off."""
        return self.worst("max_rel_diff")

    @property
    def vacuous(self) -> tuple[str, ...]:
        """Outputs on which agreement proves little."""
        return tuple(output.name for output in self.outputs if output.vacuous)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know beside `passed`, each a sentence."""
        notes = []
        if (forced := self.forced_rounding) is not None:
            notes.append(
                f"{len(forced.values)} values of half precision round where they cross a cut; onnxruntime "
                "leaves that rounding out of a whole model on the CPU, so it was forced there: as it is, "
                f"the whole lies {forced.whole_max_abs_diff:.2g} away"
            )
        notes += [
            f"output `{o.name}` depends on node `{o.node}`, which is random only in name: {o.runs} runs of "
            "the whole model agree in every bit, so it was compared"
            for o in self.random_in_name
        ]
        notes += [f"output `{o.name}` was not compared: {o.reason}" for o in self.not_comparable]
        notes += [
            f"agreement on output `{o.name}` proves little: {o.vacuous}" for o in self.outputs if o.vacuous
        ]
        telling = sum(boundary.vacuous is None for boundary in self.boundaries)
        if self.boundaries:
            notes.append(
                f"what crosses the cuts was compared too: {telling} of {len(self.boundaries)} "
                f"value{'' if len(self.boundaries) == 1 else 's'} {'varies' if telling == 1 else 'vary'}"
            )
        if self.coded_output is not None:
            kept = sum(check.kept for check in self.codes)
            notes.append(
                f"with codes, outputs err by at most {self.coded_output.relative:.2g} of their largest "
                f"element, and {self.coded_output.agreement:.0%} of {self.coded_output.samples} samples "
                f"agree on it; {kept} of {len(self.codes)} coded values keep their bounds"
            )
        wrong = next((boundary for boundary in self.boundaries if not boundary.bitwise), None)
        if wrong is not None:
            notes.append(f"the first to differ is value `{wrong.name}`, made on tier `{wrong.tier}`")
        if self.tiles:
            notes.append(_of_tiles(self.tiles))
        notes += [f"a name of dimensions stands for unequal sizes: {said}" for said in self.disagreements]
        if self.assumed:
            sizes = ", ".join(f"`{name}` = {size}" for name, size in self.assumed.items())
            notes.append(f"sizes that were not given were assumed: {sizes}")
        notes += [
            f"warning: slice `{place.tier}` copies between device and host {place.memcpy_nodes} times a run, "
            f"for nodes that CUDA has no kernel for"
            for place in self.slices
            if place.memcpy_nodes
        ]
        if (warned := warning(self.saturating)) is not None:
            notes.append(f"warning: {warned}")
        return tuple(notes)

    def records(self) -> list[dict[str, Any]]:
        """A row for each output that was compared, then one for each value that crosses."""
        rows = [{"kind": "output", **asdict(output)} for output in self.outputs]
        rows += [{"kind": "boundary", **asdict(boundary)} for boundary in self.boundaries]
        return [dict(_finite(row)) for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data; infinite distances are None."""
        figures = ("optimized_max_abs_diff", "optimized_max_rel_diff", "whole_optimization_shift")
        data = {
            "passed": self.passed,
            "bitwise": self.bitwise,
            "max_abs_diff": self.max_abs_diff,
            "max_rel_diff": self.max_rel_diff,
            **{figure: self.worst(figure) for figure in figures},
            "tolerance": dict(self.tolerance),
            "outputs": [asdict(output) for output in self.outputs],
            "boundaries": [asdict(boundary) for boundary in self.boundaries],
            "not_comparable": [asdict(output) for output in self.not_comparable],
            "random_in_name": [asdict(output) for output in self.random_in_name],
            "forced_rounding": None if self.forced_rounding is None else asdict(self.forced_rounding),
            "tiles": [asdict(tile) for tile in self.tiles],
            "vacuous": list(self.vacuous),
            "model": self.model,
            "inputs": self.source,
            "provider": self.provider,
            "slices": [asdict(place) for place in self.slices],
            "seed": self.seed,
            "runs": self.runs,
            "bindings": dict(self.bindings),
            "assumed": dict(self.assumed),
            "error": self.error,
            "disagreements": list(self.disagreements),
            "saturating": list(self.saturating),
            "codes": [asdict(check) for check in self.codes],
            "output_error": None if self.coded_output is None else self.coded_output.relative,
            "agreement": None if self.coded_output is None else self.coded_output.agreement,
            "samples": None if self.coded_output is None else self.coded_output.samples,
            "notes": list(self.notes),
        }
        finite: dict[str, Any] = _finite(data)
        return finite


def _of_tiles(tiles: tuple[TileCheck, ...]) -> str:
    bitwise = sum(tile.bitwise for tile in tiles)
    optimized = sum(tile.optimized_bitwise for tile in tiles)
    wrong = next((tile for tile in tiles if not tile.within_tolerance), None)
    if wrong is not None:
        return (
            f"the tile of machine `{wrong.machine}`, nodes {wrong.start} to {wrong.stop}, differs from the "
            f"rows of the whole by {max(wrong.max_abs_diff, wrong.optimized_max_abs_diff):.2g}"
        )
    return (
        f"{len(tiles)} tiles are the rows of the whole: bit for bit {optimized} with optimisations on and "
        f"{bitwise} with them off, the others within rounding"
    )


def _finite(data: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
