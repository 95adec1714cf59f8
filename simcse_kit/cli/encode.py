"""`simcse encode`"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.startup import collection_paused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["encode_command"]


def encode_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Text file, one sentence a line; - for stdin.")
    ],
    output: Annotated[str, typer.Option(metavar="FILE.npy", help="Where the vectors go.")],
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sentence.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most sentences in one pass.")] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|int8", help="Of the linear maps.")
    ] = "fp32",
    chunk: Annotated[int | None, typer.Option(help="Sentences held at a time.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Unit vectors.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Write one vector a line of INPUT, in its order, as a float32 .npy array."""
    target = Path(output)
    if target.suffix != ".npy":
        raise ConfigError(f"--output {output}: vectors are written as .npy; give a name like v.npy")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {target.parent}")
    if target.is_dir():
        raise ConfigError(f"--output {output} cannot be written: it is a folder; give a file name")
    from simcse_kit.text.lines import STDIN, read_lines

    # Row i of the array is line i of the input, so a blank line is an error and not a gap. Reading
    # is quick: better to meet a bad last line now than after hours of computing.
    total = None if source == STDIN else sum(1 for _ in read_lines(source))
    with collection_paused(keep=True):
        from simcse_kit import SentenceEncoder

        encoder = SentenceEncoder.load(model, pooling=pooling, trust_remote_code=trust_remote_code)
    vectors = encoder.encode_stream(
        read_lines(source),
        **({} if chunk is None else {"chunk": chunk}),
        batch_size=batch_size,
        max_length=max_length,
        precision=cast("Any", precision),  # checked where it is used
        normalize=True if normalize else None,
        progress=True,
        total=total,
    )
    dim = encoder.embedding_dim
    rows = _write_rows(target, vectors, dim)
    if as_json:
        typer.echo(json.dumps({"output": output, "rows": rows, "dim": dim}))
    else:
        typer.echo(f"{rows:,} vectors of {dim} dimensions: {output}")


def _write_rows(target: Path, parts: Iterable[NDArray[np.float32]], dim: int) -> int:
    """Write an array part by part and return its rows; their number is put in at the end."""
    from simcse_kit.atomic import replacement

    rows = 0
    with replacement(target) as path, path.open("wb") as file:
        file.write(_header(rows, dim))
        for part in parts:
            file.write(part.astype("<f4", copy=False).tobytes())
            rows += len(part)
        file.seek(0)
        file.write(_header(rows, dim))
    return rows


def _header(rows: int, dim: int) -> bytes:
    """The header of a .npy file; numpy leaves room in it for a first dimension that grows."""
    from numpy.lib.format import write_array_header_1_0

    buffer = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    write_array_header_1_0(buffer, shape)
    return buffer.getvalue()
