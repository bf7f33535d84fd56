"""`export` and `compose`: files for other engines and machines."""

from __future__ import annotations

from pathlib import Path

import yaml

from dnnsplit_onnx.serving.web.runtime import WASM, WEBGPU

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


def test_a_page_for_browsers(run: Run, slices: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "dist"
    runtime.mkdir()
    for name in (*WASM, *WEBGPU):
        (runtime / name).write_bytes(b"export {};\n")
    site = tmp_path / "site"
    words = ("export", "web", slices, "-o", site, "--ort-web", runtime)
    ended = run(*words, "--url", "https://near:8000")
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"wrote {site}: tier `")
    assert "https://near:8000" in (site / "index.html").read_text()
    again = run(*words, "--no-webgpu", "--force", "--json")
    assert again.json["output"] == str(site)
    assert again.json["nbytes"] == sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    refused = run(*words, "--tier", "moon", "--force")
    assert refused.code == 2
    assert "error: no tier is named `moon`\nhint: the tiers are " in refused.err
