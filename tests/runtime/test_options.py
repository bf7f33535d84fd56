"""What a tier's machine makes of the options for its slice."""

from __future__ import annotations

from typing import Any

import pytest

from dnnsplit_onnx.manifest import SliceRecord
from dnnsplit_onnx.runtime.options import TIER, SessionOptions

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
    assert SessionOptions(provider=asked).on(record(provider=own)).provider == found


def test_the_memory_of_a_cuda_tier_limits_the_device_and_no_other_does() -> None:
    cuda, cpu = record(provider="cuda", memory_nbytes=2 * GB), record(provider="cpu", memory_nbytes=2 * GB)
    assert SessionOptions(provider=TIER).on(cuda).memory_nbytes == 2 * GB
    assert SessionOptions(provider=TIER, memory_nbytes=GB).on(cuda).memory_nbytes == GB
    # The limit of a CPU tier is about the machine's memory.
    assert SessionOptions(provider="cuda").on(cpu).memory_nbytes is None
    assert SessionOptions(provider="cpu").on(cuda).memory_nbytes is None


def test_cuda_graphs_are_for_the_slices_on_cuda() -> None:
    planned = SessionOptions(provider=TIER, cuda_graph=True)
    assert planned.on(record(provider="cuda")).cuda_graph
    assert not planned.on(record(provider="cpu")).cuda_graph
    # Asked for the CPU by name, it is a mistake, and stays one for `open_session` to refuse.
    assert SessionOptions(provider="cpu", cuda_graph=True).on(record(provider="cuda")).cuda_graph
