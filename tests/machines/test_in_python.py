"""Machines made and changed in Python: what a file may not say, a program may not either."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.tiers_file import parse_topology, topology_of
from dnnsplit_onnx.machines.topology import Limits, Link, Topology

EDGE, CLOUD = Tier("edge", gflops=13.5), Tier("cloud", gflops=19500)
LINE = Topology(tiers=[EDGE, CLOUD], links=[Link(bandwidth_mbps=50, delay_ms=10)])
TABLES = {
    "tier": [{"name": "edge", "gflops": 13.5}, {"name": "cloud", "gflops": 19500}],
    "link": [{"bandwidth_mbps": 50, "delay_ms": 10}],
}


def test_a_line_of_machines_is_what_its_tables_say() -> None:
    assert parse_topology(TABLES, "tables") == LINE
    assert Topology(tiers=(EDGE, CLOUD), links=(Link(bandwidth_mbps=50.0, delay_ms=10.0),)) == LINE
    assert Tier(name="edge", gflops=np.float32(13.5)) == EDGE == Tier("edge", gflops=13.5, pin=[])


def test_a_topology_may_be_itself_a_file_or_tables(tmp_path: Path) -> None:
    file = tmp_path / "tiers.toml"
    file.write_text('tier = [{name = "edge", gflops = 13.5}, {name = "cloud", gflops = 19500}]\n')
    with file.open("a") as more:
        more.write("link = [{bandwidth_mbps = 50, delay_ms = 10}]\n")
    assert topology_of(LINE) is LINE
    assert topology_of(file) == topology_of(str(file)) == topology_of(TABLES) == LINE
    with pytest.raises(TopologyError, match="an object of type `int` is no topology"):
        topology_of(3)  # type: ignore[arg-type]


def test_one_field_is_replaced_and_the_rest_stays() -> None:
    assert LINE.with_link(0, bandwidth_mbps=5).links == (Link(bandwidth_mbps=5, delay_ms=10),)
    assert LINE.with_tier("edge", gflops=20).tiers == (Tier("edge", gflops=20), CLOUD)
    assert LINE.with_tier(1, watts=3).tiers == (EDGE, Tier("cloud", gflops=19500, watts=3))
    limited = LINE.with_limits(deadline_ms=5, return_output=True)
    assert limited.limits == Limits(deadline_ms=5, return_output=True)
    assert limited.with_limits(deadline_ms=None).limits == Limits(return_output=True)


WAYS: dict[str, tuple[str, Callable[[object], object]]] = {
    "Tier": ("`gflops`", lambda value: Tier("edge", gflops=value)),
    "Link": ("`bandwidth_mbps`", lambda value: Link(bandwidth_mbps=value)),
    "Limits": ("`deadline_ms`", lambda value: Limits(deadline_ms=value)),
    "Topology": ("`tiers.0.gflops`", lambda value: Topology(tiers=[{"name": "edge", "gflops": value}])),
    "parse": ("`tier.0.gflops`", lambda value: topology_of({"tier": [{"name": "edge", "gflops": value}]})),
    "with_tier": ("tier.1: `gflops`", lambda value: LINE.with_tier("cloud", gflops=value)),
    "with_link": ("link.0: `bandwidth_mbps`", lambda value: LINE.with_link(0, bandwidth_mbps=value)),
    "with_limits": ("limits: `deadline_ms`", lambda value: LINE.with_limits(deadline_ms=value)),
    "changed": ("`gflops`", lambda value: EDGE.changed(gflops=value)),
    "model_copy": ("`gflops`", lambda value: EDGE.model_copy(update={"gflops": value})),
    "model_validate": ("`gflops`", lambda value: Tier.model_validate({"name": "edge", "gflops": value})),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -1, 1e300, "50", True, [1]], ids=repr)
def test_no_way_lets_an_impossible_figure_in(way: str, value: object) -> None:
    field, make = WAYS[way]
    with pytest.raises(TopologyError) as refused:
        make(value)
    assert field in refused.value.message
    assert "pydantic" not in f"{refused.value.message} {refused.value.hint}"
    if not isinstance(value, list):
        assert repr(value) in refused.value.message
    if value == 0 and not isinstance(value, bool):
        assert refused.value.hint == "give a number above 0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LINE.with_link(0, bandwith_mbps=5), "link.0: `bandwith_mbps` = 5: unknown key"),
        (lambda: LINE.with_link(1, bandwidth_mbps=5), "no link 1: there are 1"),
        (lambda: LINE.with_tier("claud", gflops=5), "no tier 'claud'"),
        (lambda: LINE.with_tier(2, gflops=5), "no tier 2"),
        (lambda: LINE.with_limits(deadline=5), "limits: `deadline` = 5: unknown key"),
        (lambda: LINE.with_tier("cloud", name="edge"), "two tiers are named `edge`"),
        (lambda: Tier("edge"), "give `gflops`"),
        (lambda: Tier(gflops=1), "`name`: field required"),
        (lambda: Topology(tiers=[]), "`tiers`: list should have at least 1 item"),
        (lambda: Topology(tiers=[EDGE, CLOUD]), "2 tiers need 1 link"),
    ],
)
def test_a_mistake_is_an_error_of_ours(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        make()
    assert message in refused.value.message


def test_they_print_in_a_line_and_travel() -> None:
    assert repr(LINE) == str(LINE) == "<Topology edge - 50 Mbit/s - cloud>"
    assert repr(LINE.tiers[0]) == "Tier(name='edge', gflops=13.5)"
    assert pickle.loads(pickle.dumps(LINE)) == LINE == copy.deepcopy(LINE)
