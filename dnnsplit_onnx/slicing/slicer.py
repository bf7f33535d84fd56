"""From a plan to a folder of slices: `DIR/manifest.json` and `DIR/TIER/model.onnx`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.graph.digests import Digests, graph_digests
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.planning.figures import Stage
from dnnsplit_onnx.planning.fitting import graph_of
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.coded import Codes, codes_of, with_codes
from dnnsplit_onnx.slicing.copying import Copier, passes
from dnnsplit_onnx.slicing.extract import Extract, extract
from dnnsplit_onnx.slicing.files import Content, as_it_is, lay_out, lay_out_data, refer_to, weight_ranges
from dnnsplit_onnx.slicing.heads import FULL, head_of, headed, with_head
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.slicing.manifest import FILE_NAME, DataFile, HeadRecord, Manifest, SliceRecord
from dnnsplit_onnx.slicing.records import (
    check_stages,
    empty_record,
    is_output,
    manifest,
    model_place,
    slice_record,
    source_files,
)
from dnnsplit_onnx.slicing.staging import staged_folder
from dnnsplit_onnx.slicing.tags import tag_nodes
from dnnsplit_onnx.slicing.tiled import TileDraft, draft_tiles
from dnnsplit_onnx.work.analysis import Analysis

MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"

Progress = Callable[[int, int], None]


def slice_model(
    model: Graph | Analysis | str | Path,
    plan: Plan,
    output: str | Path,
    *,
    model_path: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    check: Callable[[Path], object] | None = None,
    head: str = FULL,
) -> Manifest:
    """Writes one self-contained ONNX model per tier, and the manifest.

    Weights that the source holds in external files lie in `DIR/TIER/model.onnx.data`. The
    output is the same, byte for byte, for the same model and plan.

    Args:
        model: The model, its analysis or its file; nodes are brought into the plan's order.
        plan: Who runs what.
        output: The folder to make. It appears whole or not at all.
        model_path: Where the manifest says the model lies, if it is not where the graph was
            read from.
        force: Whether to replace an existing folder of slices.
        progress: Called with the bytes written and the bytes there are to write.
        check: Called with the folder when it is complete and before it appears as `output`;
            if it raises, nothing appears.
        head: What is returned of a decoder's logits: `full`, `last`, `argmax` or `topk:K`.

    Returns:
        The manifest, as written.

    Raises:
        PlanError: The plan is of another model, or counts in an order that cannot be made.
        CutError: A value that crosses a cut has a type that nobody knows.
        OutputError: The output exists, or cannot be written.
        InputError: There is no such head, or the model makes no logits.
        ModelError: The model's files have changed, or cannot be read.
    """
    if isinstance(model, Analysis):
        model = model.graph
    read = model if isinstance(model, Graph) else load_graph(model)
    if not passes(read.file):  # the one core hashes while the other finds the plan's order
        read.file.begin_digests()
    graph = graph_of(plan, read)
    check_stages(graph, plan.figures.stages)
    top = head_of(graph, head)
    with output_folder(graph, output, force) as folder, Copier(graph.file) as copier:
        index = SliceIndex(graph)
        codes: list[Codes] = [{}, *codes_of(index, plan), {}]
        drafts = [
            _draft(index, stage, ends, plan.bindings, top)
            for stage, ends in zip(plan.figures.stages, pairwise(codes), strict=True)
        ]
        copier.report = counting(progress, sum(draft.nbytes for draft in drafts))
        written = [_write(draft, folder / draft.tier, copier) for draft in drafts]
        copier.settle()
        path = model_place(graph.file, model_path, folder, Path(output))
        slices = [part.record() for part in written]
        made = manifest(graph, plan, slices, model_path=path, digests=graph.file.digests())
        made = headed(made, top)
        graph.file.check_unchanged()
        (folder / FILE_NAME).write_text(made.to_json(), encoding="utf-8")
        if check is not None:
            check(folder)
    return made


def output_folder(graph: Graph, output: str | Path, force: bool) -> AbstractContextManager[Path]:
    """The folder to write slices of this graph to; see `staged_folder`."""
    return staged_folder(output, force=force, ours=is_output, keep=source_files(graph.file))


def counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Turns calls with the bytes of a step into calls with the bytes so far, and the total."""
    done = 0

    def report(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    return report


@dataclass(frozen=True)
class _Draft:
    """A slice that is ready to be written; `model` is None for a tier without work."""

    tier: str
    part: Extract
    model: Content | None
    data: Content | None
    tiles: tuple[TileDraft, ...] = ()

    @property
    def nbytes(self) -> int:
        contents = (self.model, self.data, *(tile.content for tile in self.tiles))
        return sum(content.nbytes for content in contents if content is not None)


@dataclass(frozen=True)
class _Written:
    """A slice that has been written, its digests under way."""

    draft: _Draft
    folder: Path
    model: Future[Digests] | None = None
    data: Future[Digests] | None = None
    tiles: tuple[Future[Digests], ...] = ()

    def record(self) -> SliceRecord:
        draft, data = self.draft, None
        if draft.model is None or self.model is None:
            return empty_record(draft.tier, draft.part)
        if draft.data is not None and self.data is not None:
            name = f"{draft.tier}/{DATA_NAME}"
            data = DataFile(file=name, digests=self.data.result(), nbytes=draft.data.nbytes)
        digests = self.model.result() | graph_digests(self.folder / MODEL_NAME)
        name = f"{draft.tier}/{MODEL_NAME}"
        record = slice_record(draft.tier, draft.part, name, digests, draft.model.nbytes, data)
        tiles = tuple(
            tile.record(draft.tier, whole.result() | graph_digests(self.folder / tile.name), data)
            for tile, whole in zip(draft.tiles, self.tiles, strict=True)
        )
        return record.model_copy(update={"tiles": tiles})


def _draft(
    index: SliceIndex,
    stage: Stage,
    codes: tuple[Codes, Codes],
    bindings: Mapping[str, int],
    head: HeadRecord | None,
) -> _Draft:
    tier = stage.tier
    is_tiled = any(share.rows is not None for share in stage.machines)
    if is_tiled and any(codes):
        raise PlanError(
            f"tier `{tier}` shares rows among its machines, and what it reads or sends has a code",
            hint="leave out --codes, or give the tier one machine",
        )
    part = extract(index, stage.start, stage.stop)
    tag_nodes(part, tier)  # before codes and heads, whose nodes are none of the model's
    part = with_head(with_codes(index, part, *codes), head)
    if part.is_empty:
        return _Draft(tier, part, None, None)
    if is_tiled:
        weights = lay_out_data(weight_ranges(part.proto), DATA_NAME)
        refer_to(weights, part.proto)
        tiles = draft_tiles(index, stage.machines, weights, bind_shapes(index.graph, bindings))
        data = weights.content if weights.content.nbytes else None
        return _Draft(tier, part, as_it_is(part.proto), data, tiles)
    model, data = lay_out(part.proto, index.graph.file, DATA_NAME)
    return _Draft(tier, part, model, data)


def _write(draft: _Draft, folder: Path, copier: Copier) -> _Written:
    if draft.model is None:
        return _Written(draft, folder)
    folder.mkdir()
    model = copier.put(folder / MODEL_NAME, draft.model)
    data = None if draft.data is None else copier.put(folder / DATA_NAME, draft.data)
    tiles = tuple(copier.put(folder / tile.name, tile.content) for tile in draft.tiles)
    return _Written(draft, folder, model, data, tiles)
