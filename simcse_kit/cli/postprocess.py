"""`simcse postprocess`"""

from __future__ import annotations

from typing import Annotated

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.output_paths import check_folder_place

__all__ = ["postprocess_command"]


def postprocess_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    post: Annotated[
        str, typer.Option(metavar="MAP", help="standardize, whitening(k=256) or abtt(k=3).")
    ],
    fit: Annotated[str, typer.Option(metavar="FILE", help="Text it is fitted on.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Where the new encoder goes.")],
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Keep a post-processing with MODEL, as a stage that sentence-transformers runs as well.

    `simcse eval --post` tells beforehand whether it pays.
    """
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.evaluation import postprocess

    calls = postprocess.parse_postprocesses(post)
    if len(calls) != 1:
        raise ConfigError(f"--post {post}: one map is kept; `simcse eval --post` tries several")
    target = check_folder_place(output, "--output")
    if target.exists() and not overwrite:
        raise ConfigError(f"--output {output} exists; give another folder, or --overwrite")
    texts = postprocess.read_fit_texts(fit)
    encoder = SentenceEncoder.load(model, pooling=pooling)
    encoder.require_weights()
    (call,) = calls.values()
    affine = postprocess.make(call, postprocess.fit(encoder, texts, progress=True))
    encoder.add_stage(postprocess.as_dense(affine))
    encoder.save(target)
    typer.echo(
        f"{model} with {post}, fitted on {len(texts):,} texts of {fit}: "
        f"{encoder.embedding_dim} dimensions, {output}"
    )
