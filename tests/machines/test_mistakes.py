"""The usual mistakes in a tiers file: each is answered with what to write instead."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dnnsplit_onnx.errors import ModelError, TopologyError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.suspicions import suspicions
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.tiers_file import load_topology, parse_topology
from dnnsplit_onnx.machines.toml_text import line_of
from dnnsplit_onnx.machines.topology import Link, Topology
from tests.conftest import light

GOOD = """\
[[tier]]
name = "edge"
gflops = 14.4
provider = "cpu"
private = true

[[tier]]
name = "cloud"
gflops = 5850

[[link]]
bandwidth_mbps = 50
delay_ms = 10

[limits]
deadline_ms = 200
private_until = "conv1"
"""

# What is written, in place of what, the line that the message names, and the fix in the hint.
# A fix that is a line of a file is put in, and the file must then be good.
MISTAKES = {
    "misspelt key": ("gflops = 14.4", "glops = 14.4", 3, "did you mean `gflops`?"),
    "another word for it": ("delay_ms = 10", "latency_ms = 10", 13, "did you mean `delay_ms`?"),
    "misspelt table": ("[limits]", "[limit]", 15, "did you mean `[limits]`?"),
    "misspelt list": ("[[link]]", "[[lnk]]", 11, "did you mean `[[link]]`?"),
    "one pair of brackets": ("[[link]]", "[link]", 11, "write [[link]], in two pairs of brackets"),
    "one pair, twice": ("[[tier]]", "[tier]", 7, "write [[tier]], in two pairs of brackets"),
    "two pairs of brackets": ("[limits]", "[[limits]]", 15, "write [limits], in one pair of brackets"),
    "number in quotes": ("gflops = 14.4", 'gflops = "14.4"', 3, "gflops = 14.4"),
    "number with its unit": ("bandwidth_mbps = 50", "bandwidth_mbps = 50 Mbit/s", 12, "bandwidth_mbps = 50"),
    "unit in quotes": ("bandwidth_mbps = 50", 'bandwidth_mbps = "50 Mbit/s"', 12, "bandwidth_mbps = 50"),
    "decimal comma": ("gflops = 14.4", "gflops = 14,4", 3, "gflops = 14.4"),
    "comma in quotes": ("gflops = 14.4", 'gflops = "14,4"', 3, "gflops = 14.4"),
    "text without quotes": ('name = "edge"', "name = edge", 2, 'name = "edge"'),
    "curly quotes": ('name = "edge"', "name = \u201cedge\u201d", 2, 'name = "edge"'),
    "name with a space": ('name = "edge"', 'name = "the edge"', 2, 'name = "the-edge"'),
    "True": ("private = true", "private = True", 5, "private = true"),
    "colon": ("delay_ms = 10", "delay_ms: 10", 13, "delay_ms = 10"),
    "gpu": ('provider = "cpu"', 'provider = "gpu"', 4, "did you mean `cuda`?"),
    "key of another table": ("gflops = 14.4", "gflops = 14.4\ndelay_ms = 1", 4, "belongs under [[link]]"),
    "option of the command line": ("[[tier]]", 'objective = "cost"\n[[tier]]', 1, "--objective cost"),
    "FLOP/s": ("gflops = 14.4", "flops = 14.4e9", 3, "write gflops = 14.4;"),
    "TFLOP/s": ("gflops = 5850", "tflops = 5.85", 9, "write gflops = 5850;"),
    "seconds": ("delay_ms = 10", "delay_s = 0.01", 13, "write delay_ms = 10;"),
    "known device": ("gflops = 14.4", 'preset = "raspberry-pi-4"', 3, "tiers new --edge raspberry-pi-4"),
    "ends of a link": ("delay_ms = 10", 'from = "edge"', 13, "leave it out: the first [[link]] joins"),
    "yes": ("private = true", "private = yes", 5, "private = true"),
    "open quotes": ('name = "edge"', 'name = "edge', 2, 'close the quotes: name = "edge"'),
    "no quotes before": ('name = "edge"', 'name = edge"', 2, 'open the quotes: name = "edge"'),
    "no sign": ("delay_ms = 10", "delay_ms 10", 13, "delay_ms = 10"),
    "thousands": ("gflops = 5850", "gflops = 5,850", 9, "gflops = 5850, or gflops = 5.850 if"),
    "no link": ("[[link]]\nbandwidth_mbps = 50\ndelay_ms = 10\n", "", None, "a [[link]] with bandwidth_mbps"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_its_line_and_the_fix(mistake: str, tmp_path: Path) -> None:
    old, new, line, fix = MISTAKES[mistake]
    assert GOOD.count(old) >= 1
    path = tmp_path / "tiers.toml"
    bad = GOOD.replace(old, new) if mistake == "one pair, twice" else GOOD.replace(old, new, 1)
    path.write_text(bad)
    with pytest.raises(TopologyError) as caught:
        load_topology(path)
    assert fix in (caught.value.hint or ""), caught.value.hint
    if line is None:
        return
    assert re.search(rf"\bline {line}\b", caught.value.message), caught.value.message
    if re.fullmatch(r"\w+ = \S+", fix):
        lines = bad.splitlines()
        lines[line - 1] = fix
        path.write_text("\n".join(lines))
        load_topology(path)


def test_tables_in_the_plural_are_read_and_their_profiles_found(tmp_path: Path) -> None:
    path = tmp_path / "tiers.toml"
    path.write_text('[[tiers]]\nname = "edge"\nprofile = "edge.json"\n')
    assert load_topology(path).tiers[0].profile == str(tmp_path / "edge.json")


def test_the_file_without_mistakes_is_good(tmp_path: Path) -> None:
    path = tmp_path / "tiers.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    topology = load_topology(path)
    assert topology.names == ("edge", "cloud")
    assert suspicions(topology) == ()


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiers.toml"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(TopologyError) as caught:
        load_topology(path)
    assert caught.value.hint == "save the file as UTF-8"


def test_a_model_given_as_tiers_and_tiers_given_as_a_model(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="is an ONNX model, and no tiers file") as caught:
        load_topology(light("squeezenet"))
    assert "MODEL.onnx --tiers tiers.toml" in (caught.value.hint or "")
    path = tmp_path / "tiers.toml"
    path.write_text(f"# Machines of ours, two of them.\n\n{GOOD}")
    with pytest.raises(ModelError, match="is a tiers file, and no model") as refused:
        load_graph(path)
    assert "MODEL.onnx --tiers tiers.toml" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("edge", "cloud", "mbps", "fix"),
    [
        (14.4e9, 5850, 50, "write gflops = 14.4"),
        (14.4, 5850, 50e6 * 10, "write bandwidth_mbps = 500"),
        (5850, 14.4, 50, "turn the order over"),
    ],
)
def test_what_is_possible_and_unlikely_is_noticed(edge: float, cloud: float, mbps: float, fix: str) -> None:
    topology = Topology(
        tiers=[Tier("edge", gflops=edge), Tier("cloud", gflops=cloud)], links=[Link(bandwidth_mbps=mbps)]
    )
    assert any(fix in said for said in suspicions(topology))


def test_a_wish_for_privacy_that_no_tier_keeps_is_noticed() -> None:
    open_tier, link = Tier("cloud", gflops=2), [Link(bandwidth_mbps=1)]
    limits = {"private_until": "conv1"}
    none = Topology(tiers=[Tier("edge", gflops=1), open_tier], links=link, limits=limits)
    assert any("write private = true" in said for said in suspicions(none))
    kept = Topology(tiers=[Tier("edge", gflops=1, private=True), open_tier], links=link, limits=limits)
    assert suspicions(kept) == ()


def test_the_line_of_a_value_wherever_it_stands() -> None:
    text = 'a = """\nb = 1\n"""\nb = 2\nlist = [\n  1,\n  2,\n]\n# c\nc.d = 3\n[[t]]\n[[t]]\nx = {y = 1}\n'
    for keys, line in [
        (["b"], 4),
        (["list", 1], 5),
        (["c", "d"], 10),
        (["t", 1], 12),
        (["t", 1, "x", "y"], 13),
    ]:
        assert line_of(text, keys) == line
    assert line_of(text, ["t", 1, "gone"]) == 12
    assert line_of(text, ["gone"]) is None


@pytest.mark.parametrize(("line", "least"), [("replicas = 0", 1), ("usd_per_hour = -1", 0)])
def test_the_hint_names_the_least_value_there_may_be(line: str, least: int) -> None:
    text = f'[[tier]]\nname = "edge"\ngflops = 1\n{line}\n'
    with pytest.raises(TopologyError) as refused:
        parse_topology(tomllib.loads(text), "tiers.toml")
    assert refused.value.hint == f"give {least} or more"
