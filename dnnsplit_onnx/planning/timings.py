"""Seconds of a tier that was measured, or whose times are predicted from other models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import ProfileError
from dnnsplit_onnx.machines.predictors import FIT_AGAIN, Predictor, Timings, load_timings
from dnnsplit_onnx.machines.profiles import MEASURE_AGAIN, Place, Profile, check_profile
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.work.analysis import ORDERS, Analysis
from dnnsplit_onnx.work.features import AMOUNTS, features
from dnnsplit_onnx.work.orders import in_order


def timings_of(tier: Tier) -> Timings | None:
    """What a tier's seconds are read from; None for one whose speed is given.

    Raises:
        ProfileError: Its file cannot be read, or is no profile.
    """
    given = tier.profile
    return load_timings(given) if isinstance(given, str) else given


def run_seconds(timings: Timings) -> float:
    """The fixed cost of a run that is in the prefixes."""
    return 0.0 if isinstance(timings, Profile) and not timings.parts else timings.overhead_s


def timed_below(analysis: Analysis, tier: Tier, timings: Timings, place: Place) -> NDArray[np.float64]:
    """Seconds of each prefix, shape (n + 1,).

    Args:
        analysis: The model.
        tier: A tier of one machine.
        timings: What it was read from.
        place: Where the tier stands.

    Raises:
        ProfileError: The profile is of another model, provider or binding.
    """
    if isinstance(timings, Predictor):
        return _predicted(analysis, tier, timings, place)
    return _measured(analysis, tier, timings, place)


def _predicted(analysis: Analysis, tier: Tier, predictor: Predictor, place: Place) -> NDArray[np.float64]:
    source = tier.profile if isinstance(tier.profile, str) else f"the predictor of tier `{tier.name}`"
    if predictor.provider != tier.provider:
        raise ProfileError(
            f"predictor `{source}` was fitted on another provider: {predictor.provider}, not {tier.provider}",
            hint=f'if the tier runs on it, write provider = "{predictor.provider}" there; else {FIT_AGAIN}',
        )
    if predictor.amounts != AMOUNTS:
        raise ProfileError(
            f"predictor `{source}` is of other amounts of work than this release counts", hint=FIT_AGAIN
        )
    counted = features(analysis)
    return predictor.seconds_below(counted.kinds, counted.amounts, place)


def _measured(analysis: Analysis, tier: Tier, whole: Profile, place: Place) -> NDArray[np.float64]:
    given = tier.profile
    file = analysis.graph.file
    profile = whole.at(analysis.types.bindings)
    check_profile(
        profile,
        given if isinstance(given, str) else f"the profile of tier `{tier.name}`",
        sha256=profile.model_sha256 if file.is_named(profile.model_sha256) else file.sha256(),
        provider=tier.provider,
        bindings=analysis.types.bindings,
    )
    measured = profile.node_order
    if measured is None:  # a profile of old, which only names its order
        if profile.order not in ORDERS:
            raise ProfileError(
                f"the profile of tier `{tier.name}` counts nodes in an order of its own, `{profile.order}`",
                hint=MEASURE_AGAIN,
            )
        measured = _places(in_order(analysis, profile.order))
    at = {index: position for position, index in enumerate(measured)}
    try:
        order = [at[index] for index in _places(analysis)]
    except KeyError:
        order = []
    # What a file claims of its nodes is compared before an array of that many is made.
    if len(order) != profile.nodes or sorted(order) != list(range(len(order))):
        raise ProfileError(
            f"the profile of tier `{tier.name}` was measured on other nodes",
            context=f"in {given}" if isinstance(given, str) else None,
            hint=MEASURE_AGAIN,
        )
    flops = np.empty_like(analysis.flops)
    flops[order] = analysis.flops
    return profile.seconds_below(flops, place, None if order == sorted(order) else order)


def _places(analysis: Analysis) -> tuple[int, ...]:
    return tuple(node.index for node in analysis.graph.nodes)
