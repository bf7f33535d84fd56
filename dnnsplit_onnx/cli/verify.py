"""`verify`: the chain of slices is the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dnnsplit_onnx.cli.options import (
    Agreement,
    CudaGraph,
    CustomOps,
    Folder,
    Format,
    Reporting,
    Samples,
    Tolerance,
    takes,
)
from dnnsplit_onnx.errors import VerificationError
from dnnsplit_onnx.machines.providers import Engine


@takes(Reporting)
def verify(
    folder: Folder,
    options: Reporting,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Where the whole model is now.", show_default=False),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="X.npz", help="Inputs to compare on, or pictures.", show_default=False
        ),
    ] = None,
    provider: Annotated[
        Literal[Engine, "tier"],
        typer.Option(
            "--provider",
            help="Where the chain runs with optimisations on; `tier`: each slice on what the manifest says "
            "of its tier. The whole model runs on the CPU.",
        ),
    ] = "cpu",
    cuda_graph: CudaGraph = False,
    custom_ops: CustomOps = None,  # noqa: ARG001 # its callback registers them
    samples: Samples = None,
    tolerance: Tolerance = None,
    agreement: Agreement = None,
    form: Format = "table",
) -> None:
    """Prove that the chain of slices computes what the whole model computes.

    Bit for bit on the CPU with onnxruntime's optimisations off, within a tolerance with them
    on. On CUDA the tolerance is wider, since it multiplies in TF32; it is printed.

    Example: dnnsplit-onnx verify slices --input real.npz
    """
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.cli.output import print_as
    from dnnsplit_onnx.measuring.verification import verify
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.reporting.proof_view import headline
    from dnnsplit_onnx.slicing.coding import NO_CODE

    whole = None if model is None else model_file(model)
    with progress("verifying") as update:
        found = verify(
            folder,
            whole,
            inputs,
            provider=provider,
            cuda_graph=cuda_graph,
            progress=update,
            samples=samples,
            tolerance=tolerance,
            agreement=agreement,
        )
    data = found.to_dict()
    if not print_as(form, found, json=options.json):
        from dnnsplit_onnx.reporting.console import stdout_console
        from dnnsplit_onnx.reporting.proof_view import print_verification

        print_verification(stdout_console(), data)
    if not found.passed:
        # A chain that is right without its codes, which keep their bounds, fails for what codes lose.
        coded = data.get("codes") or ([] if found.error else None)
        of_codes = found.bitwise and coded is not None and all(check["kept"] for check in coded)
        told = NO_CODE if of_codes else "do not use these slices: run `split` again"
        raise VerificationError(headline(data).removeprefix("FAILED: ").rstrip("."), hint=told)
