"""Sites of small models, and clients of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_server
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.serving.web.runtime import WASM, WEBGPU
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.work.analysing import analyse
from tests.serving.conftest import Network, cut_model, topology
from tests.serving.web.chromium import Browser
from tests.serving.web.node import NodeClient, chromium_program, node_program, ort_web

# All types that travel; `f` is made below the cut.
TYPES_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 3] x, float16[B] h, double[B] d, int64[B] i, int8[B] q, uint16[B] u, uint8[B, 2] p,
   bool[B] b, string[B] s, uint64[] z)
  => (float[2, 3] y, float16[B] h2, double[B] d2, int64[B] i2, int8[B] q2, uint16[B] u2,
      uint8[B, 2] p2, bool[B] b2, string[B] s2, uint64[] z2) {
    f = Relu(x)
    y = Neg(f)
    h2 = Identity(h)
    d2 = Identity(d)
    i2 = Identity(i)
    q2 = Identity(q)
    u2 = Identity(u)
    p2 = Identity(p)
    b2 = Identity(b)
    s2 = Identity(s)
    z2 = Identity(z)
}
"""

# Picture in, scores out; small enough to be run hundreds of times.
PICTURE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, 16, 16] picture) => (float[1, 3] scores) {
    a = Relu(picture)
    b = MaxPool<kernel_shape=[4, 4], strides=[4, 4]>(a)
    c = GlobalAveragePool(b)
    scores = Flatten(c)
}
"""

ODD = {"i": "größe/ß\N{SNOWMAN}\N{GRINNING FACE}", "i2": 'a "b"\\\x7f\t'}


@pytest.fixture
def node() -> None:
    if node_program() is None:
        pytest.skip("needs Node 18 or newer")


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The real onnxruntime-web."""
    found = ort_web()
    if found is None:
        pytest.skip("needs onnxruntime-web: npm install it, and name its dist in DNNSPLIT_ORT_WEB")
    return found


@pytest.fixture(scope="session")
def chromium() -> str:
    found = chromium_program()
    if found is None:
        pytest.skip("needs Chromium")
    return found


@pytest.fixture(scope="session")
def no_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are called as those of onnxruntime-web, for what does not run them."""
    folder = tmp_path_factory.mktemp("ort")
    for name in (*WASM, *WEBGPU):
        (folder / name).write_bytes(b"export {};\n")
    return folder


@pytest.fixture(scope="session")
def site(slices: Path, no_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the model over three tiers, all candidate slices."""
    output = tmp_path_factory.mktemp("site") / "site"
    export_web(slices, output, ort_web=no_runtime)
    return output


@pytest.fixture(scope="session")
def typed_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of all types over two tiers."""
    folder = tmp_path_factory.mktemp("typed")
    model = onnx.parser.parse_model(TYPES_MODEL)
    # Names that the text form of ONNX has no way to write.
    for value in (*model.graph.input, *model.graph.output):
        value.name = ODD.get(value.name, value.name)
    for one in model.graph.node:
        one.input[:] = [ODD.get(name, name) for name in one.input]
        one.output[:] = [ODD.get(name, name) for name in one.output]
    onnx.save(model, folder / "model.onnx")
    graph = load_graph(folder / "model.onnx")
    machines = parse_topology(topology(("phone", "cloud")), "tiers")
    chosen = plan(analyse(graph, {"B": 2}, order="file"), machines, cuts=(1,), pareto=False)
    slice_all_candidates(graph, chosen, range(len(graph.nodes) + 1), folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def typed_site(typed_slices: Path, no_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("typed-site") / "site"
    export_web(typed_slices, output, ort_web=no_runtime)
    return output


@pytest.fixture
def typed_network(typed_slices: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(typed_slices, stack)


@pytest.fixture
def client(node: None) -> Iterator[Callable[..., NodeClient]]:
    """Opens clients under Node, and closes them."""
    with ExitStack() as stack:

        def open_client(*given: Any, **options: Any) -> NodeClient:
            return stack.enter_context(NodeClient(*given, **options))

        yield open_client


@pytest.fixture(scope="session")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(chromium, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def picture_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that looks at pictures, of a page and a server."""
    folder = tmp_path_factory.mktemp("picture")
    return cut_model(PICTURE, folder, (2,), candidates=True, tiers=("page", "cloud"))


@pytest.fixture(scope="session")
def picture_site(picture_slices: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("picture-site") / "site"
    export_web(picture_slices, output, ort_web=runtime, webgpu=False)
    return output


@pytest.fixture
def serve() -> Iterator[Callable[..., Server[Service]]]:
    """Serves the upper tier of the model that looks at pictures."""
    with ExitStack() as stack:

        def start(slices: Path, **options: Any) -> Server[Service]:
            given = {"port": 0, "session": SessionOptions(threads=1), **options}
            server = stack.enter_context(open_server(slices / "cloud", ServeOptions(**given)))
            server.service.stage.warm_up()
            return server

        yield start
