"""The contents of a report as a list of sections, and their rendering as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from simcse_kit.evaluation.contamination.check import LeakReport
from simcse_kit.evaluation.report import model_tables, panels, score_tables, sentences
from simcse_kit.evaluation.report.curves import Panel, training_curves
from simcse_kit.evaluation.report.dimensions import dimension_panel, dimension_table
from simcse_kit.evaluation.results import Report
from simcse_kit.evaluation.statistics.comparison import Comparison
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import Table, escaped, render_markdown

__all__ = ["Entry", "Section", "SectionBlock", "report_sections", "to_markdown"]

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A table with a heading (empty for none) and a label for screen readers.

    ``scale`` draws the marks of the rows on a scale from 0 to 100.
    """

    table: Table
    label: str
    heading: str = ""
    scale: bool = False


@dataclass(frozen=True, slots=True)
class SectionBlock:
    """A part of a section: a title, text above, tables, figures, maps, and a note below.

    A folded block has its title as summary line, which the reader clicks; ``open`` unfolds it at
    first. ``style`` is the CSS class of the text above: "note", "lead" or "protocol". Figures, maps
    and the note below are shown on the page only.
    """

    title: str = ""
    lead: str = ""
    entries: tuple[Entry, ...] = ()
    panels: tuple[Panel, ...] = ()
    maps: tuple[sentences.Drawing, ...] = ()
    after: str = ""
    style: str = "note"
    folded: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report; ``columns`` puts its blocks side by side on the page."""

    title: str
    blocks: tuple[SectionBlock, ...]
    lead: str = ""
    columns: bool = False


def report_sections(
    reports: Sequence[Report],
    *,
    history: History = (),
    comparison: Comparison | None = None,
    leaks: Sequence[LeakReport | None] = (),
) -> list[Section]:
    """List the sections of a report, without empty ones; see :func:`.page.write_report`."""
    neighbours = _entries(sentences.neighbour_tables(reports), "Nearest neighbours")
    maps = sentences.drawings(reports)
    sweep = dimension_panel(reports)
    found = [
        Section("Scores", _score_blocks(reports, comparison), _SCORES),
        Section(
            "Dimensions",
            (
                SectionBlock(panels=() if sweep is None else (sweep,)),
                SectionBlock(entries=_entry(dimension_table(reports), "Scores by dimensions")),
            ),
            _DIMENSIONS,
        ),
        Section(
            "Other tasks",
            (SectionBlock(entries=_entries(score_tables.task_tables(reports))),),
        ),
        *_cosine_section(reports),
        _shape_section(reports, history),
        Section(
            "Sentences",
            (
                SectionBlock(lead=_SENTENCES if maps else "", maps=maps, style="lead"),
                SectionBlock(
                    "Nearest neighbours of sample sentences", entries=neighbours, folded=True
                ),
            ),
        ),
        Section(
            "Largest errors",
            tuple(
                SectionBlock(title, entries=(Entry(table, title),), folded=True, open=number == 0)
                for number, (title, table) in enumerate(sentences.miss_tables(reports))
            ),
            _ERRORS,
        ),
        Section("Training", (SectionBlock(panels=tuple(training_curves(history))),)),
        Section(
            "Data",
            (
                SectionBlock(entries=_entry(model_tables.data_table(reports), "Data of the tasks")),
                SectionBlock(
                    "Does the training text contain test sentences?",
                    entries=_entry(
                        model_tables.leak_table(reports, leaks, score_tables.task_names(reports)),
                        "Leaks",
                    ),
                ),
            ),
        ),
        Section(
            "Environment",
            (SectionBlock(entries=_entry(model_tables.environment_table(reports), "Environment")),),
        ),
    ]
    return [kept for section in found if (kept := _without_empty(section)).blocks]


def to_markdown(title: str, sections: Iterable[Section]) -> str:
    """Render the tables and texts of a report as Markdown, with all names escaped."""
    parts = [f"# {escaped(title)}"]
    for section in sections:
        if not any(block.entries for block in section.blocks):
            continue
        parts += [f"## {escaped(section.title)}", *_plain(section.lead)]
        for block in section.blocks:
            if block.panels or block.maps:
                continue
            parts += [f"### {escaped(block.title)}"] if block.title else []
            parts += _plain(block.lead)
            level = "####" if block.title else "###"
            for entry in block.entries:
                parts += [f"{level} {escaped(entry.heading)}"] if entry.heading else []
                parts.append(render_markdown(entry.table))
    return "\n\n".join(parts) + "\n"


def _plain(lead: str) -> list[str]:
    """Return our own text without HTML markup, as zero or one paragraph."""
    text = lead.striptags() if isinstance(lead, Markup) else " ".join(lead.split())
    return [escaped(text)] if text else []


def _entry(table: Table | None, label: str, *, scale: bool = False) -> tuple[Entry, ...]:
    return () if table is None else (Entry(table, label, scale=scale),)


def _entries(named: Iterable[tuple[str, Table]], label: str = "{}") -> tuple[Entry, ...]:
    return tuple(Entry(table, label.replace("{}", name), name) for name, table in named)


def _without_empty(section: Section) -> Section:
    blocks = tuple(
        block
        for block in section.blocks
        if block.entries or block.panels or block.maps or (block.lead and not block.title)
    )
    return Section(section.title, blocks, section.lead, section.columns)


def _score_blocks(
    reports: Sequence[Report], comparison: Comparison | None
) -> tuple[SectionBlock, ...]:
    verdicts = () if comparison is None else score_tables.verdict_tables(comparison)
    kinds = () if comparison is None else score_tables.slice_tables(comparison)
    subsets = score_tables.subset_tables(reports)
    return (
        SectionBlock(
            entries=_entry(score_tables.score_table(reports), "Scores by task", scale=True)
        ),
        SectionBlock(
            "How sure the scores are",
            entries=_entry(score_tables.interval_table(reports), "Confidence intervals"),
            after=_OVERLAP if len(reports) > 1 and not verdicts else "",
        ),
        SectionBlock("Whether the models differ", entries=_entries(verdicts)),
        SectionBlock(
            "By kind of pair",
            "Mean over the tasks that have 30 pairs of the kind or more.",
            _entries(kinds, "Kinds of pair, {}"),
            folded=True,
        ),
        SectionBlock(lead=_PROTOCOL, style="protocol"),
        SectionBlock(
            "Every subset, other averages, Pearson",
            _SUBSETS,
            _entries(subsets, "Subsets of {}"),
            folded=True,
        ),
    )


def _cosine_section(reports: Sequence[Report]) -> list[Section]:
    task = panels.histogram_task(reports)
    if task is None:
        return []
    block = SectionBlock(panels=tuple(panels.cosine_panels(reports, task)))
    lead = _COSINES.format(one_line(task))
    return [Section("Cosines by human score", (block,), lead)]


def _shape_section(reports: Sequence[Report], history: History) -> Section:
    plane, spectrum = panels.plane_panel(reports, history), panels.spectrum_panel(reports)
    drawn = tuple(panel for panel in (plane, spectrum) if panel)
    entries = _entry(model_tables.geometry_table(reports), "Geometry")
    absent = "The geometry was not computed in this evaluation."
    return Section(
        "Shape of the embedding space",
        (
            SectionBlock(lead=_SHAPE if plane else "", panels=drawn, style="lead"),
            SectionBlock(lead="" if entries else absent, entries=entries),
        ),
        columns=bool(drawn or entries),
    )


_DIMENSIONS = (
    "What is left of the scores if only the first dimensions of the vectors are kept, times 100."
)
_SCORES = (
    "Semantic textual similarity: does the model find those pairs similar that people find similar?"
)
_PROTOCOL = Markup(
    "<b>How these numbers are made.</b> Each pair is scored with the cosine similarity of its two "
    "sentence embeddings. A task's score is Spearman's rank correlation between these cosines and "
    "the human scores, times 100, with average ranks for ties, computed once over the "
    "concatenation of all subsets of the task (the setting known as “all”). No regressor is "
    "trained on top. The average is the plain mean of the seven standard tasks; averages and "
    "differences are computed before rounding."
)
_OVERLAP = Markup(
    "Whether models differ is a separate question: overlapping intervals do not rule out a "
    "difference. <code>simcse compare</code> tests it on the same pairs."
)
_SUBSETS = (
    "“All pairs” is the score above. The two means are over the subsets' own Spearman values; "
    "papers that report them cannot be compared with “all”."
)
_COSINES = Markup(
    "<bdi>{}</bdi>: one row for each step of the human score, most similar on top. In a good "
    "model the rows climb to the right and overlap little. Every row is scaled to its own peak; a "
    "score on an edge counts in the upper row; the line marks the median."
)
_SHAPE = (
    "Alignment measures how close the two sentences of a positive pair are, uniformity how evenly "
    "all sentences spread over the sphere. Lower is better on both: the good corner is at the "
    "bottom left. Good uniformity alone does not make a good model."
)
_SENTENCES = (
    "Every dot is a sentence; point at one, or use the arrow keys, to read it with its nearest "
    "neighbours. Two axes hold little of the variance, so dots that are close need not be similar: "
    "the list shows the true neighbours."
)
_ERRORS = (
    "Pairs whose place by the model is farthest from their place by human score. Places are among "
    "the pairs of the task, from 0 for the least similar to 100 for the most similar."
)
