"""A table of real models: which are planned at the first try, and how cutting them goes.

    python scripts/lib/real_models_table.py DIR [--cuts 3]

For every ONNX file below DIR, those that onnx carries, and the zoo: whether `analyse` sizes all
that cuts need with nothing given, the sizes it assumed, how many of some cuts are equal to the
whole bit for bit, and the most memory of `analyse` over that of a plain run of the model at the
same sizes. Each model has processes of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_S = 600


def main() -> None:
    """Prints a row for each model as it is done, and the sums at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuts", type=int, default=3)
    given = parser.parse_args()
    rows = []
    print("| model | MB | nodes | first try | assumed | cuts | bitwise | memory over a plain run |")
    print("|---|--:|--:|---|---|--:|--:|--:|")
    for name, path in models(given.folder):
        row = row_of(name, path, given.cuts)
        rows.append(row)
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    first = sum(row["first try"] == "yes" for row in rows)
    cuts, bitwise = (sum(row[key] for row in rows) for key in ("cuts", "bitwise"))
    ratios = [row["memory"] for row in rows if isinstance(row["memory"], float)]
    print(f"\n{len(rows)} models: {first} at the first try; {bitwise} of {cuts} cuts bitwise; ", end="")
    print(f"memory at most {max(ratios, default=0.0)} of a plain run")


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """All models, by names that are short."""
    import onnx

    for path in sorted(folder.rglob("*.onnx")):
        yield str(path.relative_to(folder)), path
    light = Path(onnx.__file__).parent / "backend/test/data/light"
    for path in sorted(light.glob("*.onnx")):
        yield f"onnx/{path.name}", path
    from dnnsplit_onnx.models import ENTRIES, model_path

    for name in ENTRIES:
        yield f"zoo:{name}", model_path(name)


def row_of(name: str, path: Path, cuts: int) -> dict[str, Any]:
    """What is found of one model."""
    seen = child("analysis", path)
    run = child("plain", path, json.dumps(seen.get("bindings", {})))
    cut = child("cuts", path, str(cuts)) if seen.get("sized") else {}
    both = seen.get("peak") and run.get("peak")
    sizes = ", ".join(f"{dim}={size}" for dim, size in seen.get("assumed", {}).items())
    why = seen.get("error") or run.get("error") or cut.get("error") or "no"
    return {
        "model": name,
        "MB": round(path.stat().st_size / 1e6, 1),
        "nodes": seen.get("nodes", "?"),
        "first try": "yes" if seen.get("sized") and not cut.get("error") else why[:100].replace("|", "/"),
        "assumed": sizes,
        "cuts": cut.get("cuts", 0),
        "bitwise": cut.get("bitwise", 0),
        "memory": round(seen["peak"] / run["peak"], 2) if both else "?",
    }


def child(*arguments: str | Path) -> dict[str, Any]:
    """What a process of its own finds; an error where it ends otherwise."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took over {LONGEST_S} s"}
    if ended.returncode:
        return {"error": ended.stderr.strip().rpartition("\n")[2] or f"ended with {ended.returncode}"}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def analysis(path: Path) -> dict[str, Any]:
    """What `analyse` finds with nothing given."""
    from dnnsplit_onnx import analyse

    found = analyse(path)
    unknown = [name for name in found.types.unsized if name in found.graph.values]
    return {
        "nodes": len(found.graph.nodes),
        "sized": not unknown,
        "assumed": dict(found.assumed),
        "bindings": dict(found.types.bindings),
        "error": None if not unknown else f"unknown: {unknown[0]}. {' '.join(found.notes)}",
    }


def plain(path: Path, bindings: str) -> dict[str, Any]:
    """One run of the model on random inputs, optimisations off."""
    from dnnsplit_onnx import load_graph
    from dnnsplit_onnx.runtime.inputs import generate, to_values
    from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
    from dnnsplit_onnx.runtime.sizing import ports_of

    ports = ports_of(load_graph(path))
    inputs = generate(ports, json.loads(bindings))
    open_session(path, SessionOptions(optimize=False)).run(to_values(ports, inputs.values))
    return {}


def cuts(path: Path, count: str) -> dict[str, Any]:
    """Cuts in two, spread over the model, each proved."""
    from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, slice_model, verify
    from dnnsplit_onnx.work.cuts import UNKNOWN

    found = analyse(path)
    nbytes = found.cut_nbytes()
    able = [at for at in range(1, len(found.graph.nodes)) if nbytes[at] != UNKNOWN]
    places = (
        sorted({able[len(able) * (at + 1) // (int(count) + 1)] for at in range(int(count))}) if able else []
    )
    tiers = [Tier("edge", gflops=10), Tier("cloud", gflops=1000)]
    topology = Topology(tiers=tiers, links=[Link(bandwidth_mbps=50, delay_ms=10)])
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        for at in places:
            made = plan(found, topology, cuts=[at], pareto=False, bound=False)
            slice_model(found, made, Path(folder) / str(at))
            equal += verify(Path(folder) / str(at)).bitwise
    return {"cuts": len(places), "bitwise": equal}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        result = {"analysis": analysis, "plain": plain, "cuts": cuts}[sys.argv[2]](
            Path(sys.argv[3]), *sys.argv[4:]
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print("\n" + json.dumps({**result, "peak": peak}))
    else:
        main()
