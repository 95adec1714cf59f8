"""Command `simcse push`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["push_command"]


def push_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Name on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everyone read a new repository.")
    ] = False,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Add a commit if the repository exists.")
    ] = False,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="License, such as apache-2.0.")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Scores for the card: a JSON file of `simcse eval`."),
    ] = None,
    dry_run: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write the files here; upload nothing.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="Pooling, instead of the model's own.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code from the model folder.")
    ] = False,
) -> None:
    """Upload MODEL with a model card to the Hugging Face Hub; new repositories are private."""
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.encoder.hub.push import check_repository
    from simcse_kit.utils.output_paths import check_folder_place

    check_repository(repository)
    if dry_run is not None:
        check_folder_place(dry_run, "--dry-run")
    encoder = SentenceEncoder.load(
        model, pooling=pooling, trust_remote_code=trust_remote_code, device="cpu"
    )
    place = encoder.push_to_hub(
        repository,
        private=not public,
        exist_ok=exist_ok,
        license=license,
        report=report,
        dry_run=dry_run,
    )
    typer.echo(place)
