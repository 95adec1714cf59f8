"""Command `simcse encode`."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, cast

import typer

from simcse_kit.cli.options import DeviceName, Engine, Prompt, PromptName
from simcse_kit.data.lines import STDIN
from simcse_kit.errors import ConfigError
from simcse_kit.utils.distributed import launched
from simcse_kit.utils.output_paths import check_distinct, check_file_place, check_folder_place
from simcse_kit.utils.process import collection_paused, keep_few_kernels

__all__ = ["encode_command"]

# One process may have much more to do than another; a dead process is noticed at once in any case.
_PATIENCE = timedelta(days=7)


def encode_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="File or folder of sentences, address, or name of a data set; - for stdin.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR",
            help=".npy, .safetensors, .parquet or .jsonl; or a folder of shards.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of the sentences. [default: recognised]"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="npy|safetensors|parquet|jsonl", help="Format of the shards of a folder. [npy]"
        ),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Pooling to use instead.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Maximum number of tokens per sentence.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Maximum number of sentences per pass.")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|fp16|int8", help="Number format of the linear maps.")
    ] = "fp32",
    device: DeviceName = "auto",
    chunk: Annotated[
        int | None, typer.Option(help="Number of sentences held at a time. [8192]")
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(help="Rows per shard; an interruption loses at most one shard. [16384]"),
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="i/n", help="Compute part i of n, into one folder.")
    ] = None,
    engine: Engine = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Workers of --engine ray. [one for each GPU, or for four CPUs]"),
    ] = None,
    prompt: Prompt = None,
    prompt_name: PromptName = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Keep this many first dimensions (Matryoshka encoders).")
    ] = None,
    output_precision: Annotated[
        str,
        typer.Option(
            metavar="float32|float16|int8|uint8|binary|ubinary",
            help="Number format of the vectors, whatever --precision computes in.",
        ),
    ] = "float32",
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Ranges of int8 and uint8 vectors, from another job. [default: of the first text]",
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale vectors to unit length.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another job in the same place.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own Python code.")
    ] = False,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown", help="Accept text that the model mostly does not know."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write one vector per sentence of INPUT, in the order of the rows.

    INPUT has one sentence per line, or one per row of .csv, .tsv, .jsonl, .json or .parquet files.

    After an interruption the same command continues the job: finished shards are not computed
    again, and the output is verified at the end. Under torchrun several processes share the work,
    and with --engine ray the workers of a cluster.
    """
    from simcse_kit.cluster.connection import parse_engine

    cluster = parse_engine(engine)
    _check_engine(cluster, source=source, shards=shards, workers=workers)
    from simcse_kit.bulk.output import SHARD_ROWS, OutputSpec

    rows = SHARD_ROWS if shard_rows is None else shard_rows
    spec = OutputSpec.of(output, format=format, shard_rows=rows, part=_part(shards))
    spec = spec.in_precision(output_precision, ranges)
    from simcse_kit.bulk.sentence_files import sentence_files
    from simcse_kit.bulk.text_source import TextSource

    (check_file_place if spec.one_file else check_folder_place)(spec.path, "--output")
    check_distinct({"INPUT": None if source == "-" else source, "--output": output})
    # int8 runs on CPUs only.
    device = "cpu" if precision == "int8" and device == "auto" else device
    loading: dict[str, Any] = {"pooling": pooling, "trust_remote_code": trust_remote_code}
    if columns is not None and (not columns or "," in columns):
        raise ConfigError(
            f"--columns {columns!r}: each vector belongs to one text; give the name of one column"
        )
    if source != STDIN:
        sentence_files(source, columns)  # reports a missing file before anything is loaded
    keep_few_kernels()
    with collection_paused(keep=True):
        from simcse_kit import SentenceEncoder
        from simcse_kit.bulk.job import BulkJob
        from simcse_kit.encoder.encode_options import EncodeOptions
        from simcse_kit.encoder.stream import CHUNK
        from simcse_kit.encoder.unknown_text import check_known
        from simcse_kit.utils.distributed import Processes

    with ExitStack() as stack:
        run = None
        if cluster is not None:
            from simcse_kit.cluster.encode import RayJob, RayResult
            from simcse_kit.cluster.pool import ray_run

            run = stack.enter_context(ray_run(cluster, model, loading, device, workers))
        processes = stack.enter_context(Processes.joined(patience=_PATIENCE))
        text = TextSource(source, columns)
        if processes.size > 1 and text.is_stdin:
            raise ConfigError("standard input cannot be read by several processes; give a file")
        with collection_paused(keep=True):
            encoder = SentenceEncoder.load(
                model, device=device if run is None else "cpu", **loading
            )
        allow, remedy = allow_unknown, "--allow-unknown"
        check_known(encoder, text.sample, what=text.name, allow=allow, remedy=remedy)
        options = EncodeOptions(
            batch_size=batch_size,
            max_length=max_length,
            truncate_dim=dimensions,
            prompt=prompt,
            prompt_name=prompt_name,
            normalize=normalize or None,
            precision=cast("Any", precision),  # checked by EncodeOptions
            progress=processes.first,
        )
        held = CHUNK if chunk is None else chunk
        job = (
            BulkJob(encoder, spec, options, chunk=held, overwrite=overwrite, processes=processes)
            if run is None
            else RayJob(encoder, spec, options, run, text, chunk=held, overwrite=overwrite)
        )
        done = job.run(text, total=text.total, text_bytes=text.text_bytes)
        if not processes.first:
            return
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    elif done.complete:
        existing = done.rows - done.computed if processes.size == 1 else 0
        before = f", {existing:,} of them from before" if existing else ""
        kind = "" if output_precision == "float32" else f" in {output_precision}"
        typer.echo(f"{done.rows:,} vectors of {done.dim} dimensions{kind}{before}: {output}")
        typer.echo(f"verified, SHA-256 {done.sha256}")
        if run is not None and isinstance(done, RayResult) and done.workers:
            typer.echo(
                f"workers {done.workers}, start-up {done.startup_seconds:.1f} s, then "
                f"{done.rows_per_second:,.0f} vectors per second"
            )
    else:
        typer.echo(
            f"part {shards} is done ({done.computed:,} vectors computed now); {output} has "
            f"{done.rows:,}, and is complete when the other parts are"
        )


def _check_engine(
    cluster: str | None, *, source: str, shards: str | None, workers: int | None
) -> None:
    """Refuse options that do not fit the engine."""
    if cluster is None:
        if workers is not None:
            raise ConfigError("--workers is for --engine ray; leave it out, or give --engine ray")
        return
    if shards is not None:
        raise ConfigError(
            f"--shards is for separate jobs, and --engine {cluster} already divides the work; "
            "leave one of them out"
        )
    if source == STDIN:
        raise ConfigError(
            f"--engine {cluster} cannot read standard input, which only one process has; give a "
            "file, or --engine local"
        )
    if launched()[1] > 1:
        raise ConfigError(
            f"--engine {cluster} starts its own workers; run the command without torchrun"
        )


def _part(shards: str | None) -> tuple[int, int]:
    if shards is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shards)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shards {shards}: give part/parts, such as 1/4 to 4/4")
    return part, parts
