"""Training pairs from questions and answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, ReadReport
from simcse_kit.data.columns import are_positions
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import Summary, check_output, writing
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_file
from simcse_kit.errors import DataError

__all__ = ["qa_pairs"]

COLUMNS = ("sent0", "sent1")
_QUESTION = ("question", "query", "q", "questions", "title", "prompt")
_ANSWER = ("answer", "answers", "best_answer", "a", "response", "passage", "context")


def qa_pairs(
    file: str | Path,
    output: str | Path,
    options: ReadOptions = DEFAULTS,
    *,
    question: str | None = None,
    answer: str | None = None,
    all_answers: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Write (question, answer) as training pairs.

    Rows without an answer, answers that repeat the question, and repeated pairs are left out and
    counted. Of a list of answers, and of SQuAD's ``{"text": [...]}``, the first is used, or all.

    Args:
        file: A .csv, .tsv, .jsonl, .json or .parquet file.
        output: The file to write, with the columns sent0, sent1.
        options: Options of reading.
        question: Column of the question by name or, in a file without header, by position; None
            recognises it.
        answer: Column of the answer, given in the same way.
        all_answers: Whether each answer in a list gives a pair.
        overwrite: Whether an existing ``output`` may be replaced.

    Raises:
        DataError: The file cannot be read, a column is missing, or no pair is left.
        ConfigError: An argument is not allowed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "in.tsv")
        ...     _ = path.write_text("question\\tanswer\\nWho?\\tMe.\\nWhen?\\t\\n")
        ...     summary = qa_pairs(path, Path(folder, "out.csv"))
        >>> summary.rows, summary.left_out
        (1, {'rows without an answer': 1})
    """
    target = check_output(output, overwrite=overwrite, columns=2)
    summary, report = Summary(str(target)), ReadReport()
    named = [name for name in (question, answer) if name is not None]
    options = replace(options, header=options.header and not are_positions(named))
    seen: set[tuple[str, str]] = set()
    file = local_file(file)
    with reading_progress([file]) as on_bytes:
        records = Records(file, options, report=report, on_bytes=on_bytes)
        first = records.column(question, _QUESTION, what="question", flag="--question")
        second = records.column(answer, _ANSWER, what="answer", flag="--answer")
        if first == second:
            raise DataError(
                f"column {first!r} would be both question and answer; name two columns with "
                "--question, --answer",
                file=file,
            )
        with writing(target, COLUMNS) as writer:
            for line, record in records:
                text = record.get(first)
                if not isinstance(text, str) or not text.strip():
                    message = f"the question in column {first!r} is blank or not text; fill it in"
                    records.gate.reject(line, Problem("blank question", message))
                    continue
                summary.read += 1
                given = [each.strip() for each in _texts(record.get(second)) if each.strip()]
                if not given:
                    summary.leave_out("rows without an answer")
                own = normal_key(text)
                answers = [each for each in given if normal_key(each) != own]
                if len(answers) < len(given):
                    equal = len(given) - len(answers)
                    summary.leave_out("answers that repeat the question", equal)
                for each in answers if all_answers else answers[:1]:
                    pair = (text.strip(), each)
                    if pair in seen:
                        summary.leave_out("pairs given twice")
                        continue
                    seen.add(pair)
                    writer.write(dict(zip(COLUMNS, pair, strict=True)))
            summary.rows = writer.rows
            if not writer.rows:
                raise DataError(
                    f"no row has both a question and an answer that differs from it "
                    f"(columns {first!r}, {second!r}); name the columns with --question, --answer",
                    file=file,
                )
    summary.take(report)
    return summary


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(value.get("text"))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
