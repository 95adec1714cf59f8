"""Standard output and standard error, also when they are closed or full."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from simcse_kit import SentenceEncoder
from simcse_kit.cli.main import app, main
from simcse_kit.cli.streams import OutputError, guarded
from simcse_kit.cluster.connection import connected
from simcse_kit.search import Document, SearchIndex
from simcse_kit.utils.locks import output_locked
from simcse_kit.utils.printable import one_line, visible
from tests.cli.conftest import Done, Simcse
from tests.small_data import sentences

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\u202egpj\u2066\x9b31m\u200b\rz"
"""Sets the title, clears the screen, turns the order of letters, goes back in the line."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full and such names are Linux's")


def harmless(text: str) -> bool:
    return all(
        character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        for character in text
    )


# ---------------------------------------------------------------- what is shown


def test_escapes_are_seen_and_ordinary_text_is_kept() -> None:
    for text in (
        "naïve Ж 日本 🙂",
        "no\u00a0break",
        "\u0645\u06cc\u200c\u062e\u0648",
        "👩\u200d🔬",
        "a\tb\n",
    ):
        assert visible(text) == text
    assert visible("a\x1b[2J\u202eb\x9b\u2028\ud800\r") == r"a\x1b[2J\u202eb\x9b\u2028\ud800\r"
    assert one_line("a\nb\tc") == r"a\nb\tc"


def written(kind: str, *texts: str, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    kept = sys.stdout, sys.stderr
    setattr(sys, kind, stream)
    try:
        with guarded():
            for text in texts:
                getattr(sys, kind).write(text)
    finally:
        sys.stdout, sys.stderr = kept
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_bars_move_the_cursor_on_standard_error_alone() -> None:
    bar = ["\r 10%", "\n\x1b[A", "\r\x1b[2J\r"]
    assert written("stderr", *bar) == "\r 10%\n\x1b[A\r\\x1b[2J\\r"
    assert written("stdout", *bar) == "\\r 10%\n\\x1b[A\\r\\x1b[2J\\r"


def test_a_guard_outlives_the_streams_that_it_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python flushes it when it is collected, and 3.13 reports what fails then."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO()))
    with guarded():
        guards = sys.stdout, sys.stderr
    sys.stdout.close()
    sys.stderr.close()
    for guard in guards:
        guard.flush()


def test_an_encoding_that_lacks_a_character_gets_its_escape() -> None:
    assert written("stdout", "70 ± 1 \u2013", encoding="ascii") == r"70 \xb1 1 \u2013"


@pytest.fixture
def hostile(tmp_path: Path, tiny_encoder_dir: Path) -> dict[str, Path]:
    """Files and a model whose names and sentences are hostile."""
    if sys.platform != "linux":
        pytest.skip("such names are Linux's")
    home = tmp_path / HOSTILE
    home.mkdir()
    shutil.copytree(tiny_encoder_dir, home / "model")
    (home / f"{HOSTILE}.json").write_text("{}")
    # Carriage returns end lines; the other characters are in the sentences.
    text = HOSTILE.replace("\r", "")
    lines = [f"{text} {line}" for line in dict.fromkeys(sentences(60))][:12]
    graded = "".join(f"{n % 5}\t{lines[n]}\t{lines[n + 1]}\n" for n in range(11))
    files = {
        "text.txt": "".join(f"{line}\n" for line in lines),
        "pairs.tsv": "anchor\tpositive\n"
        + "".join(f"{lines[n]}\t{lines[n + 1]}\n" for n in range(11)),
        "graded.tsv": graded,
        "nli.tsv": "premise\thypothesis\tlabel\n"
        + f"{lines[0]}\t{lines[1]}\tentailment\n{lines[0]}\t{lines[2]}\tcontradiction\n",
        "qa.jsonl": "".join(json.dumps({"question": a, "answer": text}) + "\n" for a in lines),
    }
    for name, content in files.items():
        (home / f"{HOSTILE}-{name}").write_text(content, encoding="utf-8")
    found = {name.partition(".")[0]: home / f"{HOSTILE}-{name}" for name in files}
    index = home / f"{HOSTILE}-index"
    encoder = SentenceEncoder.load(home / "model")
    SearchIndex.build(encoder, [Document(line, metadata={"of": HOSTILE}) for line in lines], index)
    return {**found, "model": home / "model", "out": home / f"{HOSTILE}-out", "index": index}


COMMANDS = {
    "info": "info {model}",
    "info --json": "info {model} --json",
    "similarity": "similarity {model} {said} {said}",
    "encode": "encode {model} {text} --output {out}.npy",
    "encode --json": "encode {model} {text} --output {out}.npy --json",
    "eval": "eval {model} --before {model} --tasks {graded} --resamples 100 --report {out}",
    "eval --json": "eval {model} --tasks {graded} --resamples 100 --json -",
    "eval --post": "eval {model} --tasks {graded} --resamples 0 --post abtt(k=1) --fit {text}",
    "compare": "compare {model} {model} --tasks {graded} --resamples 100",
    "compare seeds": "compare {model},{model} {model},{model} --tasks {graded}",
    "push": "push {model} owner/name --dry-run {out}",
    "postprocess": "postprocess {model} --post abtt(k=1) --fit {text} --output {out}",
    "train": "train {text} --model {model} --max-steps 1 --batch-size 4 --output {out}",
    "check-leak": "data check-leak {text} --against {graded} --matches {out}.tsv",
    "check-leak --model": "data check-leak {text} --against {graded} --model {model}",
    "mine": "data mine {pairs} --model {model} --output {out}.tsv",
    "dedupe": "data dedupe {text} --output {out}.txt",
    "split": "data split {text} --output {out} --dev-test 2,2",
    "build": "index build {model} {text} --output {out}",
    "build --json": "index build {model} {text} --output {out} --json",
    "add": "index add {index} {text}",
    "remove": "index remove {index} {said}",
    "index info": "index info {index}",
    "search": "search {index} {said}",
    "search --json": "search {index} {said} --json",
    "plan": "plan --sentences 1e6 --model {model}",
    "plan --json": "plan --sentences 1e6 --model {model} --json",
    "nli": "data nli {nli} --output {out}.tsv",
    "qa": "data qa {qa} --output {out}.tsv",
    # Refusals and usage errors.
    "no such model": "info {out}",
    "no such file": "encode {model} {out} --output {out}.npy",
    "no such set": "data check-leak {text} --against {out}.tsv",
    "a wrong setting": "train {text} --set {said}=1",
    "an unknown option": "eval {model} --{said}",
    "an unknown command": "{said}",
    "a wrong number": "eval {model} --resamples {said}",
}


@pytest.mark.long
@linux
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_hostile_reaches_the_terminal(
    name: str, simcse: Simcse, hostile: dict[str, Path]
) -> None:
    said = {key: str(path) for key, path in hostile.items()} | {"said": HOSTILE}
    done = simcse(*(word.format(**said) for word in COMMANDS[name].split(" ")))
    assert "Traceback" not in done.err
    assert harmless(done.out), ascii(done.out)
    # The usage line of an unknown option goes to standard error as well.
    assert harmless(done.err.replace("\r\n", "\n")), ascii(done.err)
    if not name.startswith(("no ", "a ", "an ")) and name not in ("mine", "remove"):
        assert done.code == 0, done.err
    if "--json" in name:
        json.loads(done.out)
    if name == "eval":
        page = Path(f"{said['out']}/report.md").read_text(encoding="utf-8")
        assert harmless(page)


@pytest.mark.long
@linux
@pytest.mark.filterwarnings("default")  # Ray opens files and sockets that it does not close.
def test_nothing_hostile_comes_from_the_workers_of_a_cluster(
    simcse: Simcse, hostile: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    said = {key: str(path) for key, path in hostile.items()}
    Path(f"{said['out']}-bad.tsv").write_text("3.5\tone sentence\n", encoding="utf-8")
    commands = [COMMANDS[name] for name in ("encode", "encode --json", "dedupe", "check-leak")]
    bad = ["data dedupe {out}-bad.tsv --output {out}.csv", "encode {model} {qa} --output {out}/"]
    with connected("ray", 2):
        for command in [*commands, *bad]:
            done = simcse(*(word.format(**said) for word in command.split(" ")), "--engine", "ray")
            assert done.code == (2 if command in bad else 0), done.err
            assert "Traceback" not in done.err
            assert harmless(done.out), ascii(done.out)
            assert harmless(done.err.replace("\r\n", "\n")), ascii(done.err)


def test_every_command_is_tried() -> None:
    tried = {words.split(" ")[words.startswith(("data ", "index "))] for words in COMMANDS.values()}
    names = {command.name for command in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names |= {command.name for command in group.typer_instance.registered_commands}
    # Those that show nothing but what is packaged, or what the others show.
    others = {"methods", "presets", "export", "compare-methods", "verify-resume", "serve"}
    assert names - tried == others


# ---------------------------------------------------------------- what takes nothing


def into(stream: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["simcse", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@linux
@pytest.mark.parametrize("command", ["eval", "compare"])
def test_a_full_standard_output_loses_no_file(
    command: str,
    tmp_path: Path,
    tiny_encoder_dir: Path,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores, page = tmp_path / "scores.json", tmp_path / "page"
    models = [tiny_encoder_dir] * (2 if command == "compare" else 1)
    options = ["--tasks", pairs, "--resamples", "100", "--json", scores, "--report", page]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert into(full, monkeypatch, "-q", command, *models, *options) == 2
    json.loads(scores.read_text(encoding="utf-8"))
    assert sorted(each.name for each in page.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("simcse: error: standard output cannot be written: No space left")


@linux
def test_a_reader_that_is_gone_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        assert into(stream, monkeypatch, "presets") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_closed_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert into(None, monkeypatch, "presets") == 2
    assert "it is closed" in capsys.readouterr().err
    # Nothing is lost where nothing is written.
    monkeypatch.setattr(sys, "stdout", None)
    with guarded():
        sys.stdout.flush()
    with pytest.raises(OutputError), guarded():
        print("x")


@linux
@pytest.mark.parametrize("redirections", [">/dev/full", ">&-", ">&- 2>&-", "2>&-", ">/dev/null"])
def test_the_interpreter_adds_nothing_at_its_end(redirections: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m simcse_kit presets {redirections}; echo $? >{tmp_path}/code'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    ends = {"2>&-": "0", ">/dev/null": "0"}
    assert (tmp_path / "code").read_text().strip() == ends.get(redirections, "2")
    assert done.stderr.count("\n") == (redirections in (">/dev/full", ">&-"))


# ---------------------------------------------------------------- what can be known beforehand


@pytest.mark.long
@linux
@pytest.mark.parametrize("command", ["eval", "compare"])
def test_places_are_checked_before_any_model_is_opened(
    command: str, simcse: Simcse, pairs: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    cases: dict[tuple[str | Path, ...], str] = {
        ("--json", "/proc/scores.json"): "--json /proc/scores.json cannot be written",
        ("--json", "/dev/null"): "not a regular file",
        ("--json", tmp_path / "pipe"): "not a regular file",
        ("--json", tmp_path): "is a folder",
        ("--json", tmp_path / "no" / "s.json"): "does not exist; create it first",
        ("--json", tmp_path / ("x" * 300)): "File name too long",
        ("--report", "/proc/page"): "--report /proc/page cannot be written",
        ("--report", tmp_path / "file"): "is a file",
        ("--report", tmp_path / "file" / "page"): "is a file",
        ("--report", tmp_path, "--json", tmp_path / "report.json"): "are the same file",
        ("--audit-training",): "give --report as well",
    }
    for options, said in cases.items():
        done = simcse(command, "no-model", "no-other", "--tasks", pairs, *options)
        if command == "eval":
            done = simcse(command, "no-model", "--tasks", pairs, *options)
        assert (done.code, done.out) == (2, "")
        assert said in done.err, done.err


@linux
def test_a_second_run_into_one_output_is_refused(
    simcse: Simcse, texts: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = ["train", texts, "--model", tiny_encoder_dir, "--batch-size", "8"]
    command += ["--max-steps", "1", "--output", output]
    with output_locked(output, "training", busy="is busy"):
        done = simcse(*command)
        assert done.code == 2
        assert f"process {os.getpid()} is training into {output}; wait" in done.err
        assert not output.exists()
    assert simcse(*command).code == 0
    assert not list(tmp_path.glob(".*.lock"))


def test_vectors_do_not_replace_their_text(
    simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a cat"}\n')
    done = simcse("encode", tiny_encoder_dir, path, "--output", path)
    assert done.code == 2
    assert "INPUT and --output are the same file" in done.err
    assert path.read_text() == '{"text": "a cat"}\n'


def test_two_outputs_in_one_file_are_refused(
    simcse: Simcse, texts: Path, pairs: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.tsv"
    options = ["--against", pairs, "--matches", target, "--remove", tmp_path / "." / "out.tsv"]
    done = simcse("data", "check-leak", texts, *options)
    assert done.code == 2
    assert "--matches and --remove are the same file" in done.err


@pytest.mark.long
@linux
def test_a_foreign_record_opens_no_file_unless_asked_to(
    simcse: Simcse, pairs: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    home, page = tmp_path / "model", tmp_path / "page"
    shutil.copytree(tiny_encoder_dir, home)
    private = tmp_path / "private.txt"
    first = pairs.read_text(encoding="utf-8").split("\n")[0].split("\t")
    private.write_text(f"{first[1]}\n", encoding="utf-8")
    (home / "run.toml").write_text(f"[data]\ntrain = [{str(private)!r}]\n")
    os.mkfifo(home / "metrics.jsonl")
    for command in (["eval", home], ["compare", home, tiny_encoder_dir]):
        options = ["--tasks", pairs, "--resamples", "100", "--report", page]
        done = simcse(*command, *options)
        assert done.code == 0, done.err
        assert "training text" not in (page / "report.md").read_text(encoding="utf-8")
        done = simcse(*command, *options, "--audit-training")
        assert done.code == 0, done.err
        table = (page / "report.md").read_text(encoding="utf-8").partition("run.toml names")[0]
        assert " of 24" in table.rpartition("## Data")[2]


def test_a_model_that_is_missing_is_met_before_another_is_scored(
    simcse: Simcse, pairs: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "simcse_kit.evaluation.scoring.embed", lambda *_, **__: pytest.fail("worked for nothing")
    )
    last = ["--tasks", pairs]
    calls = [
        ("compare", tiny_encoder_dir, "./absent", *last),
        ("eval", "./absent", "--before", tiny_encoder_dir, *last),
        ("data", "check-leak", pairs, "--against", pairs, "--model", "./absent"),
    ]
    for call in calls:
        done: Done = simcse(*call)
        assert done.code == 2
        assert "no such model folder" in done.err


def test_resamples_too_few_for_holm_name_the_number_that_works(
    simcse: Simcse, pairs: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    files = [shutil.copyfile(pairs, tmp_path / f"{name}.tsv") for name in "abcd"]
    options = ["--tasks", ",".join(map(str, files)), "--resamples"]
    models = [tiny_encoder_dir] * 2
    done = simcse("compare", *models, *options, "100")
    assert done.code == 2
    number = done.err.rpartition("give ")[2].partition(" or more")[0]
    assert number == "160"
    assert simcse("compare", *models, *options, number).code == 0
    assert simcse("compare", *models, *options, str(int(number) - 1)).code == 2
