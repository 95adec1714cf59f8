"""Tables as text, Markdown and HTML."""

from __future__ import annotations

import pytest

from simcse_kit.utils.tables import (
    DASH,
    Cell,
    Row,
    Table,
    escaped,
    render_html,
    render_markdown,
    render_text,
)

SCORES = Table.of_text(["task", "first", "second"], [["STS12", "70.1", "8"], ["B", "9", "10.25"]])


def test_text_aligns_the_names_left_and_the_values_right() -> None:
    assert render_text(SCORES).split("\n") == [
        "task   first  second",
        "STS12   70.1       8",
        "B          9   10.25",
    ]


def test_columns_that_do_not_fit_continue_below_and_repeat_the_names() -> None:
    assert render_text(SCORES, width=14).split("\n") == [
        "task   first",
        "STS12   70.1",
        "B          9",
        "",
        "task   second",
        "STS12       8",
        "B       10.25",
    ]


def test_text_stays_on_its_line() -> None:
    table = Table.of_text(["a", "b"], [["x\ny", "\x1b[2J"]])
    assert render_text(table).split("\n")[1] == r"x\ny  \x1b[2J"


def test_markdown_shows_hints_pairs_notes_and_reasons() -> None:
    rows = (
        Row("STS", (Cell("1"),), hint="60 pairs"),
        Row("one", (Cell(DASH, "Not *known*."),), second="two"),
        Row("three", (Cell("text", note="0.9"),)),
    )
    assert render_markdown(Table(("n",), rows, ("Note.",), "kind")).split("\n") == [
        "| kind | n |", "|---|---:|", "| STS (60 pairs) | 1 |", f"| one / two | {DASH} |",
        "| three | text (0.9) |", "", "Note.", "", rf"Meaning of {DASH}: Not \*known\*.",
    ]  # fmt: skip


def test_raw_markdown_keeps_the_text() -> None:
    table = Table.of_text(["method", "x"], [["moco(queue_size=8)", "1"]])
    assert render_markdown(table, raw=True).split("\n")[1:] == [
        "|---|---|",
        "| moco(queue_size=8) | 1 |",
    ]


def test_escaped_text_has_no_link_mention_or_reordering() -> None:
    assert escaped("see https://a.b, WWW.c.d, e@f.g or @you") == (
        r"see https\://a.b, WWW\.c.d, e\@f.g or \@you"
    )
    assert escaped("a\u202eb\x1b[2J\r\n# c") == r"a\\u202eb\\x1b\[2J \# c"


def test_html_escapes_and_isolates_every_text() -> None:
    evil = "<b>\"'\u202e"
    row = Row(evil, (Cell(evil, note=evil), Cell(DASH, evil)), hint=evil, second=evil)
    page = render_html(Table((evil, evil), (row,), (evil,), evil), evil, scale=True)
    assert "<b>" not in page
    assert "\u202e" not in page
    assert page.count("<bdi>&lt;b&gt;&#34;&#39;") == 6


@pytest.mark.parametrize(
    ("marks", "dots", "bars"),
    [((20.0,), 1, 0), ((20.0, 60.0), 2, 1), ((20.0, None), 1, 0), ((1.0, 2.0, 3.0), 3, 0)],
)
def test_html_draws_the_marks_on_a_scale(
    marks: tuple[float | None, ...], dots: int, bars: int
) -> None:
    table = Table(("n",), (Row("x", (Cell("1", trend="better"),), marks=marks),))
    page = render_html(table, "label", scale=True)
    assert (page.count('class="dot '), page.count('class="bar"')) == (dots, bars)
    assert '<td class="number better">' in page
    assert "dots" not in render_html(table, "label")
