"""Whether splitting pays, in plain words.

Nobody may be sold a split that loses: a plan that does not beat the best single tier is
said not to, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from dnnsplit_onnx.planning.figures import SingleTier
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting.units import clean, per_million, percent, times
from dnnsplit_onnx.work.codes import RAW

# Two figures this close are the same one.
_SAME = 1e-6

# A gain under this is not worth a second machine.
_WORTH = 0.01

# A bound farther away than this is not worth a sentence.
_LOOSE = 0.5

#: How a better figure of each objective is told.
BETTER = {
    "latency": "faster than",
    "cost": "cheaper than",
    "throughput": "the throughput of",
    "energy": "thriftier than",
    "weighted": "better, as weighted, than",
    "custom": "better than",
    "ttft": "faster to the first token than",
    "tpot": "faster a token than",
}
_EQUAL = {
    "latency": "as fast",
    "cost": "as cheap",
    "throughput": "as much throughput",
    "energy": "as thrifty",
    "weighted": "as good, as weighted",
    "custom": "as good",
    "ttft": "as fast to the first token",
    "tpot": "as fast a token",
}
_WORSE = {
    "latency": "faster",
    "cost": "cheaper",
    "throughput": "more throughput",
    "energy": "thriftier",
    "weighted": "better, as weighted",
    "custom": "better",
    "ttft": "faster to the first token",
    "tpot": "faster a token",
}


def verdict(plan: Plan) -> tuple[str, ...]:
    """Whether a plan is worth having, then why, each a sentence.

    Where too little of the work is counted, that comes first, and the rest is said to be by what is.
    """
    said = _verdict(plan)
    if plan.knows_enough:
        return said
    first = f"{said[0][:1].lower()}{said[0][1:]}"
    return (_too_little(plan), f"By what is counted, {first}", *said[1:])


def _too_little(plan: Plan) -> str:
    why = next((clean(what) for what in plan.unknowns if "is not counted" in what), "")
    return f"Too little is known for a verdict: {why}." if why else "Too little is known for a verdict."


def _verdict(plan: Plan) -> tuple[str, ...]:
    best, gain = plan.best_single_tier, plan.speedup_vs_best_single_tier
    if len(plan.figures.stages) == 1:
        return ("There is one tier, so there is nothing to split.",)
    if best is None:
        return _without_rival(plan)
    if gain is None:
        return _without_ratio(plan, best)
    where = f"everything on `{clean(best.tier)}`"
    codes = ", ".join(dict.fromkeys(link.code for link in plan.figures.links if link.code != RAW))
    if not plan.is_split and codes and gain > 1 + _SAME:
        better = f"{times(gain)} {BETTER[plan.objective]} {where} with its input sent raw"
        return (f"Splitting does not pay, sending the input as {codes} does: {better}.",)
    if not plan.is_split:
        return _on_one_tier(plan, best, gain)
    if 1 + _SAME < gain < 1 + _WORTH:
        return (
            f"Splitting gains {gain - 1:.2%}, under 1%: everything on `{clean(best.tier)}` is recommended.",
        )
    if gain > 1 + _SAME:
        return (f"Splitting pays: {times(gain)} {BETTER[plan.objective]} {where}, the best single tier.",)
    if gain >= 1 - _SAME:
        return (f"Splitting does not pay: {where} is {_EQUAL[plan.objective]}.",)
    return (f"Splitting does not pay: {where} is {times(1 / gain)} {_WORSE[plan.objective]}.",)


def million(plan: Plan) -> str | None:
    """What a million requests cost, beside the cheapest single tier; None where nothing costs anything."""
    cost = plan.figures.cost_usd
    if not cost > 0:
        return None
    singles = [one for one in plan.single_tier if one.cost_usd == one.cost_usd]
    said = f"A million requests cost {per_million(cost)}"
    if not singles:
        return f"{said}."
    cheapest = min(singles, key=lambda one: one.cost_usd)
    return f"{said}; all on `{cheapest.tier}`, {per_million(cheapest.cost_usd)}."


def basis(plan: Plan, uncounted: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """What a plan's figures assume and what is proven of it, each a sentence."""
    lines = [f"{_proof(plan)} {_seconds(plan)}"]
    # A loose bound says nothing that helps; throughput's often is one.
    if plan.optimality == "order" and plan.gap and plan.gap <= _LOOSE:
        least = f"no cut of the graph, in whatever order, is more than {percent(plan.gap, 1)} better."
        lines.append(f"As far as is known, {least}" if plan.unknowns else f"N{least[1:]}")
    lines += [_sentence(note) for note in plan.notes]
    if plan.accounting != "live":
        lines.append(
            "Cuts are charged one layer's input, as in the paper: inside a branch that leaves out tensors."
        )
    if uncounted:
        ops = ", ".join(f"{clean(op)} ({number})" for op, number in sorted(uncounted.items()))
        lines.append(f"Not counted, and taken to cost nothing: {ops}.")
    return tuple(lines)


def _seconds(plan: Plan) -> str:
    """Where the seconds of tiers come from."""
    models = set(plan.cost_models)
    if models == {"custom"}:
        return "Seconds are the caller's own."
    if not models & {"profile", "predictor"}:
        if "roofline" in models:
            return "Seconds come from FLOPs and memory bandwidth: nothing was measured."
        return "Seconds are FLOPs over each tier's `gflops`: nothing was measured."
    if models == {"profile"} and not any(stage.interpolated for stage in plan.stages):
        return "Seconds were measured on every tier."
    ways = {
        "measured": _tiers(plan, "profile", interpolated=False),
        "interpolated by FLOPs inside measured segments": _tiers(plan, "profile", interpolated=True),
        "predicted from other models": _tiers(plan, "predictor", interpolated=False),
    }
    said = [f"{how} on {tiers}" for how, tiers in ways.items() if tiers]
    if models - {"profile", "predictor"}:
        said.append("computed from FLOPs elsewhere")
    return f"Seconds were {' and '.join(filter(None, (', '.join(said[:-1]), said[-1])))}."


def _tiers(plan: Plan, model: str, *, interpolated: bool) -> str:
    """The tiers whose seconds come from a cost model."""
    pairs = zip(plan.stages, plan.cost_models, strict=True)
    return ", ".join(
        f"`{clean(stage.tier)}`"
        for stage, own in pairs
        if own == model and stage.interpolated == interpolated
    )


def against(plan: Plan, single: SingleTier) -> str:
    """How a single tier compares with the plan, in a word or two."""
    mine, theirs = plan.figures.value(plan.objective), single.value(plan.objective)
    if not (math.isfinite(mine) and math.isfinite(theirs) and mine and theirs):
        return ""
    ratio = mine / theirs if plan.objective == "throughput" else theirs / mine
    if abs(ratio - 1) <= _SAME:
        return "the same"
    more, less = {
        "latency": ("slower", "faster"),
        "cost": ("dearer", "cheaper"),
        "throughput": ("less", "more"),
        "energy": ("more", "less"),
        "weighted": ("worse", "better"),
        "custom": ("worse", "better"),
        "ttft": ("slower", "faster"),
        "tpot": ("slower", "faster"),
    }[plan.objective]
    return f"{times(ratio)} {more}" if ratio > 1 else f"{times(1 / ratio)} {less}"


def _without_rival(plan: Plan) -> tuple[str, ...]:
    if plan.is_split and plan.feasible:
        return ("Splitting is needed: no single tier keeps to the limits.",)
    return ("No single tier keeps to the limits, and neither does this plan.",)


def _without_ratio(plan: Plan, best: SingleTier) -> tuple[str, ...]:
    mine = plan.figures.value(plan.objective)
    if mine == 0 and best.value(plan.objective) == 0:
        return (
            f"Splitting does not pay: everything on `{clean(best.tier)}` has no {plan.objective} either.",
        )
    if mine == 0:
        return (f"Splitting pays: this plan has no {plan.objective} at all.",)
    return (f"Whether splitting pays is unknown: so is the {plan.objective} of this plan.",)


def _on_one_tier(plan: Plan, best: SingleTier, gain: float) -> tuple[str, ...]:
    stages = plan.figures.stages
    at = next((t for t, stage in enumerate(stages) if stage.stop > stage.start), 0)
    mine = f"everything on `{clean(stages[at].tier)}`"
    if gain < 1 - _SAME:
        return (f"Everything on `{clean(best.tier)}` is {times(1 / gain)} {_WORSE[plan.objective]}.",)
    said = f"Splitting does not pay: {mine} is best."
    if plan.optimality == "none":
        return (said.replace("is best", "is what the planner chose"),)
    if _is_held(plan):
        return (f"{mine[0].upper()}{mine[1:]} is best of what the limits and rules allow.",)
    if at == 0:
        return (said, "Whatever a faster tier would save, sending it the data costs more.")
    if at == len(stages) - 1:
        return (said, "No cut shrinks the data enough to repay work done on a slower tier.")
    return (said, "Neither a cut before it nor one after it repays what it costs.")


#: Keys of tiers that say where nodes may run.
_RULES = ("pin", "private", "private_inputs", "min_prefix", "max_prefix")


def _is_held(plan: Plan) -> bool:
    """Whether a rule or limit may be why a plan is on one tier, and not what transfers cost.

    A plan that reaches the bound of plans without limits is held by none; the bound keeps rules.
    """
    if not all(single.feasible for single in plan.single_tier):
        return True
    tables = dict(plan.topology or {})
    tiers = [dict(tier) for tier in tables.get("tier", ())]
    if any(tier.get(key) not in (None, False, [], ()) for tier in tiers for key in _RULES):
        return True
    limits = [key for key in plan.limits if key not in ("return_output", "private_until")]
    limits += [key for tier in tiers for key in ("memory_gb",) if key in tier]
    limits += [key for link in tables.get("link", ()) for key in ("max_mb",) if key in link]
    return bool(limits) and plan.gap != 0


def _sentence(note: str) -> str:
    text = clean(note)
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _proof(plan: Plan) -> str:
    if plan.planner == "at":
        return "The cuts were given by hand."
    of_all = {"dag": "of all cuts of the graph", "order": f"of all cuts along the {plan.order} order"}
    if plan.optimality in of_all:
        claim = f"Best {_aim(plan)} {of_all[plan.optimality]}"
        if not plan.unknowns:
            return f"{claim} (proven)."
        return f"{claim}, as far as is known: {'; '.join(clean(what) for what in plan.unknowns)}."
    return f"Chosen by `{clean(plan.planner)}`, a heuristic: nothing is proven."


_NOUNS = {"ttft": "time to the first token", "tpot": "time of each token"}


def _aim(plan: Plan) -> str:
    """The objective as a noun."""
    if plan.objective in _NOUNS:
        return _NOUNS[plan.objective]
    if plan.weights is None or plan.objective != "weighted":
        return plan.objective
    weighed = [f"{weight:g} x {name}" for name, weight in plan.weights.to_dict().items() if weight]
    return f"sum of {' + '.join(weighed)}"
