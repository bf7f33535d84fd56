"""`export`: the slices for other engines, and for browsers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dnnsplit_onnx.cli.options import Folder, Force, Reporting, takes

app = typer.Typer(no_args_is_help=True, help="Write slices for browsers, Triton and KServe.")

Tiers = Annotated[
    list[str] | None,
    typer.Option(
        "--tier",
        metavar="NAME",
        help="Export this tier. Repeatable. [default: every tier that computes]",
        show_default=False,
    ),
]
Engine = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(
        "--provider",
        help="What the engine runs on. [default: what the manifest says of each tier]",
        show_default=False,
    ),
]


@app.command("triton")
@takes(Reporting)
def triton(
    folder: Folder,
    options: Reporting,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="REPO", help="The model repository to make.")
    ] = Path("triton"),
    tiers: Tiers = None,
    provider: Engine = None,
    force: Force = False,
) -> None:
    """Write a Triton model repository.

    Each slice becomes a model named after its tier, with `max_batch_size: 0`. Triton sends
    nothing on, so it serves the last tier of a chain, or slices on their own.

    Example: dnnsplit-onnx export triton slices --tier cloud -o models
    """
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.serving.deploy.export import export_triton

    exported = export_triton(folder, output, tiers=tiers or (), provider=provider, force=force)
    if options.json:
        print_json({"output": str(output), "tiers": exported})
        return
    sys.stdout.write("".join(f"wrote {output / tier}\n" for tier in exported))


@app.command("kserve")
@takes(Reporting)
def kserve(
    folder: Folder,
    options: Reporting,
    storage_uri: Annotated[
        str,
        typer.Option("--storage-uri", metavar="URI", help="Where the Triton repository was uploaded to."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "kserve.yaml"
    ),
    tiers: Tiers = None,
    provider: Engine = None,
    namespace: Annotated[str, typer.Option("--namespace", help="The Kubernetes namespace.")] = "default",
    force: Force = False,
) -> None:
    """Write Kubernetes manifests that serve slices with KServe.

    They name a Triton repository: write it with `export triton`, upload it, and pass its
    address.

    Example: dnnsplit-onnx export kserve slices --tier cloud --storage-uri pvc://models/triton
    """
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.files import written_whole
    from dnnsplit_onnx.serving.deploy.export import export_kserve

    text = export_kserve(
        folder, storage_uri=storage_uri, tiers=tiers or (), provider=provider, namespace=namespace
    )
    with written_whole(output, force=force) as file:
        file.write(text.encode())
    if options.json:
        print_json({"output": str(output)})
        return
    sys.stdout.write(f"wrote {output}\n")


@app.command("web")
@takes(Reporting)
def web(
    folder: Folder,
    options: Reporting,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SITE", help="The folder of the page to make.")
    ] = Path("site"),
    tier: Annotated[
        str | None,
        typer.Option(
            "--tier",
            metavar="NAME",
            help="The tier that the browser is: the first by default, or the last.",
            show_default=False,
        ),
    ] = None,
    ort_web: Annotated[
        Path | None,
        typer.Option(
            "--ort-web",
            metavar="DIR",
            help="Where onnxruntime-web is, node_modules/onnxruntime-web/dist; from npm otherwise.",
            show_default=False,
        ),
    ] = None,
    urls: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="A server for the page, the first by default; without it, the page's own. Repeatable.",
            show_default=False,
        ),
    ] = None,
    webgpu: Annotated[bool, typer.Option("--webgpu/--no-webgpu", help="Bring what runs on WebGPU.")] = True,
    force: Force = False,
) -> None:
    """Write a static page whose browser runs a tier.

    The page, the slices and onnxruntime-web come into one folder, which any static host can
    serve, and `serve --site` as well. Slices of all candidate cuts (`split --all-candidates`)
    give the page a choice of cuts.

    Example: dnnsplit-onnx export web slices -o site
    """
    from dataclasses import asdict

    from dnnsplit_onnx.cli.output import note, print_json
    from dnnsplit_onnx.serving.web.export import export_web

    made = export_web(folder, output, tier=tier, ort_web=ort_web, urls=urls or (), webgpu=webgpu, force=force)
    if made.warning is not None:
        note(made.warning)
    if options.json:
        print_json({"output": str(output), **asdict(made)})
        return
    sys.stdout.write(
        f"wrote {output}: tier `{made.tier}`, {made.slices} slices, {made.nbytes / 1e6:.1f} MB, "
        f"onnxruntime-web {made.runtime}\n"
    )
