"""`split`: plan, slice, and prove it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnnsplit_onnx.cli.conditions import PlanOptions
from dnnsplit_onnx.cli.options import Force, Model, Reporting, takes
from dnnsplit_onnx.errors import InputError, VerificationError

if TYPE_CHECKING:
    from dnnsplit_onnx.graph.graph import Graph
    from dnnsplit_onnx.planning.plans import Plan
    from dnnsplit_onnx.slicing.manifest import Manifest
    from dnnsplit_onnx.work.analysis import Analysis
    from dnnsplit_onnx.work.codes import Choices

PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="plan.json",
        help="Use a plan that `plan -o` wrote, or the one in a model that `plan --annotate` wrote, "
        "which says nothing of machines: name those too.",
        show_default=False,
    ),
]


@takes(PlanOptions)
def split(
    model: Model,
    options: PlanOptions,
    plan: PlanFile = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")] = Path(
        "slices"
    ),
    force: Force = False,
    all_candidates: Annotated[
        bool,
        typer.Option(
            "--all-candidates",
            help="Lay down the slices of every plan over the candidate cuts, so that the cut can change "
            "while the chain runs.",
        ),
    ] = False,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="The inputs to prove it on. [default: random inputs]",
            show_default=False,
        ),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not prove that the chain equals the whole.")
    ] = False,
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="argmax|topk:K|last|full",
            help="What the top tier returns of a decoder's logits: a token, the K likeliest, the last "
            "position's, or all.",
        ),
    ] = "full",
) -> None:
    """Plan, write one sub-model per tier, and prove that the chain equals the whole.

    Makes DIR/manifest.json and DIR/TIER/model.onnx. The folder appears only once its chain
    is verified; if anything fails, nothing is left and an existing folder is as it was.

    Example: dnnsplit-onnx split model.onnx --tiers tiers.toml -o slices
    """
    from dnnsplit_onnx.cli.loading import load_analysis, make_plan, model_file, register_libraries
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.cli.plan import refuse_broken, show
    from dnnsplit_onnx.graph.digests import begin_digests
    from dnnsplit_onnx.machines.tiers_file import parse_topology
    from dnnsplit_onnx.planning.fitting import analysis_of
    from dnnsplit_onnx.planning.plans import load_plan

    begin_digests(model_file(model))
    if not no_verify:
        from dnnsplit_onnx.runtime.provider import runtime

        runtime()  # a missing runtime is better known before the work than after it
    made, judging = None, options
    annotated = plan is not None and _is_model(plan)
    if plan is not None and not annotated:
        _refuse_settled(options)
        made = load_plan(plan)
        options = _as_planned(made, options)
        if made.topology is not None:
            register_libraries(parse_topology(dict(made.topology), str(plan)).tiers)
    analysis = load_analysis(model, options)
    if plan is not None and annotated:
        analysis, options = _as_annotated(plan, analysis, options)
    made = make_plan(analysis, options) if made is None else made
    refuse_broken(made)
    analysis = analysis_of(made, analysis)
    candidates = analysis.candidates if all_candidates else None
    choices = _choices(made, analysis, candidates, judging) if candidates is not None else ()
    proof: dict[str, Any] | None = None

    def check(folder: Path) -> None:
        nonlocal proof
        from dnnsplit_onnx.slicing.manifest import record_verification

        proof = _prove(folder, analysis.graph, inputs, judging)
        record_verification(folder, proof)

    checking = None if no_verify else check
    manifest = _slice(analysis.graph, made, output, candidates, choices, head, force=force, check=checking)
    if options.json:
        print_json(made.to_dict() | _result(output, manifest, proof))
        return
    show(made, analysis)
    _show_result(output, manifest, proof)


def _slice(
    graph: Graph,
    made: Plan,
    output: Path,
    candidates: tuple[int, ...] | None,
    choices: Sequence[Choices],
    head: str,
    *,
    force: bool,
    check: Callable[[Path], object] | None,
) -> Manifest:
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.slicing import slice_all_candidates, slice_model

    with progress("slicing") as update:
        if candidates is None:
            return slice_model(graph, made, output, force=force, progress=update, check=check, head=head)
        return slice_all_candidates(
            graph,
            made,
            candidates,
            output,
            force=force,
            progress=update,
            check=check,
            head=head,
            codes=choices,
        )


def _choices(
    made: Plan, analysis: Analysis, candidates: tuple[int, ...], judging: PlanOptions
) -> tuple[Choices, ...]:
    """What each link may carry in codes at the candidate cuts, without what the samples speak against.

    Raises:
        InputError: Codes are to be judged, and several links may have them: what they lose adds up.
    """
    from dnnsplit_onnx.machines.tiers_file import parse_topology
    from dnnsplit_onnx.planning.coding import choices_at

    links = len(made.figures.links)
    if made.topology is None:
        return ({},) * links
    cuts = sorted({0, *candidates, *made.cuts})
    choices = choices_at(analysis, parse_topology(dict(made.topology), "the plan"), cuts)
    judge = judging.judge(analysis) if any(choices) else None
    if judge is None:
        return choices
    if sum(map(bool, choices)) > 1:
        raise InputError(
            "with --all-candidates codes are judged cut by cut, and here several links may have them at once",
            hint="leave out --tolerance and --agreement, or allow codes on one link, in the tiers file",
        )
    return tuple(
        {(at, code): values for (at, code), values in each.items() if judge((at,), (code,)) is None}
        for each in choices
    )


_FAULT = "that is a fault of this program: report it; --no-verify keeps the slices to look at"
_LOOSEN = "allow other codes: --codes, or more error: --tolerance, --agreement"


def _prove(folder: Path, graph: Graph, inputs: Path | None, judging: PlanOptions) -> dict[str, Any]:
    """Verifies slices before they take their place.

    Raises:
        VerificationError: The chain is not the whole. Nothing is left behind.
    """
    from dnnsplit_onnx.measuring.verification import verify
    from dnnsplit_onnx.reporting.proof_view import headline

    found = verify(
        folder,
        graph.file.path,
        inputs,
        samples=judging.samples,
        tolerance=judging.tolerance,
        agreement=judging.agreement,
    )
    proof = found.to_dict()
    if not found.passed:
        raise VerificationError(
            headline(proof).removeprefix("FAILED: ").rstrip("."),
            context="nothing was written",
            hint=_LOOSEN if found.bitwise and found.codes else _FAULT,
        )
    return proof


def _refuse_settled(options: PlanOptions) -> None:
    """Refuses options beside a plan that has settled them.

    Raises:
        InputError: There is one.
    """
    from dataclasses import fields

    free = {f.name for f in fields(Reporting)} | {"samples", "tolerance", "agreement"}
    given = [f.name for f in fields(options) if f.name not in free and getattr(options, f.name) != f.default]
    if given:
        name = f"--{given[0].replace('_', '-')}"
        raise InputError(
            f"`{name}` and `--plan` exclude each other", hint="the plan has settled it: leave one out"
        )


def _is_model(path: Path) -> bool:
    """Whether a plan is given as a model that has it inside."""
    from dnnsplit_onnx.graph.kinds import HEAD_NBYTES, is_model

    try:
        with path.open("rb") as file:
            return is_model(file.read(HEAD_NBYTES))
    except OSError:
        return False  # what is wrong with it is told where a plan is read


def _as_annotated(plan: Path, analysis: Analysis, options: PlanOptions) -> tuple[Analysis, PlanOptions]:
    """The analysis in an order that has the cuts of an annotated model, and these as options."""
    from dataclasses import replace

    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.slicing.annotating import annotated_cuts
    from dnnsplit_onnx.work.orders import in_order_of

    if options.at:
        raise InputError("`--at` and `--plan` exclude each other", hint="leave one out")
    links = len(options.topology().links)
    graph, cuts = annotated_cuts(analysis.graph, load_graph(plan), links)
    return in_order_of(analysis, graph), replace(options, at=[",".join(map(str, cuts))])


def _as_planned(made: Plan, options: PlanOptions) -> PlanOptions:
    """The options that a plan was made with."""
    from dataclasses import replace

    from dnnsplit_onnx.work.analysis import CUSTOM

    settled: dict[str, Any] = {
        "bind": [f"{dim}={number}" for dim, number in made.bindings.items()],
        "trips": [f"{name}={number}" for name, number in made.trips.items()],
        "state": None if made.states is None else list(made.states) or ["none"],
        "cut_size": made.accounting,
        "order": "file" if made.order == CUSTOM else made.order,
    }
    return replace(options, **settled)


def _result(output: Path, manifest: Manifest, proof: dict[str, Any] | None) -> dict[str, Any]:
    slices = [record.model_dump(mode="json") for record in manifest.slices]
    return {"output": str(output), "slices": slices, "verification": proof}


def _show_result(output: Path, manifest: Manifest, proof: dict[str, Any] | None) -> None:
    from dnnsplit_onnx.cli.output import next_command
    from dnnsplit_onnx.reporting import units
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.proof_view import print_verification

    console = stdout_console()
    console.print()
    if proof is None:
        console.print("Not verified: --no-verify was passed.", style="bold")
    else:
        print_verification(console, proof)
    console.print()
    for record in manifest.slices:
        if record.file is not None:
            size = (record.nbytes or 0) + sum(data.nbytes for data in record.data)
            console.print(f"wrote {output / record.file} ({units.nbytes(size)})", soft_wrap=True)
    words = ["bench", str(output), *_here(manifest)]
    console.print(next_command(*words), style="dim", soft_wrap=True)


def _here(manifest: Manifest) -> list[str]:
    """What to add to `bench` where a tier is planned for what this machine does not have."""
    from dnnsplit_onnx.runtime.provider import can_run

    wanted = {record.provider for record in manifest.slices if record.file is not None and record.provider}
    # The CPU stands for a browser by itself.
    return [] if all(can_run(provider) for provider in wanted - {"web"}) else ["--provider", "cpu"]
