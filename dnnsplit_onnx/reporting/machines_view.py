"""Who computes which rows of a stage, as a table."""

from __future__ import annotations

from rich.console import RenderableType

from dnnsplit_onnx.planning.figures import MachineShare
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid


def machines(plan: Plan) -> RenderableType | None:
    """A row for each machine of each region; None where no tier shares its rows."""
    shares = [share for stage in plan.figures.stages for share in stage.machines]
    if all(share.rows is None for share in shares):
        return None
    table = grid("machine", ">nodes", ">rows", ">compute", ">is sent", ">sends back")
    for share in shares:
        table.add_row(*_row(share))
    return table


def _row(share: MachineShare) -> tuple[str, ...]:
    return (
        units.clean(share.machine),
        f"{share.start}-{share.stop}",
        "all" if share.rows is None else f"{share.rows[0]}-{share.rows[1]}",
        units.seconds(share.seconds),
        units.nbytes(share.sent_nbytes) if share.sent_nbytes else "",
        units.nbytes(share.back_nbytes) if share.back_nbytes else "",
    )
