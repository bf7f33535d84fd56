"""Pins, prefixes and private tiers, from the tiers file to the plan."""

from __future__ import annotations

from typing import Any

import pytest

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.rules import rules_of

# x -> a -> b -> c -> d, and x goes around b to c.
MODEL = """
m (float[1000] x) => (float[1000] d)
{
    [first] a = Exp(x)
    [second] b = Exp(a)
    [third] c = Add(b, x)
    [fourth] d = Exp(c)
}
"""
HEADER = 'ir_version: 10, opset_import: ["" : 21]'


@pytest.fixture
def graph(graph_text):
    return graph_text(MODEL, header=HEADER)


def tiers(edge: dict[str, Any], cloud: dict[str, Any] | None = None, **limits: Any) -> Topology:
    """A slow edge and a fast cloud, with a link that costs nearly nothing."""
    table = {
        "tier": [
            {"name": "edge", "gflops": 1.0, **edge},
            {"name": "cloud", "gflops": 1000.0, **(cloud or {})},
        ],
        "link": [{"bandwidth_mbps": 1e9}],
        "limits": limits,
    }
    return parse_topology(table, "tiers.toml")


def test_no_rules(graph) -> None:
    assert rules_of(graph, tiers({})) is None


@pytest.mark.parametrize(
    ("topology", "positions"),
    [
        (tiers({"pin": ["second"]}), [2, 3, 4]),
        (tiers({"pin": ["b"]}), [2, 3, 4]),  # a value: the node that makes it
        (tiers({}, {"pin": ["second"]}), [0, 1]),
        (tiers({"pin": ["first"]}, {"pin": ["fourth"]}), [1, 2, 3]),
        (tiers({"min_prefix": 3}), [3, 4]),
        (tiers({"max_prefix": 1}), [0, 1]),
        (tiers({"max_prefix": 0}), [0]),
        (tiers({}, {"max_prefix": 2}), []),  # the whole model runs on the last tier or below
        (tiers({"min_prefix": 9}), [4]),  # more nodes than there are: all of them
        (tiers({"private": True}), [4]),
        (tiers({"private": True}, private_until="third"), [3, 4]),
        # x itself is still live after `second`, and after `first`: it may not cross.
        (tiers({"private": True}, private_until="second"), [4]),
        (tiers({"private": True}, private_until="d"), [4]),
        (tiers({}, {"private": True}), [0, 1, 2, 3, 4]),  # nothing lies above the last tier
        (tiers({"private_inputs": ["x"]}, private_until="third"), [3, 4]),
    ],
)
def test_positions(graph, topology: Topology, positions: list[int]) -> None:
    rules = rules_of(graph, topology)
    assert rules is not None
    assert rules.positions()[0].nonzero()[0].tolist() == positions


def test_plans_keep_the_rules(graph) -> None:
    assert plan(graph, tiers({})).cuts == (0,)
    assert plan(graph, tiers({"pin": ["second"]})).cuts == (2,)
    assert plan(graph, tiers({"private": True}, private_until="third")).cuts == (3,)
    given = plan(graph, tiers({"pin": ["second"]}), cuts=(1,))
    assert not given.feasible
    assert "forbids link 0 to be cut at 1" in given.violations[0]


def test_unknown_names_are_refused_with_a_guess(graph) -> None:
    with pytest.raises(TopologyError) as error:
        plan(graph, tiers({"pin": ["secnd"]}))
    assert error.value.message == "`tier.edge.pin` = 'secnd': the model has no node or value of this name"
    assert error.value.hint == "did you mean `second`?"
    with pytest.raises(TopologyError, match="is a model input"):
        plan(graph, tiers({"pin": ["x"]}))


def test_rules_that_contradict_each_other(graph) -> None:
    with pytest.raises(InfeasibleError) as error:
        plan(graph, tiers({"pin": ["fourth"]}, {"pin": ["second"]}))
    assert error.value.message.endswith("`fourth` pinned to `edge` and `second` pinned to `cloud`")
    with pytest.raises(InfeasibleError, match="is pinned to tier `edge` and to tier `cloud`"):
        plan(graph, tiers({"pin": ["second"]}, {"pin": ["b"]}))
    with pytest.raises(InfeasibleError, match="because of private data and `second` pinned to `cloud`"):
        plan(graph, tiers({"private": True}, {"pin": ["second"]}, private_until="third"))


def test_a_single_tier_keeps_its_prefix(graph) -> None:
    alone = {"tier": [{"name": "edge", "gflops": 1.0, "max_prefix": 3}]}
    with pytest.raises(InfeasibleError, match="leaves 1 nodes nowhere to run"):
        plan(graph, parse_topology(alone, "t"))


def test_private_inputs_are_inputs(graph) -> None:
    with pytest.raises(TopologyError, match="no input of this name") as error:
        plan(graph, tiers({"private_inputs": ["a"]}))
    assert error.value.hint == "its inputs are x"


def test_a_link_sends_no_more_than_its_cap(graph) -> None:
    capped = tiers({})
    link = capped.links[0].model_copy(update={"max_mb": 0.004})
    at_cap = capped.model_copy(update={"links": (link,)})
    assert plan(graph, at_cap).cuts == (0,)  # 1,000 floats are 4,000 bytes
    link = link.model_copy(update={"max_mb": 0.003999})
    below_cap = capped.model_copy(update={"links": (link,)})
    assert plan(graph, below_cap).cuts == (4,)
    with pytest.raises(InfeasibleError, match=r"max_mb = 0\.003999"):
        plan(graph, below_cap.model_copy(update={"tiers": tiers({}, {"pin": ["d"]}).tiers}))


def test_memory_limits_the_edge_and_says_what_would_do(graph) -> None:
    # While `first` runs the edge holds x and a, 8 kB; while `second` runs, x, a and b, 12 kB.
    pinned = {"pin": ["second"]}
    fits = tiers({**pinned, "memory_gb": 12e-6})
    chosen = plan(graph, fits)
    assert chosen.cuts == (2,)
    assert chosen.figures.stages[0].memory_nbytes == 12_000
    with pytest.raises(InfeasibleError) as error:
        plan(graph, tiers({**pinned, "memory_gb": 11.999e-6}))
    assert "edge: 1.1999e-05 GB" in error.value.message
    assert (
        error.value.hint == "the nearest that can be met: memory_gb = 1.2e-05 on tier `edge` (1e-09 GB more)"
    )
    given = plan(graph, tiers({"memory_gb": 8e-6}), cuts=(2,))
    assert given.violations == ("tier `edge` needs 1.2e-05 GB of memory, 4e-06 GB more than it has",)
