"""The files of a site: a page whose browser runs one tier's slices.

    SITE/index.html, page.css, icon.svg, *.js    the page and the client library
    SITE/manifest.json                           what was cut, as the page needs it
    SITE/TIER/...                                the tier's slices and weights
    SITE/ort/...                                 onnxruntime-web
    SITE/empty.onnx                              a model that does nothing, to measure by

Nothing is loaded from another host. What is written is the same for the same slices, whatever
the machine, and names no path of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.files import file_sha256
from dnnsplit_onnx.graph.digests import file_digest
from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.graph.saturation import saturating_nodes, warning
from dnnsplit_onnx.measuring.profiling.segments import empty_model
from dnnsplit_onnx.running.origin import bindings_of, slices_folder
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.web.fitness import check_fitness, files_of
from dnnsplit_onnx.serving.web.runtime import WASM, WEBGPU, runtime_folder
from dnnsplit_onnx.serving.web.ways import written_routes
from dnnsplit_onnx.serving.wire.origins import read_origin
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import FILE_NAME, Manifest, load_manifest
from dnnsplit_onnx.slicing.staging import staged_folder

SCHEMA_VERSION = 2
_EMPTY = "empty.onnx"
_RUNTIME = "ort"
#: In the page's content security policy: where it may send to.
_CONNECT = "connect-src 'self'"


@dataclass(frozen=True, slots=True)
class WebSite:
    """A site that was written.

    Attributes:
        tier: Which tier its browser is.
        slices: How many slices it has, and so how many cuts.
        nbytes: Of all its files.
        runtime: The release of onnxruntime-web.
        warning: What a person should know of its answers, if anything.
    """

    tier: str
    slices: int
    nbytes: int
    runtime: str
    warning: str | None = None


def export_web(
    folder: Path,
    output: Path,
    *,
    tier: str | None = None,
    ort_web: Path | None = None,
    urls: Sequence[str] = (),
    webgpu: bool = True,
    force: bool = False,
) -> WebSite:
    """Writes a static page whose browser runs a tier.

    Args:
        folder: The folder of slices.
        output: The folder to make. It appears whole or not at all.
        tier: Which tier: the first (the default), or the last.
        ort_web: Files of onnxruntime-web; None gets them from npm.
        urls: Servers that the page may use, the first by default; none is its own.
        webgpu: Whether to bring what runs on WebGPU as well, 27 MB more.
        force: Whether to replace an existing site.

    Raises:
        InputError: A browser cannot be this tier, or a URL is none.
        ManifestError: A slice is not the one that was written, or is not for browsers.
        MissingExtraError: npm is not there, or fails.
        OutputError: The output exists, or cannot be written.
    """
    place = slices_folder(folder)
    manifest = load_manifest(place)
    routes = Routes(manifest)
    at = _which(routes, tier)
    servers = [_server(url) for url in urls]
    records = routes.ranges(at)
    for record in records:
        check_files(place, record)
    check_fitness(place, records)
    names = (*WASM, *(WEBGPU if webgpu else ()))
    with (
        runtime_folder(ort_web, names) as (runtime, version),
        staged_folder(output, force=force, ours=_is_site, keep=[place]) as made,
    ):
        _copy(runtime, made / _RUNTIME, names)
        _copy(place, made, files_of(records))
        empty_model(made)
        _write_page(made, servers)
        data = _site_manifest(routes, at, _digests(made, [_EMPTY, *files_of(records)]))
        data["url"] = servers[0] if servers else ""
        data["runtime"] = {
            "version": version,
            "wasm": f"{_RUNTIME}/{WASM[0]}",
            "webgpu": f"{_RUNTIME}/{WEBGPU[0]}" if webgpu else None,
        }
        (made / FILE_NAME).write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
        nbytes = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    return WebSite(routes.tiers[at], len(records), nbytes, version, _saturation(place, manifest))


def _saturation(place: Path, manifest: Manifest) -> str | None:
    """Where a server may answer otherwise than the page, which runs the same nodes on other requests."""
    files = [place / record.file for record in manifest.slices if record.file is not None]
    return warning(tuple(name for file in files for name in saturating_nodes(open_model(file))))


def _which(routes: Routes, tier: str | None) -> int:
    """The browser's place in the line.

    Raises:
        InputError: There is no such tier, or a browser cannot stand there.
    """
    names = routes.tiers
    at = 0 if tier is None else names.index(tier) if tier in names else -1
    if at < 0:
        raise InputError(f"no tier is named `{tier}`", hint=f"the tiers are {', '.join(names)}")
    if 0 < at < len(names) - 1:
        raise InputError(
            f"a browser cannot be tier `{names[at]}`: it is the first of the line, or the last",
            hint=f"--tier {names[0]}",
        )
    if not routes.ranges(at):
        raise InputError(
            f"tier `{names[at]}` has no work, and so no slice to export", hint="split --all-candidates"
        )
    return at


def _server(url: str) -> str:
    """A server's URL, which is an origin: the protocol's paths begin at its root."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"`{url}` is no URL of a server", hint="write https://near.example.org:8000")
    return read_origin(url)


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _write_page(target: Path, servers: Sequence[str]) -> None:
    for file in (files("dnnsplit_onnx.serving.web") / "static").iterdir():
        content = file.read_bytes()
        if file.name == "index.html":
            assert content.count(_CONNECT.encode()) == 1
            content = content.replace(_CONNECT.encode(), " ".join([_CONNECT, *servers]).encode())
        (target / file.name).write_bytes(content)


def _digests(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the page holds files against: CRC-32 where it may not compute SHA-256."""
    return {
        name: {
            "nbytes": (folder / name).stat().st_size,
            "sha256": file_sha256(folder / name),
            "crc32": file_digest(folder / name, "crc32"),
        }
        for name in names
    }


def _site_manifest(routes: Routes, at: int, digests: Mapping[str, Any]) -> dict[str, Any]:
    """What the page needs of the manifest: no plan, no prices, no path of the model's."""
    manifest: Manifest = routes.manifest
    return {
        "schema_version": SCHEMA_VERSION,
        "producer": f"dnnsplit-onnx {__version__}",
        "identity": routes.identity,
        "tiers": list(routes.tiers),
        "tier": routes.tiers[at],
        "size": routes.size,
        "cuts": list(routes.cuts),
        "model": {"name": Path(manifest.model.path).name, "sha256": manifest.model.sha256},
        "inputs": [port.name for port in manifest.model.inputs],
        "outputs": [port.name for port in manifest.results],
        "states": [state.model_dump(mode="json") for state in manifest.states],
        "order": manifest.plan.get("order", "file"),
        "node_order": manifest.node_order,
        "bindings": bindings_of(manifest),
        **written_routes(routes, at),
        "files": dict(digests),
        "empty": _EMPTY,
    }


def _is_site(folder: Path) -> bool:
    """Whether a folder is a site, so that `--force` replaces nothing else."""
    return (folder / "dnnsplit.js").is_file() and (folder / FILE_NAME).is_file()
