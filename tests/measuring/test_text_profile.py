"""A profile of a text: its prompt and a step, each measured by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, profile
from dnnsplit_onnx.errors import InputError, ProfileError
from dnnsplit_onnx.machines.profiles import Profile, load_profile
from dnnsplit_onnx.models import model_path

_SIZES = {"batch": 1, "sequence": 1, "past_sequence": 8}


def test_both_phases_are_measured_and_planned_with(tmp_path: Path) -> None:
    analysis = analyse(model_path("tiny_decoder"), _SIZES)
    machines = Topology(
        tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=10)], links=[Link(bandwidth_mbps=10)]
    ).with_workload(prompt_tokens=12, new_tokens=6, prefill_chunk=8)
    found = profile(analysis, "edge", runs=2, workload=machines.workload)
    lengths = [(one.bindings["sequence"], one.bindings["past_sequence"]) for one in (found, *found.phases)]
    assert lengths == [(8, 0), (4, 8), (1, 14)]
    found.save(tmp_path / "edge.json")
    assert load_profile(tmp_path / "edge.json") == found
    for given in (found, str(tmp_path / "edge.json")):
        measured = machines.with_tier("edge", gflops=None, profile=given)
        alone = plan(analysis, measured).single_tier[0]
        first, rest, step = map(_whole_s, (found, *found.phases))
        assert alone.ttft_s == pytest.approx(first + rest)
        assert alone.tpot_s == pytest.approx(step)
        assert alone.latency_s == pytest.approx(first + rest + 5 * step)


def _whole_s(one: Profile) -> float:
    """What a plan takes for the whole; without cuts to measure, a run's fixed cost is not in it."""
    return one.whole_s if one.parts else sum(segment.seconds for segment in one.segments)


def test_a_text_of_other_lengths_is_measured_again() -> None:
    analysis = analyse(model_path("tiny_decoder"), _SIZES)
    machines = Topology(tiers=[Tier("edge", gflops=1)]).with_workload(prompt_tokens=8, new_tokens=2)
    found = profile(analysis, "edge", runs=2, workload=machines.workload)
    other = machines.with_tier(0, gflops=None, profile=found).with_workload(prompt_tokens=9)
    with pytest.raises(ProfileError, match="measured with another bindings"):
        plan(analysis, other)


def test_passes_of_a_text_take_no_inputs_of_the_users() -> None:
    analysis = analyse(model_path("tiny_decoder"), _SIZES)
    workload = Topology(tiers=[Tier("edge", gflops=1)]).with_workload(prompt_tokens=8).workload
    with pytest.raises(InputError, match="inputs of unequal sizes"):
        profile(analysis, "edge", inputs={}, workload=workload)
