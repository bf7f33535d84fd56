"""A table of real models: which are split at the first try, and how cutting them goes.

    python scripts/lib/real_models_table.py DIR [--cuts 3] [-o table.md]

For every ONNX file below DIR and those that onnx carries, each content once; and for some of them a
copy in half precision, where onnxconverter-common is installed:

- the first try: whether `split MODEL --tiers T`, with nothing else given, plans, cuts and proves;
- the sizes that it assumed;
- of some cuts spread over the model, how many are equal to the whole bit for bit;
- the most memory of `analyse` over that of a plain run of the model at the same sizes.

A model that onnxruntime itself cannot load is named, and not counted. Each step has a process of its
own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

LONGEST_S = 1800
MOST_TIMES_A_RUN = 3.0
CANNOT = "onnxruntime cannot load it"
HALVES = (
    *(
        "attacut-c.onnx",
        "captcha_crnn.onnx",
        "centerface.onnx",
        "deepcut.onnx",
        "modelA_paper.onnx",
        "model_1.onnx",
    ),
    *("onet.onnx", "open-nsfw.onnx", "pnet.onnx", "rnet.onnx", "spindle-detector-eeg.onnx"),
)
HALF = "half-precision"
HEADINGS = ("model", "MB", "nodes", "first try", "assumed", "cuts", "bitwise", "memory over a plain run")


def main() -> None:
    """Prints a row for each model as it is done, and the sums at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("-o", "--output", type=argparse.FileType("w"), default=sys.stdout)
    given = parser.parse_args()
    print("| " + " | ".join(HEADINGS) + " |", file=given.output)
    print("|---|--:|--:|---|---|--:|--:|--:|", file=given.output)
    if why := child("halves", given.folder).get("error"):
        print(f"no copies in half precision: {why}", file=sys.stderr)
    rows = []
    for name, path in models(given.folder):
        row = row_of(name, path, given.cuts)
        rows.append(row)
        print("| " + " | ".join(str(row[key]) for key in HEADINGS) + " |", file=given.output, flush=True)
    print_sums(rows, given.output)


def print_sums(rows: list[dict[str, Any]], output: TextIO) -> None:
    """What came of all."""
    counted = [row for row in rows if row["first try"] != CANNOT]
    first = [row for row in counted if row["first try"] == "yes"]
    halves = [row for row in counted if row["half"]]
    proven = [row for row in halves if row["cuts"] == row["bitwise"] and row["first try"] == "yes"]
    cuts, bitwise = (sum(row[key] for row in counted) for key in ("cuts", "bitwise"))
    ratios = [row["memory over a plain run"] for row in counted]
    known = [ratio for ratio in ratios if isinstance(ratio, float)]
    beyond = sum(ratio > MOST_TIMES_A_RUN for ratio in known)
    print(
        f"\n{len(counted)} models: {len(first)} ({len(first) / max(1, len(counted)):.0%}) at the first try; "
        f"{bitwise} of {cuts} cuts bitwise; {len(proven)} of {len(halves)} of half precision proven; "
        f"{beyond} over {MOST_TIMES_A_RUN:g} times a plain run's memory, {max(known, default=0)} at most. "
        f"{len(rows) - len(counted)} more have operators that onnxruntime does not know.",
        file=output,
    )


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """All models, by names that are short; of equal files the first."""
    import onnx

    light = Path(onnx.__file__).parent / "backend/test/data/light"
    found = [(str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*.onnx"))]
    found += [(f"onnx/{path.name}", path) for path in sorted(light.glob("*.onnx"))]
    seen = set()
    for name, path in found:
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in seen:
            yield f"{name.split('/')[0]}/{path.name}", path
        seen.add(digest)


def peak_nbytes() -> int:
    """The most memory of this process; `ru_maxrss` would have that of its parent before it began."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def halves(folder: Path) -> dict[str, Any]:
    """Writes copies of some models in half precision."""
    import onnx
    from onnxconverter_common import float16

    (folder / HALF).mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*.onnx")):
        copy = folder / HALF / path.name
        if path.name in HALVES and not copy.exists():
            onnx.save(float16.convert_float_to_float16(onnx.load(path), disable_shape_infer=True), copy)
    return {}


def row_of(name: str, path: Path, cuts: int) -> dict[str, Any]:
    """What is found of one model."""
    seen = child("analysis", path)
    run = child("plain", path, json.dumps(seen.get("bindings", {})))
    first = child("first", path)
    cut = {} if first.get("error") else child("cuts", path, str(cuts))
    why = first.get("error") or cut.get("error") or "yes"
    if "cannot be loaded" in str(run.get("error")):
        why = CANNOT
    both = seen.get("peak") and run.get("peak")
    sizes = ", ".join(f"{dim}={size}" for dim, size in seen.get("assumed", {}).items())
    return {
        "model": name,
        "MB": round(path.stat().st_size / 1e6, 1),
        "nodes": seen.get("nodes", "?"),
        "first try": why[:100].replace("|", "/"),
        "assumed": sizes,
        "cuts": cut.get("cuts", 0),
        "bitwise": cut.get("bitwise", 0),
        "memory over a plain run": round(seen["peak"] / run["peak"], 2) if both else "?",
        "half": seen.get("half", False),
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
    import onnx

    from dnnsplit_onnx import analyse

    found = analyse(path)
    return {
        "nodes": len(found.graph.nodes),
        "assumed": dict(found.assumed),
        "bindings": dict(found.types.bindings),
        "half": any(
            tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in found.graph.proto.graph.initializer
        ),
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


def first(path: Path) -> dict[str, Any]:
    """`split` with the tiers and nothing else."""
    from dnnsplit_onnx.cli import main as program

    with tempfile.TemporaryDirectory() as folder:
        tiers = Path(folder) / "tiers.toml"
        tiers.write_text(
            '[[tier]]\nname = "edge"\ngflops = 10\n[[tier]]\nname = "cloud"\ngflops = 1000\n'
            "[[link]]\nbandwidth_mbps = 50\ndelay_ms = 10\n"
        )
        out = Path(folder) / "slices"
        with tempfile.TemporaryFile("w+") as told:
            sys.stderr, stderr = told, sys.stderr
            code = program(["split", str(path), "--tiers", str(tiers), "-o", str(out), "--json"])
            sys.stderr = stderr
            told.seek(0)
            errors = [line for line in told if line.startswith("error: ")]
    return {"error": (errors or [f"ended with {code}"])[0].strip()} if code else {}


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
        steps = {"halves": halves, "analysis": analysis, "plain": plain, "first": first, "cuts": cuts}
        result = steps[sys.argv[2]](Path(sys.argv[3]), *sys.argv[4:])
        print("\n" + json.dumps({**result, "peak": peak_nbytes()}))
    else:
        main()
