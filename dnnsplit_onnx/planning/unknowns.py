"""What takes the word "proven" from a plan: inputs of its figures that nobody knows.

A plan can be best by the figures at hand and still not be best. So these are named beside it:

1. energy asked for, and a tier or link without `watts`: plans that use it were left out;
2. operators whose work is not counted and which read over a tenth of the model's weights: then
   too little is known for any verdict;
3. a stage that begins or ends inside one measured segment, so that its seconds were shared
   out by FLOPs;
4. a stage whose seconds were predicted from measurements of other models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dnnsplit_onnx.machines.predictors import Predictor, Timings
from dnnsplit_onnx.machines.profiles import Profile
from dnnsplit_onnx.planning.figures import Figures, Stage
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.features import features


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
        found += _predicted(problem, problem.analysis, figures)
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
    timings = problem.costs.timings
    if timings and all(isinstance(one, Profile) for one in timings):
        return None
    ops, share = ", ".join(sorted(analysis.uncounted)), analysis.uncounted_weight_share
    return (
        f"the work of {ops} is not counted, and {share:.0%} of the weights are read there "
        "(a measured profile of each tier tells what it takes)"
    )


def _interpolated(problem: Problem, analysis: Analysis, figures: Figures) -> Iterator[str]:
    for t, stage in enumerate(figures.stages):
        cuts = interpolated_cuts(problem, analysis, t, stage)
        if cuts:
            yield (
                f"the seconds of tier `{stage.tier}` at cut {' and '.join(map(str, cuts))} are interpolated: "
                "FLOPs shared out one measured segment"
            )


def interpolated_cuts(problem: Problem, analysis: Analysis, t: int, stage: Stage) -> tuple[int, ...]:
    """The cuts of a stage on tier t that fall inside one measured segment."""
    profile = _timings(problem, t)
    if not isinstance(profile, Profile) or stage.start == stage.stop:
        return ()
    places = [node.index for node in analysis.graph.nodes]
    return tuple(cut for cut in (stage.start, stage.stop) if not _is_measured(profile, places, cut))


def _predicted(problem: Problem, analysis: Analysis, figures: Figures) -> Iterator[str]:
    for t, stage in enumerate(figures.stages):
        predictor = _timings(problem, t)
        if not isinstance(predictor, Predictor):
            continue
        error = predictor.median_error
        off = "" if error is None else f" (off by {error:.0%} in the median, on models left out)"
        yield f"the seconds of tier `{stage.tier}` are predicted from other models{off}"
        new = predictor.unknown(features(analysis).kinds)
        if new:
            yield f"no model behind the predictor of tier `{stage.tier}` had nodes of {_listed(new)}"


_MOST_NAMED = 6


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more kinds" if more > 0 else "")


def _timings(problem: Problem, t: int) -> Timings | None:
    return problem.costs.timings[t] if problem.costs.timings else None


def _is_measured(profile: Profile, places: list[int], cut: int) -> bool:
    """Whether the profile measured up to the nodes below a cut, and no further."""
    if profile.node_seconds is not None or cut in (0, profile.nodes):
        return True
    if cut not in {segment.stop for segment in profile.segments}:
        return False
    order = profile.node_order
    return order is None or set(order[:cut]) == set(places[:cut])
