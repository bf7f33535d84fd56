"""Two speeds of one machine, told apart by a loop beside each run."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.measuring.speeds import Speeds, pace, typical


def runs(share: float, *, slower: float = 2.0, count: int = 200) -> tuple[list[float], list[float]]:
    """Seconds of a stage and of the loop: 1.3 ms and 46 us, some of them at the slower speed, 3% of noise."""
    rng = np.random.default_rng(3)
    is_slow = rng.permutation(np.arange(count) < share * count)
    noise = 1 + 0.03 * rng.standard_normal((2, count))
    seconds = 1.3e-3 * np.where(is_slow, slower, 1.0) * noise[0]
    return seconds.tolist(), (46e-6 * np.where(is_slow, 1.85, 1.0) * noise[1]).tolist()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_two_speeds_are_found(share: float) -> None:
    found = Speeds.of(*runs(share))
    assert found is not None
    assert found.slow_share == pytest.approx(share)
    assert found.fast_s == pytest.approx(1.3e-3, rel=0.02)
    assert found.slow_s == pytest.approx(2.6e-3, rel=0.02)
    assert found.mean_s == pytest.approx(1.3e-3 * (1 + share), rel=0.02)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.02])
def test_one_speed_is_one(share: float) -> None:
    assert Speeds.of(*runs(share)) is None


def test_what_the_loop_does_not_change_has_one_speed() -> None:
    assert Speeds.of(*runs(0.5, slower=1.0)) is None


def test_few_runs_tell_nothing() -> None:
    assert Speeds.of(*runs(0.5, count=10)) is None
    assert Speeds.of([1.0] * 30, ()) is None


def test_the_typical_run_does_not_jump_at_a_half_as_the_median_does() -> None:
    low, high = runs(0.48), runs(0.52)
    assert np.median(high[0]) / np.median(low[0]) > 1.5
    assert typical(*high) / typical(*low) == pytest.approx(1.52 / 1.48, rel=0.02)
    steady = runs(0.0)
    assert typical(*steady) == np.median(steady[0])


def test_the_loop_takes_a_while() -> None:
    assert 1e-6 < pace() < 1.0
