"""Pictures of sweeps: what they show, labelled, and that they are the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.sweeping import Axis, SweepPoint
from dnnsplit_onnx.reporting.colours import COLOURS, plan_colours, plan_key
from dnnsplit_onnx.reporting.figure import with_unit
from dnnsplit_onnx.reporting.sweep_plot import check_axes, plot_sweep
from tests.reporting.plans_made import made


def points(*axes: Axis) -> list[SweepPoint]:
    """Plans whose cut moves with the first axis; none for the last value."""
    (first, *rest) = axes
    found = []
    for x in first.values:
        for y in rest[0].values if rest else (0.0,):
            settings = {first.key: x} | ({rest[0].key: y} if rest else {})
            plan = made((int(x) % 9,), (1e-3 * x, 1e-3), (2e-3,), (2e-3, 3e-3))
            found.append(SweepPoint(settings, None if x == first.values[-1] else plan, "too tight"))
    return found


BANDWIDTH = Axis("link.0.bandwidth_mbps", (1.0, 10.0, 100.0, 1000.0))
SPEED = Axis("tier.edge.gflops", (1.0, 2.0, 4.0))


@pytest.mark.parametrize(
    "axes", [(BANDWIDTH,), (SPEED,), (BANDWIDTH, SPEED), (SPEED, Axis("link.0.delay_ms", (0.0,)))]
)
def test_svg_says_what_it_shows(tmp_path: Path, axes: tuple[Axis, ...]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "sweep.svg"
    plot_sweep(file, axes, points(*axes), "latency")
    text = file.read_text(encoding="utf-8")
    for axis in axes:
        assert with_unit(axis.key) in text
    assert "a -&gt; b at 1" in text
    if len(axes) == 1:
        assert "latency (s)" in text
        assert "all on a" in text
    else:
        assert "best latency" in text
        assert "no plan keeps the limits" in text
    plot_sweep(file, axes, points(*axes), "latency", force=True)
    assert file.read_text(encoding="utf-8") == text


def test_more_axes_than_a_picture_has() -> None:
    with pytest.raises(InputError, match="one axis or two, not 3"):
        check_axes([BANDWIDTH, SPEED, SPEED])


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("link.0.bandwidth_mbps", "bandwidth of link 0, Mbit/s"),
        ("link.0.down_mbps", "bandwidth back of link 0, Mbit/s"),
        ("link.0.max_mb", "most bytes of link 0, MB"),
        ("tier.edge.gflops", "speed of edge, GFLOP/s"),
        ("tier.edge.memory_gb", "memory of edge, GB"),
        ("tier.edge.memory_gb_per_s", "memory bandwidth of edge, GB/s"),
        ("tier.edge.overhead_us", "time of an operator of edge, µs"),
        ("tier.edge.usd_per_hour", "price of edge, USD/h"),
        ("link.0.usd_per_gb", "price of link 0, USD/GB"),
        ("limits.deadline_ms", "deadline, ms"),
        ("limits.budget_usd", "budget, USD"),
        ("limits.energy_j", "energy limit, J"),
        ("tier.edge.max_prefix", "max prefix of edge"),
    ],
)
def test_units(key: str, label: str) -> None:
    assert with_unit(key) == label


def test_colours_are_eight_different_ones() -> None:
    assert len(set(COLOURS)) == 8


def test_a_plan_has_its_colour_whatever_is_beside_it() -> None:
    one = plan_colours(["all on edge", "35"])
    other = plan_colours(["35", "all on edge"])
    assert one == other
    assert plan_colours(["35"])["35"] == one["35"]


def test_no_two_plans_of_a_picture_share_a_colour_until_all_are_used() -> None:
    keys = [str(cut) for cut in range(1, 20)]
    colours = plan_colours(keys)
    assert len(set(colours.values())) == len(keys)
    assert {colour for colour, before in colours.values() if before == 0} == set(range(8))
    assert [before for _, before in colours.values()] == [0] * 8 + [1] * 8 + [2] * 3


def test_plans_are_called_as_the_dashboard_calls_them() -> None:
    assert plan_key((66,), ["edge"]) == "all on edge"
    assert plan_key((2, 4), ["edge", "near", "cloud"]) == "2,4"
