"""Chains of real servers on real sockets, of models that take no time."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.security import TlsFiles
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse

# `x` is read on every tier, `z` is made below and returned, so that forwarding, answers on
# the way and reuse all occur.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 8] x, int64[B, 8] k) => (float[B, 8] y, float[B, 8] z, int64[B, 8] m) {
    a = Relu(x)
    b = Neg(a)
    z = Add(a, b)
    c = Mul(b, x)
    d = Sigmoid(c)
    m = Add(k, k)
    y = Add(d, x)
}
"""
NODES = 7
TIERS = ("edge", "near", "cloud")
CUTS = (2, 4)


def topology(tiers: tuple[str, ...] = TIERS, mbps: float = 50.0) -> dict[str, object]:
    return {
        "tier": [{"name": name, "gflops": 10.0**at} for at, name in enumerate(tiers)],
        "link": [{"bandwidth_mbps": mbps, "delay_ms": 1.0}] * (len(tiers) - 1),
    }


def open_files(stage: Stage) -> tuple[str, ...]:
    """The files of the slices that a stage has open, the one unused for longest first."""
    with stage._lock:
        return tuple(file for file, opened in stage._sessions.items() if opened.done())


def cut_model(
    text: str,
    folder: Path,
    cuts: tuple[int, ...],
    *,
    candidates: bool = False,
    tiers: tuple[str, ...] = TIERS,
) -> Path:
    """Slices a model given as text; returns the folder of slices."""
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    graph = load_graph(folder / "model.onnx")
    analysis = analyse(graph, {"B": 2} if "[B" in text else {}, order="file")
    chosen = plan(analysis, parse_topology(topology(tiers), "tiers"), cuts=cuts, pareto=False)
    if candidates:
        slice_all_candidates(graph, chosen, range(len(graph.nodes) + 1), folder / "out")
    else:
        slice_model(graph, chosen, folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All candidate slices of the model over three tiers."""
    return cut_model(MODEL, tmp_path_factory.mktemp("slices"), CUTS, candidates=True)


@pytest.fixture(scope="session")
def plain_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slices of one plan alone."""
    return cut_model(MODEL, tmp_path_factory.mktemp("plain"), CUTS)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TlsFiles]:
    """Makes a certificate for `localhost`, signed by an authority of the given name."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make certificates")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    def make(name: str) -> TlsFiles:
        files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-ca.pem")
        if files.cert is not None and not files.cert.exists():
            new = ("-newkey", "rsa:2048", "-nodes", "-days", "1")
            openssl(
                "req", "-x509", *new, "-subj", f"/CN={name}", "-keyout", f"{name}-ca.key", "-out", files.ca
            )
            alternative = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
            signed = ("-CA", files.ca, "-CAkey", f"{name}-ca.key")
            openssl(
                "req",
                "-x509",
                *new,
                "-subj",
                "/CN=localhost",
                *alternative,
                *signed,
                "-keyout",
                files.key,
                "-out",
                files.cert,
            )
        return files

    return make


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((2, 8)).astype(np.float32), "k": rng.integers(0, 9, (2, 8))}


@pytest.fixture(scope="session")
def whole(slices: Path) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The whole model, run in this process."""
    session = open_session(slices.parent / "model.onnx", SessionOptions(threads=1))
    return session.run_arrays


@dataclass
class Network:
    """Servers and clients that are closed when the test ends."""

    folder: Path
    stack: ExitStack
    servers: dict[str, Server] = field(default_factory=dict)

    def serve(
        self,
        tier: str,
        next_url: str | None = None,
        *,
        port: int = 0,
        folder: Path | None = None,
        token: str | None = None,
        workers: int = 1,
        **limits: float,
    ) -> Server:
        place = folder or self.folder
        routes = Routes(load_manifest(place))
        at = routes.tiers.index(tier)
        remote = None if next_url is None else Remote(Target(next_url, token), routes, at + 1)
        stage = Stage(place, routes, at, SessionOptions(threads=1), workers=workers)
        server = Server(Service(stage, remote, ServerLimits(**limits), token), port=port)  # type: ignore[arg-type]
        self.stack.enter_context(server)
        stage.warm_up()
        self.servers[tier] = server
        return server

    def chain(self, **options: object) -> str:
        """Serves near and cloud; returns the URL of near."""
        cloud = self.serve("cloud", **options)  # type: ignore[arg-type]
        return self.serve("near", cloud.url, **options).url  # type: ignore[arg-type]

    def edge(self, url: str | None, *, folder: Path | None = None, **options: object) -> Edge:
        edge = Edge(folder or self.folder, url, options=SessionOptions(threads=1), **options)  # type: ignore[arg-type]
        return self.stack.enter_context(edge)


@pytest.fixture
def network(slices: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(slices, stack)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition comes true in time; asked again and again until it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def same(ours: dict[str, np.ndarray | None], theirs: dict[str, np.ndarray]) -> bool:
    """Whether two sets of outputs are the same, bit for bit."""
    return list(ours) == list(theirs) and all(
        value is not None and value.dtype == theirs[name].dtype and value.tobytes() == theirs[name].tobytes()
        for name, value in ours.items()
    )
