"""`simcse encode`"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_kit.errors import ConfigError, DataError

if TYPE_CHECKING:
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
    from simcse_kit.text.lines import read_lines

    # Row i of the array is line i of the input, so a blank line is an error and not a gap.
    sentences = list(read_lines(source))
    from simcse_kit.encoder.encoder import SentenceEncoder

    encoder = SentenceEncoder.load(model, pooling=pooling, trust_remote_code=trust_remote_code)
    vectors = encoder.encode(
        sentences,
        batch_size=batch_size,
        max_length=max_length,
        normalize=True if normalize else None,
        progress=True,
    )
    _write_array(target, vectors)
    rows, dim = vectors.shape
    if as_json:
        typer.echo(json.dumps({"output": output, "rows": rows, "dim": dim}))
    else:
        typer.echo(f"{rows:,} vectors of {dim} dimensions: {output}")


def _write_array(target: Path, vectors: NDArray[Any]) -> None:
    import numpy as np

    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors)
            Path(name).chmod(0o644)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", file=target) from None
