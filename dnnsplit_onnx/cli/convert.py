"""`convert`: a Keras or PyTorch model to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dnnsplit_onnx.cli.options import Bind, Force, Reporting, takes
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.converters import Conversion


@takes(Reporting)
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .keras, .h5, .pt2 or TorchScript file, a SavedModel or Hugging Face folder, `zoo:NAME`, "
            "or `package.module:function` that returns a keras.Model or (nn.Module, example inputs). "
            "Functions, .h5 files and SavedModels run code (a SavedModel can write files); a .pt2 file "
            "that runs code needs --trust.",
            show_default=False,
        ),
    ],
    options: Reporting,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "model.onnx"
    ),
    route: Annotated[
        Literal["keras-torch", "keras-tf", "pytorch"] | None,
        typer.Option("--route", help="How to convert. [default: by the kind of model]", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", metavar="N", help="Fix the batch size. [default: any size]", show_default=False
        ),
    ] = None,
    bind: Bind = None,
    opened: Annotated[
        list[str] | None,
        typer.Option(
            "--open",
            metavar="INPUT.AXIS=NAME",
            help="Leave a dimension of a PyTorch model's input open. Repeatable.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="Inputs that the model takes, where the values of made-up ones would make no sense.",
            show_default=False,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            metavar="N",
            help="Version of ONNX's operators; the exporter's otherwise.",
            show_default=False,
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import this first: it registers a Keras file's own layers. Repeatable.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="What a Hugging Face folder is for: text-classification, ...; else its configuration says.",
            show_default=False,
        ),
    ] = None,
    with_past: Annotated[
        bool,
        typer.Option("--with-past", help="A decoder from a Hugging Face folder takes and gives its caches."),
    ] = False,
    branch: Annotated[
        list[str] | None,
        typer.Option(
            "--branch",
            metavar="INPUT=true|false",
            help="Of a merged ONNX model, take the branch that this input chooses for good, so that it "
            "has cuts inside: --branch use_cache_branch=true. Repeatable.",
            show_default=False,
        ),
    ] = None,
    split_norms: Annotated[
        bool,
        typer.Option(
            "--split-norms",
            help="Take the fused sums and norms of an ONNX model apart, so that a cut between layers sends "
            "one tensor and not two.",
        ),
    ] = False,
    copy_masks: Annotated[
        bool,
        typer.Option(
            "--copy-masks",
            help="Make the masks and positions of an ONNX model anew in each block that reads them, so that "
            "cuts between layers send what they are made of, where that is less.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Compare the outputs with the framework's, at several sizes."
        ),
    ] = True,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="X",
            help="Largest relative difference allowed; 1e-4, and more in half precision, otherwise.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the input to compare on.")] = 0,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a .pt2 file that holds more than a graph and tensors: code.")
    ] = False,
    force: Force = False,
) -> None:
    """Convert a Keras or PyTorch model to ONNX, and check that it computes the same.

    Example: dnnsplit-onnx convert model.keras -o model.onnx
    """
    if branch or split_norms or copy_masks:
        rewrites = {"norms": split_norms, "copies": copy_masks}
        _rewrite(source, branch or [], output, options, rewrites, force=force)
        return
    from dnnsplit_onnx.cli.options import ModelOptions
    from dnnsplit_onnx.converters import convert
    from dnnsplit_onnx.reporting.progress import progress

    sizes = ModelOptions(bind=bind).bindings
    with progress("converting the model"):
        report = convert(
            source,
            output,
            route=route,
            batch=batch,
            sizes=sizes,
            check=check,
            tolerance=tolerance,
            seed=seed,
            force=force,
            trust=trust,
            inputs=inputs,
            opened=opened or (),
            opset=opset,
            imports=imports or (),
            task=task,
            with_past=with_past,
        )
    if options.json:
        from dnnsplit_onnx.cli.output import print_json

        print_json(report.to_dict())
        return
    _print(report)


def _rewrite(
    source: str,
    branches: list[str],
    output: Path,
    options: Reporting,
    rewrites: dict[str, bool],
    *,
    force: bool,
) -> None:
    """Takes branches of an ONNX model for good, its sums and norms apart, or copies of its masks."""
    from dnnsplit_onnx.cli.output import next_command, print_json
    from dnnsplit_onnx.converters.branches import choose_branches

    chosen: dict[str, bool] = {}
    for text in branches:
        name, _, value = text.partition("=")
        if value not in ("true", "false"):
            raise InputError(f"cannot read the branch `{text}`", hint="as in use_cache_branch=true")
        chosen[name] = value == "true"
    made = choose_branches(source, chosen, output, **rewrites, force=force)
    if options.json:
        print_json({"output": str(output), "branches": chosen, "nodes": len(made.graph.node)})
        return
    typer.echo(f"nodes    {len(made.graph.node):,}")
    typer.echo(f"wrote {output}", err=True)
    typer.echo(next_command("inspect", str(output)), err=True)


def _print(report: Conversion) -> None:
    from dnnsplit_onnx.cli.output import next_command

    def ports(kind: str) -> str:
        listed = report.inputs if kind == "inputs" else report.outputs
        return ", ".join(f"{port.name} {port.dtype}[{', '.join(map(str, port.shape))}]" for port in listed)

    typer.echo(f"route    {report.route}: {report.reason}")
    typer.echo(f"inputs   {ports('inputs')}")
    typer.echo(f"outputs  {ports('outputs')}")
    typer.echo(f"nodes    {report.nodes:,}, {report.layers_named:.0%} with their layer's name")
    if report.max_rel_diff is not None:
        typer.echo(f"checked  {report.max_rel_diff:.1e} relative, {report.max_abs_diff:.1e} absolute at most")
        typer.echo(f"at       {'; '.join(report.checked_at)}")
    else:
        typer.echo("checked  no")
    typer.echo(f"took     {report.seconds:.1f} s, {report.peak_nbytes / 1e9:.2f} GB at its peak")
    for note in report.notes:
        typer.echo(f"note     {note}")
    typer.echo(f"wrote {report.output}", err=True)
    typer.echo(next_command("inspect", report.output), err=True)
