"""`tiers`: what it lists, writes, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.schemas import NAMES, schema_text
from tests.cli.conftest import Run

NEW = ("tiers", "new", "--edge", "raspberry-pi-4", "--cloud", "a100")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_list_has_sources_and_rules(run: Run) -> None:
    found = run("tiers", "list", "--json").json
    assert found["rules"]["efficiency"] == 0.3
    by_name = {device["name"]: device for device in found["devices"]}
    assert by_name["raspberry-pi-4"]["gflops"] == 14.4
    assert by_name["a100"]["usd_per_hour"] == by_name["a100"]["tier_usd_per_hour"]
    assert all(device["source"] for device in found["devices"])
    assert {"wifi", "4g", "5g"} <= {link["name"] for link in found["links"]}


@pytest.mark.parametrize("columns", [60, 100])
def test_the_screen_cuts_no_name_or_figure(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = run("tiers", "list")
    assert ended.code == 0
    lines = ended.out.splitlines()
    (row,) = (line for line in lines if line.startswith("jetson-orin-nano"))
    assert row.split()[1:6] == ["627", "6.4", "GB", "25", "0.0132"]
    assert ("NVIDIA Jetson Orin" in row) is (columns > 80)
    assert "Estimates" in ended.out
    assert all(len(line) <= columns for line in lines if not line.startswith("next:"))


def test_a_file_that_plan_takes(run: Run) -> None:
    ended = run(*NEW)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "wrote tiers.toml and tiers.schema.json\n"
    topology = load_topology("tiers.toml")
    assert topology.names == ("edge", "cloud")
    assert topology.tiers[1].provider == "cuda"
    assert Path("tiers.schema.json").read_text() == schema_text("tiers")
    assert run("plan", "zoo:tiny_residual", "--tiers", "tiers.toml", "--bind", "batch=1").code == 0


def test_three_tiers_and_links_of_ones_own(run: Run) -> None:
    near = (*NEW, "--near-edge", "x86-server")
    assert run(*near, "--no-schema", "--link", "5g", "--link", "ethernet-1g").code == 0
    topology = load_topology("tiers.toml")
    assert topology.names == ("edge", "near-edge", "cloud")
    assert [link.bandwidth_mbps for link in topology.links] == [14.6, 949]
    assert not Path("tiers.schema.json").exists()
    bandwidths = ("--bandwidth-mbps", "7.5", "--bandwidth-mbps", 1000)
    assert run(*near, *bandwidths, "-o", "sub/t.toml").code == 0
    links = load_topology("sub/t.toml").links
    assert [(link.bandwidth_mbps, link.down_mbps, link.delay_ms) for link in links] == [
        (7.5, None, 3),
        (1000, None, 10),
    ]
    assert Path("sub/tiers.schema.json").exists()


def test_nothing_is_lost(run: Run) -> None:
    assert run(*NEW).code == 0
    before = Path("tiers.toml").read_text()
    ended = run(*NEW, "--bandwidth-mbps", 1)
    assert ended.code == 2
    assert ended.err.startswith("error: `tiers.toml` exists already\n")
    assert Path("tiers.toml").read_text() == before
    # A schema of an earlier release gives way; a file that only has its name does not.
    old = json.loads(schema_text("tiers"))
    del old["properties"]["limits"]
    Path("tiers.schema.json").write_text(json.dumps(old))
    assert run(*NEW, "-o", "b.toml").code == 0
    assert Path("tiers.schema.json").read_text() == schema_text("tiers")
    for text in ("{}", "[]", "mine"):
        Path("tiers.schema.json").write_text(text)
        ended = run(*NEW, "-o", "c.toml")
        assert ended.code == 2
        assert "`tiers.schema.json` exists already" in ended.err
        assert not Path("c.toml").exists()
    assert run(*NEW, "-o", "c.toml", "--force").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--edge", "pi"), "no device is named `pi`"),
        (("--edge", "l4", "--cloud", "t4", "--link", "x"), "no link is named `x`"),
        (("--edge", "l4", "--link", "4g"), "`--link` is given 1 time for 1 tier"),
        (
            ("--edge", "l4", "--cloud", "t4", "--link", "4g", "--link", "5g"),
            "`--link` is given 2 times for 2 tiers",
        ),
        (("--edge", "l4", "--cloud", "t4", "--bandwidth-mbps", "0"), "`--bandwidth-mbps 0` is no bandwidth"),
        (("--edge", "l4", "--cloud", "t4", "--bandwidth-mbps", "inf"), "`--bandwidth-mbps inf` is no"),
        (("--cloud", "t4"), "missing option `--edge`"),
    ],
)
def test_wrong_usage(run: Run, words: tuple[str, ...], message: str) -> None:
    ended = run("tiers", "new", *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert "\nhint: " in ended.err
    assert not Path("tiers.toml").exists()


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_printed(run: Run, name: str) -> None:
    assert run("tiers", "schema", name).out == schema_text(name)


def test_the_schema_that_is_meant_without_a_name(run: Run) -> None:
    assert run("tiers", "schema").out == schema_text("tiers")
    assert run("tiers", "schema", "wheels").code == 2
