"""`export` and `compose`: files for other engines and machines."""

from __future__ import annotations

from pathlib import Path

import yaml

from .conftest import Run


def test_a_triton_repository(run: Run, slices: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    ended = run("export", "triton", slices, "--tier", "cloud", "-o", out)
    assert (ended.code, ended.out) == (0, f"wrote {out / 'cloud'}\n")
    assert (out / "cloud" / "config.pbtxt").is_file()
    again = run("export", "triton", slices, "--tier", "cloud", "-o", out, "--force", "--json")
    assert again.json == {"output": str(out), "tiers": ["cloud"]}


def test_manifests_of_kserve(run: Run, slices: Path, tmp_path: Path) -> None:
    file = tmp_path / "kserve.yaml"
    words = ("export", "kserve", slices, "--tier", "cloud", "--storage-uri", "pvc://models", "-o", file)
    ended = run(*words, "--namespace", "edge")
    assert (ended.code, ended.out) == (0, f"wrote {file}\n")
    made = [data for data in yaml.safe_load_all(file.read_text()) if data]
    assert {data["metadata"]["namespace"] for data in made} == {"edge"}
    refused = run(*words)
    assert refused.code == 2
    assert f"error: `{file}` exists already" in refused.err
    assert run(*words, "--force", "--json").json == {"output": str(file)}


def test_compose_knows_its_tiers(run: Run, slices: Path, tmp_path: Path) -> None:
    ended = run("compose", slices, "-o", tmp_path / "deploy", "--cuda", "moon")
    assert ended.code == 2
    assert "error: no tier is named `moon`\nhint: the tiers are " in ended.err
    assert not (tmp_path / "deploy").exists()
    made = run("compose", slices, "-o", tmp_path / "deploy", "--cuda", "cloud", "--json")
    assert made.code == 0, made.err
    assert (tmp_path / "deploy" / "docker-compose.yml").is_file()
