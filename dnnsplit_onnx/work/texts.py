"""The work of a whole text: a pass over the prompt, then a pass for each new token.

A decoder runs many times for one request. The first pass, the *prefill*, reads all tokens of the prompt and
makes the first new one; each *step* after it reads the token that was made last, and all that lies
in the caches. One cut serves both, so both have a part in its price, and all that planners ask for
is a sum over passes: FLOPs, bytes that cross, bytes that return. A `Text` is an analysis of these
sums, along one order of nodes.

A step reads what the caches hold, which grows from step to step. Bytes and FLOPs are linear in
it, so all steps together are as many at the mean length of the past (to half a token; where a
roofline bends between the first step and the last, a node's seconds are at least that). A prompt
that is read in chunks, or one token at a time because the model reads no more, is more passes,
each at the mean of what they find in the caches.

A model without states has no caches: it reads its whole text at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dnnsplit_onnx.graph.lengths import Lengths, lengths_of, state_nbytes
from dnnsplit_onnx.machines.topology import TEXT_LENGTHS, Workload
from dnnsplit_onnx.work.analysing import at_sizes
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.memory import StageMemory
from dnnsplit_onnx.work.passes import Passes

#: Bytes of a token's number, as it returns.
_TOKEN_NBYTES = 8


@dataclass(frozen=True, repr=False)
class Text(Passes):
    """An analysis of all passes that a text takes.

    Attributes:
        workload: How long it is, and how many there are at a time.
        caches: Bytes of each state when the last token is made, of all conversations; None
            where unknown.
    """

    workload: Workload = field(default_factory=Workload)
    caches: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def prefill(self) -> Analysis:
        """All passes over the prompt."""
        return self.parts[0][0]

    @property
    def step(self) -> Analysis:
        """One step, in the middle of the answer."""
        return self.parts[1][0]

    @property
    def check(self) -> Analysis | None:
        """A pass that checks drafts, if there are any; it is no part of the sums."""
        return self.parts[2][0] if len(self.parts) > 2 else None

    def cache_nbytes(self, start: int, stop: int) -> int | None:
        """Bytes of the caches that a stage keeps for all conversations; None if one is unknown."""
        readers = self.graph.state_readers
        sizes = [
            nbytes
            for name, nbytes in self.caches.items()
            if any(start <= at < stop for at in readers.get(name, ()))
        ]
        return None if None in sizes else sum(filter(None, sizes))

    @cached_property
    def memory(self) -> StageMemory:
        """What each stage needs: the most that any pass does, and the caches of all conversations."""
        most = Passes(self.graph, self.types, self.work, parts=self.parts).memory
        nbytes = most.weight_nbytes.copy()
        for at, name in enumerate(most.weight_names):
            if name in self.caches:
                cached = self.caches[name]
                nbytes[at] = np.inf if cached is None else cached
        return replace(most, weight_nbytes=nbytes)


def text_of(analysis: Analysis, workload: Workload) -> Text:
    """The work of a text.

    Args:
        analysis: The model, at whatever sizes; those that no pass changes stay as they are there.
        workload: How many tokens are read and made.

    Raises:
        InputError: It is not seen which dimensions count tokens, or those that are named are none.
        ShapeError: The model cannot be sized so.
    """
    if isinstance(analysis, Text):
        return analysis
    kept = analysis.texts  # an analysis never changes, and a sweep asks again and again
    key = repr([getattr(workload, name) for name in _OF_A_TEXT])
    if key not in kept:
        kept[key] = _text_of(analysis, workload)
    found = kept[key]
    assert isinstance(found, Text), "nothing else is kept there"
    return replace(found, workload=workload, input_nbytes=analysis.input_nbytes)


_OF_A_TEXT = (*TEXT_LENGTHS, "head", "tokens_dim", "past_dim", "draft_ms", "draft_tokens")


def _text_of(analysis: Analysis, workload: Workload) -> Text:
    lengths = lengths_of(analysis.graph, workload.tokens_dim, workload.past_dim)
    prompt, new = workload.prompt_tokens or 1, workload.new_tokens
    others = {
        name: size
        for name, size in analysis.types.bindings.items()
        if name not in (*lengths.tokens, *lengths.past, *lengths.total)
    }

    def sized(tokens: int, past: int) -> Analysis:
        one = at_sizes(analysis, {**others, **lengths.sizes(tokens, past)})
        return replace(one, returned=_returned(one, workload.head, lengths.fixed or tokens))

    middle = prompt + max(new - 2, 0) // 2
    if analysis.graph.states:
        prefill = _passes(analysis, list(_chunks(prompt, workload.prefill_chunk, lengths)), sized)
        step = sized(1, middle)
    else:
        prefill, step = sized(prompt, 0), sized(middle + 1, 0)
    parts = [(prefill, 1), (step, new - 1)]
    if workload.draft_ms is not None and analysis.graph.states and lengths.fixed is None:
        parts.append((sized(workload.draft_tokens + 1, middle), 0))
    last = {**others, **lengths.sizes(1, prompt + new - 1)}
    caches = {
        name: None if nbytes is None else nbytes * workload.conversations
        for name, nbytes in state_nbytes(analysis.graph, last).items()
    }
    set_by_workload = {*lengths.tokens, *lengths.past, *lengths.total}
    return Text(
        analysis.graph,
        analysis.types,
        analysis.work,
        order=analysis.order,
        input_nbytes=analysis.input_nbytes,
        trips=analysis.trips,
        assumed={name: size for name, size in analysis.assumed.items() if name not in set_by_workload},
        notes=analysis.notes,
        parts=tuple(parts),
        workload=workload,
        caches=caches,
    )


def _chunks(prompt: int, chunk: int | None, lengths: Lengths) -> Iterator[tuple[int, int, int]]:
    """Passes over a prompt: the tokens of each, those before on average, and how many passes."""
    size = lengths.fixed or min(chunk or prompt, prompt)
    whole, rest = divmod(prompt, size)
    if lengths.fixed and rest:  # the last pass is padded
        whole, rest = whole + 1, 0
    if whole:
        yield size, size * (whole - 1) // 2, whole
    if rest:
        yield rest, size * whole, 1


def _passes(
    analysis: Analysis, chunks: list[tuple[int, int, int]], sized: Callable[[int, int], Analysis]
) -> Analysis:
    """The passes over a prompt as one analysis."""
    parts = tuple((sized(tokens, past), count) for tokens, past, count in chunks)
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    return Passes(analysis.graph, analysis.types, analysis.work, order=analysis.order, parts=parts)


def _returned(analysis: Analysis, head: str, tokens: int) -> dict[str, int]:
    """Bytes of the logits that return, where they are not all of them.

    Logits are outputs of batch, tokens and vocabulary.
    """
    kind, _, count = head.partition(":")
    found = {}
    for name in analysis.graph.results:
        shape, nbytes = analysis.types[name].shape or (), analysis.types.nbytes(name)
        if kind == "full" or len(shape) != 3 or nbytes is None or shape[1] != tokens:
            continue
        batch, last = int(shape[0] or 0), nbytes // max(tokens, 1)
        if kind == "last":
            found[name] = last
        elif kind == "argmax":
            found[name] = batch * _TOKEN_NBYTES
        else:
            width = last // max(batch * int(shape[2] or 0), 1)
            found[name] = batch * int(count) * (width + _TOKEN_NBYTES)
    return found


def overlapped_s(seconds: Sequence[float], chunks: int) -> float:
    """Seconds of a prompt read in equal chunks that follow one another over tiers and links.

    Args:
        seconds: What all chunks together take on each tier and link.
        chunks: How many there are.

    Returns:
        The first chunk passes them all, and the slowest of them sets the pace of those after it.
    """
    return (sum(seconds) + (chunks - 1) * max(seconds)) / chunks
