"""Premises, hypotheses and labels to triplets, as supervised SimCSE (2104.08821) trains on."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simcse_kit.data.bad_rows import OnBadRow, Problem, ReadReport, shorten
from simcse_kit.data.prepare.named_rows import Records, headed, reading
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.prepare.summary import Summary
from simcse_kit.errors import ConfigError, DataError

__all__ = ["nli_triplets", "parse_labels"]

logger = logging.getLogger(__name__)

COLUMNS = ("sent0", "sent1", "hard_neg")
_PREMISE = ("premise", "sentence1", "sentence_a", "text1", "context", "sent0")
_HYPOTHESIS = ("hypothesis", "sentence2", "sentence_b", "text2", "sent1")
_LABEL = ("gold_label", "label", "entailment_label", "labels")
_CLASSES = ("entailment", "neutral", "contradiction")
_SPELLINGS = {
    **{name: name for name in _CLASSES},
    **{name[0]: name for name in _CLASSES},
    **{str(number): name for number, name in enumerate(_CLASSES)},
}
_NO_LABEL = frozenset({"-", "-1", ""})


@dataclass(slots=True)
class _Premise:
    entailed: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)


def parse_labels(text: str | None) -> dict[str, str]:
    """``"entailment=yes,contradiction=no"`` as ``{spelling: class}``; without it the usual ones.

    Raises:
        ConfigError: it is not written so, or has no entailment or no contradiction.
    """
    if text is None:
        return dict(_SPELLINGS)
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, spelling = (piece.strip() for piece in part.partition("="))
        if name not in _CLASSES or not equals:
            raise ConfigError(
                f"--labels {text!r}: {part!r} is not of the form CLASS=SPELLING; the classes are "
                f"{', '.join(_CLASSES)}"
            )
        if found.get(spelling.lower(), name) != name:
            raise ConfigError(f"--labels {text!r}: {spelling!r} stands for two classes")
        found[spelling.lower()] = name
    missing = {"entailment", "contradiction"} - set(found.values())
    if missing:
        raise ConfigError(f"--labels {text!r} does not say how {min(missing)} is spelled")
    return found


def nli_triplets(
    files: Sequence[str | Path],
    output: str | Path,
    *,
    premise: str | None = None,
    hypothesis: str | None = None,
    label: str | None = None,
    labels: str | None = None,
    one_per_premise: bool = False,
    seed: int = 0,
    format: str | None = None,
    on_bad_row: OnBadRow = "error",
    overwrite: bool = False,
) -> Summary:
    """Write a triplet for each entailment whose premise also has a contradiction.

    A row is (premise, entailed hypothesis, contradicting hypothesis); of several contradictions
    one is drawn, and they are used up before one is taken twice. The three texts differ by more
    than case, punctuation and spacing. Premises are matched by their text over all files, which are
    held in memory; rows are in the order of the premises.

    Args:
        files: .csv, .tsv, .jsonl, .parquet; those of SNLI and MNLI as they come.
        output: the file to write, with columns sent0, sent1, hard_neg.
        premise: column, by name or, in a file without header, by position; recognised if None.
        hypothesis: likewise.
        label: likewise.
        labels: how labels are spelled, see :func:`parse_labels`.
        one_per_premise: draw one entailment of each premise in place of taking all.
        seed: of what is drawn.
        format: what the files are, whatever their suffix: SNLI's .txt files are tsv.
        on_bad_row: raise at the first bad row, or skip bad rows and count them.
        overwrite: an existing ``output`` may be replaced.

    Raises:
        DataError: a file cannot be read, a column is missing, a label is unknown, or no triplet
            comes of it.
        ConfigError: an argument is wrong.
    """
    target = check_output(output, overwrite=overwrite, columns=3)
    spellings = parse_labels(labels)
    summary, report = Summary(str(target)), ReadReport()
    premises: dict[str, _Premise] = {}
    with reading(files) as on_bytes:
        for file in files:
            named = [name for name in (premise, hypothesis, label) if name is not None]
            records = Records(
                file,
                header=headed(named),
                format=format,
                on_bad_row=on_bad_row,
                report=report,
                on_bytes=on_bytes,
            )
            chosen = (
                records.column(premise, _PREMISE, what="premise", flag="--premise"),
                records.column(hypothesis, _HYPOTHESIS, what="hypothesis", flag="--hypothesis"),
                records.column(label, _LABEL, what="label", flag="--label"),
            )
            _collect(records, chosen, spellings, premises, summary)
    summary.take(report)
    rng = random.Random(seed)
    with writing(target, COLUMNS) as writer:
        for text, of in premises.items():
            for positive, negative in _drawn(text, of, summary, rng, one_per_premise):
                writer.write(dict(zip(COLUMNS, (text, positive, negative), strict=True)))
        summary.rows = writer.rows
        if not writer.rows:
            counted = {**summary.figures, **summary.left_out}
            counts = ", ".join(f"{n} {what}" for what, n in counted.items()) or "no rows"
            raise DataError(
                f"no premise has both an entailment and a contradiction ({counts}); check the "
                "columns and the labels",
                file=str(files[0]),
            )
    summary.figures["premises"] = len(premises)
    return summary


def _collect(
    records: Records,
    columns: tuple[str, str, str],
    spellings: dict[str, str],
    premises: dict[str, _Premise],
    summary: Summary,
) -> None:
    first, second, third = columns
    told = False
    for line, record in records:
        value = record.get(third)
        # "0.0" where a table program made numbers of the labels.
        spelled = "" if value is None else str(value).strip().lower().removesuffix(".0")
        kind = spellings.get(spelled)
        if kind is None:
            if spelled in _NO_LABEL:
                summary.read += 1
                summary.leave_out("rows without a gold label")
                continue
            known = ", ".join(spellings)
            message = (
                f"unknown label {shorten(str(value))}; known: {known}, and - for none; say how "
                "they are spelled with --labels entailment=...,contradiction=..."
            )
            records.gate.reject(line, Problem("unknown label", message))
            continue
        if not told and spelled.isdigit() and spellings == _SPELLINGS:
            told = True
            logger.info(
                "%s: the labels 0, 1, 2 are taken for %s", records.path, ", ".join(_CLASSES)
            )
        texts = [record.get(first), record.get(second)]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            names = f"{first!r} or {second!r}"
            problem = Problem("blank text", f"{names} is blank or not a text; fill it in")
            records.gate.reject(line, problem)
            continue
        summary.read += 1
        summary.figures[kind] = summary.figures.get(kind, 0) + 1
        if kind == "neutral":
            continue
        premise, hypothesis = (str(text).strip() for text in texts)
        of = premises.setdefault(premise, _Premise())
        side = of.entailed if kind == "entailment" else of.contradicted
        if hypothesis not in side:
            side.append(hypothesis)
        else:
            summary.leave_out("rows given twice")


def _drawn(
    premise: str, of: _Premise, summary: Summary, rng: random.Random, one: bool
) -> list[tuple[str, str]]:
    """The (entailment, contradiction) of one premise: three texts with different normal keys."""
    own = normal_key(premise)
    positives = [text for text in of.entailed if normal_key(text) != own]
    if len(positives) < len(of.entailed):
        equal = len(of.entailed) - len(positives)
        summary.leave_out("entailments that are the premise itself", equal)
    if not positives:
        return []
    # The annotators disagreed on these.
    disputed = {own, *map(normal_key, of.entailed)}
    negatives = [text for text in of.contradicted if normal_key(text) not in disputed]
    if not negatives:
        summary.leave_out("entailments without a contradiction", len(positives))
        return []
    if one:
        summary.leave_out("more entailments of a premise", len(positives) - 1)
        positives = [rng.choice(positives)]
    drawn: list[str] = []
    while len(drawn) < len(positives):
        drawn += rng.sample(negatives, len(negatives))
    return list(zip(positives, drawn, strict=False))
