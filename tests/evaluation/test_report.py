"""The report pages: content, wording and formats."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.report.page import write_report, write_training_report
from simcse_kit.evaluation.report.panels import spectrum_panel
from simcse_kit.evaluation.report.score_tables import task_tables
from simcse_kit.evaluation.report.sections import report_sections
from simcse_kit.evaluation.results import (
    AVERAGE,
    TRANSFER_TASKS,
    Intervals,
    Report,
    TaskScore,
    side_by_side,
)
from simcse_kit.evaluation.statistics.bootstrap import Interval
from simcse_kit.utils.printable import one_line
from tests.evaluation.report_inputs import HISTORY, Page, geometry, report, task

BEFORE = report("org/base", 53.84, geometry=geometry(0.11, -0.92))
AFTER = report("runs/mine", 60.10)


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([BEFORE, AFTER], tmp_path_factory.mktemp("both"), history=HISTORY)


def test_two_reports_show_both_scores_and_the_difference(both: Path) -> None:
    read = page(both)
    assert "56.84 → 63.10 +6.26" in read.text
    assert read.row("Task") == ["Task", "Before", "After", "Difference", "0100"]
    assert read.row("STS14")[1:4] == ["55.84", "62.10", "+6.26"]
    assert read.row("Average")[1:4] == ["56.84", "63.10", "+6.26"]
    assert read.row("Alignment")[1:] == ["0.1100", "0.2100", "+0.1000"]
    assert read.row("Uniformity")[1:] == ["\u22120.9200", "\u22122.4100", "\u22121.4900"]
    for words in (
        "org/base",
        "runs/mine",
        "pooling cls",
        "Spearman",
        "average ranks",
        "No regressor",
    ):
        assert words in read.text


def test_a_loss_carries_a_minus_sign_and_the_order_decides(tmp_path: Path) -> None:
    read = page(write_report([AFTER, BEFORE], tmp_path))
    assert read.row("Average")[1:4] == ["63.10", "56.84", "\u22126.26"]


def test_difference_is_taken_before_rounding(tmp_path: Path) -> None:
    one = report("a", 50, tasks={"X": task("X", 10.004)}, average=None)
    two = report("b", 50, tasks={"X": task("X", 11.006)}, average=None)
    assert page(write_report([one, two], tmp_path)).row("X")[1:4] == ["10.00", "11.01", "+1.00"]


def test_details_hold_subsets_means_pearson_and_pairs(both: Path) -> None:
    read = page(both)
    assert any(tag == "details" for tag, _ in read.tags)
    assert read.row("first")[1:] == ["20", "52.84", "59.10", "+6.26", "51.84", "58.10"]
    assert read.row("mean of the subsets")[1:5] == ["", "53.84", "60.10", "+6.26"]
    assert read.row("mean weighted")[1:5] == ["", "54.09", "60.35", "+6.26"]


def test_one_report_has_no_difference(tmp_path: Path) -> None:
    read = page(write_report([AFTER], tmp_path, title="My page"))
    assert "Difference" not in read.text
    assert "→" not in read.text
    assert read.row("STS12")[:2] == ["STS1260 pairs", "60.10"]
    assert "My page" in read.text


def test_three_reports_stand_side_by_side(tmp_path: Path) -> None:
    read = page(write_report([BEFORE, AFTER, replace(AFTER, model="third")], tmp_path))
    assert read.row("Task")[:4] == ["Task", "Model A", "Model B", "Model C"]
    assert read.row("Average")[1:4] == ["56.84", "63.10", "63.10"]


@pytest.mark.parametrize("name", ["both", "training"])
def test_nothing_is_loaded_from_elsewhere(both: Path, tmp_path: Path, name: str) -> None:
    path = both
    if name == "training":
        path = write_training_report(HISTORY, tmp_path, title="Run", summary={"Seed": "1"})
    source = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' <)]*", source)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    read = Page(source)
    assert not {"script", "iframe", "object", "embed", "img", "base"} & {
        tag for tag, _ in read.tags
    }
    for _, attributes in read.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
        assert not any(key.startswith("on") for key in attributes)
    policy = [a.get("content") or "" for tag, a in read.tags if tag == "meta" and "http-equiv" in a]
    assert policy[0].startswith("default-src 'none'")
    assert any(a.get("name") == "viewport" for tag, a in read.tags if tag == "meta")
    assert "prefers-color-scheme: dark" in source


def test_ids_are_unique_and_references_resolve(both: Path) -> None:
    source = both.read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]*)"', source)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', source)) <= set(ids)


def test_figures_take_their_colours_from_the_page(both: Path) -> None:
    source = both.read_text(encoding="utf-8")
    drawn = "".join(re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawn)
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", source)):
        assert len(re.findall(rf"{variable}:", source)) == 2, variable  # light and dark


def test_a_logarithmic_axis_has_plain_labels(both: Path) -> None:
    source = both.read_text(encoding="utf-8")
    assert "mathdefault" not in source
    assert ">0.1</text>" in source


HOSTILE = "<script>alert(1)</script>\"'&amp;{{ 7*7 }}$x^2$\u202e"


def body(source: str) -> str:
    """The page's body without the values of attributes."""
    inside = source.split("<main>")[1]
    return re.sub(r"<[^<>]*>", lambda tag: re.sub(r'"[^"]*"', "", tag[0]), inside)


def test_the_page_may_load_and_send_nothing(tmp_path: Path) -> None:
    source = write_report([AFTER], tmp_path).read_text(encoding="utf-8")
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)[0]
    rules = [rule.strip() for rule in policy.split(";")]
    for rule in ("default-src 'none'", "base-uri 'none'", "form-action 'none'"):
        assert rule in rules


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = replace(task(HOSTILE, 50.0), subsets={HOSTILE + "s": task("x", 1).subsets["first"]})
    shape = replace(geometry(), source=HOSTILE)
    bad = Report(HOSTILE, HOSTILE, {HOSTILE: evil}, None, shape, {HOSTILE: HOSTILE}, 1.0)
    path = write_report([bad, bad], tmp_path, title=HOSTILE, history=HISTORY)
    read = page(path)
    assert not any(tag == "script" for tag, _ in read.tags)
    assert read.text.count("<script>alert(1)</script>\"'&amp;{{ 7*7 }}") >= 8
    assert "49" not in read.row(one_line(HOSTILE))[0]
    # No character turns the order of what follows, and each name is isolated.
    source = path.read_text(encoding="utf-8")
    assert "\u202e" not in source
    text = body(source)
    places = [found.start() for found in re.finditer(r"&lt;script&gt;", text)]
    assert len(places) >= 8
    for place in places:
        assert text.rfind("<bdi", 0, place) > text.rfind("</bdi>", 0, place), text[:place][-80:]
    training = write_training_report(
        HISTORY, tmp_path, title=HOSTILE, summary={HOSTILE: HOSTILE, "b": "</dl>"}
    )
    assert not any(tag == "script" for tag, _ in page(training).tags)
    assert "</dl>" in page(training).text


def test_names_that_are_not_utf8_do_not_break_the_page(tmp_path: Path) -> None:
    write_report([replace(AFTER, model="runs/\udcff")], tmp_path)
    assert "\\udcff" in page(tmp_path / "report.html").text
    assert (
        json.loads((tmp_path / "report.json").read_bytes())["reports"][0]["model"] == "runs/\udcff"
    )


def test_intervals_stand_below_the_scores(tmp_path: Path) -> None:
    scores = {"STS12": Interval(70.0, 68.5, 71.25), AVERAGE: Interval(73.0, 72.0, 74.0)}
    scores["STS13"] = Interval(math.nan, math.nan, math.nan)
    sure = report("sure", 70.0, intervals=Intervals(scores, 0.95, 10_000, 0))
    read = page(write_report([sure, report("bare", 71.0)], tmp_path))
    # The first row of a task is its score.
    rows = {row[0]: row[1:] for row in read.cells if row and "to" in " ".join(row[1:])}
    assert rows["STS12"] == ["68.50 to 71.25", "\u2013"]
    assert rows["Average"] == ["72.00 to 74.00", "\u2013"]
    assert ["STS13", "\u2013", "\u2013"] in read.cells
    assert "95 % intervals from 10,000 resamples" in read.text
    assert "simcse compare" in read.text
    assert "How sure" not in page(write_report([report("bare", 71.0)], tmp_path)).text


def test_tasks_beyond_sts_have_their_tables(tmp_path: Path) -> None:
    scores = {
        name: TaskScore(
            name, "transfer", "accuracy", {"c": 2.0, "accuracy": accuracy}, {"all": 1234}, "by x"
        )
        for name, accuracy in zip(
            TRANSFER_TASKS, (60.0, 62.0, 64.0, 66.0, 68.0, 70.0, 72.0), strict=True
        )
    }
    better = {
        name: replace(score, metrics={"c": 4.0, "accuracy": score.metrics["accuracy"] + 1.25})
        for name, score in scores.items()
    }
    reports = [replace(BEFORE, beyond_sts=scores), replace(AFTER, beyond_sts=better)]
    tables = dict(task_tables(reports))
    assert list(tables) == [*TRANSFER_TASKS, "Average of the seven transfer tasks"]
    rows = {row.name: [cell.text for cell in row.cells] for row in tables["CR"].rows}
    assert rows == {"accuracy": ["62.00", "63.25", "+1.25"], "c": ["2.00", "4.00", "+2.00"]}
    assert next(iter(rows)) == "accuracy"
    assert tables["CR"].notes == ("1,234 all. By x.",)
    (average,) = tables["Average of the seven transfer tasks"].rows
    assert [cell.text for cell in average.cells] == ["66.00", "67.25", "+1.25"]
    assert "1,234 all. By x." in write_report(reports, tmp_path).read_text("utf-8")


def test_models_side_by_side_in_the_terminal() -> None:
    score = TaskScore("MR", "transfer", "accuracy", {"accuracy": 61.5}, {"all": 9}, "by x")
    with_more = replace(AFTER, beyond_sts={"MR": score})
    lines = side_by_side([BEFORE, with_more]).split("\n")
    head = lines[0].split()
    one, two = (dict(zip(head, line.split()[-len(head) :], strict=True)) for line in lines[1:3])
    assert (one["MR"], two["MR"]) == ("-", "61.50")
    assert two["STS12"] == f"{AFTER.tasks['STS12'].spearman:.2f}"
    assert two["Avg."] == f"{AFTER.average:.2f}"
    assert "IsoScore" not in head  # nobody knows it


def test_the_spectrum_says_where_half_of_the_variance_is() -> None:
    shape = replace(BEFORE.geometry, spectrum=(0.4, 0.2, 0.2, 0.1, 0.1))
    panel = spectrum_panel([replace(BEFORE, geometry=shape)])
    assert panel is not None
    assert "2 of 5 axes" in panel.caption
    assert spectrum_panel([BEFORE]) is None


def test_sections_without_contents_are_left_out() -> None:
    bare = replace(AFTER, tasks={}, average=None, geometry=None)
    titles = [section.title for section in report_sections([bare])]
    assert titles == ["Scores", "Shape of the embedding space", "Environment"]


def test_page_and_markdown_have_the_same_sections_in_the_same_order(both: Path) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", both.read_text(encoding="utf-8"))
    marked = re.findall(r"^## (.*)$", both.with_suffix(".md").read_text("utf-8"), re.MULTILINE)
    assert marked == ["Scores", "Shape of the embedding space", "Environment"]
    assert [heading for heading in headings if heading in marked] == marked
    assert {"Cosines by human score", "Training"} < {*headings}


def test_without_geometry(tmp_path: Path) -> None:
    read = page(write_report([replace(AFTER, geometry=None)], tmp_path))
    assert "geometry was not computed" in read.text
    assert "Effective rank" not in read.text
    half = page(write_report([replace(BEFORE, geometry=None), AFTER], tmp_path))
    assert half.row("Effective rank")[1:] == ["\u2013", "312.4", "\u2013"]
    assert "The geometry was not computed for this model." in half.text


def test_undefined_numbers_are_dashes_with_a_reason(tmp_path: Path) -> None:
    nan = math.nan
    tasks = dict(AFTER.tasks)
    tasks["STS13"] = replace(tasks["STS13"], spearman=nan, pearson=nan, mean=nan, wmean=nan)
    tasks["STSB"] = replace(tasks["STSB"], cosines=np.full(60, nan))
    broken = replace(AFTER, tasks=tasks, average=nan, geometry=geometry(alignment=nan), seconds=nan)
    read = page(write_report([BEFORE, broken], tmp_path))
    assert read.row("STS13")[1:4] == ["54.84", "\u2013", "\u2013"]
    assert read.row("Average")[1:4] == ["56.84", "\u2013", "\u2013"]
    assert read.row("Alignment")[1:] == ["0.1100", "\u2013", "\u2013"]
    assert "needs at least two different values" in read.text
    assert "needs a defined score in each of the seven" in read.text
    assert "No pair has a cosine." in read.text
    assert not re.search(r"\bnan\b", read.text.lower())
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["reports"][1]["tasks"]["STS13"]["spearman"] is None


def test_missing_tasks_are_named_and_the_headline_falls_back(tmp_path: Path) -> None:
    few = replace(AFTER, tasks={"STSB": AFTER.tasks["STSB"]}, average=None)
    read = page(write_report([BEFORE, few], tmp_path))
    assert "STSB 58.84 → 65.10 +6.26" in read.text
    assert "missing: STS12, STS13, STS14, STS15, STS16, SICKR" in read.text
    assert read.row("STS12")[1:4] == ["53.84", "\u2013", "\u2013"]
    assert "Not evaluated for this model." in read.text


def test_no_tasks_at_all(tmp_path: Path) -> None:
    read = page(write_report([replace(AFTER, tasks={}, average=None)], tmp_path))
    assert read.row("Average")[1] == "\u2013"


def test_unequal_pair_counts_are_pointed_out(tmp_path: Path) -> None:
    other = dict(AFTER.tasks) | {"STS16": replace(AFTER.tasks["STS16"], pairs=59)}
    read = page(write_report([BEFORE, replace(AFTER, tasks=other)], tmp_path))
    assert (
        "STS16: the models were scored on different numbers of pairs (60 / 59 pairs)" in read.text
    )


def test_history_draws_curves_and_the_path(both: Path, tmp_path: Path) -> None:
    with_history = both.read_text(encoding="utf-8")
    for words in (
        "ln(batch) = 4.159",
        "Best 80.00 at step 320",
        "Learning rate",
        "way through training",
    ):
        assert words in with_history
    without = write_report([BEFORE, AFTER], tmp_path).read_text(encoding="utf-8")
    assert "way through training" not in without
    assert "Learning rate" not in without
    assert with_history.count("<svg") - without.count("<svg") == 6


def test_json_holds_every_report(both: Path) -> None:
    written = json.loads((both.parent / "report.json").read_text(encoding="utf-8"))
    assert written == {"schema": 1, "reports": [BEFORE.to_json(), AFTER.to_json()]}


def test_same_input_same_bytes_and_no_global_state(both: Path, tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "xtick.major.size": 9}):
        settings = dict(matplotlib.rcParams)
        again = write_report([BEFORE, AFTER], tmp_path, history=HISTORY)
        assert dict(matplotlib.rcParams) == settings
    assert again.read_bytes() == both.read_bytes()


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    assert write_report([AFTER], folder) == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    kept = (folder / "report.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ConfigError, match="No space left on device; choose another") as caught:
        write_report([BEFORE], folder)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    assert (folder / "report.html").read_bytes() == kept


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path)
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report([AFTER], file)
    with pytest.raises(DataError, match="row 2: 'step' is None"):
        write_report([AFTER], tmp_path, history=[{"step": 1, "loss": 1.0}, {"loss": 2.0}])
    assert not (tmp_path / "report.html").exists()
