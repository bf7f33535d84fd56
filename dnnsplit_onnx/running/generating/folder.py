"""What the files beside a model say of it: config.json and its kin, a tokenizer, a template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.running.generating.tokenizer import Tokenizer

#: The file of a tokenizer.
TOKENIZER = "tokenizer.json"
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "context_length")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
_LONGEST_TEMPLATE = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What is known of a model besides its graph.

    Attributes:
        ends: Tokens that end a text.
        starts: Tokens that a text after an encoder begins with.
        longest: Positions that it has; None if nothing says.
        tokenizer: The file of its tokenizer; None if there is none.
        template: Its chat template; None if there is none.
        special: Names of special tokens.
    """

    ends: frozenset[int] = frozenset()
    longest: int | None = None
    tokenizer: Path | None = None
    template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    starts: tuple[int, ...] = ()

    def open_tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None if there is none.

        Raises:
            MissingExtraError: Its library is not installed.
            InputError: The file cannot be read.
        """
        if self.tokenizer is None:
            return None
        return Tokenizer(self.tokenizer, self.template, self.special)


def read_folders(folders: Iterable[Path], tokenizer: Path | None = None) -> ModelFolder:
    """What the files of some folders say, the first that says something.

    Args:
        folders: Where to look, in turn.
        tokenizer: The file of the tokenizer; its folder comes first.

    Raises:
        InputError: A file is no JSON.
    """
    places = [*([tokenizer.parent] if tokenizer is not None else []), *folders]
    generation, config, genai, words = (
        _first_json(places, name)
        for name in ("generation_config.json", "config.json", "genai_config.json", "tokenizer_config.json")
    )
    model, text = _part(genai, "model"), _part(config, "text_config")
    saying = (generation, config, text, model)
    ends = next((ids for said in saying if (ids := _ids(said.get("eos_token_id")))), frozenset())
    lengths = (c.get(name) for c in (config, text, model) for name in _LENGTHS)
    return ModelFolder(
        ends,
        next((n for n in lengths if isinstance(n, int) and not isinstance(n, bool) and n > 0), None),
        tokenizer or next((p / TOKENIZER for p in places if (p / TOKENIZER).is_file()), None),
        _template(places, words),
        {name: content for name in _SPECIAL if (content := _content(words.get(name))) is not None},
        tuple(_starts((generation, config, text, model))),
    )


def _first_json(folders: Iterable[Path], name: str) -> dict[str, Any]:
    for folder in folders:
        path = folder / name
        if not path.is_file():
            continue
        try:
            data = json.loads(read_bounded(path))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot read `{path}`: {error}") from None
        return data if isinstance(data, dict) else {}
    return {}


def _part(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _ids(value: object) -> frozenset[int]:
    """Token ids: a number, or several."""
    several = value if isinstance(value, list) else [value]
    return frozenset(n for n in several if isinstance(n, int) and not isinstance(n, bool) and n >= 0)


def _starts(said: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """The token that a decoder begins with, and the one that it is made to say first."""
    for names in (("decoder_start_token_id", "bos_token_id"), ("forced_bos_token_id",)):
        told = (ids for name in names for one in said if (ids := _ids(one.get(name))))
        yield from next((ids for ids in told if len(ids) == 1), ())


def _template(folders: Iterable[Path], words: Mapping[str, Any]) -> str | None:
    for folder in folders:
        path = folder / "chat_template.jinja"
        if path.is_file():
            try:
                return read_bounded(path, most_nbytes=_LONGEST_TEMPLATE).decode()
            except (OSError, ValueError) as error:
                raise InputError(f"cannot read `{path}`: {error}") from None
    told = words.get("chat_template")
    if isinstance(told, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in told if isinstance(one, dict)}
        told = named.get("default")
    return told if isinstance(told, str) else None


def _content(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
