"""Writes tests/data/vN/: small files of each format, as this release writes them.

    .venv/bin/python scripts/lib/samples.py

Run it once, when a schema version goes up, and commit what it makes; never run it again for
that version. `tests/test_old_files.py` reads the files of all versions for ever.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from dnnsplit_onnx.cli.app import main
from dnnsplit_onnx.machines import profiles
from dnnsplit_onnx.planning import plans
from dnnsplit_onnx.slicing import manifest

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
TIERS = """\
[[tier]]
name = "edge"
{edge}
usd_per_hour = 0.006
watts = 6.4

[[tier]]
name = "cloud"
gflops = 10
usd_per_hour = 4.1
watts = 300

[[link]]
bandwidth_mbps = 50
delay_ms = 0.1
usd_per_hour = 0.028
watts = 1
"""


def version() -> int:
    """The highest schema version of any format."""
    return max(manifest.SCHEMA_VERSION, plans.SCHEMA_VERSION, profiles.SCHEMA_VERSION)


def write_model(folder: Path) -> Path:
    """A residual block with an external weight, an inline one and a symbolic batch."""
    random = np.random.default_rng(0)
    large, small = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 16), (16, 4)))
    outside = T(name="w", data_type=T.FLOAT, dims=large.shape, data_location=T.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", 0), ("length", large.nbytes)):
        outside.external_data.add(key=key, value=str(value))
    (folder / "weights.bin").write_bytes(large.tobytes())
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        h.make_node("Relu", ["a"], ["b"], name="relu"),
        h.make_node("Add", ["b", "x"], ["c"], name="skip"),
        h.make_node("MatMul", ["c", "v"], ["d"], name="second"),
        h.make_node("Softmax", ["d"], ["y"], name="out"),
    ]
    x, y = (h.make_tensor_value_info(name, T.FLOAT, ["batch", side]) for name, side in (("x", 16), ("y", 4)))
    graph = h.make_graph(nodes, "sample", [x], [y], [outside, numpy_helper.from_array(small, "v")])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def write(folder: Path) -> None:
    """All files of one version; the commands make them, from within, so that no path is absolute."""
    with contextlib.chdir(folder):
        model = str(write_model(Path()))
        Path("tiers.toml").write_text(TIERS.format(edge="gflops = 0.001"), encoding="utf-8")
        measured = TIERS.format(edge='profile = "edge.profile.json"')
        Path("measured.toml").write_text(measured, encoding="utf-8")
        bind = ["--bind", "batch=2"]
        about = [model, "--tiers", "tiers.toml", *bind]
        commands = [
            ["profile", model, "--tier", "edge", "--runs", "3", "-o", "edge.profile.json", *bind],
            ["plan", *about, "-o", "plan.json"],
            ["split", *about, "--at", "3", "--all-candidates", "-o", "slices"],
        ]
        for words in commands:
            if main(words):
                sys.exit(f"failed: {' '.join(words)}")


if __name__ == "__main__":
    target = DATA / f"v{version()}"
    if target.exists():
        sys.exit(f"error: {target} is there already, and old files are never made again")
    target.mkdir(parents=True)
    write(target)
