"""Text for programs that know OpenAI's interface: completions and chats, streamed or whole.

GET  /v1/models                   the one model there is
POST /v1/completions              continues a text
POST /v1/chat/completions         answers a chat
GET  /v2/health/live, /v2/health/ready, /metrics
"""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections import abc
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError, InputError
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.serving.edge import openai
from dnnsplit_onnx.serving.tier.slots import Admission
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.errors import BusyError, ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.exchange import Body, Response, as_failure, json_response
from dnnsplit_onnx.serving.wire.handler import Send
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import CONTENT_TYPE, Metrics, process_metrics
from dnnsplit_onnx.serving.wire.origins import Origins
from dnnsplit_onnx.serving.wire.protocol import read_object
from dnnsplit_onnx.serving.wire.security import is_loopback

_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
_Events = abc.Generator[bytes, None, None]
_NO_WORDS = "the model has no tokenizer, and this interface speaks in words"


class Completions:
    """Answers requests; a `Handler`.

    Args:
        generator: What makes the text.
        name: What the model is called.
        limits: What is too much.
        token: What clients must show as their key; None if none is asked for.
        host: Where it listens.

    Raises:
        InputError: There is no tokenizer, or an encoder that reads no words.
    """

    methods = "GET, HEAD, POST"

    def __init__(
        self,
        generator: Generator,
        name: str,
        limits: ServerLimits | None = None,
        token: str | None = None,
        *,
        host: str = "127.0.0.1",
    ) -> None:
        if generator.tokenizer is None:
            raise InputError(_NO_WORDS, hint="pass --tokenizer FILE")
        if generator.encoder is not None and not generator.encoder.reads_tokens:
            raise InputError("clients send words, and the encoder reads none", hint="leave out --serve")
        self.generator, self.name = generator, name
        self.limits = limits or ServerLimits()
        self.metrics = _declare(Metrics("dnnsplit_generate_"))
        self.admission = Admission(self.limits.requests, self.limits.bodies_nbytes)
        self._token = None if token is None else f"Bearer {token}".encode()
        self._origins = Origins(is_local=is_loopback(host))
        self._since, self._draining = int(time.time()), False

    def admit(self, head: RequestHead) -> Mapping[str, str]:
        """Refuses pages of browsers; see `Origins.admit`."""
        return self._origins.admit(head.fields)

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:  # noqa: ARG002
        """Answers one request; what is wrong with it is said as these clients read it."""
        try:
            self._answer(head, body, send)
        except DnnsplitError as error:
            failure = _failure(error)
            if failure.status == 405:
                raise
            fields = {"Retry-After": "1"} if isinstance(error, BusyError) else {}
            send(json_response(openai.error_body(failure.message, failure.status), failure.status, **fields))

    def drain(self) -> None:
        """Refuses new requests, and waits for those under way."""
        self._draining = True
        self.admission.wait_idle(self.limits.drain_s)

    def close(self) -> None:
        """Leaves the generator to whoever made it."""

    def _answer(self, head: RequestHead, body: Body, send: Send) -> None:
        parts = head.path.strip("/").split("/")
        if parts[:2] != ["v2", "health"]:
            self._check_token(head.fields.get("authorization", "").encode("latin-1"))
        if head.method in ("GET", "HEAD"):
            send(self._get(parts))
        elif head.method != "POST":
            raise ProtocolError(f"method {head.method} is not supported", status=405)
        elif parts not in (["v1", "completions"], ["v1", "chat", "completions"]):
            raise ProtocolError("there is nothing to post to at this path", status=404)
        else:
            self._complete(body, send, is_chat=parts[1] == "chat")

    def _check_token(self, shown: bytes) -> None:
        if self._token is not None and not hmac.compare_digest(shown, self._token):
            raise ProtocolError("the key is missing or wrong", status=401)

    def _get(self, parts: list[str]) -> Response:
        match parts:
            case ["v1", "models"]:
                return json_response({"object": "list", "data": [self._model()]})
            case ["v1", "models", name] if name == self.name:
                return json_response(self._model())
            case ["v2", "health", "live"]:
                return json_response({"live": True})
            case ["v2", "health", "ready"]:
                ready = not self._draining and not self.admission.is_full
                return json_response({"ready": ready}, 200 if ready else 503)
            case ["metrics"]:
                text = self.metrics.render() + process_metrics()
                return Response(200, {"Content-Type": CONTENT_TYPE}, [text.encode()])
        raise ProtocolError("there is nothing at this path", status=404)

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self._since, "owned_by": "dnnsplit-onnx"}

    def _complete(self, body: Body, send: Send, *, is_chat: bool) -> None:
        if not 0 < body.length <= self.limits.json_nbytes:
            raise ProtocolError(f"the body is not of 1 to {self.limits.json_nbytes} bytes", status=413)
        if self._draining:
            raise BusyError("the server is stopping")
        with ExitStack() as stack:
            stack.enter_context(self.admission.enter(body.length))
            data = read_object(body.read(body.length))
            asked = openai.read_request(data, is_chat=is_chat, name=self.name)
            self.metrics.add("requests_total")
            if asked.streams:
                events = self._events(asked)
                stack.callback(events.close)  # a client that goes away ends its text
                first = next(events)  # what is wrong with the prompt is told as an error of the request
                send(Response(200, _STREAM, chunks=_chained(first, events)))
            else:
                send(json_response(self._whole(asked)))

    def _whole(self, asked: openai.Asked) -> dict[str, Any]:
        answers = [self.generator(prompt, asked.sampling) for prompt in asked.prompts]
        for answer in answers:
            self._count(answer.prompt_tokens, len(answer.tokens))
            self.metrics.observe("first_token_seconds", answer.first_s)
        return {
            **self._head(asked),
            "choices": [openai.choice(asked, at, answer) for at, answer in enumerate(answers)],
            "usage": openai.usage(
                sum(answer.prompt_tokens for answer in answers), sum(len(a.tokens) for a in answers)
            ),
        }

    def _events(self, asked: openai.Asked) -> _Events:
        """The pieces of an answer as server-sent events."""
        head, start, new = self._head(asked), time.perf_counter(), 0
        ids = self.generator.encode(asked.prompts[0])
        try:
            for at, piece in enumerate(self.generator.stream(ids, asked.sampling)):
                if at == 0:
                    self.metrics.observe("first_token_seconds", time.perf_counter() - start)
                new += piece.token is not None
                if piece.text or piece.finish or at == 0:
                    said = openai.piece_choice(asked, piece.text, piece.finish, is_first=at == 0)
                    yield _event({**head, "choices": [said]})
        except DnnsplitError as error:
            if not new:
                raise
            failure = _failure(error)  # the head is sent, and says that all is well
            yield _event(openai.error_body(failure.message, failure.status))
            return
        finally:
            self._count(len(ids), new)
        if asked.counts:
            yield _event({**head, "choices": [], "usage": openai.usage(len(ids), new)})
        yield b"data: [DONE]\n\n"

    def _head(self, asked: openai.Asked) -> dict[str, Any]:
        kind = "text_completion"
        if asked.is_chat:
            kind = "chat.completion.chunk" if asked.streams else "chat.completion"
        name = f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.name}

    def _count(self, prompt_tokens: int, new_tokens: int) -> None:
        self.metrics.add("prompt_tokens_total", prompt_tokens)
        self.metrics.add("tokens_total", new_tokens)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _failure(error: DnnsplitError) -> ServingError:
    """What a client is told: what it gave and cannot be read is its own fault."""
    if isinstance(error, InputError):
        return ProtocolError(error.message)
    return as_failure(error)


def _declare(metrics: Metrics) -> Metrics:
    metrics.counter("responses_total", "Answers, by HTTP status.")
    metrics.counter("requests_total", "Requests for text.")
    metrics.counter("prompt_tokens_total", "Tokens of prompts.")
    metrics.counter("tokens_total", "Tokens that were made.")
    metrics.histogram("first_token_seconds", "Time to the first token.")
    return metrics
