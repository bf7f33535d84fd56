"""`report`: a page from a folder of slices, or a reason why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.serving.web.node import chromium_program

SPLIT = ("--bind", "batch=1", "--at", "block1_add")


@pytest.fixture
def folder(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> Path:
    """Slices that were verified, with the model they were made from beside them."""
    shutil.copy(tiny, tmp_path / "model.onnx")
    made = tmp_path / "slices"
    assert run("split", tmp_path / "model.onnx", "--tiers", tiers, *SPLIT, "-o", made, "--json").code == 0
    return made


def test_a_page_of_a_split(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("report", folder, "-o", tmp_path / "r.html")
    assert (ended.code, ended.out) == (0, f"wrote {tmp_path / 'r.html'}\n")
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "Verified: the chain equals the whole model bit for bit" in page
    assert "If a link changes" in page
    assert str(tmp_path) not in page.partition('id="again"')[0]
    again = run("report", folder, "-o", tmp_path / "again.html")
    assert again.code == 0
    assert (tmp_path / "again.html").read_text() == page


def test_it_takes_what_bench_prints(run: Run, folder: Path, tmp_path: Path) -> None:
    measured = run("bench", folder, "--runs", "2", "--json")
    (tmp_path / "bench.json").write_text(measured.out)
    ended = run("report", folder, "-o", tmp_path / "r.html", "--bench", tmp_path / "bench.json")
    assert ended.code == 0
    assert "Predicted and measured" in (tmp_path / "r.html").read_text()


def test_a_page_is_not_replaced_unasked(run: Run, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("mine")
    refused = run("report", folder, "-o", page)
    assert refused.code == 2
    assert "hint: pass --force to replace it" in refused.err
    assert page.read_text() == "mine"
    assert run("report", folder, "-o", page, "--force").code == 0
    assert page.read_text() != "mine"


def test_no_manifest(run: Run, tmp_path: Path) -> None:
    ended = run("report", tmp_path, "-o", tmp_path / "r.html")
    assert ended.code == 2
    assert ended.err.startswith("error: no manifest: ")
    assert not (tmp_path / "r.html").exists()


def test_a_model_that_was_moved(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").rename(tmp_path / "moved.onnx")
    lost = run("report", folder, "-o", tmp_path / "r.html")
    assert lost.code == 2
    assert "hint: pass the model that was split: --model MODEL" in lost.err
    assert not (tmp_path / "r.html").exists()
    ended = run("report", folder, "-o", tmp_path / "r.html", "--model", tmp_path / "moved.onnx")
    assert ended.code == 0


def test_another_model(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("report", folder, "-o", tmp_path / "r.html", "--model", folder / "edge" / "model.onnx")
    assert ended.code == 2
    assert "its checksum differs" in ended.err


def test_what_is_no_benchmark(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("report", folder, "-o", tmp_path / "r.html", "--bench", folder / "manifest.json")
    assert ended.code == 2
    assert "hint: write one with `dnnsplit-onnx bench DIR --json > bench.json`" in ended.err
    assert run("report", folder, "-o", tmp_path / "r.html", "--bench", tmp_path / "no.json").code == 2


def test_a_manifest_without_tiers_takes_a_file_of_them(
    run: Run, folder: Path, tiers: Path, tmp_path: Path
) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    del data["plan"]["topology"]
    (folder / "manifest.json").write_text(json.dumps(data))
    assert run("report", folder, "-o", tmp_path / "without.html").code == 0
    assert "nothing can be planned again" in (tmp_path / "without.html").read_text()
    assert run("report", folder, "-o", tmp_path / "with.html", "--tiers", tiers).code == 0
    assert "The best plan" in (tmp_path / "with.html").read_text()


def test_cuts_that_are_no_positions_of_the_order(run: Run, tiers: Path, tmp_path: Path) -> None:
    # One branch of the first block without those before it makes an order of its own, which
    # only the manifest holds.
    words = ("split", "zoo:light_inception_v1", "--tiers", tiers, "--no-verify", "--json")
    assert run(*words, "--at", "n9+n11", "-o", tmp_path / "slices").code == 0
    data = json.loads((tmp_path / "slices" / "manifest.json").read_text())
    assert data["plan"]["order"] == "custom"
    assert sorted(data["node_order"]) != data["node_order"]
    assert run("report", tmp_path / "slices", "-o", tmp_path / "r.html").code == 0
    assert "counted otherwise" not in (tmp_path / "r.html").read_text()
    data["node_order"] = data["plan"]["node_order"] = data["plan"]["order_digest"] = None
    (tmp_path / "slices" / "manifest.json").write_text(json.dumps(data))
    ended = run("report", tmp_path / "slices", "-o", tmp_path / "other.html")
    assert ended.code == 2
    assert "an order of its own" in ended.err


def test_verification_is_recorded_only_where_it_ran(
    run: Run, tiny: Path, tiers: Path, tmp_path: Path
) -> None:
    words = ("split", tiny, "--tiers", tiers, *SPLIT, "-o")
    assert run(*words, tmp_path / "one").code == 0
    assert run(*words, tmp_path / "two", "--no-verify").code == 0
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert one["verification"]["passed"] is True
    assert two["verification"] is None
    assert {**one, "verification": None} == two


def test_a_pdf_is_printed_where_there_is_a_browser(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chromium_program() is not None:
        assert run("report", folder, "-o", tmp_path / "r.pdf").code == 0
        assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF-")
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run("report", folder, "-o", tmp_path / "other.pdf")
    assert ended.code == 2
    assert "a PDF needs Chromium or Chrome" in ended.err
    assert "hint: write the page, -o report.html" in ended.err
    assert not (tmp_path / "other.pdf").exists()
