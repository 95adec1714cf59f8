"""Remedies that error messages name, tried as commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Simcse
from tests.small_data import sentences
from tests.test_remedies import GAP, MESSAGES

CASES = {
    "a single model to compare": (
        "compare {model} --tasks {pairs}",
        r"`simcse (eval)` scores one",
        "{0} {model} --tasks {pairs} --resamples 0",
    ),
    "too few resamples": (
        "eval {model} --tasks {pairs} --resamples 10",
        r"give (\d+) or more",
        "eval {model} --tasks {pairs} --resamples {0}",
    ),
    "too few resamples for a verdict": (
        "compare {model} {model} --tasks {pairs} --level 0.99 --resamples 150",
        r"give (\d+) or more",
        "compare {model} {model} --tasks {pairs} --level 0.99 --resamples {0}",
    ),
    "an audit without a report": (
        "eval {model} --tasks {pairs} --resamples 0 --audit-training",
        r"give (--report) as well",
        "eval {model} --tasks {pairs} --resamples 0 --audit-training {0} {folder}/page",
    ),
    "a map without text": (
        "eval {model} --tasks {pairs} --resamples 0 --post standardize",
        r"--post and (--fit) go together",
        "eval {model} --tasks {pairs} --resamples 0 --post standardize {0} {texts}",
    ),
    "several maps to keep": (
        "postprocess {model} --post standardize,abtt --fit {texts} --output {folder}/kept",
        r"`simcse (eval --post)` tries several",
        "{0} standardize,abtt --fit {texts} {model} --tasks {pairs} --resamples 0",
    ),
    "an absent device": (
        "eval {model} --tasks {pairs} --resamples 0 --device cuda:99",
        r"use (auto)\b",
        "eval {model} --tasks {pairs} --resamples 0 --device {0}",
    ),
    "an unknown device": (
        "similarity {model} one two --device gpu",
        r"allowed: auto, (cpu), ",
        "similarity {model} one two --device {0}",
    ),
    "an existing folder": (
        "postprocess {model} --post standardize --fit {texts} --output {old}",
        r"or (--overwrite)",
        "postprocess {model} --post standardize --fit {texts} --output {old} {0}",
    ),
    "an existing file": (
        "data check-leak {texts} --against {pairs} --matches {old}/matches.tsv",
        r"(--overwrite)",
        "data check-leak {texts} --against {pairs} --matches {old}/matches.tsv {0}",
    ),
    "text in an unknown script": (
        "eval {model} --tasks {foreign} --resamples 0",
        r"(--allow-unknown)",
        "eval {model} --tasks {foreign} --resamples 0 {0}",
    ),
    "text that repeats itself": (
        "train {repeated} --model {model} --output {folder}/out --batch-size 4 --max-steps 1",
        r"with: simcse (data dedupe) FILE (--by anchor) (--output) OTHER-FILE",
        "{0} {repeated} {1} {2} {folder}/other.txt",
    ),
    "no method": (
        "compare-methods {texts} --dev {pairs} --output {folder}/study --methods ,",
        r"see `simcse (methods)`",
        "{0}",
    ),
    "an output of another kind": (
        "encode {model} {texts} --output {folder}/vectors.txt",
        r"(\.npy)",
        "encode {model} {texts} --output {folder}/vectors{0}",
    ),
}
# A log line, tables of the report, a remedy that needs an extra (tests/encoder/test_export.py), a
# warning (tests/training/test_graded_run.py), remedies with a second word
# (tests/cli/test_search.py), and the name of a feature.
NOT_TRIED = {"compare", "data check-leak", "data nli", "export", "index", "serve"}


@pytest.fixture
def files(tmp_path: Path, tiny_encoder_dir: Path, texts: Path, pairs: Path) -> dict[str, Path]:
    """The files that the commands name."""
    old = tmp_path / "old"
    old.mkdir()
    (old / "matches.tsv").write_text("old\n", encoding="utf-8")
    foreign = tmp_path / "foreign.tsv"
    signs = "今天天气很好 明天天气也好 我喜欢看书 他喜欢唱歌".split()
    rows = [f"{n}\t{signs[n]}\t{signs[n - 1]}\n" for n in range(4)]
    foreign.write_text("".join(rows), encoding="utf-8")
    repeated = tmp_path / "repeated.txt"
    one, other = sentences(2)
    repeated.write_text(f"{one}\n" * 39 + f"{other}\n", encoding="utf-8")
    names = {"folder": tmp_path, "model": tiny_encoder_dir, "texts": texts, "pairs": pairs}
    return names | {"old": old, "foreign": foreign, "repeated": repeated}


def run(simcse: Simcse, command: str, files: dict[str, Path], found: tuple[str, ...] = ()) -> Done:
    return simcse(*shlex.split(command.format(*found, **files)))


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_the_remedy_of_an_error_helps(case: str, simcse: Simcse, files: dict[str, Path]) -> None:
    refused, pattern, remedy = CASES[case]
    done = run(simcse, refused, files)
    assert done.code == 2, done.err
    (error,) = (line for line in done.err.split("\n") if line.startswith("simcse: error: "))
    match = re.search(pattern, error)
    assert match is not None, error
    again = run(simcse, remedy, files, match.groups())
    assert again.code == 0, again.err


def test_every_command_that_an_error_recommends_is_tried() -> None:
    recommended = {
        command
        for where, text in MESSAGES
        for command in re.findall(r"\bsimcse ((?:data )?[a-z][a-z-]+)", text)
        if not where.startswith("cli/") or GAP in text  # other texts of commands are help
    }
    tried = {
        command.partition(" --")[0]
        for _, pattern, _ in CASES.values()
        for command in re.findall(r"simcse \(([^)]*)\)", pattern)
    }
    assert tried >= {"eval", "methods", "data dedupe"}
    assert recommended - tried <= NOT_TRIED
