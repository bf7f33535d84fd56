"""Slices of every range that a plan over given cuts may use, laid down once.

Candidate cuts do not depend on the network. So all that any plan over them can ask of a tier
is known beforehand, and a tier can switch from one cut to another without a new file:

    DIR/manifest.json
    DIR/TIER/weights.data          all large weights of the model, once
    DIR/TIER/START-STOP.onnx       the nodes [START, STOP), its weights references to weights.data
    DIR/TIER/START.fp16-STOP.uint8.onnx   the same, reading and writing codes

The bottom tier has the ranges that start at 0, the top tier those that stop at n, and a
tier between them every range, which is a number that grows with the square of the cuts. Each
costs its graph only. `Manifest.slices` is the plan as ever, its files among these;
`Manifest.candidates` lists every range of every tier, in the order of start, stop and tier. Where
codes are allowed, a range is there once for each code at each of its ends.

The file of weights is the same for all tiers and yet a copy in each: onnx and onnxruntime
refuse data outside the model's folder, and onnx takes a hard link for an attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.graph.digests import Digests, graph_digests
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import FILES
from dnnsplit_onnx.planning.figures import Stage
from dnnsplit_onnx.planning.fitting import graph_of
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.coded import Codes, coded_values, with_codes
from dnnsplit_onnx.slicing.copying import Copier
from dnnsplit_onnx.slicing.extract import extract
from dnnsplit_onnx.slicing.files import Content, as_it_is, lay_out_data, refer_to, weight_ranges
from dnnsplit_onnx.slicing.heads import FULL, head_of, headed, with_head
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.slicing.manifest import FILE_NAME, DataFile, HeadRecord, Manifest, SliceRecord
from dnnsplit_onnx.slicing.records import check_stages, empty_record, manifest, model_place, slice_record
from dnnsplit_onnx.slicing.slicer import Progress, counting, output_folder
from dnnsplit_onnx.slicing.tags import tag_nodes
from dnnsplit_onnx.work.codes import RAW, Choices, base

WEIGHTS_NAME = "weights.data"

Span = tuple[int, int]
#: A tier, the positions of its slice, and the codes of what it reads and writes.
Key = tuple[str, int, int, str, str]


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
    codes: Sequence[Choices] = (),
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
        codes: What each link may carry in codes, as `planning.coding.choices_at` says it; none
            but the plan's by default.

    Returns:
        The manifest, as written.

    Raises:
        ValueError: A position is not one of the graph's.
        PlanError, CutError, OutputError, InputError, ModelError: As for `slice_model`.
    """
    graph.file.begin_digests()
    graph = graph_of(plan, graph)
    top = head_of(graph, head)
    stages = plan.figures.stages
    check_stages(graph, stages)
    if any(share.rows is not None for stage in stages for share in stage.machines):
        raise PlanError(
            "the slices of all candidate cuts have no tiles, and the plan shares rows among machines",
            hint="leave out --all-candidates, or name one machine in the tiers file",
        )
    cuts = sorted({0, len(graph.nodes), *positions, *plan.cuts})
    tiers = [stage.tier for stage in stages]
    users = _users_of_ranges(tiers, cuts)
    with output_folder(graph, output, force) as folder, Copier(graph.file) as copier:
        writer = _Writer(SliceIndex(graph), folder, copier, top, _choices(plan, codes))
        writer.write_weights(tiers, progress)
        known = {key: record for users_of_one in users.items() for key, record in writer.write(*users_of_one)}
        ends = pairwise((RAW, *(base(link.code) for link in plan.figures.links), RAW))
        graph.file.check_unchanged()
        made = manifest(
            graph,
            plan,
            [_planned(known, stage, *codes) for stage, codes in zip(stages, ends, strict=True)],
            list(known.values()),
            model_path=model_place(graph.file, model_path, folder, Path(output)),
            digests=graph.file.digests(),
        )
        made = headed(made, top)
        (folder / FILE_NAME).write_text(made.to_json(), encoding="utf-8")
        if check is not None:
            check(folder)
    return made


def _planned(known: Mapping[Key, SliceRecord], stage: Stage, below: str, above: str) -> SliceRecord:
    """The slice of a stage of the plan; one without work passes on what arrives, in whatever code."""
    found = known.get((stage.tier, stage.start, stage.stop, below, above))
    return known[stage.tier, stage.start, stage.stop, RAW, RAW] if found is None else found


def _choices(plan: Plan, codes: Sequence[Choices]) -> list[Choices]:
    """What may cross in codes below each tier and above the last: what the plan has, and what is allowed."""
    found: list[Choices] = [{}]
    for link, allowed in zip(plan.figures.links, codes or [{}] * len(plan.figures.links), strict=True):
        values = tuple(one.value for one in link.coded if one.code not in FILES)
        found.append({**allowed, **({(link.position, base(link.code)): values} if values else {})})
    return [*found, {}]


def _users_of_ranges(tiers: Sequence[str], cuts: Sequence[int]) -> dict[Span, dict[str, int]]:
    """The tiers that may be given each range, and which these are, by start, then stop."""
    users: dict[Span, dict[str, int]] = {}
    for at, tier in enumerate(tiers):
        for span in tier_ranges(cuts, bottom=at == 0, top=at == len(tiers) - 1):
            users.setdefault(span, {})[tier] = at
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

    def __init__(
        self,
        index: SliceIndex,
        folder: Path,
        copier: Copier,
        head: HeadRecord | None,
        choices: Sequence[Choices],
    ) -> None:
        self._index = index
        self._choices = choices
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

    def write(self, span: Span, tiers: Mapping[str, int]) -> Iterator[tuple[Key, SliceRecord]]:
        """Writes one range for the tiers that may be given it, in all codes; yields their records."""
        for tier, at in tiers.items():
            for ends in product(*self._codes(span, at)):
                (below, read), (above, written) = ends
                coded = coded_values(self._index, span[0], read), coded_values(self._index, span[1], written)
                yield (tier, *span, below, above), self._record(span, tier, (below, above), coded)

    def _codes(self, span: Span, tier: int) -> Iterator[list[tuple[str, dict[str, str]]]]:
        """For both ends of a range, the codes and the values in them; one without work passes all on."""
        for cut, choices in zip(span, self._choices[tier : tier + 2], strict=True):
            works = span[0] < span[1] or tier == 0
            found = {code: values for (at, code), values in choices.items() if at == cut and works}
            yield [(RAW, {}), *((code, dict.fromkeys(found[code], code)) for code in sorted(found))]

    def _record(self, span: Span, tier: str, codes: tuple[str, str], coded: Sequence[Codes]) -> SliceRecord:
        """Writes one slice, and returns its record."""
        part = extract(self._index, *span)
        tag_nodes(part, tier)  # so each tier has a file of its own
        part = with_head(with_codes(self._index, part, *coded), self._head)
        if part.is_empty:
            return empty_record(tier, part)
        ends = (f"{at}" if code == RAW else f"{at}.{code}" for at, code in zip(span, codes, strict=True))
        file = f"{tier}/{'-'.join(ends)}.onnx"
        data = self._data_file(tier) if weight_ranges(part.proto) else None
        refer_to(self._weights, part.proto)
        content = as_it_is(part.proto)
        self._write(content, [file])
        digests = self._copier.digests(content).result() | graph_digests(self._folder / file)
        return slice_record(tier, part, file, digests, content.nbytes, data)

    def _data_file(self, tier: str) -> DataFile:
        nbytes = self._weights.content.nbytes
        return DataFile(file=f"{tier}/{WEIGHTS_NAME}", digests=self._digests, nbytes=nbytes)

    def _write(self, content: Content, names: Sequence[str]) -> None:
        """Writes a file under several names."""
        for name in names:
            self._copier.write(self._folder / name, content)
