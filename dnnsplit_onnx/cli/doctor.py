"""`doctor`: what this machine has, what is missing, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import Format, Reporting, takes


@takes(Reporting)
def doctor(
    options: Reporting,
    deep: Annotated[
        bool, typer.Option("--deep", help="Import each installed extra too, which may take a minute.")
    ] = False,
    form: Format = "table",
) -> None:
    """Look at what is installed, run a small model on each provider, and say what is missing.

    Ends with 1 if something that is installed is broken, and with 0 otherwise: what is not
    installed is no fault.

    Example: dnnsplit-onnx doctor
    """
    from dnnsplit_onnx.cli.output import print_as
    from dnnsplit_onnx.runtime.doctor import diagnose

    found = diagnose(deep=deep)
    if not print_as(form, found, json=options.json):
        from dnnsplit_onnx.reporting.console import stdout_console
        from dnnsplit_onnx.reporting.doctor_view import print_diagnosis

        print_diagnosis(stdout_console(), found.to_dict())
    if not found.healthy:
        raise typer.Exit(1)
