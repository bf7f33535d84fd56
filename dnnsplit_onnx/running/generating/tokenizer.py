"""Between words and tokens, by the library `tokenizers`; chats, by the template beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError

_INSTALL = "pip install 'dnnsplit-onnx[generate]'"


class Tokenizer:
    """A tokenizer's file.

    Args:
        path: The file, `tokenizer.json`.
        template: The chat template, if there is one.
        special: Names of special tokens, such as `bos_token`, as templates use them.

    Raises:
        MissingExtraError: `tokenizers` is not installed.
        InputError: The file cannot be read.
    """

    def __init__(
        self, path: str | Path, template: str | None = None, special: Mapping[str, str] | None = None
    ) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtraError("a tokenizer needs the library `tokenizers`", hint=_INSTALL) from None
        try:
            self._inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare exceptions
            raise InputError(f"cannot read the tokenizer `{path}`: {error}") from None
        self._template, self._special = template, dict(special or {})

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def can_chat(self) -> bool:
        """Whether there is a chat template."""
        return self._template is not None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of a text; with those that begin one unless the text has them itself."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=True)
        return text

    def token(self, name: str) -> int | None:
        """The id of a token; None if there is none."""
        found: int | None = self._inner.token_to_id(name)
        return found

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The tokens of a chat that the model is to answer.

        Args:
            messages: Each with `role` and `content`.

        Raises:
            InputError: There is no template, or it refuses the messages.
            MissingExtraError: `jinja2` is not installed.
        """
        if self._template is None:
            raise InputError(
                "the model has no chat template", hint="put chat_template.jinja beside it, or use a prompt"
            )
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise MissingExtraError("a chat template needs the library `jinja2`", hint=_INSTALL) from None
        # A template comes with a model, from anywhere: it may read what it is given and no more.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            text = environment.from_string(self._template).render(
                messages=list(messages), add_generation_prompt=True, **self._special
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"the chat template refuses the messages: {error}") from None
        return self.encode(text, special=False)


def _refuse(message: str) -> None:
    """What a template calls where messages are not as it wants them."""
    raise ValueError(message)
