"""What `profile --predict` shows: the kinds that were fitted, and the error on models left out."""

from __future__ import annotations

from pathlib import Path

from dnnsplit_onnx.machines.predictors import Predictor
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid, stdout_console


def show_predictor(predictor: Predictor, output: Path) -> None:
    """Prints each model's error when it was left out, and what was written."""
    console = stdout_console()
    table = grid("=model left out", ">measured", ">predicted", ">error")
    for trial in predictor.trials:
        table.add_row(
            trial.model,
            units.seconds(trial.measured_s),
            units.seconds(trial.predicted_s),
            f"{trial.error:+.1%}",
        )
    console.print(table)
    nodes = sum(kind.nodes for kind in predictor.kinds.values())
    console.print(f"{len(predictor.kinds)} kinds of nodes, fitted on {nodes:,} ({predictor.provider}).")
    if predictor.median_error is not None and predictor.within_tenth is not None:
        console.print(
            f"On models left out: off by {predictor.median_error:.1%} in the median, "
            f"{predictor.within_tenth:.0%} of them within 10%."
        )
    console.print(f"wrote {output}", soft_wrap=True)
    console.print(
        f'next: in the tiers file, tier `{predictor.tier}`: profile = "{output.name}"',
        style="dim",
        soft_wrap=True,
    )
