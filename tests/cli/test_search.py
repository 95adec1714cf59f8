"""`simcse index` and `simcse search`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simcse_kit.utils.locks import output_locked
from tests.cli.conftest import Simcse
from tests.cli.test_commands import refused, usage_error
from tests.cli.test_full_disk import limited, one_line
from tests.small_data import sentences


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pets.csv"
    rows = ["key,text,year", "c1,the cat sat,2001", "d1,a dog ran,2002", "b1,a bird sings,2003"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_an_index_is_built_searched_and_changed(
    simcse: Simcse, tiny_encoder_dir: Path, table: Path, texts: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    done = simcse("index", tiny_encoder_dir, table, "--output", index, "--id", "key")
    assert (done.code, done.out) == (0, f"3 added; 3 documents: {index}\n"), done.err
    done = simcse("search", index, "the cat sat", "a dog ran", "--top-k", "1")
    assert (
        done.out == "the cat sat\n   1.0000  c1  the cat sat\na dog ran\n   1.0000  d1  a dog ran\n"
    )

    done = simcse("index", "add", index, texts, "--json")
    assert json.loads(done.out) == {
        "added": 64,
        "documents": 67,
        "output": str(index),
        "engine": "exact",
    }
    assert simcse("index", "remove", index, "c1", "1").out == f"2 removed; 65 documents: {index}\n"
    queries = tmp_path / "queries.txt"
    queries.write_text("a bird sings\nthe cat sat\n", encoding="utf-8")
    done = simcse("search", index, "--queries", queries, "--threshold", "0.9999", "--json")
    first, second = map(json.loads, done.out.splitlines())
    assert first["query"] == "a bird sings"
    assert first["hits"][0]["metadata"] == {"year": "2003"}
    assert [hit["id"] for hit in second["hits"]] == []

    done = simcse("index", "info", index, "--verify", "--json")
    facts = json.loads(done.out)
    assert (facts["documents"], facts["engine"], facts["verified"]) == (65, "exact", True)
    assert "documents" in simcse("index", "info", index).out


def test_search_and_info_need_an_index(simcse: Simcse, tmp_path: Path) -> None:
    for command in (["search", tmp_path, "a"], ["index", "info", tmp_path]):
        refused(simcse(*command), "holds no finished index", "simcse index MODEL FILES...")
    refused(simcse("search", tmp_path / "x", "a"), "no such folder")
    refused(simcse("search", tmp_path), "no query", "--queries")
    refused(simcse("search", tmp_path, ""), "query 1 is blank")
    refused(simcse("search", tmp_path, "a", "--threshold", "2"), "-1 to 1")
    refused(simcse("search", tmp_path, "a", "--top-k", "0"), "top_k is 0")
    usage_error(simcse("index", "small", "a.txt"), "--output")


def test_bad_files_and_options_are_reported_with_their_place(
    simcse: Simcse, tiny_encoder_dir: Path, table: Path, texts: Path, tmp_path: Path
) -> None:
    output = ["--output", tmp_path / "index"]
    build = ["index", tiny_encoder_dir]
    with table.open("a", encoding="utf-8") as file:
        file.write("c1,again,2004\n")
    refused(simcse(*build, table, "--id", "key", *output), f"{table}:5: the id 'c1' occurs twice")
    refused(simcse(*build, table, "--id", "kei", *output), "no column 'kei'", "'key'")
    refused(simcse(*build, table, "--text", "txt", *output), "no column 'txt'", "'text'")
    refused(simcse(*build, texts, "--id", "key", *output), "a .txt file has no columns")
    refused(simcse(*build, tmp_path / "x.txt", *output), "no such file")
    refused(simcse(*build, texts, *output, "--engine", "x"), "unknown engine 'x'")
    refused(simcse(*build, texts, *output, "--precision", "bf16"), "fp32, fp16, int8")
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "a", "key": 7}\n{"text": "b", "key": null}\n', encoding="utf-8")
    refused(simcse(*build, lines, "--id", "key", *output), "a.jsonl:2", "None")
    assert not (tmp_path / "index").exists()

    assert simcse(*build, texts, *output).code == 0
    refused(simcse(*build, texts, *output), "holds an index", "simcse index add", "--overwrite")
    with output_locked(tmp_path / "index", "index", busy="is busy"):
        done = simcse("index", "add", tmp_path / "index", texts)
        refused(done, "is changing the index", "wait until it has finished")
    refused(simcse("index", "remove", tmp_path / "index", "x"), "no document 'x'")
    refused(simcse("search", tmp_path / "index", "a", "--model", "mini"), "another encoder")


@pytest.mark.long
def test_a_full_disk_leaves_the_old_index(
    simcse: Simcse, tiny_encoder_dir: Path, table: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    assert simcse("index", tiny_encoder_dir, table, "--output", index).code == 0
    more = tmp_path / "more.txt"
    more.write_text("\n".join(sentences(200)) + "\n", encoding="utf-8")
    one_line(limited(12_000, "index", "add", index, more), "cannot be written", "the same command")
    assert json.loads(simcse("index", "info", index, "--verify", "--json").out)["documents"] == 3
    assert simcse("index", "add", index, more).code == 0
    assert not list(index.rglob(".*.tmp"))
