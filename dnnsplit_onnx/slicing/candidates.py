"""Slices of every range that a plan over given cuts may use, laid down once.

Candidate cuts do not depend on the network. So all that any plan over them can ask of a tier
is known beforehand, and a tier can switch from one cut to another without a new file:

    DIR/manifest.json
    DIR/TIER/weights.data          all large weights of the model, once
    DIR/TIER/START-STOP.onnx       the nodes [START, STOP), its weights references to weights.data

The bottom tier has the ranges that start at 0, the top tier those that stop at n, and a
tier between them every range, which is a number that grows with the square of the cuts. Each
costs its graph only. `Manifest.slices` is the plan as ever, its files among these;
`Manifest.candidates` lists every range of every tier, in the order of start, stop and tier.

The file of weights is the same for all tiers and yet a copy in each: onnx and onnxruntime
refuse data outside the model's folder, and onnx takes a hard link for an attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.graph.digests import Digests, graph_digests
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.planning.fitting import graph_of
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.copying import Copier
from dnnsplit_onnx.slicing.extract import extract
from dnnsplit_onnx.slicing.files import Content, as_it_is, lay_out_data, refer_to, weight_ranges
from dnnsplit_onnx.slicing.heads import FULL, head_of, headed, with_head
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.slicing.manifest import FILE_NAME, DataFile, HeadRecord, Manifest, SliceRecord
from dnnsplit_onnx.slicing.records import check_stages, empty_record, manifest, model_place, slice_record
from dnnsplit_onnx.slicing.slicer import Progress, counting, output_folder
from dnnsplit_onnx.slicing.tags import tag_nodes
from dnnsplit_onnx.work.codes import RAW

WEIGHTS_NAME = "weights.data"

Span = tuple[int, int]


def slice_all_candidates(
    graph: Graph,
    plan: Plan,
    positions: Iterable[int],
    output: str | Path,
    *,
    model_path: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    check: Callable[[Path], object] | None = None,
    head: str = FULL,
) -> Manifest:
    """Writes the slices of a plan, and of every other plan over these cuts.

    Args:
        graph: The model, in whatever order: positions count in the plan's.
        plan: The plan that is in force; its cuts need not be among the candidates.
        positions: Candidate cuts. The ends, 0 and n, are added.
        output: The folder to make; the layout is described above.
        model_path: As for `slice_model`.
        force: As for `slice_model`.
        progress: As for `slice_model`.
        check: As for `slice_model`.
        head: As for `slice_model`.

    Returns:
        The manifest, as written.

    Raises:
        ValueError: A position is not one of the graph's.
        PlanError, CutError, OutputError, InputError, ModelError: As for `slice_model`.
    """
    graph = graph_of(plan, graph)
    top = head_of(graph, head)
    stages = plan.figures.stages
    check_stages(graph, stages)
    if any(link.code != RAW for link in plan.figures.links):
        raise PlanError(
            "the slices of all candidate cuts have no codes, and the plan has",
            hint="leave out --codes, or --all-candidates",
        )
    if any(share.rows is not None for stage in stages for share in stage.machines):
        raise PlanError(
            "the slices of all candidate cuts have no tiles, and the plan shares rows among machines",
            hint="leave out --all-candidates, or name one machine in the tiers file",
        )
    cuts = sorted({0, len(graph.nodes), *positions, *plan.cuts})
    users = _users_of_ranges([stage.tier for stage in stages], cuts)
    with output_folder(graph, output, force) as folder, Copier(graph.file) as copier:
        graph.file.begin_digests()
        writer = _Writer(SliceIndex(graph), folder, copier, top)
        writer.write_weights([stage.tier for stage in stages], progress)
        known = {key: record for users_of_one in users.items() for key, record in writer.write(*users_of_one)}
        graph.file.check_unchanged()
        made = manifest(
            graph,
            plan,
            [known[stage.tier, stage.start, stage.stop] for stage in stages],
            list(known.values()),
            model_path=model_place(graph.file, model_path, folder, Path(output)),
            digests=graph.file.digests(),
        )
        made = headed(made, top)
        (folder / FILE_NAME).write_text(made.to_json(), encoding="utf-8")
        if check is not None:
            check(folder)
    return made


def _users_of_ranges(tiers: Sequence[str], cuts: Sequence[int]) -> dict[Span, list[str]]:
    """The tiers that may be given each range, by start, then stop."""
    users: dict[Span, list[str]] = {}
    for at, tier in enumerate(tiers):
        for span in tier_ranges(cuts, bottom=at == 0, top=at == len(tiers) - 1):
            users.setdefault(span, []).append(tier)
    return dict(sorted(users.items()))


def tier_ranges(cuts: Sequence[int], *, bottom: bool, top: bool) -> Iterator[tuple[int, int]]:
    """The ranges that a tier may be given by plans over these cuts, empty ones included.

    Args:
        cuts: Positions in ascending order, 0 and n among them.
        bottom: Whether it is tier 0, whose ranges start at 0.
        top: Whether it is the last tier, whose ranges stop at n.
    """
    for start in cuts[:1] if bottom else cuts:
        for stop in cuts[-1:] if top else cuts:
            if start <= stop:
                yield start, stop


class _Writer:
    """Writes slices of one graph whose weights lie in one file in each tier's folder."""

    def __init__(self, index: SliceIndex, folder: Path, copier: Copier, head: HeadRecord | None) -> None:
        self._index = index
        self._head = head
        self._folder = folder
        self._copier = copier
        # The whole graph needs every weight that some range needs.
        whole = extract(index, 0, len(index.graph.nodes))
        self._weights = lay_out_data(weight_ranges(whole.proto), WEIGHTS_NAME)
        self._digests: Digests = {}

    def write_weights(self, tiers: Sequence[str], progress: Progress | None) -> None:
        """Makes the tiers' folders, each with the file of weights."""
        content = self._weights.content
        self._copier.report = counting(progress, content.nbytes * len(tiers))
        for tier in tiers:
            (self._folder / tier).mkdir()
        if content.nbytes:
            digests = self._copier.digests(content)
            self._write(content, [f"{tier}/{WEIGHTS_NAME}" for tier in tiers])
            self._digests = digests.result()
        self._copier.report = counting(None, 0)

    def write(self, span: Span, tiers: Sequence[str]) -> Iterator[tuple[tuple[str, int, int], SliceRecord]]:
        """Writes one range for the tiers that may be given it; yields their records."""
        part = with_head(extract(self._index, *span), self._head)
        if part.is_empty:
            yield from (((tier, *span), empty_record(tier, part)) for tier in tiers)
            return
        name = f"{part.start}-{part.stop}.onnx"
        uses_weights = bool(weight_ranges(part.proto))
        refer_to(self._weights, part.proto)
        for tier in tiers:
            tag_nodes(part, tier)  # so each tier has a file of its own
            content = as_it_is(part.proto)
            self._write(content, [f"{tier}/{name}"])
            digests = self._copier.digests(content).result() | graph_digests(self._folder / tier / name)
            data = self._data_file(tier) if uses_weights else None
            yield (tier, *span), slice_record(tier, part, f"{tier}/{name}", digests, content.nbytes, data)

    def _data_file(self, tier: str) -> DataFile:
        nbytes = self._weights.content.nbytes
        return DataFile(file=f"{tier}/{WEIGHTS_NAME}", digests=self._digests, nbytes=nbytes)

    def _write(self, content: Content, names: Sequence[str]) -> None:
        """Writes a file under several names."""
        for name in names:
            self._copier.write(self._folder / name, content)
