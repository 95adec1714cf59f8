"""Sentences in a report, and the page's interactive part in a real browser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit import SentenceEncoder
from simcse_kit.evaluation.contamination.recorded import recorded_leaks
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.pairs_file import load_pairs_file
from simcse_kit.evaluation.report.details import sentence_map, worst_pairs
from simcse_kit.evaluation.report.model_tables import leak_table
from simcse_kit.evaluation.report.page import write_report
from simcse_kit.evaluation.report.score_tables import verdict_tables
from simcse_kit.evaluation.report.sections import Entry, Section, SectionBlock, to_markdown
from simcse_kit.evaluation.statistics.comparison import compare_reports
from simcse_kit.evaluation.tasks.load import load_tasks
from simcse_kit.utils.tables import Cell, Row, Table
from tests.evaluation.report_inputs import Page, report, task
from tests.evaluation.synthetic import BagOfWords

STS = Path(__file__).parents[2] / "data" / "sts.tsv"
EVIL = "</template><script>document.title='hit'</script>"


def embeddings(n: int, d: int = 5) -> tuple[Embeddings, list[str]]:
    rng = np.random.default_rng(0)
    names = [f"sentence {number}" for number in range(n)]
    return Embeddings(names, rng.normal(size=(n, d)).astype(np.float32)), names


def test_the_map_lies_on_the_principal_axes_and_its_neighbours_are_the_nearest() -> None:
    vectors, names = embeddings(50)
    found = sentence_map(vectors, names, "here")
    assert found is not None
    unit = vectors(names).astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, ::-1][:, :2]
    assert np.allclose(np.abs(found.points), np.abs(expected), atol=1e-5)
    assert found.shares[0] == pytest.approx(variances[-1] / variances.sum())
    cosines = unit @ unit.T - 9 * np.eye(50)
    for row, near in enumerate(found.neighbours):
        assert [text for text, _ in near] == [names[i] for i in np.argsort(-cosines[row])[:3]]
        assert near[0][1] == pytest.approx(cosines[row].max(), abs=1e-5)


def test_a_large_set_is_thinned_and_a_tiny_one_has_no_map() -> None:
    vectors, names = embeddings(1000)
    found = sentence_map(vectors, names, "here")
    assert found is not None
    assert len(found.sentences) == 400
    assert found.sentences[0] == names[0]
    assert found.sentences[-1] == names[-1]
    assert sentence_map(vectors, names[:2], "here") is None


def test_the_worst_pair_comes_first() -> None:
    gold = np.arange(6.0)
    pairs = PairSet("t", [f"a{i}" for i in range(6)], [f"b{i}" for i in range(6)], gold)
    cosines = np.array([0.9, 0.2, 0.3, 0.4, 0.5, 0.6])  # the lowest gold has the highest cosine
    result = replace(task("t", 50.0), cosines=cosines, gold=gold)
    found = worst_pairs({"t": [pairs]}, {"t": result}, most=2)
    assert found[0].sentence1 == "a0"
    assert found[0].places == (0.0, 1.0)
    assert len(found) == 2


def test_the_audit_counts_repeats_words_and_what_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    rows = ["1\ta b\tc", "2\tc\ta b", "3\td d d d d d d d d d\te", "5\tf\tg"]
    path.write_text("score\tsentence1\tsentence2\n" + "\n".join(rows) + "\n")
    encoder = SentenceEncoder.load("mini", max_length=8)
    scored = evaluate(encoder, path, exhibits=True)
    assert scored.exhibit is not None
    (audit,) = scored.exhibit.audit
    assert (audit.pairs, audit.sentences, audit.repeated, audit.words[1]) == (4, 6, 1, 10)
    assert audit.cut == 1
    assert audit.tokens is not None
    assert (audit.tokens.unknown, audit.tokens.same_ids) == (0, 0)
    kept = scored.exhibit.to_json()["audit"][0]
    assert (kept["cut"], kept["tokens"]["unknown"]) == (1, 0)
    assert scored.exhibit.weights is not None
    path.write_text(path.read_text().replace("5\tf", "4\tf"))
    again = evaluate(encoder, path, exhibits=True)
    assert again.exhibit is not None
    assert again.exhibit.audit[0].fingerprint != audit.fingerprint
    assert again.exhibit.weights == scored.exhibit.weights
    json.dumps(again.to_json(), allow_nan=False)


@pytest.fixture
def page(tmp_path: Path, encoder: BagOfWords) -> Path:
    """Two encoders compared on pairs of which one sentence is hostile."""
    path = tmp_path / "pairs.tsv"
    pairs = load_pairs_file(STS, split="test", if_present=True)
    rows = zip(pairs.gold[:80], pairs.sentences1, [EVIL, *pairs.sentences2[1:80]], strict=False)
    lines = ["score\tsentence1\tsentence2", *(f"{gold}\t{a}\t{b}" for gold, a, b in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    loaded = load_tasks(path)
    mini = SentenceEncoder.load("mini")
    reports = [
        evaluate(each, loaded, name=name, exhibits=True)
        for each, name in ((encoder, "words"), (mini, "mini"))
    ]
    found = compare_reports(reports, loaded, resamples=200)
    return write_report(reports, tmp_path / "out", comparison=found)


def test_page_and_markdown_hold_the_same(page: Path) -> None:
    html = page.read_text("utf-8")
    Page(html)
    marked = page.with_suffix(".md").read_text("utf-8")
    for text in (
        "Whether the models differ",
        "mini less words",
        "Largest errors",
        "SHA-256",
        "How these numbers are made",
    ):
        assert text in html
        assert text in marked
    assert EVIL not in html
    assert EVIL not in marked
    document = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert document["comparison"]["models"] == ["words", "mini"]
    assert len(document["reports"][1]["exhibit"]["misses"]) == 10


def test_verdicts_of_the_page_are_those_of_the_comparison() -> None:
    rng = np.random.default_rng(0)
    gold = rng.uniform(0, 5, 60)
    pairs = PairSet("t", [f"a {n}" for n in range(60)], [f"b {n}" for n in range(60)], gold)
    results = [
        replace(task("t", 0.0), name="t", gold=gold, cosines=gold + rng.normal(0, noise, 60))
        for noise in (9.0, 0.5)
    ]
    both = [report(name, 1.0, tasks={"t": one}) for name, one in zip("ab", results, strict=True)]
    found = compare_reports(both, {"t": [pairs]}, resamples=300)
    ((title, table),) = verdict_tables(found)
    (each,) = found.of("b")
    assert title == "b less a"
    shown = [cell.text for cell in table.rows[0].cells]
    assert shown[0] == f"+{each.difference.estimate:.2f}"
    assert shown[1] == f"+{each.difference.low:.2f} to +{each.difference.high:.2f}"
    assert shown[2] == ("< 0.001" if each.adjusted < 0.001 else f"{each.adjusted:.3f}")
    assert shown[-1] == each.verdict == "better"
    assert table.rows[0].cells[0].trend == "better"


def test_the_markdown_report_has_the_tables_and_reads_no_name_as_markup() -> None:
    table = Table(("a|b", "*c*"), (Row("<i>x</i>", (Cell("[y](z)"), Cell("two\nlines"))),))
    sections = [
        Section(
            "s",
            (
                SectionBlock("k", "*lead*", (Entry(table, "label", "#h"),)),
                SectionBlock(lead="note"),
            ),
        ),
        Section("pictures only", (SectionBlock("a map"),), "Point at a dot."),
    ]
    assert to_markdown("_t_", sections).split("\n") == [
        r"# \_t\_", "", "## s", "", "### k", "", r"\*lead\*", "", r"#### \#h", "",
        r"|  | a\|b | \*c\* |", "|---|---:|---:|",
        r"| \<i\>x\</i\> | \[y\](z) | two lines |", "", "note", "",
    ]  # fmt: skip


def test_leaks_of_the_recorded_training_text(tmp_path: Path) -> None:
    near = "one two three four five six seven eight nine ten eleven twelve"
    pairs = PairSet("t", ["A cat.", near], ["One bird", "No"], np.array([1.0, 2.0]))
    (tmp_path / "text.txt").write_text(f"something else\na CAT\n{near} thirteen\n")
    record = tmp_path / "run.toml"
    record.write_text(f"[data]\ntrain = [{str(tmp_path / 'text.txt')!r}]\n")
    found = recorded_leaks(str(tmp_path), {"t": [pairs]})
    assert found is not None
    assert (found.sets["t"].touched, found.sets["t"].pairs) == (1, 2)
    table = leak_table([report("m", 50.0)], [found], ["t"])
    assert table is not None
    assert table.rows[0].cells[0].text == "1 of 2"
    assert leak_table([report("m", 50.0)], [None], ["t"]) is None
    for text in ("[data]\ntrain = ['gone.txt']\n", "[data]\n", "no toml"):
        record.write_text(text)
        assert recorded_leaks(str(tmp_path), {"t": [pairs]}) is None
    assert recorded_leaks("mini", {"t": [pairs]}) is None


@pytest.mark.browser
@pytest.mark.long
@pytest.mark.parametrize(("width", "touch"), [(1100, False), (390, True)])
def test_the_map_in_a_browser(page: Path, chromium: Any, width: int, touch: bool) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, has_touch=touch, color_scheme="dark"
    )
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: said.append(request.url) if "file:" not in request.url else 0)
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.title() != "hit"
    box = tab.locator(".map").nth(1)
    dot = box.locator("circle").nth(3)
    sentence = dot.locator("title").text_content()
    dot.scroll_into_view_if_needed()
    if touch:
        dot.tap(force=True)
    else:
        dot.hover(force=True)
    shown = box.locator(".shown b").text_content()
    assert box.locator(".shown li").count() == 3
    if shown != sentence:  # another dot may lie on top of it
        assert box.locator("circle.chosen title").text_content() == shown
    box.locator("svg").focus()
    tab.keyboard.press("ArrowRight")
    assert box.locator(".shown b").text_content() != shown
    box.locator("input").fill("template")
    assert box.locator("output").text_content() == "1 found"
    assert box.locator(".shown b").text_content() == EVIL
    assert box.locator("circle.hit").count() == 1
    assert not [line for line in said if not line.startswith("data:")]
    context.close()
