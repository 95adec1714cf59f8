"""Questions and answers to pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import OnBadRow, Problem, ReadReport
from simcse_kit.data.prepare.named_rows import Records, headed, reading
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.prepare.summary import Summary
from simcse_kit.errors import DataError

__all__ = ["qa_pairs"]

COLUMNS = ("sent0", "sent1")
_QUESTION = ("question", "query", "q", "questions", "title", "prompt")
_ANSWER = ("answer", "answers", "best_answer", "a", "response", "passage", "context")


def qa_pairs(
    file: str | Path,
    output: str | Path,
    *,
    question: str | None = None,
    answer: str | None = None,
    all_answers: bool = False,
    format: str | None = None,
    on_bad_row: OnBadRow = "error",
    overwrite: bool = False,
) -> Summary:
    """Write (question, answer) as training pairs.

    A row without an answer is left out and counted, and so is an answer that repeats the question,
    and a pair that was there before. A list of answers, and the ``{"text": [...]}`` of SQuAD, gives
    its first one, or all.

    Args:
        file: .csv, .tsv, .jsonl or .parquet.
        output: the file to write, with columns sent0, sent1.
        question: column, by name or, in a file without header, by position; recognised if None.
        answer: likewise.
        all_answers: a pair for each answer in a list.
        format: what the file is, whatever its suffix.
        on_bad_row: raise at the first bad row, or skip bad rows and count them.
        overwrite: an existing ``output`` may be replaced.

    Raises:
        DataError: the file cannot be read, a column is missing, or no pair comes of it.
        ConfigError: an argument is wrong.
    """
    target = check_output(output, overwrite=overwrite, columns=2)
    summary, report = Summary(str(target)), ReadReport()
    named = [name for name in (question, answer) if name is not None]
    seen: set[tuple[str, str]] = set()
    with reading([file]) as on_bytes:
        records = Records(
            file,
            header=headed(named),
            format=format,
            on_bad_row=on_bad_row,
            report=report,
            on_bytes=on_bytes,
        )
        first = records.column(question, _QUESTION, what="question", flag="--question")
        second = records.column(answer, _ANSWER, what="answer", flag="--answer")
        if first == second:
            raise DataError(f"column {first!r} is question and answer at once", file=file)
        with writing(target, COLUMNS) as writer:
            for line, record in records:
                text = record.get(first)
                if not isinstance(text, str) or not text.strip():
                    message = f"the question in column {first!r} is blank or no text; fill it in"
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
                    f"no row has both a question and an answer that is another text (columns "
                    f"{first!r}, {second!r}); "
                    "name the columns with --question, --answer",
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
