"""`simcse eval`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import write_whole
from simcse_kit.utils.output_paths import check_result_places
from simcse_kit.utils.printable import one_line

if TYPE_CHECKING:
    from simcse_kit.evaluation.embed import Encoder
    from simcse_kit.evaluation.results import Report

__all__ = ["eval_command"]


def eval_command(
    model: Annotated[
        str, typer.Argument(help="Embedded name, folder, Hub name, st:NAME, openai:NAME.")
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="STS data in the SentEval layout; the Hub without it."),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="sts (the seven), names such as STS12,STSB, files of graded pairs; MR,TREC,... or "
            "transfer; retrieval:DIR, paraphrase:FILE, clustering:FILE."
        ),
    ] = "sts",
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own recipe.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Evaluate this one first, to compare.")
    ] = None,
    before_pooling: Annotated[str | None, typer.Option(help="Pooling of --before.")] = None,
    geometry_on: Annotated[
        str, typer.Option(help="Where alignment and uniformity are taken: STSB, STSB-full, ...")
    ] = "STSB",
    resamples: Annotated[
        int, typer.Option(help="Of the bootstrap for the 95 % intervals; 0 for none.")
    ] = 10_000,
    post: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Try these as well: standardize,whitening(k=256),abtt(k=3)."
        ),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text that --post is fitted on.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Scores as JSON; - for stdout.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(metavar="DIR", help="An HTML page with tables and plots.")
    ] = None,
    audit_training: Annotated[
        bool,
        typer.Option(
            "--audit-training",
            help="For --report: search the training files that the model's run.toml names for the "
            "test's sentences. It can name any file: for models that you trust.",
        ),
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Text that the model mostly does not know.")
    ] = False,
) -> None:
    """Score an encoder on STS, transfer and other tasks, with alignment and uniformity."""
    from simcse_kit.evaluation.evaluate import (
        DEFAULT_GEOMETRY,
        evaluate,
        load_all_tasks,
        load_tasks,
    )
    from simcse_kit.evaluation.models import check_model, open_encoder
    from simcse_kit.evaluation.postprocess import parse_postprocesses, read_fit_texts, tried
    from simcse_kit.evaluation.results import REPORT_FILES, SCHEMA, side_by_side
    from simcse_kit.evaluation.statistics.bootstrap import LEVEL, check_settings

    # Whatever is wrong with files and data is said before a model is opened.
    scores, page = check_result_places(json_file, report, REPORT_FILES)
    if audit_training and page is None:
        raise ConfigError("--audit-training fills a table of the report; give --report as well")
    if resamples:
        check_settings(resamples, LEVEL)
    loaded = load_all_tasks(tasks, data)
    if geometry_on != DEFAULT_GEOMETRY:
        load_tasks([geometry_on], data)
    if (post is None) != (fit is None):
        raise ConfigError("--post and --fit go together: maps, and the text they are fitted on")
    calls = {} if post is None else parse_postprocesses(post)
    texts = [] if fit is None else read_fit_texts(fit)
    # A post-processed version is of the same training.
    folders = [check_model(name) for name in [*([before] if before else []), model]]
    folders += len(calls) * folders[-1:]

    def score(encoder: Encoder, name: str) -> Report:
        return evaluate(
            encoder,
            loaded,
            data=data,
            geometry_on=geometry_on,
            progress=True,
            name=name,
            resamples=resamples,
            exhibits=report is not None,
            allow_unknown=allow_unknown,
        )

    # All are open before the first is scored, which can take long.
    earlier = [] if before is None else [(open_encoder(before, pooling=before_pooling), before)]
    encoder = open_encoder(model, pooling=pooling)
    reports = [score(each, name) for each, name in [*earlier, (encoder, model)]]
    main = reports[-1]
    if calls:
        reports += [score(each, f"{model} + {name}") for name, each in tried(encoder, calls, texts)]
    found = main.to_json()
    if calls:
        found = {"schema": SCHEMA, "reports": [each.to_json() for each in reports]}
    document = json.dumps(found, indent=2) + "\n"
    if json_file == "-":
        shown = document.rstrip("\n")
    elif calls:
        shown = "\n".join(
            [
                f"{main.table()}\n\nFitted on {one_line(str(fit))}, {len(texts):,} distinct texts:",
                side_by_side(reports),
            ]
        )
    else:
        shown = "\n\n".join(each.table() for each in reports)
    try:
        # Files first: standard output may be closed or full.
        if scores is not None:
            write_whole(scores, document, remedy="give --json another file")
        if page is not None:
            from simcse_kit.evaluation.contamination.recorded import recorded_leaks
            from simcse_kit.evaluation.report.page import write_report
            from simcse_kit.evaluation.run_records import read_history

            pairs = {name: task for name, task in loaded.items() if isinstance(task, list)}
            write_report(
                reports,
                page,
                title="Sentence encoder",
                history=read_history(folders[-1]) if folders[-1] else None,
                leaks=[
                    recorded_leaks(each, pairs) if each and audit_training else None
                    for each in folders
                ],
            )
    finally:
        typer.echo(shown)
    if page is not None:
        typer.echo(f"report: {page / REPORT_FILES[0]}", err=json_file == "-")
