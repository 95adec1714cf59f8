"""`simcse encode`"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.allocator import keep_few_kernels
from simcse_kit.utils.output_paths import check_distinct, check_file_place, check_folder_place
from simcse_kit.utils.process import collection_paused

__all__ = ["encode_command"]

# One process may have much more to do than another; a dead one is noticed at once all the same.
_PATIENCE = timedelta(days=7)


def encode_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Text file, one sentence a line; - for stdin.")
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE|DIR",
            help=".npy, .safetensors, .parquet or .jsonl; or a folder of shards.",
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(metavar="npy|safetensors|parquet|jsonl", help="Of a folder's shards. [npy]"),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sentence.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most sentences in one pass.")] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|int8", help="Of the linear maps.")
    ] = "fp32",
    chunk: Annotated[int | None, typer.Option(help="Sentences held at a time. [8192]")] = None,
    shard_rows: Annotated[
        int | None, typer.Option(help="Rows of a shard: what a kill can cost. [16384]")
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="i/n", help="Compute part i of n, into one folder.")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Unit vectors.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew where another job was begun.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own code.")
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Text that the model mostly does not know.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Write one float32 vector a line of INPUT, in its order.

    An interrupted job goes on where the same command is given again; finished shards are not
    computed twice, and the output is verified at the end. Under torchrun several processes share
    the work.
    """
    from simcse_kit.bulk.output import SHARD_ROWS, Target

    target = Target.of(
        output,
        format=format,
        shard_rows=SHARD_ROWS if shard_rows is None else shard_rows,
        part=_part(shards),
    )
    from simcse_kit.data.lines import STDIN, read_lines, shown
    from simcse_kit.data.stream_sample import SAMPLE, Sample

    (check_file_place if target.one_file else check_folder_place)(target.path, "--output")
    check_distinct({"INPUT": None if source == STDIN else source, "--output": output})
    # Row i of the output is line i of the input, so a blank line is an error and not a gap. Reading
    # is quick: better to meet a bad last line now than after hours of computing.
    lines = read_lines(source)
    total, beginning = None, []
    if source == STDIN:
        beginning = list(islice(lines, SAMPLE))
        sample = Sample(beginning)
    else:
        sample = Sample(lines)
        total = sample.seen
    keep_few_kernels()
    with collection_paused(keep=True):
        from simcse_kit import SentenceEncoder
        from simcse_kit.bulk.job import Settings, encode_to
        from simcse_kit.encoder.unknown_text import check_known
        from simcse_kit.utils.distributed import Processes

    with Processes.met(patience=_PATIENCE) as processes:
        if processes.size > 1 and source == STDIN:
            raise ConfigError("standard input cannot be read by several processes; give a file")
        with collection_paused(keep=True):
            encoder = SentenceEncoder.load(
                model, pooling=pooling, trust_remote_code=trust_remote_code
            )
        check_known(
            encoder,
            sample.items,
            what=shown(source),
            allow=allow_unknown,
            remedy="--allow-unknown",
        )
        settings = Settings(
            **({} if chunk is None else {"chunk": chunk}),
            batch_size=batch_size,
            max_length=max_length,
            normalize=normalize or encoder.normalize,
            precision=cast("Any", precision),  # checked where it is used
        )
        done = encode_to(
            encoder,
            chain(beginning, lines) if source == STDIN else read_lines(source),
            target,
            settings,
            total=total,
            text_bytes=0 if source == STDIN else Path(source).stat().st_size,
            overwrite=overwrite,
            processes=processes,
            progress=processes.first,
        )
        if not processes.first:
            return
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    elif done.complete:
        there = done.rows - done.computed if processes.size == 1 else 0
        before = f", {there:,} of them from before" if there else ""
        typer.echo(f"{done.rows:,} vectors of {done.dim} dimensions{before}: {output}")
        typer.echo(f"verified, SHA-256 {done.sha256}")
    else:
        typer.echo(
            f"part {shards} is done ({done.computed:,} vectors now); {output} has {done.rows:,}, "
            "and is complete when the other parts are"
        )


def _part(shards: str | None) -> tuple[int, int]:
    if shards is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shards)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shards {shards}: give part/parts, such as 1/4 to 4/4")
    return part, parts
