"""When drafting pays, by the round trip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dnnsplit_onnx import Limits, Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.models.decoder import decoder
from dnnsplit_onnx.planning.drafting import Drafting
from dnnsplit_onnx.planning.phases import text_notes
from dnnsplit_onnx.work.analysis import Analysis


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


def _tiny() -> Analysis:
    return analyse(decoder(), {"batch": 1, "sequence": 1, "past_sequence": 8})


def _machines(delay_ms: float, *, draft_ms: float = 2) -> Topology:
    return Topology(
        tiers=[Tier("edge", gflops=0.1), Tier("cloud", gflops=100)],
        links=[Link(bandwidth_mbps=1000, delay_ms=delay_ms)],
    ).with_workload(prompt_tokens=16, new_tokens=32, head="argmax", draft_ms=draft_ms, draft_accepts=0.8)


@pytest.mark.parametrize(
    ("delay_ms", "draft_ms", "said"),
    [(0.001, 2, "drafting does not pay"), (25, 2, "drafting pays"), (25, 90, "drafting does not pay")],
)
def test_a_plan_says_whether_drafting_pays(delay_ms: float, draft_ms: float, said: str) -> None:
    machines = _machines(delay_ms, draft_ms=draft_ms)
    analysis = _tiny()
    made = plan(analysis, machines, cuts=[0], objective="tpot")
    assert made.figures.check_s is not None
    assert made.figures.tpot_s is not None
    found = Drafting(made.figures.tpot_s, made.figures.check_s, draft_ms / 1e3, 4, 0.8)
    least = found.pays_from(2 * delay_ms / 1e3)
    when = "" if found.gain > 1 else f"; it does from a round trip of {(least or 0) * 1e3:.4g} ms on"
    assert [note for note in made.notes if note.startswith("drafting")] == [
        f"{said}: 4 drafts of {draft_ms} ms, 80% accepted, make {found.tokens:.3g} tokens a pass of "
        f"{found.check_s * 1e3:.4g} ms, {found.gain:.3g} times as fast{when}"
    ]
    # Nothing of it is in the figures of the text.
    plain = machines.with_workload(draft_ms=None, draft_accepts=0.7)
    assert plan(analysis, plain, cuts=[0]).figures.latency_s == made.figures.latency_s


@pytest.mark.parametrize(
    ("check_s", "said"),
    [
        # As fast with drafts as without is no gain, and what accepts none never gains by the round trip.
        (1.0, "drafting does not pay: 1 drafts of 1000 ms, 0% accepted, make 1 tokens a pass of 1000 ms, "
         "1 times as fast; it does at no round trip"),
        (0.5, "drafting pays: 1 drafts of 1000 ms, 0% accepted, make 1 tokens a pass of 500 ms, "
         "1.33 times as fast"),
    ],
)  # fmt: skip
def test_drafting_pays_where_it_is_faster_by_anything(check_s: float, said: str) -> None:
    machines = _machines(5).with_workload(draft_ms=1000, draft_tokens=1, draft_accepts=0.0)
    figures = plan(_tiny(), machines, cuts=[0], pareto=False).figures
    assert text_notes(replace(figures, tpot_s=2.0, check_s=check_s), machines)[-1] == said


def test_a_plan_of_no_text_says_nothing_of_one() -> None:
    machines = Topology(
        tiers=[Tier("edge", gflops=0.1), Tier("cloud", gflops=100)], links=[Link(bandwidth_mbps=1000)]
    )
    assert plan(_tiny(), machines, cuts=[0], pareto=False).notes == ()


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("on_the_edge", [True, False])
def test_the_round_trip_that_is_told_does_not_change_with_that_of_now(
    returns: bool, on_the_edge: bool
) -> None:
    analysis = _tiny()
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
