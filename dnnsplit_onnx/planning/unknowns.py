"""What takes the word "proven" from a plan: inputs of its figures that nobody knows.

A plan can be best by the figures at hand and still not be best. So these are named beside it:

1. energy asked for, and a tier or link without `watts`: plans that use it were left out;
2. operators whose work is not counted and which read over a tenth of the model's weights: then
   too little is known for any verdict;
3. a stage that begins or ends inside one measured segment, so that its seconds were shared
   out by FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterator

from dnnsplit_onnx.errors import ProfileError
from dnnsplit_onnx.machines.profiles import Profile, load_profile
from dnnsplit_onnx.planning.plans import Figures
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.analysis import Analysis


def unknowns(problem: Problem, figures: Figures) -> tuple[str, ...]:
    """What is not known of a plan's rivals or its own figures, each a phrase.

    Args:
        problem: The problem, in the plan's order.
        figures: The plan's.
    """
    found = [*_watts(problem)]
    if problem.analysis is not None:
        found += [said for said in [too_little(problem)] if said]
        found += _interpolated(problem, problem.analysis, figures)
    return tuple(found)


def _watts(problem: Problem) -> Iterator[str]:
    asked = problem.objective == "energy" or problem.topology.limits.energy_j is not None
    if not asked and not (problem.objective == "weighted" and problem.weights and problem.weights.energy):
        return
    tiers, links = problem.topology.tiers, problem.topology.links
    names = [f"tier `{tier.name}`" for tier in tiers if tier.watts is None]
    names += [f"link {t}" for t, link in enumerate(links) if link.watts is None]
    if names:
        has = "has" if len(names) == 1 else "have"
        yield f"{', '.join(names)} {has} no `watts`, so plans that use what is unknown were left out"


def too_little(problem: Problem) -> str | None:
    """Why the seconds of tiers say too little of a model's work; None if they say enough.

    What was measured, or given, needs no count.
    """
    analysis = problem.analysis
    if analysis is None or analysis.knows_enough or problem.costs.is_custom:
        return None
    if all(tier.cost_model == "profile" for tier in problem.topology.tiers):
        return None
    ops, share = ", ".join(sorted(analysis.uncounted)), analysis.uncounted_weight_share
    return (
        f"the work of {ops} is not counted, and {share:.0%} of the weights are read there "
        "(a measured profile of each tier tells what it takes)"
    )


def _interpolated(problem: Problem, analysis: Analysis, figures: Figures) -> Iterator[str]:
    places = [node.index for node in analysis.graph.nodes]
    for tier, stage in zip(problem.topology.tiers, figures.stages, strict=True):
        if tier.profile is None or problem.costs.is_custom or stage.start == stage.stop:
            continue
        try:
            profile = tier.profile if isinstance(tier.profile, Profile) else load_profile(tier.profile)
        except ProfileError:  # moved since; the seconds are at hand
            continue
        at = [str(cut) for cut in (stage.start, stage.stop) if not _is_measured(profile, places, cut)]
        if at:
            yield (
                f"the seconds of tier `{tier.name}` at cut {' and '.join(at)} are interpolated: "
                "FLOPs shared out one measured segment"
            )


def _is_measured(profile: Profile, places: list[int], cut: int) -> bool:
    """Whether the profile measured up to the nodes below a cut, and no further."""
    if profile.node_seconds is not None or cut in (0, profile.nodes):
        return True
    if cut not in {segment.stop for segment in profile.segments}:
        return False
    order = profile.node_order
    return order is None or set(order[:cut]) == set(places[:cut])
