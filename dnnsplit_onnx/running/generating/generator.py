"""Text from a decoder, wherever it runs.

generator = Generator.open("slices", tokenizer="tokenizer.json")
print(generator("Once upon a time").text)
for piece in generator.stream("Once upon a time", Sampling(temperature=0.8, seed=1)):
    print(piece.text, end="")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating import checks
from dnnsplit_onnx.running.generating.decoder import Decoder
from dnnsplit_onnx.running.generating.drafting import Draft
from dnnsplit_onnx.running.generating.encoder import Encoder
from dnnsplit_onnx.running.generating.folder import ModelFolder
from dnnsplit_onnx.running.generating.opening import folder_of, open_decoder
from dnnsplit_onnx.running.generating.pieces import Words
from dnnsplit_onnx.running.generating.roles import Roles
from dnnsplit_onnx.running.generating.sampling import Sampling, choose
from dnnsplit_onnx.running.generating.text import Text
from dnnsplit_onnx.running.generating.tokenizer import Tokenizer

#: Words, token ids, the messages of a chat, or what an encoder reads, by name.
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]] | Mapping[str, Any]
Attended = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds.

    Attributes:
        token: The token; None where the end brings words that were held back.
        text: The words that are certain now, often none.
        finish: Why it ends here, `stop` or `length`; None if it goes on.
    """

    token: int | None
    text: str
    finish: str | None = None

    @property
    def number(self) -> str:
        """The token's id and a space, for those who have no tokenizer."""
        return "" if self.token is None else f"{self.token} "


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer.

    Attributes:
        tokens: What was made, without the token that ended it.
        text: Its words; empty without a tokenizer.
        finish: Why it ended: `stop` or `length`.
        prompt_tokens: How long the prompt was; 0 for one of no tokens, such as sound.
        first_s: Seconds to the first token.
        seconds: Seconds in all.
    """

    tokens: tuple[int, ...]
    text: str
    finish: str
    prompt_tokens: int
    first_s: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


class Generator:
    """Continues texts; safe to use from several threads.

    Args:
        decoder: What makes logits of tokens.
        tokenizer: Between words and tokens; without it prompts and answers are token ids.
        folder: What is known of the model besides its graph.
        draft: Proposes several tokens a pass, where the likeliest are taken.
        encoder: Reads the prompt, where the decoder reads what it gives.

    Raises:
        InputError: The decoder reads what nothing tells how to fill, the tokenizer or the draft
            has another vocabulary, or the encoder is of another decoder.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer | None = None,
        folder: ModelFolder | None = None,
        draft: Draft | None = None,
        encoder: Decoder | None = None,
    ) -> None:
        self.decoder, self.tokenizer, self.folder = decoder, tokenizer, folder or ModelFolder()
        self.draft = draft
        self.encoder = None if encoder is None else Encoder(encoder, decoder.signature)
        if self.encoder is not None and draft is not None:
            raise InputError("drafts are for decoders that stand alone", hint="leave out --draft")
        self._roles = Roles(decoder.signature, () if self.encoder is None else self.encoder.gives)
        if tokenizer is not None:
            checks.check_vocabulary(tokenizer.size, decoder.signature, "the tokenizer")
        if draft is not None:
            draft.check(decoder.signature)
        end = None if tokenizer is None else tokenizer.token(self.folder.special.get("eos_token", ""))
        self._ends = self.folder.ends or frozenset([] if end is None else [end])

    @classmethod
    def open(
        cls, place: str | Path, *, tokenizer: str | Path | None = None, encoder: str | Path | None = None
    ) -> Generator:
        """A generator in this process.

        Args:
            place: A folder of slices, or a whole model.
            tokenizer: The tokenizer's file; by default `tokenizer.json` beside the model.
            encoder: The encoder before the decoder, whole or in slices.

        Raises:
            InputError: There is neither, or it cannot be opened.
            MissingExtraError: A library is not installed.
        """
        folder = folder_of(Path(place), None if tokenizer is None else Path(tokenizer))
        before = None if encoder is None else open_decoder(Path(encoder))
        return cls(open_decoder(Path(place)), folder.open_tokenizer(), folder, encoder=before)

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt.

        Raises:
            InputError: There are words or messages, and no tokenizer, or no chat template.
        """
        if isinstance(prompt, Mapping):
            raise InputError("what an encoder reads by name has no tokens", hint="pass it to a call")
        if not isinstance(prompt, str) and all(isinstance(one, int | np.integer) for one in prompt):
            return [int(one) for one in prompt]  # type: ignore[arg-type]
        if self.tokenizer is None:
            raise InputError("words need a tokenizer", hint="pass --tokenizer FILE, or --tokens 1,2,3")
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        return self.tokenizer.chat(prompt)  # type: ignore[arg-type]

    def __call__(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        on_piece: Callable[[Piece], object] = lambda _: None,
    ) -> Completion:
        """Continues a text.

        Args:
            prompt: Words, token ids, the messages of a chat, or what the encoder reads, by name.
            sampling: How, and until when.
            on_piece: Called with each piece as it comes.

        Raises:
            InputError: The model cannot read the prompt.
            RequestError: It cannot be met: too little memory, or a tier that is not reached.
        """
        start = time.perf_counter()
        source = prompt if isinstance(prompt, Mapping) else self.encode(prompt)
        count, first_s = 0 if isinstance(source, Mapping) else len(source), 0.0
        tokens: list[int] = []
        words, finish = "", "length"
        for piece in self.stream(source, sampling):
            first_s = first_s or time.perf_counter() - start
            words += piece.text
            finish = piece.finish or finish
            on_piece(piece)
            if piece.token is not None:
                tokens.append(piece.token)
        return Completion(tuple(tokens), words, finish, count, first_s, time.perf_counter() - start)

    def stream(self, prompt: Prompt, sampling: Sampling | None = None) -> Iterator[Piece]:
        """Continues a text piece by piece.

        What is wrong with the prompt is raised here, and not when the first piece is asked for,
        which is when a lack of memory is told.

        Raises:
            InputError: As for a call.
            RequestError: As for a call.
        """
        sampling = sampling or Sampling()
        if self.tokenizer is None and sampling.stop:
            raise InputError("a text that ends the answer needs a tokenizer", hint="pass --tokenizer FILE")
        ids, attended = self._begin(prompt, sampling)
        most = sampling.max_new
        if self.folder.longest is not None:
            most = min(most, self.folder.longest - len(ids))
        return self._pieces(ids, sampling, most, attended)

    def several(
        self, prompts: Sequence[Prompt], sampling: Sampling | None = None, concurrency: int = 8
    ) -> Iterator[Completion]:
        """Continues several texts at a time: while a tier works on one, others work on the next.

        Yields:
            The answers, in the order of the prompts.
        """
        with ThreadPoolExecutor(concurrency, thread_name_prefix="text") as threads:
            yield from threads.map(lambda prompt: self(prompt, sampling), prompts)

    def close(self) -> None:
        """Gives the decoder up."""
        for one in (self.decoder, self.draft, self.encoder):
            if one is not None:
                one.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, prompt: Prompt, sampling: Sampling) -> tuple[Sequence[int], Attended]:
        """The tokens that the decoder begins with, and what it reads of an encoder."""
        signature, longest = self.decoder.signature, self.folder.longest
        if self.encoder is None:
            if sampling.start is not None:
                raise InputError("an answer begins with the prompt: there is no encoder that reads it")
            ids = self.encode(prompt)
            checks.check_prompt(ids, signature, longest)
            return ids, {}
        source = prompt if isinstance(prompt, Mapping) else self.encode(prompt)
        if not source:
            raise InputError("the prompt has no tokens", hint="write some words: --prompt TEXT")
        start = self.folder.starts if sampling.start is None else sampling.start
        if not start:
            raise InputError(
                "nothing tells what an answer begins with", hint="name its first token, as in --start 0"
            )
        checks.check_prompt(start, signature, longest)
        return start, self.encoder(source)

    def _pieces(
        self, ids: Sequence[int], sampling: Sampling, most: int, attended: Attended
    ) -> Iterator[Piece]:
        ends = self._ends if sampling.stop_tokens is None else sampling.stop_tokens
        words = None if self.tokenizer is None else Words(self.tokenizer.decode, sampling.stop)
        with Text(self.decoder, self._roles, len(ids) + most, attended) as text:
            for at, token in enumerate(self._tokens(text, ids, sampling, most), start=1):
                if token in ends:
                    yield Piece(None, words.end() if words else "", "stop")
                    return
                said = words.add(token) if words else ""
                if words is not None and words.is_ended:
                    yield Piece(token, said, "stop")
                    return
                if at < most:
                    yield Piece(token, said)
                    continue
                said += words.end() if words else ""
                yield Piece(token, said, "stop" if words is not None and words.is_ended else "length")
                return

    def _tokens(self, text: Text, ids: Sequence[int], sampling: Sampling, most: int) -> Iterator[int]:
        """The tokens that follow, without end."""
        if self.draft is not None and sampling.is_greedy:
            yield from self.draft.tokens(text, ids, most)
            return
        rng = np.random.default_rng(sampling.seed)
        candidates = text.feed(ids)[-1]
        while True:
            token = choose(candidates, sampling, rng)
            yield token
            candidates = text.feed([token])[-1]
