"""Command `simcse postprocess`."""

from __future__ import annotations

from typing import Annotated

import typer

from simcse_kit.cli.options import DeviceName
from simcse_kit.errors import ConfigError
from simcse_kit.utils.output_paths import check_folder_place

__all__ = ["postprocess_command"]


def postprocess_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    post: Annotated[
        str, typer.Option(metavar="MAP", help="standardize, whitening(k=256) or abtt(k=3).")
    ],
    fit: Annotated[str, typer.Option(metavar="FILE", help="Text to fit the map on.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder of the new encoder.")],
    pooling: Annotated[str | None, typer.Option(help="Replace the model's own pooling.")] = None,
    device: DeviceName = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Add a post-processing map to MODEL, as a stage that sentence-transformers runs as well.

    `simcse eval --post` shows beforehand whether it helps.
    """
    from simcse_kit.encoder.device import known_device
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.evaluation import postprocess

    if len(postprocess.parse_postprocesses(post)) != 1:
        raise ConfigError(f"--post {post}: give one map; `simcse eval --post` tries several")
    target = check_folder_place(output, "--output")
    if target.exists() and not overwrite:
        raise ConfigError(f"--output {output} exists; give another folder, or --overwrite")
    known_device(device)
    trials = postprocess.read_trials(post, fit)
    encoder = SentenceEncoder.load(model, pooling=pooling, device=device)
    encoder.require_weights()
    (call,) = trials.calls.values()
    affine = postprocess.make(call, postprocess.fit(encoder, trials.texts, progress=True))
    encoder.add_stage(postprocess.as_dense(affine))
    encoder.save(target)
    typer.echo(
        f"{model} with {post}, fitted on {len(trials.texts):,} texts of {fit}: "
        f"{encoder.embedding_dim} dimensions, {output}"
    )
