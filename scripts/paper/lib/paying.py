"""Where a split pays: plans of planner `exact` beside the best single tier that keeps the limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.work.analysis import Analysis
from lib.output import print_table, write_csv

#: Gains below this are the rounding of sums.
ROUNDING = 1e-9
#: What figures are printed in: the unit, and what they are multiplied by.
UNITS: dict[Objective, tuple[str, float]] = {
    "latency": ("ms", 1e3),
    "cost": ("USD per million", 1e6),
    "throughput": ("1/s", 1.0),
    "energy": ("J", 1.0),
    "weighted": ("", 1.0),
}
HEADER = (
    "network", "setting", "objective", "value", "best_single_tier", "its_value", "gain", "tiers", "cuts",
    "sent_nbytes",
)  # fmt: skip


@dataclass(frozen=True)
class Deal:
    """The best plan of a network in one setting.

    Attributes:
        network: Its name.
        setting: The conditions, in short.
        plan: The plan, with every single tier beside it.
    """

    network: str
    setting: str
    plan: Plan

    @property
    def value(self) -> float:
        """The plan's figure in the objective's own unit."""
        return self.plan.figures.value(self.plan.objective)

    @property
    def single_value(self) -> float:
        """The figure of the best single tier that keeps the limits; NaN if none does."""
        single = self.plan.best_single_tier
        return float("nan") if single is None else single.value(self.plan.objective)

    @property
    def gain(self) -> float:
        """How many times better than the best single tier; infinite if none keeps the limits."""
        gain = self.plan.speedup_vs_best_single_tier
        return float("inf") if gain is None else gain

    @property
    def tiers(self) -> str:
        """The tiers that have work, such as `edge+cloud`."""
        return "+".join(stage.tier for stage in self.plan.figures.stages if stage.stop > stage.start)

    def row(self) -> tuple[object, ...]:
        """A line of the CSV file; see `HEADER`."""
        single, links = self.plan.best_single_tier, self.plan.figures.links
        cuts, sent = " ".join(map(str, self.plan.cuts)), " ".join(str(link.nbytes) for link in links)
        return (
            self.network, self.setting, self.plan.objective, self.value,
            "none" if single is None else single.tier, self.single_value, self.gain, self.tiers, cuts, sent,
        )  # fmt: skip


def deal(
    network: str, setting: str, analysis: Analysis, topology: Topology, objective: Objective
) -> Deal | None:
    """The best plan of a network in a setting; None if no plan keeps to the limits."""
    try:
        made = plan(analysis, topology, objective=objective, pareto=False, bound=False)
    except InfeasibleError:
        return None
    return Deal(network, setting, made)


def report(name: str, title: str, deals: Iterable[Deal | None]) -> list[Deal]:
    """Writes all deals to `name`.csv, and prints for each network the one that gains most.

    Returns:
        The deals that are plans.
    """
    found = [deal for deal in deals if deal is not None]
    write_csv(name, HEADER, [deal.row() for deal in found])
    unit = UNITS[found[0].plan.objective][0]
    print(f"\n{title}; `pays` counts settings, figures are where it pays most, in {unit}")
    header = ["network", "pays", "only a split", "most", "at", "plan", "split on", "best single", "on"]
    print_table(header, [_most(network, found) for network in dict.fromkeys(deal.network for deal in found)])
    return found


def _most(network: str, deals: Sequence[Deal]) -> list[object]:
    """A line of `report`."""
    mine = [deal for deal in deals if deal.network == network]
    with_rival = [deal for deal in mine if deal.plan.best_single_tier is not None]
    gaining = [deal for deal in with_rival if deal.gain > 1 + ROUNDING]
    pays, alone = f"{len(gaining)} of {len(mine)}", len(mine) - len(with_rival)
    if not with_rival:
        return [network, pays, alone, "", "", "", "", "", ""]
    best = max(with_rival, key=lambda deal: deal.gain)
    factor, single = UNITS[best.plan.objective][1], best.plan.best_single_tier
    assert single is not None, "it was looked for"
    return [
        network, pays, alone, best.gain, best.setting, best.value * factor, best.tiers,
        best.single_value * factor, single.tier,
    ]  # fmt: skip
