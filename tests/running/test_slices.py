"""What a tier's machine makes of the options for its slice."""

from __future__ import annotations

from typing import Any

import pytest

from dnnsplit_onnx.running.slices import options_on
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.slicing.manifest import SliceRecord

GB = 10**9


def record(**machine: Any) -> SliceRecord:
    return SliceRecord(tier="cloud", file=None, start=0, stop=1, **machine)


@pytest.mark.parametrize(
    ("asked", "own", "found"),
    [
        (TIER, "cuda", "cuda"),
        (TIER, "cpu", "cpu"),
        (TIER, None, "cpu"),  # a manifest of an earlier release
        ("cpu", "cuda", "cpu"),
        ("cuda", "cpu", "cuda"),
    ],
)
def test_the_provider_is_the_tiers_own_unless_one_is_named(asked: str, own: str | None, found: str) -> None:
    assert options_on(SessionOptions(provider=asked), record(provider=own)).provider == found


def test_the_memory_of_a_cuda_tier_limits_the_device_and_no_other_does() -> None:
    cuda, cpu = record(provider="cuda", memory_nbytes=2 * GB), record(provider="cpu", memory_nbytes=2 * GB)
    assert options_on(SessionOptions(provider=TIER), cuda).memory_nbytes == 2 * GB
    assert options_on(SessionOptions(provider=TIER, memory_nbytes=GB), cuda).memory_nbytes == GB
    # The limit of a CPU tier is about the machine's memory.
    assert options_on(SessionOptions(provider="cuda"), cpu).memory_nbytes is None
    assert options_on(SessionOptions(provider="cpu"), cuda).memory_nbytes is None


def test_cuda_graphs_are_for_the_slices_on_cuda() -> None:
    planned = SessionOptions(provider=TIER, cuda_graph=True)
    assert options_on(planned, record(provider="cuda")).cuda_graph
    assert not options_on(planned, record(provider="cpu")).cuda_graph
    # Asked for the CPU by name, it is a mistake, and stays one for `open_session` to refuse.
    assert options_on(SessionOptions(provider="cpu", cuda_graph=True), record(provider="cuda")).cuda_graph
