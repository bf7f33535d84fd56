"""The same inputs give the same bytes: on every run, in every process, under every hash seed.

Sets of strings iterate in an order that depends on PYTHONHASHSEED, so a forgotten `sorted`
shows between processes and nowhere else. Figures are a function of the model and the tiers:
no file holds a date, a duration or the machine's name, and a model's path is written relative
to the folder of slices. (Profiles are measurements, and are not part of this promise.)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.cli.app import main
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import slice_all_candidates, slice_model
from tests.slicing.chain import plan_at
from tests.slicing.constructs import CONSTRUCTS

ROOT = Path(__file__).parents[1]
TIERS = ROOT / "examples" / "tiers.toml"
ZOO = ("zoo:tiny_residual", "zoo:tiny_transformer", "zoo:light_squeezenet", "zoo:light_densenet121")
#: These are split with all candidates and proved, too; the others have too many, or are slow.
PROVED = ("zoo:tiny_residual", "zoo:tiny_transformer")
OBJECTIVES = ("latency", "cost", "throughput")


def everything(folder: Path) -> dict[str, str]:
    """Plans and slices of many models, as the SHA-256 of all that is printed and written.

    Args:
        folder: Holds `*.onnx` of constructs; what is made goes below it.
    """
    made: dict[str, str] = {}
    for name in ZOO:
        for objective in OBJECTIVES:
            words = ["plan", *about(name), "--objective", objective, "--json"]
            made[f"{name} {objective}"] = digest(printed(words).encode())
    for name in PROVED:
        out = folder / name.replace(":", "-")
        words = ["split", *about(name), "--all-candidates", "--json", "-o", str(out)]
        made[f"{name} printed"] = digest(printed(words).replace(str(folder), "").encode())
        made |= tree(out)
    for path in sorted(folder.glob("*.onnx")):
        graph = load_graph(path)
        middle = len(graph.nodes) // 2
        slice_model(graph, plan_at(graph, (middle,)), folder / path.stem)
        slice_all_candidates(graph, plan_at(graph, (middle,)), (min(1, middle),), folder / f"{path.stem}-all")
        made |= tree(folder / path.stem) | tree(folder / f"{path.stem}-all")
    return made


def about(name: str) -> list[str]:
    """A model of the zoo and the tiers, as arguments."""
    batch = ["--bind", "batch=1"] if name.startswith("zoo:tiny") else []
    return [name, "--tiers", str(TIERS), *batch]


def printed(words: list[str]) -> str:
    """What a command prints to stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    assert code == 0, words
    return out.getvalue()


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder.parent).as_posix(): digest(path.read_bytes()) for path in files}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_constructs(folder: Path) -> None:
    """Functions, subgraphs, shared weights and the rest, one small model each."""
    for name, construct in CONSTRUCTS.items():
        built, _ = construct()
        (folder / f"{name}.onnx").write_bytes(built.SerializeToString(deterministic=True))


def in_process(folder: Path, seed: str) -> dict[str, str]:
    """`everything`, in a fresh interpreter with a hash seed."""
    code = (
        "import json, sys; from pathlib import Path; from tests.test_determinism import everything; "
        "json.dump(everything(Path(sys.argv[1])), sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_same_bytes_under_every_hash_seed_and_again(tmp_path: Path) -> None:
    runs = {}
    for name in ("0", "1", "4242", "here", "again"):
        # Folders of one length of name: the paths in manifests are relative, but they are there.
        folder = tmp_path / f"run-{name:>6}" / "models"
        folder.mkdir(parents=True)
        write_constructs(folder)
        runs[name] = in_process(folder, name) if name.isdigit() else everything(folder)
    first = runs["0"]
    assert sum(name.endswith("manifest.json") for name in first) > len(CONSTRUCTS)
    for name, found in runs.items():
        assert found.keys() == first.keys(), name
        assert [key for key in first if found[key] != first[key]] == [], f"run {name} differs from seed 0"


def test_a_difference_would_be_noticed(tmp_path: Path) -> None:
    # Two processes that write a set of strings as they meet it; some seeds must differ.
    code = "print(*{f'name{at}' for at in range(50)})"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(texts) > 1


def test_no_file_names_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.onnx"
    path.parent.mkdir()
    onnx.save(CONSTRUCTS["skip_connections"]()[0], path)
    graph = load_graph(path)
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "deep" / "out")
    text = (tmp_path / "deep" / "out" / "manifest.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert json.loads(text)["model"]["path"] == "../m.onnx"


def test_paths_have_forward_slashes(tmp_path: Path) -> None:
    printed(["split", *about("zoo:tiny_residual"), "--all-candidates", "--json", "-o", str(tmp_path / "o")])
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text(encoding="utf-8"))
    records = [*manifest["slices"], *manifest["candidates"]]
    files = [record["file"] for record in records if record["file"]]
    files += [data["file"] for record in records for data in record["data"]]
    assert files
    for name in [*files, manifest["model"]["path"]]:
        assert "\\" not in name
    for name in files:
        assert (tmp_path / "o").joinpath(*name.split("/")).is_file()


@pytest.mark.parametrize("bad", ["..\\m.onnx", "a\\b.onnx", "/abs.onnx", "../m.onnx", "C:\\m.onnx"])
def test_other_paths_are_refused(bad: str, tmp_path: Path) -> None:
    from dnnsplit_onnx.errors import ManifestError
    from dnnsplit_onnx.slicing.manifest import load_manifest

    path = tmp_path / "m.onnx"
    onnx.save(CONSTRUCTS["skip_connections"]()[0], path)
    graph = load_graph(path)
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    manifest["slices"][0]["file"] = bad
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ManifestError):
        load_manifest(tmp_path / "out")
