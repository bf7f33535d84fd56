"""`generate`: a decoder's text, over slices, servers, or the whole model."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli.options import takes
from dnnsplit_onnx.cli.serving_options import NetworkOptions, log_to_stderr
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.running.generating.decoder import Decoder
    from dnnsplit_onnx.running.generating.generator import Completion, Generator, Prompt
    from dnnsplit_onnx.running.generating.sampling import Sampling


@takes(NetworkOptions)
def generate(
    place: Annotated[
        str,
        typer.Argument(
            metavar="DIR|MODEL", help="A folder that `split` made, or a whole model.", show_default=False
        ),
    ],
    options: NetworkOptions,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="TEXT", help="The text to continue.", show_default=False),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="N,N,...", help="The same as token ids.", show_default=False),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a message, put into the model's chat template.")
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE",
            help="The tokenizer (extra `generate`). [default: tokenizer.json beside the model]",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            metavar="MODEL",
            help="The encoder before the decoder, run here: it reads the prompt, once.",
            show_default=False,
        ),
    ] = None,
    heard: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="What the encoder reads, where that is no text.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="N,N,...",
            help="Tokens that an answer after an encoder begins with. [default: those of the model's folder]",
            show_default=False,
        ),
    ] = None,
    most: Annotated[int, typer.Option("--max-new", metavar="N", min=1, help="Most tokens to make.")] = 128,
    temperature: Annotated[
        float,
        typer.Option("--temperature", metavar="T", min=0, help="Draw tokens; 0 takes the likeliest."),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", metavar="P", help="Draw among the likeliest that have this much together."),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of the draws.", show_default=False)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Ends the answer. Repeatable.", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The next tier's address. [default: run the slices of all tiers in this process]",
            show_default=False,
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft",
            metavar="MODEL",
            help="A small model, run here, that proposes tokens; the answer stays the same.",
            show_default=False,
        ),
    ] = None,
    draft_tokens: Annotated[
        int, typer.Option("--draft-tokens", metavar="K", min=1, help="Tokens that it proposes a pass.")
    ] = 4,
    serve: Annotated[
        int | None,
        typer.Option(
            "--serve",
            metavar="PORT",
            min=0,
            max=65535,
            help="Answer OpenAI's completions and chat completions on this port, 0 for any free one.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address for --serve to listen on.")] = "127.0.0.1",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve beyond loopback without TLS or token.")
    ] = False,
) -> None:
    """Continue a text with a decoder.

    Runs a whole model, its slices in this process, or with `--url` the edge's slice here and
    the others where they are served. Masks and positions are filled in, and each tier keeps the
    caches of its layers. The likeliest tokens are those of the whole model, one for one.

    Example: dnnsplit-onnx generate slices --prompt "Once upon a time" --url http://near:8000
    """
    from dnnsplit_onnx.running.generating.sampling import Sampling
    from dnnsplit_onnx.runtime.inputs import load_arrays

    if url is not None:
        log_to_stderr()
    given = [one for one in (prompt, tokens, heard) if one is not None]
    if serve is not None and given:
        raise InputError("prompts come from clients of `--serve`", hint="leave out --prompt and --tokens")
    if serve is None and len(given) != 1:
        raise InputError(
            "there is nothing to continue, or twice", hint="pass --prompt TEXT or --tokens 1,2,3"
        )
    if encoder is None and (heard is not None or start is not None):
        raise InputError("there is no encoder that reads something", hint="name it: --encoder MODEL")
    sampling = Sampling(
        max_new=most,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
        start=None if start is None else tuple(_numbers(start)),
    )
    drafting = None if draft is None else (draft, draft_tokens)
    with open_generator(place, options, tokenizer, url, drafting, encoder) as generator:
        if serve is not None:
            _serve(generator, Path(place), options, (host, serve), insecure=insecure)
            return
        asked: Prompt = _numbers(tokens) if tokens is not None else prompt or ""
        if heard is not None:
            asked = load_arrays(heard)
        if chat and prompt is not None:
            asked = [{"role": "user", "content": prompt}]
        _say(generator, asked, sampling, json=options.json)


def open_generator(
    place: str,
    options: NetworkOptions,
    tokenizer: Path | None,
    url: str | None,
    drafting: tuple[str, int] | None,
    encoder: str | None = None,
) -> Generator:
    """A generator as the options ask.

    Raises:
        InputError: There is no such model, or what is given does not fit it.
        MissingExtraError: A library is not installed.
    """
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.running.generating.drafting import Draft, check_exact
    from dnnsplit_onnx.running.generating.generator import Generator
    from dnnsplit_onnx.running.generating.opening import folder_of, is_sliced, models_of, open_decoder
    from dnnsplit_onnx.slicing.manifest import FILE_NAME

    path = Path(place)
    if not (path / FILE_NAME).is_file():  # which slices have, and no folder of a model
        path = model_file(place)
    if not path.exists():
        raise InputError(
            f"no such folder or file: `{place}`",
            hint="make slices: dnnsplit-onnx split MODEL --tiers tiers.toml -o DIR",
        )
    folder, draft = folder_of(path, tokenizer), None
    decoder: Decoder
    if drafting is not None:
        check_exact(models_of(path))
        small = model_file(drafting[0])
        draft = Draft(open_decoder(small, options.session), drafting[1])
    if url is None:
        decoder = open_decoder(path, options.session)
    elif is_sliced(path):
        decoder = _served(path, url, options)
    else:
        raise InputError("a whole model has no next tier", hint="split it, or leave out --url")
    try:
        before = None if encoder is None else open_decoder(model_file(encoder), options.session)
        return Generator(decoder, folder.open_tokenizer(), folder, draft, before)
    except BaseException:
        decoder.close()
        raise


def _served(path: Path, url: str, options: NetworkOptions) -> Decoder:
    from dnnsplit_onnx.serving.edge.edge import Edge
    from dnnsplit_onnx.serving.edge.talking import ServedDecoder
    from dnnsplit_onnx.serving.wire.pool import Target
    from dnnsplit_onnx.serving.wire.security import read_token

    target = Target(url, read_token(options.token_file), options.tls)
    return ServedDecoder(Edge(path, target, options=options.session))


def _serve(
    generator: Generator, place: Path, options: NetworkOptions, address: tuple[str, int], *, insecure: bool
) -> None:
    """Answers requests until the process is told to stop."""
    from dnnsplit_onnx.serving.edge.completions import Completions
    from dnnsplit_onnx.serving.tier.launch import until_told
    from dnnsplit_onnx.serving.wire.security import check_exposure, read_token, server_context
    from dnnsplit_onnx.serving.wire.server import Server

    log_to_stderr()
    host, port = address
    token, tls = read_token(options.token_file), server_context(options.tls)
    check_exposure(host, tls, token, insecure=insecure)
    service = Completions(generator, place.stem, token=token, host=host)
    with until_told() as stop, Server(service, host, port, tls) as server:
        told = dumps({"model": service.name, "url": f"{server.url}/v1"})
        sys.stdout.write(told + "\n" if options.json else f"`{service.name}` answers at {server.url}/v1\n")
        sys.stdout.flush()
        stop.wait()


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise InputError(f"`{text}` are no token ids", hint="write them as in --tokens 1,2,3") from None


def _say(generator: Generator, prompt: Prompt, sampling: Sampling, *, json: bool) -> None:
    """Prints the answer as it comes, or as JSON when it is whole."""
    if json:
        from dnnsplit_onnx.cli.output import print_json

        print_json(generator(prompt, sampling).to_dict())
        return

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    words = generator.tokenizer is not None
    answer = generator(prompt, sampling, on_piece=lambda piece: show(piece.text if words else piece.number))
    show("\n")
    _sum_up(answer)


def _sum_up(answer: Completion) -> None:
    count = len(answer.tokens)
    each = (
        f", then {(answer.seconds - answer.first_s) / (count - 1) * 1e3:.1f} ms a token" if count > 1 else ""
    )
    sys.stderr.write(
        f"{count} tokens after {answer.prompt_tokens}: the first in {answer.first_s * 1e3:.0f} ms{each}\n"
    )
