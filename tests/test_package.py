"""The package from outside: what the wheel holds, what importing it loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from typing import Any

import pytest

from tests.pages import load_script

rooms = load_script("rooms")
ROOT = rooms.ROOT
# Source folder of each part of the package, and its name once installed.
PARTS = {source: package.replace(".", "/") for source, package in rooms.PARTS.items()}
HEAVY = ("torch", "tensorflow", "keras", "onnxruntime", "matplotlib", "transformers")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy, so that building leaves nothing in the tree."""
    tree = tmp_path_factory.mktemp("tree") / "source"
    tree.mkdir()
    for name in (*PARTS, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tree.parent, tree]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = tree.parent.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = set()
    for source, target in PARTS.items():
        files = (path for path in (ROOT / source).rglob("*") if path.is_file())
        kept = (path for path in files if "__pycache__" not in path.parts)
        expected |= {f"{target}/{path.relative_to(ROOT / source).as_posix()}" for path in kept}
    assert {"dnnsplit_onnx/py.typed", "dnnsplit_onnx/machines/devices.toml"} < expected
    names = set(wheel.namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == expected
    assert {name.split("/", 1)[1] for name in info} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }
    top = next(name for name in info if name.endswith("top_level.txt"))
    assert wheel.read(top).decode().split() == ["dnnsplit_onnx"]


def test_the_license_is_the_whole_text(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    text = wheel.read(name).decode()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    # setuptools finds packages by itself only where folders are named as packages are.
    found = {name for name, path in rooms.modules() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_a_runtime_is_the_users_choice(project: dict[str, Any]) -> None:
    assert not any("onnxruntime" in wanted for wanted in project["project"]["dependencies"])
    assert project["tool"]["uv"]["conflicts"] == [[{"extra": "cpu"}, {"extra": "gpu"}]]


def test_pins_are_exact_and_name_no_address() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running some code."""
    report = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import dnnsplit_onnx",
        "from dnnsplit_onnx import load_graph, load_topology, plan, evaluate, slice_model, verify, bench",
        "import dnnsplit_onnx.cli",
        "import dnnsplit_onnx.models, dnnsplit_onnx.converters",
    ],
)
def test_importing_is_light(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_the_package_alone_loads_no_library() -> None:
    assert not loaded_by("import dnnsplit_onnx") & {"onnx", "numpy", "networkx", "pydantic", "rich", "typer"}


def test_the_command_line_alone_reads_no_model() -> None:
    assert not loaded_by("import dnnsplit_onnx.cli") & {"onnx", "numpy", "networkx", "pydantic", "rich"}


#: Rooms and libraries that a plain `plan` or `inspect` has no use for: each would cost every start.
NOT_TO_PLAN = {
    "networkx",
    "scipy",
    "asyncio",
    "http",
    "dnnsplit_onnx.converters",
    "dnnsplit_onnx.measuring",
    "dnnsplit_onnx.running",
    "dnnsplit_onnx.serving",
    "dnnsplit_onnx.slicing",
    "dnnsplit_onnx.planning.cascades",
    "dnnsplit_onnx.planning.comparing",
    "dnnsplit_onnx.planning.rivals",
    "dnnsplit_onnx.planning.sensitivity",
    "dnnsplit_onnx.planning.sharing",
    "dnnsplit_onnx.planning.sweeping",
    "dnnsplit_onnx.reporting.page",
    "dnnsplit_onnx.reporting.plan_html",
    "dnnsplit_onnx.work.tiling",
    *HEAVY,
}


@pytest.mark.parametrize(
    "words", [["plan", "--tiers", "examples/tiers.toml"], ["inspect"]], ids=["plan", "inspect"]
)
def test_a_plain_command_loads_what_it_needs(words: list[str]) -> None:
    arguments = [words[0], "zoo:light_resnet50", *words[1:]]
    code = (
        f"import sys\nfrom dnnsplit_onnx.cli import main\nassert main({arguments}) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "dnnsplit_onnx.work.analysis" in loaded
    assert not loaded & NOT_TO_PLAN


def test_heavy_imports_are_noticed() -> None:
    # The test above would be worth nothing if it could not fail.
    assert "onnxruntime" in loaded_by("import dnnsplit_onnx, onnxruntime")
    assert "onnxruntime" in loaded_by("from dnnsplit_onnx.runtime.provider import runtime\nruntime()")


def test_public_names_are_there() -> None:
    import dnnsplit_onnx

    for name in dnnsplit_onnx.__all__:
        assert getattr(dnnsplit_onnx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dnnsplit_onnx.nothing


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    first = text.index("./scripts/demo")
    assert first < text.index("pip install")
    assert first < text.index("./scripts/test")
    assert "pip install 'dnnsplit-onnx[cpu]'" in text


def test_what_pages_teach_is_public() -> None:
    import dnnsplit_onnx
    from dnnsplit_onnx import errors as errors_module

    for name in (
        "sweep",
        "compare",
        "profile",
        "bench",
        "report",
        "serve",
        "Chain",
        "Steps",
        "Edge",
        "AsyncEdge",
    ):
        assert name in dnnsplit_onnx.__all__
    errors = [
        name
        for name, thing in vars(errors_module).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    assert set(errors) <= set(dnnsplit_onnx.__all__)
