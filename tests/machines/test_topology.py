"""tiers.toml: what it may say, and what is said of mistakes."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.machines.tiers_file import load_topology

GOOD = """
[[tier]]
name = "edge"
gflops = 13.5
usd_per_hour = 0.006
memory_gb = 4
watts = 6.4

[[tier]]
name = "cloud"
gflops = 19500
usd_per_hour = 4.10
provider = "cuda"

[[link]]
bandwidth_mbps = 50
delay_ms = 10
usd_per_hour = 0.028

[limits]
deadline_ms = 200
budget_usd = 1e-4
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        path = tmp_path / "tiers.toml"
        path.write_text(text)
        return load_topology(path)

    return load


def test_a_good_file(load):
    topology = load(GOOD)
    assert topology.names == ("edge", "cloud")
    assert topology.tiers[0].memory_gb == 4
    assert topology.tiers[1].usd_per_s == pytest.approx(4.10 / 3600)
    assert topology.links[0].down_mbps is None
    assert topology.limits.deadline_ms == 200
    assert not topology.limits.return_output


def test_one_tier_needs_no_link(load):
    assert load('[[tier]]\nname = "only"\ngflops = 1').names == ("only",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gflops = 13.5", "gflop = 13.5", r"`tier.0.gflop` = 13.5: unknown key"),
        ("bandwidth_mbps = 50", "bandwith_mbps = 50", r"`link.0.bandwith_mbps` = 50: unknown key"),
        ("watts = 6.4", "wats = 6.4", r"`tier.0.wats` = 6.4: unknown key"),
        ("[limits]", "[limit]", "`limit`: unknown key"),
        ("bandwidth_mbps = 50", "bandwidth_mbps = nan", r"`link.0.bandwidth_mbps` = nan"),
        ("bandwidth_mbps = 50", "bandwidth_mbps = inf", r"`link.0.bandwidth_mbps` = inf"),
        ("bandwidth_mbps = 50", "bandwidth_mbps = 0", r"`link.0.bandwidth_mbps` = 0"),
        ("bandwidth_mbps = 50", "bandwidth_mbps = -1", r"`link.0.bandwidth_mbps` = -1"),
        ("bandwidth_mbps = 50", 'bandwidth_mbps = "50"', r"`link.0.bandwidth_mbps` = '50'"),
        ("bandwidth_mbps = 50", "bandwidth_mbps = true", r"`link.0.bandwidth_mbps` = True"),
        ("delay_ms = 10", "delay_ms = -0.1", r"`link.0.delay_ms` = -0.1"),
        ("usd_per_hour = 0.028", "usd_per_hour = 1\nusd_per_gb = 1", "not both"),
        ('name = "cloud"', 'name = "Edge"', "two tiers are named `edge`"),
        ('name = "cloud"', 'name = "../cloud"', r"`tier.1.name` = '../cloud'"),
        ('provider = "cuda"', 'provider = "tpu"', r"`tier.1.provider` = 'tpu'"),
        (
            "[limits]",
            "[[link]]\nbandwidth_mbps = 1\n[limits]",
            "2 tiers need 1 link between them; there are 2",
        ),
        ("deadline_ms = 200", "deadline_ms = nan", r"`limits.deadline_ms` = nan"),
        ("[[tier]]", "[[tier", "is not TOML"),
    ],
)
def test_mistakes_are_named_with_file_key_and_value(load, old, new, message):
    assert old in GOOD
    with pytest.raises(TopologyError, match=message) as caught:
        load(GOOD.replace(old, new, 1))
    assert "tiers.toml" in caught.value.message


def test_unknown_keys_list_the_known_ones(load):
    with pytest.raises(TopologyError) as caught:
        load(GOOD.replace("watts", "wats"))
    assert "watts" in (caught.value.hint or "")


def test_no_tiers_and_no_file(load, tmp_path):
    with pytest.raises(TopologyError, match="tier"):
        load("")
    with pytest.raises(TopologyError, match="no such file"):
        load_topology(tmp_path / "gone.toml")
    with pytest.raises(TopologyError, match="cannot read"):
        load_topology(tmp_path)


def test_limits_can_be_replaced(load):
    topology = load(GOOD).with_limits(deadline_ms=5)
    assert topology.limits.deadline_ms == 5.0
    assert topology.limits.budget_usd == 1e-4
    with pytest.raises(TopologyError, match="deadline_ms"):
        topology.with_limits(deadline_ms=-1.0)


def test_a_tier_has_one_speed(load):
    roofline = "gflops = 13.5\nmemory_gb_per_s = 4.5\noverhead_us = 3"
    assert load(GOOD.replace("gflops = 13.5", roofline)).tiers[0].overhead_us == 3
    with pytest.raises(TopologyError, match=r"`gflops`.*or `profile`"):
        load(GOOD.replace("gflops = 13.5", ""))
    with pytest.raises(TopologyError, match=r"`gflops`.*or `profile`"):
        load(GOOD.replace("gflops = 13.5", 'gflops = 13.5\nprofile = "p.json"'))
    with pytest.raises(TopologyError, match="no room"):
        load(GOOD.replace("gflops = 13.5", 'overhead_us = 3\nprofile = "p.json"'))


def test_profiles_are_named_relative_to_the_file(load, tmp_path):
    topology = load(GOOD.replace("gflops = 13.5", 'profile = "edge.json"'))
    assert topology.tiers[0].profile == str(tmp_path / "edge.json")
