"""When drafting pays, by the round trip."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx import Limits, Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.models.decoder import decoder
from dnnsplit_onnx.planning.drafting import Drafting


@pytest.mark.parametrize("accepts", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("drafts", [1, 4, 8])
def test_tokens_of_a_pass_are_those_of_a_simulation(drafts: int, accepts: float) -> None:
    rng = np.random.default_rng(drafts)
    agreed = rng.random((200_000, drafts)) < accepts
    kept = np.cumprod(agreed, axis=1).sum(axis=1) + 1
    found = Drafting(1.0, 1.0, 0.1, drafts, accepts)
    assert found.tokens == pytest.approx(kept.mean(), rel=0.01)
    assert found.token_s == pytest.approx((drafts * 0.1 + 1.0) / found.tokens)
    assert found.tokens_per_s == 1 / found.token_s


def test_the_round_trip_from_which_drafting_pays() -> None:
    slow = Drafting(step_s=0.012, check_s=0.030, draft_s=0.010, drafts=4, accepts=0.6)
    assert slow.gain < 1
    least = slow.pays_from(0.002)
    assert least is not None
    for round_trip, pays in ((least * 0.99, False), (least * 1.01, True)):
        there = Drafting(0.010 + round_trip, 0.028 + round_trip, 0.010, 4, 0.6)
        assert (there.gain > 1) == pays
    assert Drafting(1.0, 1.0, 0.1, 4, 0.0).pays_from(0.0) is None


@pytest.mark.parametrize(("delay_ms", "said"), [(0.001, "drafting does not pay"), (25, "drafting pays")])
def test_a_plan_says_whether_drafting_pays(delay_ms: float, said: str) -> None:
    machines = Topology(
        tiers=[Tier("edge", gflops=0.1), Tier("cloud", gflops=100)],
        links=[Link(bandwidth_mbps=1000, delay_ms=delay_ms)],
    ).with_workload(prompt_tokens=16, new_tokens=32, head="argmax", draft_ms=2, draft_accepts=0.8)
    analysis = analyse(decoder(), {"batch": 1, "sequence": 1, "past_sequence": 8})
    made = plan(analysis, machines, cuts=[0], objective="tpot")
    notes = [note for note in made.notes if note.startswith("drafting")]
    assert [note.startswith(said) for note in notes] == [True]
    assert made.figures.check_s is not None
    assert made.figures.tpot_s is not None
    # Nothing of it is in the figures of the text.
    plain = machines.with_workload(draft_ms=None, draft_accepts=0.7)
    assert plan(analysis, plain, cuts=[0]).figures.latency_s == made.figures.latency_s


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("on_the_edge", [True, False])
def test_the_round_trip_that_is_told_does_not_change_with_that_of_now(
    returns: bool, on_the_edge: bool
) -> None:
    analysis = analyse(decoder(), {"batch": 1, "sequence": 1, "past_sequence": 8})
    told = []
    for delay_ms in (0.0, 1.0):
        machines = Topology(
            tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=100)],
            links=[Link(bandwidth_mbps=1000, delay_ms=delay_ms)],
            limits=Limits(return_output=returns),
        ).with_workload(prompt_tokens=16, new_tokens=32, head="argmax", draft_ms=90, draft_accepts=0.8)
        made = plan(analysis, machines, cuts=[len(analysis.graph.nodes) if on_the_edge else 0], pareto=False)
        (note,) = (note for note in made.notes if note.startswith("drafting does not pay"))
        told.append(note.rpartition("it does ")[2])
    assert told[0] == told[1]
    assert told[0].startswith("from a round trip of ")
