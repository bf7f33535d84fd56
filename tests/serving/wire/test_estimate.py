"""Estimates of links, and what is learned from transfers that share one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.serving.tier.sharing import Sharing
from dnnsplit_onnx.serving.wire.estimate import LinkEstimate
from dnnsplit_onnx.serving.wire.stream import LONGEST_HEAD
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace, read_trace

BUFFERED = LONGEST_HEAD


def hop(
    nbytes: int, mbps: float, delay_ms: float, *, above_s: float = 0.02, back: int = 0, shared: float = 1.0
) -> Hop:
    """What a request over a perfect link tells."""
    receive_s = 8 * (nbytes - BUFFERED) * shared / (mbps * 1e6)
    up_s = 8 * nbytes * shared / (mbps * 1e6) + delay_ms / 1e3
    down_s = 8 * back / (mbps * 1e6) + delay_ms / 1e3
    total_s = up_s + above_s + down_s
    return Hop(
        total_s, nbytes, back, (TierTrace("near", 0, above_s, above_s + receive_s, receive_s, nbytes),)
    )


@given(st.floats(1, 500), st.floats(0, 50), st.integers(500_000, 5_000_000))
def test_a_steady_link_is_known_after_a_few_requests(mbps, delay_ms, nbytes):
    estimate = LinkEstimate(20, 5)
    for _ in range(40):
        estimate.observe(hop(nbytes, mbps, delay_ms))
    assert estimate.state.bandwidth_mbps == pytest.approx(mbps, rel=0.01)
    assert estimate.state.delay_ms == pytest.approx(delay_ms, abs=0.5 + 8 * nbytes / mbps / 1e3 * 0.01)


def test_a_step_is_believed_at_once():
    estimate = LinkEstimate(50, 1)
    for mbps in (50, 50, 50, 5):
        estimate.observe(hop(500_000, mbps, 1))
    assert estimate.state.bandwidth_mbps == pytest.approx(5, rel=0.01)


def test_a_single_slow_transfer_moves_it_little():
    estimate = LinkEstimate(50, 1)
    for mbps in (50, 50, 30):
        estimate.observe(hop(500_000, mbps, 1))
    assert 30 < estimate.state.bandwidth_mbps < 50


def test_small_bodies_tell_the_delay_and_no_bandwidth():
    estimate = LinkEstimate(50, 1)
    for _ in range(30):
        estimate.observe(hop(20_000, 500, 9))
    assert estimate.state.bandwidth_mbps == 50
    assert estimate.state.samples == 0
    assert estimate.state.delay_ms == pytest.approx(9, abs=2)


def test_a_server_that_tells_nothing_teaches_nothing():
    estimate = LinkEstimate(50, 1)
    estimate.observe(Hop(9.0, 1_000_000, 0))
    assert estimate.state.bandwidth_mbps == 50


def test_an_overdue_transfer_lowers_the_estimate_and_never_raises_it():
    estimate = LinkEstimate(50, 1)
    estimate.slower_than(1_000_000, 1.0)
    assert estimate.state.bandwidth_mbps == pytest.approx(8)
    estimate.slower_than(1_000_000, 0.01)
    assert estimate.state.bandwidth_mbps == pytest.approx(8)


def test_transfers_that_share_a_link_are_told_apart_from_a_slow_link():
    now = 0.0
    sharing = Sharing(clock=lambda: now)
    with sharing.transfer(100):
        now = 1.0
    assert sharing.others(1.0) == 0
    first = sharing.transfer(100)
    first.__enter__()
    now = 1.5
    with sharing.transfer(100):
        now = 2.5
        assert sharing.under_way() == [(100, 1.5), (100, 1.0)]
    assert sharing.others(1.0) == pytest.approx(1.0)
    first.__exit__(None, None, None)
    assert sharing.under_way() == []


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "{", "[]", "[7]", '[{"tier": "a"}]', '[{"tier": "a", "queue_ms": -1}]', "[" * 10_000, "{}"],
)
def test_traces_that_are_none_are_ignored(text):
    assert read_trace(text) == ()


def test_traces_travel():
    inner = TierTrace("cloud", 0.0, 0.25, 0.5, 0.125, 7)
    outer = TierTrace("near", 0.0, 0.25, 1.0, 0.125, 9, Hop(0.75, 3, 4))
    import json

    found = read_trace(json.dumps([outer.to_dict(), inner.to_dict()]))
    assert found[0].hop is not None
    assert found[0].hop.tiers == (inner,)
    assert found[0].hop.wire_s == 0.75 - 0.5 + 0.125
    assert found[1] == inner


def test_a_link_too_fast_to_be_measured_is_known_to_be_fast():
    # What a link that was down left behind, and then a loopback: no body takes long enough.
    estimate = LinkEstimate(0.8, 0)
    estimate.observe(hop(98_304, 2000, 0.05))
    assert 400 < estimate.state.bandwidth_mbps <= 2000


def test_a_link_that_nothing_is_known_of_is_learned_from_what_crosses_it():
    estimate = LinkEstimate(math.inf, 0)
    estimate.observe(hop(10_000, 50, 5))
    assert estimate.state.samples == 0
    assert estimate.state.delay_ms > 0
    for _ in range(40):
        estimate.observe(hop(1_000_000, 50, 5))
    assert estimate.state.bandwidth_mbps == pytest.approx(50, rel=0.01)
    assert estimate.state.delay_ms == pytest.approx(5, abs=2)
