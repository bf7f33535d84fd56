"""The two phases of a text under a plan: what its prompt takes, and each token after the first.

    TTFT = what all passes over the prompt take, one after the other
    TPOT = what a step takes, at the mean length of the past
    latency = TTFT + (new tokens - 1) * TPOT

Waiting at an offered rate is in the latency of the whole alone. A conversation that passes a
station N times, each for 1/N of its seconds, waits there N times 1/N of what one long pass would:
by Jackson (1957) the formula of `waiting` holds for the whole.

A prompt in chunks can be pipelined: while a tier reads a chunk, the one below it reads the next.
That is no sum over cuts, so plans are chosen without it, and told what it makes of them.
"""

from __future__ import annotations

from dataclasses import replace

from dnnsplit_onnx.machines.topology import Topology, Workload
from dnnsplit_onnx.planning.drafting import Drafting
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.work.texts import overlapped_s


def text_notes(figures: Figures, topology: Topology) -> tuple[str, ...]:
    """What a prompt sends beside a step, and what chunks and drafts would make of it, a sentence each."""
    workload = topology.workload
    if figures.ttft_s is None:
        return ()
    notes = [
        f"over `{link.source}` to `{link.target}` a prompt of {workload.prompt_tokens:,} tokens sends "
        f"{link.prefill_nbytes:,} bytes, and each token after the first {link.step_nbytes:,}"
        for link in figures.links
        if link.prefill_nbytes and link.step_nbytes is not None
    ]
    if figures.ttft_overlapped_s is not None:
        notes.append(
            "chunks of the prompt that follow one another over the tiers bring the first token after "
            f"{figures.ttft_overlapped_s * 1e3:.4g} ms"
        )
    return (*notes, *_drafting_note(figures, topology))


def drafting(figures: Figures, workload: Workload) -> Drafting | None:
    """What drafting takes and yields under a plan; None without drafts."""
    if workload.draft_ms is None or figures.tpot_s is None or figures.check_s is None:
        return None
    draft_s = workload.draft_ms / 1e3
    return Drafting(figures.tpot_s, figures.check_s, draft_s, workload.draft_tokens, workload.draft_accepts)


def _drafting_note(figures: Figures, topology: Topology) -> tuple[str, ...]:
    """Whether drafting pays, and from which round trip on."""
    found = drafting(figures, topology.workload)
    if found is None:
        return ()
    used = [link for link, sent in zip(topology.links, figures.links, strict=True) if sent.step_s]
    ways = 2 if topology.limits.returns else 1
    round_trip_s = sum(ways * link.delay_ms / 1e3 for link in used)
    least = found.pays_from(round_trip_s)
    said = (
        f"{found.drafts} drafts of {found.draft_s * 1e3:.4g} ms, {found.accepts:.0%} accepted, make "
        f"{found.tokens:.3g} tokens a pass of {found.check_s * 1e3:.4g} ms"
    )
    if found.gain > 1:
        return (f"drafting pays: {said}, {found.gain:.3g} times as fast",)
    when = "at no round trip" if least is None else f"from a round trip of {least * 1e3:.4g} ms on"
    return (f"drafting does not pay: {said}, {found.gain:.3g} times as fast; it does {when}",)


def with_phases(
    figures: Figures, prefill: Figures, step: Figures, check: Figures | None, chunks: int
) -> Figures:
    """Figures of a text with those of its phases.

    Args:
        figures: Of the whole.
        prefill: Of the passes over the prompt, waiting left out.
        step: Of one step.
        check: Of a pass that checks drafts.
        chunks: How many passes the prompt takes.
    """
    stages = tuple(
        replace(whole, prefill_s=first.seconds, step_s=later.seconds)
        for whole, first, later in zip(figures.stages, prefill.stages, step.stages, strict=True)
    )
    links = tuple(
        replace(
            whole,
            prefill_s=first.seconds,
            step_s=later.seconds,
            prefill_nbytes=first.nbytes,
            step_nbytes=later.nbytes,
        )
        for whole, first, later in zip(figures.links, prefill.links, step.links, strict=True)
    )
    parts = [*(stage.seconds for stage in prefill.stages), *(link.seconds for link in prefill.links)]
    return replace(
        figures,
        stages=stages,
        links=links,
        ttft_s=prefill.latency_s,
        tpot_s=step.latency_s,
        check_s=None if check is None else check.latency_s,
        ttft_overlapped_s=overlapped_s(parts, chunks) if chunks > 1 else None,
    )
