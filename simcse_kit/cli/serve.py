"""Command `simcse serve`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from simcse_kit.cli.options import DeviceName
from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.utils.process import collection_paused

__all__ = ["serve_command"]


def serve_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    index: Annotated[
        str | None, typer.Option(metavar="DIR", help="Index for /v1/search, of the same model.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in requests. [default: that of MODEL]")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Pooling to use instead.")] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|fp16|int8", help="Number format of the linear maps.")
    ] = "fp32",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale vectors to unit length, as OpenAI does.")
    ] = False,
    device: DeviceName = "auto",
    api_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with the key that requests must send."),
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Serve other machines without a key.")
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may use the server; repeatable."),
    ] = None,
    max_queue: Annotated[
        int, typer.Option(help="Maximum number of waiting requests; further ones get 429.")
    ] = 1024,
    max_texts: Annotated[int, typer.Option(help="Maximum number of texts per request.")] = 2048,
    max_tokens: Annotated[
        int, typer.Option(help="Maximum number of tokens per request.")
    ] = 300_000,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = 60.0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own Python code.")
    ] = False,
) -> None:
    """Serve vectors, similarity and search over HTTP, with OpenAI's embeddings API.

    SIGTERM ends the server after the requests that it has accepted.
    """
    try:
        from simcse_kit.serve.server import bind, end_on_signals, run
        from simcse_kit.serve.settings import ServeSettings, read_key
    except ModuleNotFoundError as error:
        raise MissingExtraError("simcse serve", "serve") from error
    if no_key and api_key_file is not None:
        raise ConfigError("--no-key and --api-key-file exclude each other; give one of them")
    settings = ServeSettings(
        name=name or _name_of(model),
        key=None if api_key_file is None else read_key(api_key_file),
        cors=tuple(cors or ()),
        max_queue=max_queue,
        max_texts=max_texts,
        max_tokens=max_tokens,
        timeout=timeout,
    )
    end_on_signals()
    # Bound before the model is loaded, so that a port in use is reported at once.
    with bind(host, port, public=no_key or settings.key is not None) as listener:
        with collection_paused(keep=True):
            from simcse_kit import SentenceEncoder
            from simcse_kit.serve.app import create_app
            from simcse_kit.serve.engine import EncoderEngine

            encoder = SentenceEncoder.load(
                model,
                pooling=pooling,
                trust_remote_code=trust_remote_code,
                # int8 runs on CPUs only.
                device="cpu" if precision == "int8" and device == "auto" else device,
            )
            found = None
            if index is not None:
                from simcse_kit.search import SearchIndex

                found = SearchIndex.load(index, encoder)
            engine = EncoderEngine(encoder, precision, normalize or None)
            app = create_app(engine, settings, found)
        logging.getLogger("uvicorn").handlers[:] = logging.getLogger("simcse_kit").handlers
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        run(
            app,
            listener,
            timeout=timeout,
            on_ready=lambda address: typer.echo(f"{settings.name} at {address}"),
        )


def _name_of(model: str) -> str:
    """Return a Hub name or bundled name as it is, and of a folder only its own name."""
    folder = Path(model)
    return (folder.resolve().name or model) if folder.exists() else model
