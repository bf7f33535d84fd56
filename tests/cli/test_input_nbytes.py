"""`input_nbytes` in a tiers file, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import TIERS, Run

MODEL = "zoo:light_squeezenet"
INPUT = "data_0"  # float[1, 3, 224, 224], 602,112 bytes


def test_a_plan_prices_the_encoded_input_and_says_so(run: Run, tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(f"{TIERS}\n[input_nbytes]\n{INPUT} = 20_000\n")
    ended = run("plan", MODEL, "--tiers", tiers, "--at", "0", "--json")
    assert ended.code == 0
    assert ended.json["links"][0]["nbytes"] == 20_000
    assert ended.json["single_tier"][1]["latency_s"] == pytest.approx(ended.json["latency_s"])
    shown = run("plan", MODEL, "--tiers", tiers, "--at", "0")
    assert "20,000 bytes" in shown.out + shown.err
    assert "602,112 bytes" in shown.out + shown.err


def test_a_misspelt_input_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.toml"
    tiers.write_text(f"{TIERS}\n[input_nbytes]\ndata_1 = 20_000\n")
    ended = run("plan", MODEL, "--tiers", tiers)
    assert ended.code == 2
    assert ended.out == ""
    assert "`data_1`" in ended.err
    assert f"did you mean `{INPUT}`?" in ended.err
