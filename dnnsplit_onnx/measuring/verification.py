"""The proof that the chain of slices computes what the whole model computes.

1. With graph optimisations off, both run the same kernels on the same numbers, so their
   outputs must agree in every bit.
2. With optimisations on, onnxruntime fuses other nodes where a cut runs through them, which
   changes rounding. The chain must stay near the whole model: within a tolerance, plus what
   the uncut model itself moves between the two levels.
3. Agreement on an output that is the same whatever goes in proves little. Where that is so,
   or where the chain is wrong, the values that cross the cuts are held against the same
   values inside the whole model as well: they are evidence, and they tell which slice goes
   wrong first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.saturation import saturating_nodes
from dnnsplit_onnx.measuring.coded import check_codes, output_error
from dnnsplit_onnx.measuring.compare import combine, vacuous
from dnnsplit_onnx.measuring.evidence import (
    BoundaryCheck,
    ForcedRounding,
    NotComparable,
    OutputCheck,
    RandomInName,
    SlicePlace,
    TileCheck,
    Verification,
)
from dnnsplit_onnx.measuring.fences import Fences, fence, fences_of
from dnnsplit_onnx.measuring.levels import Levels, Results, difference, of
from dnnsplit_onnx.measuring.tiles import check_tiles
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.origin import assumed_of, bindings_of, find_model, random_values, slices_folder
from dnnsplit_onnx.running.slices import options_on, with_libraries
from dnnsplit_onnx.running.uncoded import uncoded_chain, uncoded_manifest
from dnnsplit_onnx.runtime.inputs import Inputs, disagreements, input_sets, to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.samples import sample_sets
from dnnsplit_onnx.runtime.sessions import TIER, Session, SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value, to_python
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.heads import append_head
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest

__all__ = ["TIER", "Progress", "Verification", "verify"]

#: Called with steps done, steps in all, and what is being done.
Progress = Callable[[int, int, str], None]
# Whole numbers and strings (labels, indices) leap where rounding breaks a tie: this share
# of them may differ when optimisations are on.
_MISMATCHED_SHARE = 1e-3
# Of the whole model, to tell what is random only in name.
_MOST_RUNS = 4


def verify(
    folder: str | Path,
    model: str | Path | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    seed: int = 0,
    runs: int = 2,
    rtol: float | None = None,
    atol: float = 1e-6,
    provider: str = "cpu",
    cuda_graph: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    samples: str | Path | None = None,
    tolerance: float | None = None,
    agreement: float | None = None,
) -> Verification:
    """Holds the chain of slices against the whole model.

    Slices with codes are held against it with every code taken out, bit for bit; and then with
    them, where each coded value must keep its bound, and the outputs the tolerances given.

    A chain that computes something else is no error here: `passed` is then False.

    Args:
        folder: The folder that `split` wrote.
        model: The whole model; by default where the manifest says it is.
        inputs: Arrays by name, or an `.npz` file; random by default.
        seed: Of made-up inputs.
        runs: How many sets of inputs to make up.
        rtol: With optimisations on: tolerance relative to the output's largest element. By
            default 1e-4 on the CPU and 1e-2 on CUDA, which multiplies in TF32.
        atol: With optimisations on: tolerance besides.
        provider: Where the optimised chain runs: `cpu`, `cuda`, or `tier` for each slice on
            what the manifest says of its tier. It is held against the whole model on the
            CPU. The proof of bits is always made on the CPU.
        cuda_graph: Whether slices on CUDA run as CUDA graphs.
        threads: Threads within an operator; None leaves it to onnxruntime.
        progress: Called as steps are done.
        samples: Of slices with codes: an `.npz` file of inputs to judge the codes on, several
            along the first axis; by default the inputs of the proof.
        tolerance: The largest error of an output with codes, over its largest element.
        agreement: The least share of samples whose largest element must stand where the whole
            model's does.

    Raises:
        ManifestError: A slice's file is not the one that was written, or the whole model
            is not there or is not the one that was split.
        InputError: The inputs do not fit the model, or it does not run on those made up.
        ModelError: The whole model cannot be loaded.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    runtime()
    place = slices_folder(folder)
    manifest = load_manifest(folder)
    path = find_model(place, manifest, model)
    for record in manifest.slices:
        check_files(place, record)
    sets = input_sets(manifest.model.inputs, inputs, bindings_of(manifest), seed=seed, runs=runs)
    optimized = SessionOptions(provider=provider, threads=threads, cuda_graph=cuda_graph, record=True)
    used = [options_on(optimized, record).provider for record in manifest.slices if record.file is not None]
    if rtol is None:
        rtol = 1e-4 if set(used) <= {"cpu"} else 1e-2
    if cuda_graph and "cuda" not in used:
        raise InputError("no slice runs on `cuda`, so there is nothing to make a CUDA graph of")
    raw = uncoded_manifest(place, manifest)
    proof = _Proof(place, raw, path, sets, optimized, progress, None if raw is manifest else manifest)
    found = proof.verify({"rtol": rtol, "atol": atol, "mismatched_share": _MISMATCHED_SHARE}, seed)
    if raw is manifest:
        return found
    judged = sets if samples is None else sample_sets(manifest.model.inputs, samples, bindings_of(manifest))
    return proof.with_codes(found, judged, tolerance, agreement)


@dataclass
class _Found:
    """What has been found so far."""

    outputs: list[OutputCheck] = field(default_factory=list)
    boundaries: list[BoundaryCheck] = field(default_factory=list)
    set_aside: list[NotComparable] = field(default_factory=list)
    random_in_name: list[RandomInName] = field(default_factory=list)
    forced: ForcedRounding | None = None
    tiles: list[TileCheck] = field(default_factory=list)
    saturating: tuple[str, ...] = ()
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the chain."""
        return (
            self.error is None
            and all(output.bitwise and output.within_tolerance for output in self.outputs)
            and all(boundary.bitwise for boundary in self.boundaries)
            and all(output.same_type for output in self.set_aside)
            and all(tile.within_tolerance for tile in self.tiles)
        )


@dataclass
class _Proof:
    """One verification under way.

    Each session is closed before the next is opened, so that a model is in memory once.
    """

    folder: Path
    manifest: Manifest
    path: Path
    sets: Sequence[Inputs]
    optimized: SessionOptions
    progress: Progress | None
    coded: Manifest | None = None
    steps: int = 0
    places: tuple[SlicePlace, ...] = ()
    fences: Fences = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = self.manifest.model.inputs
        self.values = [to_values(ports, inputs.values) for inputs in self.sets]
        self.names = [port.name for port in self.manifest.model.outputs]
        self.varied = bool(ports) and len(self.sets) > 1

    def verify(self, tolerance: Mapping[str, float], seed: int) -> Verification:
        """Runs the whole and the chain at both levels, compares, and reports."""
        found = _Found()
        whole = (self.whole(optimize=False), self.whole(optimize=True))
        try:
            self.hold_against(whole, tolerance, found)
        except ModelError as failure:  # of a slice: the whole has run
            found.error = failure.message
        return Verification(
            passed=found.passed,
            bitwise=bool(found.outputs) and all(output.bitwise for output in found.outputs),
            outputs=tuple(found.outputs),
            boundaries=tuple(found.boundaries),
            not_comparable=tuple(found.set_aside),
            random_in_name=tuple(found.random_in_name),
            forced_rounding=found.forced,
            tiles=tuple(found.tiles),
            tolerance=tolerance,
            model=str(self.path),
            source=self.sets[0].source,
            seed=seed,
            runs=len(self.sets),
            bindings=bindings_of(self.manifest),
            assumed=assumed_of(self.manifest, self.sets[0]),
            provider=self.used,
            slices=self.places,
            error=found.error,
            disagreements=disagreements(self.manifest.model.inputs, self.sets[0].values),
            saturating=found.saturating,
        )

    @property
    def used(self) -> str:
        """Where the optimised chain ran, or was to."""
        found = dict.fromkeys(place.provider for place in self.places)
        return "+".join(found) or self.optimized.provider

    def hold_against(
        self, whole: tuple[Results, Results], tolerance: Mapping[str, float], found: _Found
    ) -> None:
        """Runs the chain at both levels and holds it against the whole model's results.

        Raises:
            ModelError: A slice cannot be loaded, or fails.
        """
        plain, optimized = whole
        graph = load_graph(self.path)
        found.saturating = saturating_nodes(graph.file)
        levels = Levels(self.chain(optimize=False), plain, self.chain(optimize=True), optimized)
        if any(not difference(levels.chain, plain, name).bitwise for name in self.names):
            levels, found.forced = self.with_forced_rounding(levels, graph)
        random = random_values(graph, self.manifest.random)
        found.random_in_name = self.random_in_name(levels, random)
        steady = {output.name for output in found.random_in_name}
        unstable = {
            name: f"it depends on random node `{node}`" for name, node in random.items() if name not in steady
        }
        unstable |= self.unlike_themselves(levels, unstable)
        for name in self.names:
            if name in unstable:
                found.set_aside.append(NotComparable(name, unstable[name], levels.same_types(name)))
            else:
                found.outputs.append(levels.check(name, tolerance, varied=self.varied))
        if not found.outputs or any(output.vacuous or not output.bitwise for output in found.outputs):
            found.boundaries = self.boundaries(unstable)
        for record in self.manifest.slices:
            if record.tiles:
                given = [inputs.values for inputs in self.sets]
                found.tiles += check_tiles(self.folder, record, given, self.whole, self.optimized.threads)

    def with_forced_rounding(self, levels: Levels, graph: Graph) -> tuple[Levels, ForcedRounding | None]:
        """The whole run again with the roundings that the cuts make, where there are any."""
        self.fences = fences_of(self.folder, self.manifest, graph)
        if not self.fences:
            return levels, None
        fenced = replace(levels, whole=self.whole(optimize=False), optimized_whole=self.whole(optimize=True))
        apart = [difference(levels.whole, fenced.whole, name) for name in self.names]
        return fenced, ForcedRounding(tuple(self.fences), combine(apart).max_abs, combine(apart).max_rel)

    def options(self, optimize: bool) -> SessionOptions:
        """Both sides run with the same options, or their sums could be split otherwise."""
        return SessionOptions(
            optimize=optimize,
            threads=self.optimized.threads,
            custom_ops=with_libraries(self.optimized, self.manifest.slices),
        )

    def step(self, what: str) -> None:
        """Reports progress; the two levels of whole and chain are what there is to do."""
        self.steps += 1
        total = 4 * len(self.sets)
        if self.progress is not None:
            self.progress(min(self.steps, total), total, what)

    def whole(self, *, optimize: bool, expose: Sequence[str] = (), rounds: int = 1) -> Results:
        """The whole model's outputs, and exposed inner values, for each set of inputs.

        Of several rounds the last: onnxruntime begins to draw random numbers at the same place in each
        session, so that only a later round draws others.
        """
        session = open_session(
            self.path,
            self.options(optimize),
            label="the whole model",
            expose=expose,
            rewrite=self.rewrite if self.fences or self.manifest.head is not None else None,
        )
        for _ in range(rounds - 1):
            for values in self.values:
                self.run_whole(session, values)
        return [self.python(self.run_whole(session, values)) for values in self.values]

    def rewrite(self, model: onnx.ModelProto) -> None:
        """Gives the whole model what the slices have besides its nodes: roundings, and a head."""
        if self.fences:
            fence(model, self.fences)
        if self.manifest.head is not None:
            append_head(model, self.manifest.head)

    def run_whole(self, session: Session, values: Mapping[str, Value]) -> dict[str, Value]:
        """Runs the whole model; where it fails, the inputs are to blame."""
        try:
            made = session.run(values)
        except ModelError as failure:
            made_up = self.sets[0].source == "generated"
            hint = "made-up inputs do not suit every model: pass real ones, --input X.npz"
            apart = "; ".join(disagreements(self.manifest.model.inputs, self.sets[0].values))
            raise InputError(
                failure.message, context=apart or None, hint=hint if made_up else None
            ) from failure
        self.step("whole model")
        return made

    def chain(self, *, optimize: bool) -> Results:
        """The chain's outputs for each set of inputs."""
        chain = self.open_chain(optimize)
        results = []
        for values in self.values:
            results.append(self.python(chain.run_values(values)))
            self.step("chain of slices")
        if optimize:
            self.places = tuple(_place(tier, session) for tier, session in chain.stages)
        return results

    def open_chain(self, optimize: bool) -> Chain:
        """The slices; their hashes have been checked."""
        options = self.optimized if optimize else self.options(optimize)
        if self.coded is not None:
            return uncoded_chain(self.folder, self.coded, self.manifest, options)
        return Chain.open(self.folder, lambda _: options, manifest=self.manifest, check=False)

    def with_codes(
        self, found: Verification, sets: Sequence[Inputs], tolerance: float | None, agreement: float | None
    ) -> Verification:
        """What was found of the slices without codes, and what their codes do."""
        assert self.coded is not None, "only slices with codes are judged by them"
        if found.error is not None:
            return found
        values = [to_values(self.manifest.model.inputs, one.values) for one in sets]
        try:
            checks = check_codes(self.folder, self.coded, values)
            chain = Chain.open(self.folder, lambda _: self.optimized, manifest=self.coded, check=False)
            ours = [self.python(chain.run_values(one)) for one in values]
            del chain
        except ModelError as failure:
            return replace(found, passed=False, error=failure.message)
        session = open_session(
            self.path,
            self.options(optimize=True),
            label="the whole model",
            rewrite=None if self.manifest.head is None else self.rewrite,
        )
        theirs = [self.python(self.run_whole(session, one)) for one in values]
        comparable = [name for name in self.names if name not in {o.name for o in found.not_comparable}]
        apart = output_error(
            [{name: one[name] for name in comparable} for one in ours],
            [{name: one[name] for name in comparable} for one in theirs],
        )
        within = tolerance is None or apart.relative <= tolerance
        agrees = agreement is None or apart.agreement >= agreement
        return replace(
            found,
            passed=found.passed and within and agrees and all(check.kept for check in checks),
            codes=tuple(checks),
            coded_output=apart,
            tolerance={
                **found.tolerance,
                **({} if tolerance is None else {"output_error": tolerance}),
                **({} if agreement is None else {"agreement": agreement}),
            },
        )

    def python(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Results as numpy arrays and lists of them."""
        ort = runtime()
        return {name: to_python(ort, value) for name, value in values.items()}

    def random_in_name(self, levels: Levels, random: Mapping[str, str]) -> list[RandomInName]:
        """Outputs that depend on random nodes, and yet are the same in every run of the whole model.

        So it is where noise is scaled by 0, or a dropout drops nothing. A run on other numbers that
        leaves every bit as it is speaks for it; more runs speak where the chain is not equal.
        """
        steady = [name for name in self.names if name in random]
        runs = 1
        while steady and runs < _MOST_RUNS:
            again = self.whole(optimize=False, rounds=runs + 1)
            steady = [name for name in steady if difference(again, levels.whole, name).bitwise]
            runs += 1
            if all(difference(levels.chain, levels.whole, name).bitwise for name in steady):
                break
        return [RandomInName(name, random[name], runs) for name in steady]

    def unlike_themselves(self, levels: Levels, known: Mapping[str, str]) -> dict[str, str]:
        """Outputs that differ even between two runs of the whole model, and why.

        Looked for only where the chain disagrees. No list of random operators is complete,
        and some kernels add up in no fixed order.
        """
        whole = levels.whole
        suspects = [
            name
            for name in self.names
            if name not in known and not difference(levels.chain, whole, name).bitwise
        ]
        if not suspects:
            return {}
        again = self.whole(optimize=False, rounds=2)
        reason = "two runs of the whole model differ"
        return {name: reason for name in suspects if not difference(again, whole, name).bitwise}

    def boundaries(self, unstable: Mapping[str, str]) -> list[BoundaryCheck]:
        """Values that leave a slice, against the same values inside the whole model."""
        tier_of = {
            port.name: record.tier
            for record in self.manifest.slices
            for port in record.outputs
            if port.name not in self.names and port.name not in unstable
        }
        if not tier_of:
            return []
        try:
            whole = self.whole(optimize=False, expose=tuple(tier_of))
        except ModelError:  # onnxruntime lets no program see a value of this type
            return []
        chain = self.open_chain(optimize=False)
        made = [self.python(chain.run_values(values, keep=tier_of)) for values in self.values]
        del chain
        found = {name: difference(made, whole, name) for name in tier_of}
        if not all(difference.bitwise for difference in found.values()):
            if not self.fences and (fences := fences_of(self.folder, self.manifest, load_graph(self.path))):
                self.fences = fences
                return self.boundaries(unstable)
            again = self.whole(optimize=False, expose=tuple(tier_of), rounds=2)
            stable = (n for n in tier_of if difference(again, whole, n).bitwise)
            found = {name: found[name] for name in stable}
        return [
            BoundaryCheck(
                name, tier_of[name], difference.bitwise, difference.max_abs, self.vacuous(whole, name)
            )
            for name, difference in found.items()
        ]

    def vacuous(self, results: Results, name: str) -> str | None:
        """Why agreement on a value proves little."""
        return vacuous(of(results, name), varied=self.varied)


def _place(tier: str, session: Session) -> SlicePlace:
    """Where a slice that has run did so."""
    placement = session.placement()
    nodes = session.cpu_nodes
    if placement is None:
        unknown = session.provider != "cpu" and not session.captured
        return SlicePlace(tier, session.provider, nodes, None if unknown else 0)
    return SlicePlace(
        tier, session.provider, placement.elsewhere if nodes is None else nodes, placement.copies
    )
