"""Command `simcse info`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_kit.utils.printable import one_line

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["info_command"]


def info_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    on: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Training file in which to count unknown tokens."),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="Pooling to use instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show facts about a model: pooling, head, dimensions, length, dropout, files, fingerprint."""
    from simcse_kit.data.readers import read_all_texts

    # Errors of the file are reported before the model is loaded.
    texts = [] if on is None else read_all_texts(on)
    from simcse_kit import SentenceEncoder
    from simcse_kit.encoder.folder.fingerprint import fingerprint
    from simcse_kit.encoder.folder.model_files import model_files
    from simcse_kit.encoder.pooling import describe_pooling

    encoder = SentenceEncoder.load(model, pooling=pooling, device="cpu")
    assert encoder.source is not None
    dropouts = sorted(set(encoder.dropouts().values()))
    head = [
        f"{dense.in_features} -> {dense.out_features} {dense.activation_name}"
        for dense in encoder.head or []
    ]
    facts: dict[str, Any] = {
        "model": model,
        "folder": str(encoder.source),
        "architecture": type(encoder.backbone).__name__,
        "engine": "torch" if encoder.engine is None else encoder.backbone.summary,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "pooling": encoder.pooling,
        "pooling_means": describe_pooling(encoder.pooling),
        "template": "none" if encoder.template is None else encoder.template.text,
        "head": head,
        "normalize": encoder.normalize,
        "dim": encoder.embedding_dim,
        "max_length": encoder.max_length,
        "dropout": dropouts,
        "files": {
            path.relative_to(encoder.source).as_posix(): path.stat().st_size
            for path in model_files(encoder.source)
        },
        "fingerprint": fingerprint(encoder.source),
    }
    if on is not None:
        facts["text"] = {"file": on, **_text_facts(encoder, texts)}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        if key == "files":
            for name, size in value.items():
                typer.echo(f"{'file':<14}{one_line(name)} ({size:,} bytes)")
        elif key == "text":
            _show_text(value)
        else:
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            typer.echo(f"{key:<14}{one_line(str(shown))}")


def _text_facts(encoder: SentenceEncoder, texts: list[str]) -> dict[str, Any]:
    """Count what the tokenizer loses of the distinct sentences of a text."""
    from simcse_kit.encoder.token_counts import count_tokens
    from simcse_kit.encoder.unknown_text import coverage, some

    counts = count_tokens(encoder, texts)
    kept = coverage(encoder, some(list(dict.fromkeys(texts))))
    return {
        "read": len(texts),
        **counts.to_json(),
        "unknown_share": counts.unknown_share,
        "characters_lost_share": kept.share,
        "max_length": encoder.max_length,
        "examples": {name: list(found) for name, found in counts.examples.items()},
    }


def _show_text(facts: dict[str, Any]) -> None:
    from simcse_kit.encoder.token_counts import percent, shown

    examples = facts["examples"]

    def line(name: str, text: str, example: str | None = None) -> None:
        such = ""
        if example in examples:
            such = f", such as {' and '.join(map(shown, examples[example]))}"
        typer.echo(f"{name:<14}{one_line(text + such)}")

    line("text", facts["file"])
    line("sentences", f"{facts['read']:,}, of which {facts['sentences']:,} distinct")
    line("tokens", f"{facts['tokens']:,} of the distinct sentences")
    line("cut", f"{facts['cut']:,} sentences longer than {facts['max_length']} tokens")
    share = percent(facts["unknown_share"])
    where = f"in {facts['with_unknown']:,} sentences"
    line("unknown", f"{facts['unknown']:,} tokens ({share}), {where}", "unknown")
    lost = percent(facts["characters_lost_share"])
    line("lost", f"{lost} of the characters: unknown, or dropped by the tokenizer")
    line("empty", f"{facts['empty']:,} sentences without a token", "empty")
    line("same ids", f"{facts['same_ids']:,} sentences equal to another", "same_ids")
