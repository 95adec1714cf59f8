"""Commands `simcse index`, `simcse index add`, `remove` and `info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from simcse_kit.cli.options import (
    AsJson,
    DeviceName,
    ModelOfIndex,
    PromptNames,
    load_encoder,
    open_index,
)
from simcse_kit.utils.process import collection_paused

if TYPE_CHECKING:
    from simcse_kit.search import SearchIndex

__all__ = [
    "IndexGroup",
    "index_add_command",
    "index_build_command",
    "index_info_command",
    "index_remove_command",
]

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES...",
        help="txt (one sentence per line), csv, tsv, jsonl, json or parquet; .gz, .bz2, .xz too.",
    ),
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="Folder of the index.")]
IdColumn = Annotated[
    str | None,
    typer.Option("--id", metavar="COLUMN", help="Column of the ids. [default: numbers]"),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="Column of the text; a position without header. [default: text or sentence]",
    ),
]


class IndexGroup(TyperGroup):
    """Group whose command `build` need not be written: `simcse index MODEL FILES...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name of the default command."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["build", *args]
        return super().parse_args(ctx, args)


def index_build_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    files: Files,
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder of the index.")],
    engine: Annotated[
        str,
        typer.Option(
            metavar="exact|faiss|milvus",
            help="Search engine: exact, approximate with faiss, or Milvus.",
        ),
    ] = "exact",
    uri: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Milvus server, such as http://localhost:19530. [default: a file in the index]",
        ),
    ] = None,
    id: IdColumn = None,
    text: TextColumn = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|fp16|int8",
            help="Format of the searched vectors; int8 rescores its candidates in fp32.",
        ),
    ] = "fp32",
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Text in front of every text; twice: for queries, for documents. "
            "[default: the model's prompts for queries and documents]",
        ),
    ] = None,
    prompt_name: PromptNames = None,
    device: DeviceName = "auto",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing index when the new one is complete."),
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own Python code.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a searchable index of the texts in FILES; `simcse index MODEL FILES...` is the same.

    After an interruption the same command continues. Columns other than text and id are kept as
    metadata.
    """
    from simcse_kit.search.documents import check_documents, read_documents
    from simcse_kit.search.settings import IndexSettings
    from simcse_kit.search.store import check_place
    from simcse_kit.utils.prompt_choice import PromptChoice

    # Problems with options and files are reported before a model is loaded.
    settings = IndexSettings(
        precision=precision,
        engine=engine,
        uri=uri,
        prompts=PromptChoice.of(prompt, prompt_name),
        model=_model_name(model),
        overwrite=overwrite,
        progress=True,
    )
    check_documents(files, text=text, id=id)
    check_place(Path(output), overwrite=overwrite)
    encoder = load_encoder(model, device, trust_remote_code=trust_remote_code)
    from simcse_kit.search.index import SearchIndex

    index = SearchIndex.build(encoder, read_documents(files, text=text, id=id), output, settings)
    _show(index, len(index), as_json)


def index_add_command(
    folder: Folder,
    files: Files,
    id: IdColumn = None,
    text: TextColumn = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace documents that have the same id.")
    ] = False,
    model: ModelOfIndex = None,
    device: DeviceName = "auto",
    as_json: AsJson = False,
) -> None:
    """Add the texts in FILES to an index. After an interruption the same command continues."""
    from simcse_kit.search.documents import check_documents, read_documents

    check_documents(files, text=text, id=id)
    index = open_index(folder, model, device)
    documents = read_documents(files, text=text, id=id)
    added = index.add(documents, overwrite=overwrite, progress=True)
    _show(index, added, as_json)


def index_remove_command(
    folder: Folder,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the documents.")],
    as_json: AsJson = False,
) -> None:
    """Remove documents from an index."""
    with collection_paused(keep=True):
        from simcse_kit.search.index import SearchIndex

    index = SearchIndex.load(folder)
    removed = index.remove(ids)
    if as_json:
        typer.echo(json.dumps({"removed": removed, "documents": len(index)}))
    else:
        typer.echo(f"{removed:,} removed; {len(index):,} documents: {folder}")


def index_info_command(
    folder: Folder,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all files and compare their checksums.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the encoder, the engine and the size of an index."""
    from simcse_kit.search.state import open_state

    state = open_state(Path(folder))
    if verify:
        state.verify(Path(folder))
    manifest = state.manifest
    facts: dict[str, Any] = {
        "documents": manifest.count,
        "deleted": manifest.rows - manifest.count,
        "segments": len(manifest.segments),
        "bytes": manifest.bytes,
        "model": manifest.encoder.model,
        "fingerprint": manifest.encoder.fingerprint,
        "pooling": manifest.encoder.pooling,
        "query_prompt": manifest.encoder.query_prompt,
        "document_prompt": manifest.encoder.document_prompt,
        "dim": manifest.dim,
        "precision": manifest.precision,
        "engine": manifest.engine.name,
        **manifest.engine.settings,
        "generation": manifest.generation,
    }
    if verify:
        facts["verified"] = True
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from simcse_kit.utils.tables import Table, render_text

    rows = [[name.replace("_", " "), _shown(value)] for name, value in facts.items()]
    typer.echo(render_text(Table.of_text(["index", folder], rows)))


def _model_name(model: str) -> str:
    """Return a name that also loads the model from another folder."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _show(index: SearchIndex, added: int, as_json: bool) -> None:
    engine = index.manifest.engine
    if as_json:
        facts = {"added": added, "documents": len(index), "output": str(index.folder)}
        typer.echo(json.dumps({**facts, "engine": engine.name, **engine.settings}))
        return
    typer.echo(f"{added:,} added; {len(index):,} documents: {index.folder}")
    for name, value in engine.settings.items():
        typer.echo(f"{engine.name}: {name} {value}")
