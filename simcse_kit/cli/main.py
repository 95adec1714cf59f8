"""The command `simcse`: its table of commands, logging and exit codes."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from simcse_kit import __version__
from simcse_kit.cli import (
    catalogue,
    check_leak,
    compare,
    compare_methods,
    data,
    encode,
    evaluate,
    export,
    index,
    info,
    mine,
    plan,
    postprocess,
    push,
    search,
    serve,
    similarity,
    train,
    verify_resume,
)
from simcse_kit.cli.streams import OutputError, guarded
from simcse_kit.errors import SimcseError
from simcse_kit.utils.printable import one_line

__all__ = ["app", "main"]

app = typer.Typer(
    name="simcse",
    help="Train SimCSE-style sentence encoders from text files and measure how good they are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # importing rich takes longer than the rest of `--help`
)
app.command("train", cls=train.TrainCommand)(train.train_command)
app.command("verify-resume")(verify_resume.verify_resume_command)
app.command("encode")(encode.encode_command)
app.command("similarity")(similarity.similarity_command)
app.command("serve")(serve.serve_command)
app.command("eval")(evaluate.eval_command)
app.command("info")(info.info_command)
app.command("export")(export.export_command)
app.command("push")(push.push_command)
app.command("postprocess")(postprocess.postprocess_command)
app.command("compare")(compare.compare_command)
app.command("compare-methods")(compare_methods.compare_methods_command)
data_app = typer.Typer(
    help="Make training files: triplets, pairs, hard negatives, cleaned and split files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
data_app.command("nli")(data.nli_command)
data_app.command("qa")(data.qa_command)
data_app.command("mine")(mine.mine_command)
data_app.command("dedupe")(data.dedupe_command)
data_app.command("split")(data.split_command)
data_app.command("check-leak")(check_leak.check_leak_command)
app.add_typer(data_app, name="data")
index_app = typer.Typer(
    cls=index.IndexGroup,
    help="Make a searchable index of texts, and change it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
index_app.command("build")(index.index_build_command)
index_app.command("add")(index.index_add_command)
index_app.command("remove")(index.index_remove_command)
index_app.command("info")(index.index_info_command)
app.add_typer(index_app, name="index")
app.command("search")(search.search_command)
app.command("plan")(plan.plan_command)
app.command("methods")(catalogue.methods_command)
app.command("presets")(catalogue.presets_command)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings.")] = False,
    token: Annotated[
        str | None, typer.Option(help="Access token of the Hugging Face Hub. [default: $HF_TOKEN]")
    ] = None,
    local_files_only: Annotated[
        bool,
        typer.Option("--local-files-only", help="Open only models that are on this machine."),
    ] = False,
    version: Annotated[  # noqa: ARG001 - acts through its callback
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, use and evaluate sentence encoders. Results go to stdout, progress to stderr."""
    # Set before the Hugging Face libraries are imported; child processes have them too.
    if token is not None:
        os.environ["HF_TOKEN"] = token
    if local_files_only:
        os.environ["HF_HUB_OFFLINE"] = "1"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("simcse: %(message)s"))
    package = logging.getLogger("simcse_kit")
    package.handlers[:] = [handler]
    package.setLevel(logging.WARNING if quiet else logging.INFO)
    package.propagate = False


def main() -> None:
    """Run the command line.

    Exit codes: 0 for success; 2 for wrong input or usage, or if output cannot be written; 1 for
    unexpected errors, or if the reader of standard output has gone.
    """
    # Set before any Hugging Face library is imported, because a fork after use would warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # At exit Python searches for cyclic garbage twice, which takes a second with torch and
    # transformers; frozen objects are skipped.
    atexit.register(gc.freeze)
    code: str | int | None = 0
    try:
        with guarded():
            try:
                app()
            except SystemExit as end:
                code = end.code
    except OutputError as error:
        _say(error)
        code = 1 if error.closed_by_reader else 2
    except SimcseError as error:
        _say(error)
        code = 2
    if "WORLD_SIZE" in os.environ and isinstance(code, int):
        # TRAP: in about one of thirty runs a thread of gloo outlives the interpreter, which then
        # aborts although all work is done.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _say(error: SimcseError) -> None:
    with suppress(OSError, AttributeError):  # standard error may be full or closed
        sys.stderr.write(f"simcse: error: {one_line(str(error))}\n")
