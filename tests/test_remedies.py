"""Remedies named in messages exist, and those of the readers help when they are tried."""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import transformers
import typer

from simcse_kit.cli.main import app
from simcse_kit.config import RunConfig, named_settings
from simcse_kit.config_files import load_config
from simcse_kit.errors import DataError, SimcseError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.training.prepare import check
from simcse_kit.utils.settings import parse_setting
from tests.reading import training_rows
from tests.small_data import sentences

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "simcse_kit"
# Their strings are module names, style sheets, and options of git.
NO_MESSAGES = ("__init__.py", "evaluation/report/svg.py", "utils/environment.py")
# Options of other programs that messages name.
FOREIGN = {"--nproc-per-node"}
# "training.html" and the like are files.
FILES = {"bin", "html", "onnx", "safetensors", "xml"}
GAP = "\0"
"""Stands for what an f-string fills in."""


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else GAP for v in node.values)
    return None


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """All strings of a module but docstrings, with their lines."""
    nodes = list(ast.walk(tree))
    skipped = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    skipped |= {
        id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in nodes:
        text = None if id(node) in skipped else text_of(node)
        if text:
            yield node.lineno, text  # type: ignore[attr-defined]


TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
MESSAGES = [
    (f"{name}:{line}", text)
    for name, tree in TREES.items()
    if name not in NO_MESSAGES
    for line, text in strings(tree)
]


@cache
def commands() -> dict[str, set[str]]:
    """The options of every command, by its words."""
    found: dict[str, set[str]] = {}

    def visit(command: click.Command, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = {name for p in command.params for name in p.opts} | {"--help"}
        for name, child in getattr(command, "commands", {}).items():
            visit(child, (*words, name))

    visit(typer.main.get_command(app), ())
    return found


@cache
def method_options() -> set[str]:
    return {"name"}.union(*(METHODS.resolve(name).Config.model_fields for name in METHODS))


def key_exists(key: str) -> bool:
    table, _, name = key.partition(".")
    if table == "method":
        return name in method_options()
    if table == "trainer":
        return name in transformers.TrainingArguments.__dataclass_fields__
    fields: Any = RunConfig.model_fields[table].annotation
    return name in fields.model_fields


def wrong(where: str, text: str) -> list[str]:
    """What a message names that does not exist."""
    found = []
    every = set().union(*commands().values()) | FOREIGN
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])", text):
        if flag not in every:
            found.append(f"{where}: no command has {flag}")
    for command, rest in re.findall(r"\bsimcse ((?:data )?[a-z][a-z-]+)([^;,.`]*)", text):
        if command not in commands():
            found.append(f"{where}: there is no command simcse {command}")
            continue
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", rest):
            if flag not in commands()[command]:
                found.append(f"{where}: simcse {command} has no {flag}")
    keys = (
        r"(?<![\w./-])((?:model|data|method|training|evaluation|trainer)\.([a-z_0-9]+))(?![\w/:])"
    )
    for key, name in re.findall(keys, text):
        if name not in FILES and not key_exists(key):
            found.append(f"{where}: there is no key {key}")
    for setting in re.findall(r"--set ([a-z_.]+=[^\s,;)(`\0]+)", text):
        if (
            GAP not in setting
            and "%" not in setting
            and not setting.partition("=")[2].isupper()
            and not takes(setting)
        ):
            found.append(f"{where}: --set {setting} is refused")
    for extra in re.findall(r"simcse-kit\[([a-z-]+)\]", text):
        if extra not in extras():
            found.append(f"{where}: there is no extra {extra}")
    return found


def takes(setting: str) -> bool:
    """Whether the configuration, of any method, takes ``KEY=VALUE``."""
    table = parse_setting(setting)
    names = list(METHODS) if "method" in table else ["simcse"]
    for name in names:
        try:
            config = load_config(overrides=[{"method": {"name": name}}, table])
            build_config(name, config.method.options)
        except SimcseError:
            continue
        return True
    return False


@cache
def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def test_messages_name_only_what_exists() -> None:
    assert sum("--" in text for _, text in MESSAGES) > 100
    assert [fault for where, text in MESSAGES for fault in wrong(where, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "give it with --colums a,b",
        "see simcse metods",
        "with: simcse data dedupe FILE --columns a --near",
        "use data.lable = x",
        "use --set method.temprature=0.1",
        "use --set training.batch_size=many",
        "pip install 'simcse-kit[extra]'",
        f"{GAP} is wrong; set trainer.no_such_thing",
    ],
)
def test_the_check_bites(text: str) -> None:
    assert len(wrong("here", text)) >= 1


def test_the_check_takes_what_exists() -> None:
    for text in (
        "remove them with: simcse data dedupe FILE --by anchor --output OTHER",
        f"use --set method.queue_size={GAP} or more, or --batch-size 4",
        "simcse_kit.evaluation.evaluate:evaluate, training.html",
        "--set evaluation.held_out=0, pip install 'simcse-kit[tasks]'",
    ):
        assert wrong("here", text) == []


def test_missing_extras_are_extras() -> None:
    named = []
    for tree in TREES.values():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "MissingExtraError"
                and isinstance(node.args[1], ast.Constant)
            ):
                named.append(node.args[1].value)
    assert len(named) >= 5
    assert set(named) <= extras()


# ------------------------------------------------------------------ the readers' remedies, tried


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        training_rows(path, **options)
    return str(caught.value)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TEXTS = sentences(24)
GRADED = "".join(
    f"{left},{right},{n % 6}\n" for n, (left, right) in enumerate(itertools.pairwise(TEXTS))
)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("sentence1,sentence2,score\n", ["sentence1", "sentence2", "score"]),
        ("", ["0", "1", "2"]),
        ("", None),
    ],
)
def test_the_remedies_for_graded_pairs(
    tmp_path: Path, header: str, columns: list[str] | None
) -> None:
    path = put(tmp_path / "graded.csv", header + GRADED)
    message = failure(path, columns=columns)
    # To train on the scores: the options from the message.
    match = re.search(r"give (--columns \S+ --label \S+ --method \w+);", message)
    assert match is not None, message
    words = shlex.split(match[1])
    given = {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)}
    named = named_settings(**{**given, "columns": given["columns"].split(",")})
    base: dict[str, Any] = {
        "data": {"train": [str(path)]},
        "training": {"output": str(tmp_path / "out"), "batch_size": 4},
    }
    check(load_config(overrides=[base, named]))
    # To choose the checkpoint by them.
    assert "--dev" in message
    texts = put(tmp_path / "texts.txt", "\n".join(TEXTS) + "\n")
    dev = put(tmp_path / "dev.csv", "sentence1,sentence2,score\n" + GRADED)
    base = {**base, "data": {"train": [str(texts)]}, "evaluation": {"dev": str(dev)}}
    check(load_config(overrides=[{**base, "method": {"name": "simcse"}}]))


@pytest.mark.parametrize(
    ("name", "content", "said", "columns"),
    [
        ("a.csv", "id,text\n1,a\n2,b\n3,c\n", "--columns a,b,c", ["text"]),
        ("a.csv", "a cat,a dog\nb,c\n", "--columns 0,1", ["0", "1"]),
        ("a.jsonl", '{"id": 1, "text": "a"}\n', "--columns a,b,c", ["text"]),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "x": 1}\n', "--columns text", ["text"]),
    ],
)
def test_naming_the_columns_helps(
    tmp_path: Path, name: str, content: str, said: str, columns: list[str]
) -> None:
    path = put(tmp_path / name, content)
    assert said in failure(path)
    assert training_rows(path, columns=columns)


@pytest.mark.parametrize(
    ("name", "content", "said", "renamed"),
    [
        ("a.csv", "sent0\tsent1\na\tb\n", "suffix .tsv", "a.tsv"),
        ("a.txt", gzip.compress(b"a\n", mtime=0), "does not end in .gz; rename it", "a.txt.gz"),
        ("a.jsonl", '["a", "b"]', "rename it to .json", "a.json"),
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', "rename the file to .jsonl", "a.jsonl"),
        ("a.text", "a\n", "rename it if it is one of these", "a.txt"),
        ("corpus", "a\n", "rename it if it is one of these", "corpus.txt"),
    ],
)
def test_renaming_helps(
    tmp_path: Path, name: str, content: str | bytes, said: str, renamed: str
) -> None:
    path = put(tmp_path / name, content)
    assert said in failure(path)
    assert training_rows(path.rename(tmp_path / renamed))


def shell(command: str, path: Path, target: Path) -> None:
    program = command.split()[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with path.open("rb") as source, target.open("wb") as out:
        subprocess.run(shlex.split(command), stdin=source, stdout=out, check=True)


@pytest.mark.parametrize(
    ("content", "pattern", "fill"),
    [
        ("the café\n".encode("utf-16"), r"iconv -f UTF-16 -t UTF-8", None),
        ("the café\n".encode("utf-32"), r"iconv -f UTF-32 -t UTF-8", None),
        ("the café\n".encode("latin-1"), r"iconv -f ENCODING -t UTF-8", "LATIN1"),
        ("a cat\rthe café\r".encode(), r"tr '\\r' '\\n'", None),
    ],
)
def test_commands_for_converting_help(
    tmp_path: Path, content: bytes, pattern: str, fill: str | None
) -> None:
    path = put(tmp_path / "a.txt", content)
    match = re.search(pattern, failure(path))
    assert match is not None
    shell(match[0].replace("ENCODING", fill or ""), path, tmp_path / "b.txt")
    assert training_rows(tmp_path / "b.txt")[-1] == ("the café",)


@pytest.mark.parametrize(("suffix", "make"), [(".zip", "zip"), (".tar", "tar"), (".tgz", "gztar")])
def test_commands_for_unpacking_help(
    tmp_path: Path, suffix: str, make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    put(inside / "a.txt", "a cat\n")
    made = Path(shutil.make_archive(str(tmp_path / "all of it"), make, inside))
    path = made.rename(tmp_path / f"all of it{suffix}")
    message = failure(path)
    command = shlex.split(message.partition("unpack it first: ")[2])
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    monkeypatch.chdir(tmp_path)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert training_rows(tmp_path / "a.txt")


def test_a_blank_line_read_as_documents(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "a\nb\n\nc\nd\n")
    assert "data.documents = 1" in failure(path)
    base = {"data": {"train": [str(path)], "documents": 1}, "method": {"name": "cpc"}}
    output = {"training": {"output": str(tmp_path / "out"), "batch_size": 2}}
    check(load_config(overrides=[base, output]))


def test_an_array_that_is_too_large_is_read_as_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simcse_kit.data.json_records.MAX_ARRAY_BYTES", 100)
    rows = [{"text": text} for text in TEXTS]
    assert "write it as .jsonl" in failure(put(tmp_path / "a.json", json.dumps(rows)))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert len(training_rows(put(tmp_path / "a.jsonl", lines))) == len(TEXTS)
