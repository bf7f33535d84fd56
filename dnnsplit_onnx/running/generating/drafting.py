"""Several tokens a pass: a small model proposes, the large one verifies, and only tokens cross.

The large model is fed the last token and K proposals in one pass. What it would have said after
each is compared with the proposal: as long as they agree a token is won, the first that differs is
replaced by the large model's own, and the caches of the rest are cut back.

A pass over several tokens sums in another order than single steps do, so its logits differ in the
last digits. Where the two best are nearer than `NEAR`, one step over that token alone decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.running.caches import cannot_drop
from dnnsplit_onnx.running.generating.checks import vocabulary_of
from dnnsplit_onnx.running.generating.decoder import Decoder, Signature
from dnnsplit_onnx.running.generating.roles import Roles
from dnnsplit_onnx.running.generating.text import Text

#: Logits that are nearer to each other are looked at again, in a step of their own.
NEAR = 1e-3
_INT4 = 4


class Draft:
    """A small model that proposes tokens.

    Args:
        decoder: The small model.
        tokens: How many it proposes a pass.

    Raises:
        InputError: It reads what nothing tells how to fill.
    """

    def __init__(self, decoder: Decoder, tokens: int = 4) -> None:
        self._decoder, self._count = decoder, tokens
        self._roles = Roles(decoder.signature)

    def check(self, target: Signature) -> None:
        """Refuses to draft for a model that this one cannot draft for, or that cannot verify.

        Raises:
            InputError: It has another vocabulary, its caches cannot be cut back, or its slices
                return too little to tell near ties.
        """
        mine, theirs = vocabulary_of(self._decoder.signature), vocabulary_of(target)
        if mine is not None and theirs is not None and mine != theirs:
            raise InputError(
                f"the draft has {mine} tokens, and the model {theirs}",
                hint="draft with a model of the same",
            )
        head = target.head
        if head is not None and (head.kind != "topk" or (head.count or 0) < 2):
            raise InputError(
                f"the slices return too little (`--head {head.kind}`) to verify drafts",
                hint="split with `--head topk:2`, or without --head",
            )
        state = cannot_drop(target.records)
        if state is not None:
            raise InputError(
                f"state `{state}` cannot be cut back, so no draft can be taken back", hint="leave out --draft"
            )

    def tokens(self, text: Text, ids: Sequence[int], most: int) -> Iterator[int]:
        """The tokens that follow a prompt, as the large model alone would choose them.

        Args:
            text: Of the large model, empty.
            ids: The prompt.
            most: How many tokens are wanted at most.
        """
        with Text(self._decoder, self._roles) as draft:
            token = text.feed(ids)[-1].best
            said = [*ids, token]
            yield token
            while True:
                room = max(0, min(self._count, len(ids) + most - len(said) - 1))
                proposed = _propose(draft, said, room)
                for token in verify(text, said[-1], proposed):
                    said.append(token)
                    yield token

    def close(self) -> None:
        """Gives the small model up."""
        self._decoder.close()


def _propose(draft: Text, said: Sequence[int], count: int) -> list[int]:
    proposed: list[int] = []
    for _ in range(count):
        proposed.append(draft.follow([*said, *proposed]).best)
    return proposed


def verify(text: Text, token: int, proposed: Sequence[int]) -> list[int]:
    """The tokens that the large model says after one, as far as proposals agree, and one more.

    Args:
        text: Of the large model, fed up to and without `token`; with all that is returned but the
            last token afterwards.
        token: The last token of the text.
        proposed: What may follow it.
    """
    asked = [token, *proposed]
    scores = text.feed(asked, wanted=len(asked))
    said: list[int] = []
    for at, candidates in enumerate(scores):
        best, gap = candidates.best, candidates.gap
        is_sure = gap is None or gap >= NEAR or len(asked) == 1
        if not is_sure:
            text.drop(len(asked) - at)
            best = text.feed([asked[at]])[-1].best
            return [*said, best]
        said.append(best)
        if at == len(proposed) or best != proposed[at]:
            text.drop(len(proposed) - at)
            return said
    raise AssertionError("the last position always ends it")


def check_exact(models: Sequence[Path]) -> None:
    """Refuses models whose passes over several tokens are not nearly those over single ones.

    Raises:
        InputError: Weights of 4 bits are computed with activations of 8.
    """
    for path in models:
        for node in open_model(path).proto.graph.node:
            if node.op_type == "MatMulNBits" and _level(node) == _INT4:
                raise InputError(
                    f"node `{node.name}` rounds activations to 8 bits (`accuracy_level` = 4): drafts would "
                    "change what the model says",
                    context=f"in {path}",
                    hint="leave out --draft, or quantize with accuracy_level=0",
                )


def _level(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "accuracy_level"), 0)
