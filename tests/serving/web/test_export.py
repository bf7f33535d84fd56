"""What `export web` writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InputError, ManifestError, MissingExtraError, OutputError
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.web import fitness, runtime, ways
from dnnsplit_onnx.serving.web.export import export_web
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.pages import DOCS, run_page
from tests.serving.conftest import cut_model
from tests.serving.web.node import LIBRARY

# What is loaded before the first answer, where a model has neither states nor codes nor strings.
CLIENT = {"dnnsplit.js", "remote.js", "routes.js", "runner.js", "wire.js"}
TWO = ("cloud", "page")


def manifest_of(site: Path) -> dict[str, object]:
    data: dict[str, object] = json.loads((site / "manifest.json").read_text())
    return data


def test_a_site_has_the_slices_the_page_and_the_runtime(site: Path, slices: Path) -> None:
    data = manifest_of(site)
    routes = Routes(load_manifest(slices))
    assert data["identity"] == routes.identity
    assert data["tier"] == "edge"
    # No plan, no prices, and nothing that tells where the model lay.
    assert not {"plan", "verification"} & data.keys()
    assert str(slices.parent) not in (site / "manifest.json").read_text()
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    mine = {record.file for record in routes.ranges(0)}
    assert mine | {"index.html", "manifest.json", "empty.onnx", "dnnsplit.js"} < names
    assert not [name for name in names if name.startswith(("near", "cloud"))]
    assert {f"ort/{name}" for name in (*runtime.WASM, *runtime.WEBGPU)} < names


def test_every_file_that_is_fetched_has_its_digests(site: Path) -> None:
    data = manifest_of(site)
    files = data["files"]
    assert isinstance(files, dict)
    for name, said in files.items():
        content = (site / name).read_bytes()
        assert said == {
            "nbytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "crc32": f"{zlib.crc32(content):08x}",
        }
    wanted = {name for one in data["slices"] for name in _files(one)}  # type: ignore[attr-defined]
    assert set(files) == wanted | {"empty.onnx"}


def _files(record: dict[str, object]) -> list[object]:
    data = record["data"]
    assert isinstance(data, list)
    return [record["file"], *data]


def test_the_client_library_is_small_and_of_no_other_host() -> None:
    reached, more = set(), {"dnnsplit.js"}
    while more:
        reached |= more
        texts = "".join((LIBRARY / name).read_text(encoding="utf-8") for name in more)
        more = set(re.findall(r'^(?:import|export) .* from "\./(.*)";', texts, re.MULTILINE)) - reached
    assert reached == CLIENT
    sizes = {name: (LIBRARY / name).stat().st_size for name in CLIENT}
    assert sum(sizes.values()) <= 30_000, sizes
    for path in LIBRARY.iterdir():
        text = path.read_text(encoding="utf-8")
        told = re.findall(r"https?://[\w.-]+", text.replace("http://www.w3.org/2000/svg", ""))
        assert [one for one in told if one != "https://near"] == [], path.name


def test_two_exports_are_the_same(site: Path, slices: Path, no_runtime: Path, tmp_path: Path) -> None:
    export_web(slices, tmp_path / "site", ort_web=no_runtime)
    for path in site.rglob("*"):
        if path.is_file():
            assert (tmp_path / "site" / path.relative_to(site)).read_bytes() == path.read_bytes()


def test_the_policy_names_the_servers_and_nobody_else(slices: Path, no_runtime: Path, tmp_path: Path) -> None:
    servers = ["https://near.example.org:8443/", "http://10.0.0.2:8000"]
    export_web(slices, tmp_path / "site", ort_web=no_runtime, urls=servers, webgpu=False)
    policy = re.search(
        r'Content-Security-Policy" content="([^"]*)"', (tmp_path / "site/index.html").read_text()
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self' https://near.example.org:8443 http://10.0.0.2:8000"
    assert "unsafe-inline" not in policy[1]
    assert "'unsafe-eval'" not in policy[1]
    data = manifest_of(tmp_path / "site")
    assert data["url"] == "https://near.example.org:8443"
    assert data["runtime"] == {"version": "unknown", "wasm": "ort/ort.wasm.min.mjs", "webgpu": None}
    assert not (tmp_path / "site/ort" / runtime.WEBGPU[0]).exists()


@pytest.mark.parametrize("url", ["near:8000", "ftp://near", "https://near/v2", ""])
def test_a_server_is_an_origin(slices: Path, no_runtime: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=r"is no (URL of a server|origin of a page)"):
        export_web(slices, tmp_path / "site", ort_web=no_runtime, urls=[url])


def test_an_output_is_replaced_only_if_it_is_a_site(slices: Path, no_runtime: Path, tmp_path: Path) -> None:
    export_web(slices, tmp_path / "site", ort_web=no_runtime)
    with pytest.raises(OutputError, match="output exists"):
        export_web(slices, tmp_path / "site", ort_web=no_runtime)
    export_web(slices, tmp_path / "site", ort_web=no_runtime, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="will not replace"):
        export_web(slices, tmp_path / "other", ort_web=no_runtime, force=True)


@pytest.mark.parametrize(
    ("tier", "message"),
    [
        ("nobody", "no tier is named `nobody`"),
        ("near", "cannot be tier `near`"),
    ],
)
def test_a_browser_is_the_first_tier_or_the_last(
    slices: Path, no_runtime: Path, tmp_path: Path, tier: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_web(slices, tmp_path / "site", tier=tier, ort_web=no_runtime)


MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 8] x) => (float[B, 8] y) { a = Relu(x) y = Neg(a) }"""


def test_a_browser_may_be_the_last_of_two(no_runtime: Path, tmp_path: Path) -> None:
    folder = cut_model(MODEL, tmp_path, (1,), tiers=TWO)
    made = export_web(folder, tmp_path / "site", tier="page", ort_web=no_runtime)
    assert (made.tier, made.slices) == ("page", 1)


@pytest.mark.parametrize(("tier", "link"), [("edge", 0), ("cloud", 1)])
def test_of_too_many_cuts_the_pages_own_is_moved(
    slices: Path, no_runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, link: int
) -> None:
    export_web(slices, tmp_path / "all", tier=tier, ort_web=no_runtime, webgpu=False)
    monkeypatch.setattr(ways, "MOST_ROUTES", 10)
    export_web(slices, tmp_path / "few", tier=tier, ort_web=no_runtime, webgpu=False)
    every, few = (manifest_of(tmp_path / name)["routes"] for name in ("all", "few"))
    assert isinstance(every, dict)
    assert isinstance(few, dict)
    assert few.keys() < every.keys()
    # Each position of its own cut, and what remains of the plan if a tier is lost.
    assert {key.split(",")[link] for key in few} == {str(at) for at in range(8)}
    assert {"2,4", "0,0", "7,7", *(["2,7"] if tier == "edge" else ["2,2"])} <= few.keys()


def test_a_tier_without_work_is_refused(no_runtime: Path, tmp_path: Path) -> None:
    folder = cut_model(MODEL, tmp_path, (0,), tiers=TWO)
    with pytest.raises(InputError, match="tier `cloud` has no work") as caught:
        export_web(folder, tmp_path / "site", ort_web=no_runtime)
    assert "--all-candidates" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("LARGEST_FILE_NBYTES", 10, r"`edge/0-7.onnx` has 0.00 GiB; a browser holds 2 GiB in one piece"),
        ("LARGEST_SLICE_NBYTES", 10, r"slice `edge/0-7.onnx` has 0.00 GiB; WASM has 4 GiB in all"),
    ],
)
def test_what_a_browser_cannot_hold_is_refused(
    plain_slices: Path,
    slices: Path,
    no_runtime: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    message: str,
) -> None:
    monkeypatch.setattr(fitness, limit, value)
    with pytest.raises(ManifestError, match=message.replace("0-7", r"\d-\d")):
        export_web(slices, tmp_path / "site", ort_web=no_runtime)
    assert not (tmp_path / "site").exists()


def test_operators_that_the_runtime_lacks_are_named(
    no_runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the body of an If, and not where the model itself says what they are."""
    then = helper.make_graph(
        [helper.make_node("Foreign", ["x"], ["t"], domain="my.domain")],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("Own", ["x"], ["e"], domain="my.functions")],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [2])],
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    opsets = [helper.make_opsetid(domain, 1) for domain in ("my.domain", "my.functions")]
    opsets.append(helper.make_opsetid("", 17))
    own = helper.make_function(
        "my.functions", "Own", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets
    )
    graph = helper.make_graph(nodes, "g", [x, c], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[own]), tmp_path / "a.onnx")
    record = load_manifest(cut_model(MODEL, tmp_path, (1,), tiers=TWO)).slices[0]
    with pytest.raises(ManifestError, match=r"operators that onnxruntime-web lacks: my.domain.Foreign$"):
        fitness.check_fitness(tmp_path, [record.model_copy(update={"file": "a.onnx"})])


def test_values_that_the_runtime_lacks_are_named(no_runtime: Path, tmp_path: Path) -> None:
    text = MODEL.replace("float[B, 8]", "bfloat16[B, 8]")
    with pytest.raises(ManifestError, match=r"`x` of slice .* is a tensor of bfloat16"):
        export_web(cut_model(text, tmp_path, (1,), tiers=TWO), tmp_path / "site", ort_web=no_runtime)


def test_a_folder_without_the_runtime_is_refused(slices: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it lacks `ort.wasm.min.mjs`") as caught:
        export_web(slices, tmp_path / "site", ort_web=tmp_path)
    assert f"npm install onnxruntime-web@{runtime.VERSION}" in (caught.value.hint or "")


def test_the_package_of_the_runtime_will_do(slices: Path, no_runtime: Path, tmp_path: Path) -> None:
    package = tmp_path / "onnxruntime-web"
    package.mkdir()
    (package / "dist").symlink_to(no_runtime)
    (package / "package.json").write_text('{"version": "9.9.9"}')
    assert export_web(slices, tmp_path / "site", ort_web=package).runtime == "9.9.9"


NPM = """#!/bin/sh
{body}
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program called npm, or none, on the path."""

    def put(body: str | None) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if body is not None:
            (folder / "npm").write_text(NPM.format(body=body))
            (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if body is not None else str(folder))

    return put


def test_the_runtime_comes_from_npm(
    slices: Path, no_runtime: Path, tmp_path: Path, npm: Callable[[str], None]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "dist").symlink_to(no_runtime)
    npm(
        'while [ "$1" != --pack-destination ]; do shift; done\n'
        f'tar -czhf "$2/onnxruntime-web.tgz" -C {tmp_path} package'
    )
    made = export_web(slices, tmp_path / "site", webgpu=False)
    assert made.runtime == runtime.VERSION
    assert (tmp_path / "site" / "ort" / runtime.WASM[2]).read_bytes() == b"export {};\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [(None, "there is no npm"), ("echo 'not found' >&2; exit 1", "cannot get .*: not found")],
)
def test_without_npm_a_folder_is_asked_for(
    slices: Path, tmp_path: Path, npm: Callable[[str | None], None], body: str | None, message: str
) -> None:
    npm(body)
    with pytest.raises(MissingExtraError, match=message) as caught:
        export_web(slices, tmp_path / "site")
    assert "--ort-web" in (caught.value.hint or "")


def test_numbers_are_what_the_page_says_they_are(site: Path) -> None:
    model = onnx.load(site / "empty.onnx")
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert np.prod([dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]) == 1


def test_the_page_of_the_docs_does_what_it_says(no_runtime: Path, tmp_path: Path) -> None:
    page = (DOCS / "browser.md").read_text(encoding="utf-8")
    served = re.findall(r"^dnnsplit-onnx serve slices/cloud (?!.*--insecure).*$", page, re.MULTILINE)
    assert len(served) == 2
    for command in served:  # its port may be in use here
        page = page.replace(f"{command}\n", f"{command} --port 0\n")
    package = tmp_path / "node_modules" / "onnxruntime-web"
    package.mkdir(parents=True)
    (package / "dist").symlink_to(no_runtime)
    run_page(page, tmp_path)
    assert "https://near.example.org:8000" in (tmp_path / "elsewhere" / "index.html").read_text()
    assert manifest_of(tmp_path / "site")["tier"] == "phone"
    slices = load_manifest(tmp_path / "slices").slices
    assert [record.provider for record in slices] == ["web", "cpu"]


def test_an_export_warns_of_sums_that_servers_and_browsers_make_otherwise(
    no_runtime: Path, tmp_path: Path
) -> None:
    slices = cut_model(EIGHT_BITS, tmp_path, (1,), tiers=("page", "cloud"))
    warning = export_web(slices, tmp_path / "site", ort_web=no_runtime).warning
    assert warning is not None
    assert "node `c` sums products of uint8 and int8" in warning
    assert verify(slices).to_dict()["saturating"] == ["c"]


EIGHT_BITS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 2] x) => (float[B, 2] y) <int8[2, 2] W = {127, 1, 1, 1}> {
    a, s, z = DynamicQuantizeLinear(x)
    c = MatMulInteger(a, W, z)
    d = Cast <to: int = 1> (c)
    y = Mul(d, s)
}
"""
