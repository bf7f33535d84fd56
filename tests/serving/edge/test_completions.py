"""OpenAI's interface on loopback: by its own client, and by hand."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.sampling import Sampling
from dnnsplit_onnx.serving.edge.completions import Completions
from dnnsplit_onnx.serving.wire.server import Server
from tests.running.decoders import make_decoder, write_tokenizer
from tests.serving.conftest import eventually

pytest.importorskip("tokenizers", reason="words need the extra `generate`")

TOKEN = "a-token-that-is-long-enough"
TEMPLATE = "{% for message in messages %} {{ message.content }}{% endfor %}"
GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    place = make_decoder(tmp_path_factory.mktemp("decoder"))
    write_tokenizer(place)
    (place / "chat_template.jinja").write_text(TEMPLATE)
    return Generator.open(place / "slices")


@pytest.fixture(scope="module")
def server(generator: Generator) -> Iterator[Server[Completions]]:
    with Server(Completions(generator, "tiny", token=TOKEN)) as server:
        yield server


@pytest.fixture(scope="module")
def expected(generator: Generator) -> str:
    return generator("w5 w17", Sampling(max_new=6)).text


def ask(server: Server[Completions], path: str, data: Any = None, **fields: str) -> tuple[int, Any]:
    """One request, and its answer as JSON."""
    with ExitStack() as stack:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stack.callback(connection.close)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **fields}
        body = data if isinstance(data, bytes | None) else json.dumps(data)
        connection.request("GET" if data is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_the_answer_is_that_of_the_library(server: Server[Completions], expected: str) -> None:
    status, found = ask(server, "/v1/completions", {"model": "tiny", "prompt": "w5 w17", **GREEDY})
    assert status == 200
    assert found["choices"] == [{"index": 0, "text": expected, "logprobs": None, "finish_reason": "length"}]
    assert found["usage"] == {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}
    assert (found["object"], found["model"]) == ("text_completion", "tiny")
    _, several = ask(server, "/v1/completions", {"prompt": ["w9", [5, 17]], **GREEDY})
    assert [one["index"] for one in several["choices"]] == [0, 1]
    assert several["choices"][1]["text"] == expected


def test_a_chat_is_put_into_its_template(server: Server[Completions], expected: str) -> None:
    parts = [{"type": "text", "text": "w17"}]
    messages = [{"role": "system", "content": "w5"}, {"role": "user", "content": parts}]
    _, found = ask(server, "/v1/chat/completions", {"messages": messages, **GREEDY})
    assert found["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert found["object"] == "chat.completion"


def test_a_stream_is_the_answer_in_pieces(server: Server[Completions], expected: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    asked = {"prompt": "w5 w17", "stream": True, "stream_options": {"include_usage": True}, **GREEDY}
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    for _ in range(2):  # the connection goes on
        connection.request("POST", "/v1/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        assert response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        assert response.getheader("Transfer-Encoding") == "chunked"
        *events, done, end = response.read().decode().split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        pieces = [json.loads(event.removeprefix("data: ")) for event in events]
        assert pieces.pop()["usage"]["completion_tokens"] == 6
        assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected
        assert [piece["choices"][0]["finish_reason"] for piece in pieces][-1] == "length"
        assert len(pieces) > 2
    connection.close()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        ({"prompt": "w1", "model": "other"}, 404, "there is one model here, `tiny`"),
        ({"prompt": "w1", "n": 2}, 400, "`n` is not supported"),
        ({"prompt": "w1", "logprobs": 3}, 400, "`logprobs`"),
        ({"prompt": "w1", "temperature": -1}, 400, "temperature"),
        ({"prompt": "w1", "temperature": "hot"}, 400, "`temperature` is no number"),
        ({"prompt": "w1", "max_tokens": 1.5}, 400, "`max_tokens` is no whole number"),
        ({"prompt": "w1", "stop": [1]}, 400, "`stop`"),
        ({"prompt": "w1 " * 256}, 400, "the prompt has 256 tokens; the model has 256 positions"),
        ({"prompt": "w1 " * 256, "stream": True}, 400, "the model has 256 positions"),
        ({"prompt": ["w1", "w2"], "stream": True}, 400, "several prompts"),
        ({"prompt": {}}, 400, "`prompt` is no text"),
        (b"[]", 400, "not an object"),
        (b"", 413, "1 to"),
    ],
)
def test_what_is_wrong_is_told_as_these_clients_read_it(
    server: Server[Completions], data: Any, status: int, said: str
) -> None:
    found, answer = ask(server, "/v1/completions", data)
    assert found == status
    assert said in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


def test_paths_keys_and_pages(server: Server[Completions]) -> None:
    assert ask(server, "/v1/models")[1]["data"][0]["id"] == "tiny"
    assert ask(server, "/v1/models/tiny")[1]["owned_by"] == "dnnsplit-onnx"
    assert ask(server, "/v1/models/other")[0] == 404
    assert ask(server, "/v1/models", Authorization="Bearer wrong")[0] == 401
    assert ask(server, "/v2/health/ready", Authorization="")[0] == 200
    assert ask(server, "/v1/completions", {"prompt": "w1"}, Origin="https://example.org")[0] == 403
    assert ask(server, "/v1/audio", {})[0] == 404


def test_a_client_that_goes_away_ends_its_text(server: Server[Completions]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    asked = {"prompt": "w5", "stream": True, "temperature": 0, "max_tokens": 250}
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(asked), headers)
    connection.getresponse().read(10)
    connection.close()
    assert eventually(lambda: server.service.admission.count == 0)


def test_a_model_without_words_is_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        Completions(Generator(generator.decoder), "tiny")


def test_the_client_of_openai_is_answered(server: Server[Completions], expected: str) -> None:
    openai = pytest.importorskip("openai", reason="their client is not installed")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        made = client.completions.create(model="tiny", prompt="w5 w17", temperature=0, max_tokens=6)
        assert made.choices[0].text == expected
        messages = [{"role": "user", "content": "w5 w17"}]
        answer = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=6)
        assert answer.choices[0].message.content == expected
        assert answer.usage.total_tokens == 8
        stream = client.chat.completions.create(
            model="tiny", messages=messages, temperature=0, max_tokens=6, stream=True
        )
        pieces = list(stream)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected
        assert pieces[-1].choices[0].finish_reason == "length"
        with pytest.raises(openai.BadRequestError, match="`n` is not supported"):
            client.completions.create(model="tiny", prompt="w5", n=2)
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="other", prompt="w5")
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
