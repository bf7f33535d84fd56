"""Requests and answers of OpenAI's completions and chat completions, as JSON objects.

What changes an answer and is not done here is refused by name; what only describes it is left
aside, as other servers of this interface do.

Source: https://platform.openai.com/docs/api-reference/chat and /completions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.generator import Completion, Prompt
from dnnsplit_onnx.running.generating.sampling import Sampling
from dnnsplit_onnx.serving.wire.errors import ProtocolError

_MOST_PROMPTS = 64
_MOST_STOPS = 4
_NEW_OF_PROMPT, _NEW_OF_CHAT = 16, 1024
# What would change the answer, and the value at which it does not.
_NOT_DONE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "tools": ([],),
    "functions": ([],),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "audio": (),
    "response_format": ({"type": "text"},),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        prompts: The texts to continue; a chat is one.
        sampling: How.
        is_chat: Whether it is a chat.
        streams: Whether the answer is to come piece by piece.
        counts: Whether a stream is to end with how many tokens there were.
    """

    prompts: tuple[Prompt, ...]
    sampling: Sampling
    is_chat: bool
    streams: bool
    counts: bool


def read_request(data: Mapping[str, Any], *, is_chat: bool, name: str) -> Asked:
    """Reads a request.

    Args:
        data: Its body.
        is_chat: Whether it came for a chat.
        name: The model there is.

    Raises:
        ProtocolError: A field is wrong, or asks for what is not done.
    """
    if data.get("model", name) != name:
        raise ProtocolError(f"there is one model here, `{name}`", status=404)
    for field, without in _NOT_DONE.items():
        if data.get(field) is not None and data[field] not in without:
            raise ProtocolError(f"`{field}` is not supported")
    streams = _flag(data.get("stream"), "stream")
    options = data.get("stream_options")
    prompts = (_messages(data.get("messages")),) if is_chat else _prompts(data.get("prompt"))
    if streams and len(prompts) > 1:
        raise ProtocolError("several prompts cannot be streamed: ask for one at a time")
    return Asked(
        prompts,
        _sampling(data, is_chat=is_chat),
        is_chat,
        streams,
        isinstance(options, dict) and _flag(options.get("include_usage"), "include_usage"),
    )


def choice(asked: Asked, at: int, answer: Completion) -> dict[str, Any]:
    """An answer as one of the choices."""
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": answer.text}} if asked.is_chat else {"text": answer.text}
    )
    return {"index": at, **said, "logprobs": None, "finish_reason": answer.finish}


def piece_choice(asked: Asked, text: str, finish: str | None, *, is_first: bool) -> dict[str, Any]:
    """A piece of an answer as a choice of a stream."""
    if not asked.is_chat:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    delta = ({"role": "assistant"} if is_first else {}) | ({"content": text} if text or is_first else {})
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def usage(prompt_tokens: int, new_tokens: int) -> dict[str, int]:
    """How many tokens there were."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


def error_body(message: str, status: int) -> dict[str, Any]:
    """An error as these clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _sampling(data: Mapping[str, Any], *, is_chat: bool) -> Sampling:
    asked = data.get("max_completion_tokens")
    asked = data.get("max_tokens") if asked is None else asked
    stop = data.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(s, str) for s in stops):
        raise ProtocolError(f"`stop` is no text, and no list of at most {_MOST_STOPS}")
    try:
        return Sampling(
            max_new=int(
                _number(asked, "max_tokens", _NEW_OF_CHAT if is_chat else _NEW_OF_PROMPT, whole=True)
            ),
            temperature=_number(data.get("temperature"), "temperature", 1.0),
            top_p=_number(data.get("top_p"), "top_p", 1.0),
            seed=None if data.get("seed") is None else abs(int(_number(data["seed"], "seed", 0, whole=True))),
            stop=tuple(stops),
        )
    except InputError as error:
        raise ProtocolError(error.message) from None


def _prompts(value: object) -> tuple[Prompt, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value and len(value) <= _MOST_PROMPTS:
        if all(map(_is_token, value)):
            return (value,)
        if all(isinstance(one, str) or (isinstance(one, list) and all(map(_is_token, one))) for one in value):
            return tuple(value)
    raise ProtocolError(f"`prompt` is no text, no token ids, and no list of 1 to {_MOST_PROMPTS} of these")


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _messages(value: object) -> Prompt:
    if not isinstance(value, list) or not value:
        raise ProtocolError("`messages` is no list of messages")
    return [_message(one) for one in value]


def _message(value: object) -> dict[str, str]:
    """One message, the parts of its text joined."""
    role = value.get("role") if isinstance(value, dict) else None
    content = value.get("content") if isinstance(value, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    if not isinstance(role, str) or not isinstance(content, str):
        raise ProtocolError("a message has no `role`, or a `content` that is no text")
    return {"role": role, "content": content}


def _flag(value: object, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ProtocolError(f"`{name}` is true or false")
    return bool(value)


def _number(value: object, name: str, default: float, *, whole: bool = False) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ProtocolError(f"`{name}` is no {'whole ' * whole}number")
    return float(value) if not whole else value
