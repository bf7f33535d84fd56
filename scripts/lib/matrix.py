"""The matrix of small models: each is converted, compared at three sizes, split in three and verified.

    python scripts/lib/matrix.py keras-torch|keras-tf|pytorch|transformers RESULTS [PATTERN]

One family a process, since Keras fixes its backend when it is imported. One JSON object a line.
"""

from __future__ import annotations

import fnmatch
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx import load_topology, plan, slice_model, verify
from dnnsplit_onnx.converters import Conversion
from dnnsplit_onnx.converters.adapter import RouteName
from dnnsplit_onnx.converters.conversion import Options
from dnnsplit_onnx.converters.loading import convert_here
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import parse_source
from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.cuts import parted_states

ROUTES: dict[str, RouteName] = {"keras-torch": "keras-torch", "keras-tf": "keras-tf"}
TIER = '[[tier]]\nname = "t{at}"\ngflops = {speed}\nusd_per_hour = 1\n'
LINK = "[[link]]\nbandwidth_mbps = 100\ndelay_ms = 1\nusd_per_hour = 0\n"


def main(family: str, results: str, pattern: str = "*") -> int:
    import conversions

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if family == "transformers":
            built = conversions.transformers_models(folder)
        else:
            models = conversions.pytorch_models() if family == "pytorch" else conversions.keras_models()
            built = {case: (build, False) for case, build in models.items()}
        for case, (build, with_past) in built.items():
            if fnmatch.fnmatch(case, pattern):
                row = {"family": family, "model": case, **outcome(family, build, with_past, folder)}
                with Path(results).open("a") as out:
                    out.write(json.dumps(row) + "\n")
    return 0


def outcome(family: str, build: Callable[[], Any], with_past: bool, folder: Path) -> dict[str, Any]:
    """What became of one model."""
    start = time.perf_counter()
    path = folder / "m.onnx"
    row: dict[str, Any] = {}
    try:
        report = convert_here(
            parse_source(build()),
            path,
            Route(ROUTES.get(family, "pytorch"), "the matrix"),
            Options(force=True, with_past=with_past),
        )
        row = {
            "checked": len(report.checked_at),
            "difference": report.max_rel_diff,
            "open": sum(isinstance(dim, str) for port in report.inputs for dim in port.shape),
            "nodes": report.nodes,
            "notes": list(report.notes),
        }
        row["split"], row["bitwise"] = split_in_three(path, report, folder / "split")
    except DnnsplitError as error:
        row["error"] = f"{type(error).__name__}: {error.message}"
        row["hint"] = error.hint
    except Exception as error:  # a framework's, or a mistake of ours: both belong into the table
        row["crash"] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def split_in_three(path: Path, report: Conversion, folder: Path) -> tuple[int, bool]:
    """Parts of equal numbers of nodes, as far as there are nodes; whether they are the whole bit for bit."""
    graph = load_graph(path)
    sizes = {dim: 4 for port in report.inputs for dim in port.shape if isinstance(dim, str)}
    sizes = {dim: 8 if "+" in dim else size for dim, size in sizes.items()}
    if report.checked_at:
        first = dict(part.split("=") for part in report.checked_at[0].split() if "=" in part)
        sizes.update({dim: int(size) for dim, size in first.items() if dim in sizes})
    sizes.update({dim: sum(sizes[part] for part in dim.split(" + ")) for dim in sizes if " + " in dim})
    count = len(graph.nodes)
    # Where a cut would part a cache, the nearest one that does not.
    whole = [int(at) for at in np.flatnonzero(~parted_states(graph)) if 0 < at < count]
    cuts = sorted(
        {min(whole, key=lambda at, third=third: abs(at - count * third // 3)) for third in (1, 2)}
        if whole
        else ()
    )
    table = "".join(TIER.format(at=at, speed=10 ** (at + 1)) for at in range(len(cuts) + 1)) + LINK * len(
        cuts
    )
    toml = folder.with_suffix(".toml")
    toml.write_text(table)
    analysis = measure(graph, bind_shapes(graph, sizes))
    chosen = plan(analysis, load_topology(toml), cuts=cuts, pareto=False, bound=False)
    slice_model(graph, chosen, folder, force=True)
    return len(cuts) + 1, bool(verify(folder).bitwise)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(*sys.argv[1:]))
