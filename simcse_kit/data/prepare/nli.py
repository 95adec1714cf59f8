"""Training triplets from labelled NLI pairs, as for supervised SimCSE (arXiv 2104.08821)."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from simcse_kit.data.bad_rows import Problem, ReadReport, shorten
from simcse_kit.data.columns import are_positions
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import Summary, check_output, writing
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_paths
from simcse_kit.errors import ConfigError, DataError

__all__ = ["NliColumns", "nli_triplets", "parse_labels"]

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


@dataclass(frozen=True, slots=True)
class NliColumns:
    """Columns of NLI files, by name or, in files without header, by position, and their labels.

    Args:
        premise: Column of the premise; None recognises it.
        hypothesis: Column of the hypothesis; None recognises it.
        label: Column of the label; None recognises it.
        spellings: Spellings of the labels, see :func:`parse_labels`.
    """

    premise: str | None = None
    hypothesis: str | None = None
    label: str | None = None
    spellings: str | None = None

    def find(self, records: Records) -> tuple[str, str, str]:
        """Find the three columns in a file.

        Raises:
            DataError: A column is missing.
        """
        return (
            records.column(self.premise, _PREMISE, what="premise", flag="--premise"),
            records.column(self.hypothesis, _HYPOTHESIS, what="hypothesis", flag="--hypothesis"),
            records.column(self.label, _LABEL, what="label", flag="--label"),
        )


ANY_COLUMNS = NliColumns()
"""Columns and labels that are recognised."""


@dataclass(slots=True)
class _Hypotheses:
    entailed: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)


def parse_labels(text: str | None) -> dict[str, str]:
    """Parse ``"entailment=yes,contradiction=no"`` into classes by spelling.

    Args:
        text: The spellings; None for the usual ones.

    Raises:
        ConfigError: The text has another form, or lacks entailment or contradiction.

    Examples:
        >>> parse_labels("entailment=yes,contradiction=no")
        {'yes': 'entailment', 'no': 'contradiction'}
    """
    if text is None:
        return dict(_SPELLINGS)
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, spelling = (piece.strip() for piece in part.partition("="))
        if name not in _CLASSES or not equals:
            raise ConfigError(
                f"--labels {text!r}: {part!r} must have the form CLASS=SPELLING; the classes are "
                f"{', '.join(_CLASSES)}"
            )
        if found.get(spelling.lower(), name) != name:
            raise ConfigError(f"--labels {text!r}: {spelling!r} is given for two classes")
        found[spelling.lower()] = name
    missing = {"entailment", "contradiction"} - set(found.values())
    if missing:
        raise ConfigError(f"--labels {text!r} does not say how {min(missing)} is spelled")
    return found


def nli_triplets(
    files: Sequence[str | Path],
    output: str | Path,
    options: ReadOptions = DEFAULTS,
    *,
    columns: NliColumns = ANY_COLUMNS,
    one_per_premise: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Write a triplet for each entailment whose premise also has a contradiction.

    A row is (premise, entailed hypothesis, contradicting hypothesis). Of several contradictions one
    is drawn, and none is used twice before all are used. The three texts differ by more than case,
    punctuation and spacing. Premises are matched by their text over all files, which are held in
    memory; rows are in the order of the premises.

    Args:
        files: .csv, .tsv, .jsonl, .json or .parquet files, such as those of SNLI and MNLI.
        output: The file to write, with the columns sent0, sent1, hard_neg.
        options: Options of reading; SNLI's .txt files need ``format="tsv"``.
        columns: Columns and spellings of the labels; recognised by default.
        one_per_premise: Whether one entailment of each premise is drawn; otherwise all are used.
        seed: Seed of the draws.
        overwrite: Whether an existing ``output`` may be replaced.

    Raises:
        DataError: A file cannot be read, a column is missing, a label is unknown, or no triplet is
            left.
        ConfigError: An argument is not allowed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> rows = ["premise,hypothesis,label", "A cat sat.,A cat,0", "A cat sat.,A dog,2"]
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "nli.csv")
        ...     _ = path.write_text("\\n".join(rows))
        ...     summary = nli_triplets([path], Path(folder, "out.csv"))
        ...     Path(folder, "out.csv").read_text().splitlines()[1]
        'A cat sat.,A cat,A dog'
    """
    target = check_output(output, overwrite=overwrite, columns=3)
    spellings = parse_labels(columns.spellings)
    summary, report = Summary(str(target)), ReadReport()
    named = [name for name in astuple(columns)[:3] if name is not None]
    options = replace(options, header=options.header and not are_positions(named))
    premises: dict[str, _Hypotheses] = {}
    files = local_paths(files)
    with reading_progress(files) as on_bytes:
        for file in files:
            records = Records(file, options, report=report, on_bytes=on_bytes)
            _collect(records, columns.find(records), spellings, premises, summary)
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
    premises: dict[str, _Hypotheses],
    summary: Summary,
) -> None:
    first, second, third = columns
    noted = False
    for line, record in records:
        value = record.get(third)
        # Spreadsheets turn the label 0 into 0.0.
        spelled = "" if value is None else str(value).strip().lower().removesuffix(".0")
        kind = spellings.get(spelled)
        if kind is None:
            if spelled in _NO_LABEL:
                summary.read += 1
                summary.leave_out("rows without a gold label")
                continue
            known = ", ".join(spellings)
            message = (
                f"unknown label {shorten(str(value))}; known: {known}, and - for none; give "
                "the spellings with --labels entailment=...,contradiction=..."
            )
            records.gate.reject(line, Problem("unknown label", message))
            continue
        if not noted and spelled.isdigit() and spellings == _SPELLINGS:
            noted = True
            logger.info("%s: reading the labels 0, 1, 2 as %s", records.path, ", ".join(_CLASSES))
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
        of = premises.setdefault(premise, _Hypotheses())
        side = of.entailed if kind == "entailment" else of.contradicted
        if hypothesis not in side:
            side.append(hypothesis)
        else:
            summary.leave_out("rows given twice")


def _drawn(
    premise: str, of: _Hypotheses, summary: Summary, rng: random.Random, one: bool
) -> list[tuple[str, str]]:
    """Draw (entailment, contradiction) for a premise: three texts with different normal keys."""
    own = normal_key(premise)
    positives = [text for text in of.entailed if normal_key(text) != own]
    if len(positives) < len(of.entailed):
        equal = len(of.entailed) - len(positives)
        summary.leave_out("entailments that are the premise itself", equal)
    if not positives:
        return []
    # Annotators disagreed on hypotheses that are also entailed.
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
