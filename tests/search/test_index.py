"""SearchIndex: what it finds, how it changes, and what it survives."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.bulk.job import BulkJob
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, SimcseError
from simcse_kit.search import Document, Hit, IndexSettings, SearchIndex
from simcse_kit.search import store as store_module
from simcse_kit.search.manifest import MANIFEST
from simcse_kit.utils.locks import output_locked
from simcse_kit.utils.prompt_choice import PromptChoice
from tests.small_data import sentences

TEXTS = sentences(60)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


@pytest.fixture(scope="module")
def built(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "index"
    SearchIndex.build(encoder, TEXTS, folder)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "index"))


def cosines(encoder: SentenceEncoder, query: str, texts: list[str]) -> np.ndarray:
    vectors = encoder.encode([query, *texts], normalize=True)
    return vectors[1:] @ vectors[0]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------ searching


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_hits_are_those_of_all_cosines(encoder: SentenceEncoder, precision: str) -> None:
    index = SearchIndex.build(encoder, TEXTS, settings=IndexSettings(precision=precision))
    queries = ["a red car", TEXTS[7]]
    for hits, query in zip(index.search(queries, 8), queries, strict=True):
        expected = cosines(encoder, query, TEXTS)
        order = np.argsort(-expected, kind="stable")[:8]
        tolerance = 1e-3 if precision == "fp16" else 1e-5
        assert [hit.cosine for hit in hits] == pytest.approx(expected[order], abs=tolerance)
        assert [hit.text for hit in hits] == [TEXTS[int(hit.id) - 1] for hit in hits]


def test_a_threshold_keeps_only_cosines_from_it_on(folder: Path, encoder: SentenceEncoder) -> None:
    index = SearchIndex.load(folder, encoder)
    (hits,) = index.search(["the cat sat"], top_k=60)
    limit = hits[9].cosine
    (kept,) = index.search(["the cat sat"], top_k=60, threshold=limit)
    assert ids(kept) == ids(hits[:10])
    assert index.search(["the cat sat"], top_k=3, threshold=limit) == [kept[:3]]


def test_a_top_k_above_the_count_returns_all_in_order(
    folder: Path, encoder: SentenceEncoder
) -> None:
    index = SearchIndex.load(folder, encoder)
    (hits,) = index.search(["a dog"], top_k=10_000)
    assert len(hits) == len({*ids(hits)}) == len(index) == 60
    assert sorted(hits, key=lambda hit: -hit.cosine) == hits


def test_equal_texts_come_in_the_order_of_their_rows(encoder: SentenceEncoder) -> None:
    for precision in ("fp32", "int8"):
        settings = IndexSettings(precision=precision)
        index = SearchIndex.build(encoder, ["the cat sat", "a dog ran"] * 9, settings=settings)
        assert ids(index.search(["the cat sat"], 4)[0]) == ["1", "3", "5", "7"]


def test_an_empty_index_finds_nothing(encoder: SentenceEncoder, tmp_path: Path) -> None:
    index = SearchIndex.build(encoder, [], tmp_path / "index")
    assert index.search(["a dog"], 5) == [[]]
    assert (index.add(["a dog"]), index.remove(["1"]), len(index)) == (1, 1, 0)
    assert index.search(["a dog", "a cat"], 5) == [[], []]
    assert SearchIndex.load(tmp_path / "index", encoder).search([], 5) == []


def test_queries_and_documents_get_their_prompts(encoder: SentenceEncoder) -> None:
    settings = IndexSettings(prompts=PromptChoice.of(["the ", "a "], None))
    index = SearchIndex.build(encoder, TEXTS, settings=settings)
    vectors = encoder.encode([f"a {text}" for text in TEXTS], normalize=True)
    query = encoder.encode("the red car", normalize=True)
    (hits,) = index.search(["red car"], 1)
    assert hits[0].cosine == pytest.approx(float((vectors @ query).max()), abs=1e-5)


def test_an_index_without_an_encoder_is_searched_by_vectors(
    folder: Path, encoder: SentenceEncoder
) -> None:
    index = SearchIndex.load(folder)
    vectors = encoder.encode(["a dog", "a cat"], normalize=True)
    both = SearchIndex.load(folder, encoder).search(["a dog", "a cat"], 3)
    for found, expected in zip(index.search_vectors(vectors, 3), both, strict=True):
        assert ids(found) == ids(expected)
    with pytest.raises(ConfigError, match="without an encoder"):
        index.search(["a dog"])


@pytest.mark.parametrize(
    ("queries", "options", "message"),
    [
        ([" "], {}, "query 1 is blank"),
        (["a", ""], {}, "query 2 is blank"),
        (["x" * 100_001], {}, "100,001 characters"),
        (["a\ud800"], {}, "half a surrogate"),
        ("a dog", {}, "give a list"),
        ([7], {}, "query 1 is int"),
        (["a"], {"top_k": 0}, "top_k is 0"),
        (["a"], {"top_k": True}, "top_k is True"),
        (["a"], {"threshold": 1.5}, "threshold is 1.5"),
        (["a"], {"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_bad_searches_are_refused(
    built: Path, encoder: SentenceEncoder, queries: Any, options: Any, message: str
) -> None:
    index = SearchIndex.load(built, encoder)
    with pytest.raises(SimcseError, match=message):
        index.search(queries, **options)


def test_bad_vectors_are_refused(built: Path) -> None:
    index = SearchIndex.load(built)
    for bad in (np.ones(32), np.ones((1, 31)), np.full((1, 32), np.nan)):
        with pytest.raises(DataError):
            index.search_vectors(bad)


# ------------------------------------------------------------------ changes


def test_documents_are_added_and_removed_with_ids_and_metadata(
    folder: Path, encoder: SentenceEncoder
) -> None:
    index = SearchIndex.load(folder, encoder)
    day = {"day": date(2026, 1, 2), "tags": ["x"], "score": float("nan")}
    assert index.add([Document("a blue tree ", "tree", day), "a red house"]) == 2
    (hit,) = index.search(["a blue tree"], 1)[0]
    assert (hit.id, hit.text) == ("tree", "a blue tree")
    assert hit.metadata == {"day": "2026-01-02", "tags": ["x"], "score": None}
    assert index.remove(["tree", "61", "61"]) == 2
    assert len(index) == 60
    assert index.search(["a blue tree"], 1)[0][0].id != "tree"
    with pytest.raises(DataError, match="no document '61'"):
        index.remove(["1", "61"])
    assert len(index) == 60
    index.add([Document("a blue tree", "tree"), "a red house"])
    assert {*ids(index.search(["a blue tree"], 99)[0])} >= {"tree", "62"}  # not 61 again


def test_many_small_changes_leave_few_segments_and_all_rows(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    index = SearchIndex.build(
        encoder, TEXTS[:3], tmp_path / "index", IndexSettings(precision="int8")
    )
    for number in range(3, 12):
        index.add([TEXTS[number]])
    index.remove(["2", "4"])
    index.add([TEXTS[12]])
    index.verify()
    assert len(index.manifest.segments) <= 4
    (hits,) = SearchIndex.load(tmp_path / "index", encoder).search([TEXTS[11]], 99)
    assert {hit.id: hit.text for hit in hits} == {
        str(n + 1): TEXTS[n] for n in range(13) if n not in (1, 3)
    }
    index.remove([str(n) for n in range(5, 13)])
    assert index.manifest.rows == len(index) == 3  # more than half were deleted
    index.verify()


def test_a_reader_keeps_its_state_until_it_is_refreshed(
    folder: Path, encoder: SentenceEncoder
) -> None:
    reader, writer = (SearchIndex.load(folder, encoder) for _ in range(2))
    for number in range(3):
        writer.add([f"the cat sat {'very ' * (number + 1)}big"])
        writer.remove([str(number + 1)])
    assert len({*ids(reader.search(["the cat"], 99)[0])}) == 60
    assert reader.refresh()
    assert not reader.refresh()
    assert {"61", "62", "63"} <= {*ids(reader.search(["the cat"], 99)[0])}


def test_a_saved_index_is_equal_and_has_no_other_files(
    folder: Path, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    index = SearchIndex.load(folder, encoder)
    index.remove(["5"])
    index.save(tmp_path / "copy")
    copy = SearchIndex.load(tmp_path / "copy", encoder)
    copy.verify()
    assert copy.search(["a dog"]) == index.search(["a dog"])
    assert files_in(tmp_path / "copy") == {*copy.manifest.files, MANIFEST}
    with pytest.raises(ConfigError, match="holds an index"):
        index.save(tmp_path / "copy")


def test_unused_files_are_removed_one_change_later(folder: Path, encoder: SentenceEncoder) -> None:
    index = SearchIndex.load(folder, encoder)
    before = {*index.manifest.files}
    index.remove([str(number) for number in range(1, 50)])  # merges
    assert files_in(folder) == {*before, *index.manifest.files, MANIFEST}
    kept = {*index.manifest.files}
    index.add(["a dog"])
    assert files_in(folder) == {*kept, *index.manifest.files, MANIFEST}


# ------------------------------------------------------------------ interruptions


def test_a_stopped_build_leaves_no_index_and_continues(
    encoder: SentenceEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "publish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            SearchIndex.build(encoder, TEXTS, tmp_path / "index")
    with pytest.raises(DataError, match="holds no finished index"):
        SearchIndex.load(tmp_path / "index")
    caplog.set_level(logging.INFO, "simcse_kit")
    SearchIndex.build(encoder, TEXTS, tmp_path / "index").verify()
    assert "1 finished shards are kept" in caplog.text


def _interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["publish", "run"])
def test_a_stopped_change_leaves_the_old_state_and_another_one_may_follow(
    folder: Path, encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    index = SearchIndex.load(folder, encoder)
    with monkeypatch.context() as patched:
        patched.setattr(store_module if place == "publish" else BulkJob, place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.add(["a dog"])
    again = SearchIndex.load(folder, encoder)
    again.verify()
    assert len(again) == 60
    again.add(["a cat", "a bird"])
    again.verify()
    assert len(again) == 62
    again.remove(["61", "62"])
    again.add(["a cat", "a bird"])  # the same texts as those of an old segment
    assert len(again) == 62


def test_a_replaced_index_exists_until_the_new_one_is_complete(
    folder: Path, encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "publish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            SearchIndex.build(encoder, ["a dog"], folder, IndexSettings(overwrite=True))
    assert len(SearchIndex.load(folder, encoder)) == 60
    with pytest.raises(ConfigError, match="--overwrite"):
        SearchIndex.build(encoder, ["a dog"], folder)
    assert len(SearchIndex.build(encoder, ["a dog"], folder, IndexSettings(overwrite=True))) == 1


def test_two_writers_at_once_are_refused(folder: Path, encoder: SentenceEncoder) -> None:
    index = SearchIndex.load(folder, encoder)
    with output_locked(folder, "index", busy="is busy"):
        for change in (lambda: index.add(["a dog"]), lambda: index.remove(["1"])):
            with pytest.raises(ConfigError, match="is changing the index"):
                change()
        assert len(index.search(["a dog"])[0]) == 5  # readers need no lock
    assert index.add(["a dog"]) == 1


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["a", " "], "document 2: the text is blank"),
        ([Document("a", "x"), Document("b", "x")], "the id 'x' occurs twice, first at 1"),
        ([Document("a", "1")], "the id '1' is in the index already"),
        ([Document("a", " ")], "document 1: the id is blank"),
        ([Document("a", metadata={"a": b"x"})], "a value is bytes"),
        (["a\ud800"], "half a surrogate pair"),
        ([None], "document 1 is NoneType"),
        ("a dog", "give a list"),
    ],
)
def test_bad_documents_are_refused_and_change_nothing(
    folder: Path, encoder: SentenceEncoder, documents: Any, message: str
) -> None:
    before = files_in(folder)
    with pytest.raises(DataError, match=message):
        SearchIndex.load(folder, encoder).add(documents)
    assert files_in(folder) == before


def swap(folder: Path) -> None:
    path = next(folder.rglob("part-000000.npy"))
    np.save(path, np.load(path)[::-1])  # another file of the same size


def cut(folder: Path) -> None:
    path = next(folder.rglob("texts.arrow"))
    path.write_bytes(path.read_bytes()[:-10])


def lose(folder: Path) -> None:
    next(folder.rglob("part-000000.npy")).unlink()


def turn_a_bit(folder: Path) -> None:
    path = next(folder.rglob("part-000000.npy"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"count": 62', '"count": 61'))


def another_version(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap, "content has changed"),
        (cut, "bytes in place of"),
        (lose, "it is missing"),
        (turn_a_bit, "content has changed"),
        (edit_manifest, "manifest is damaged"),
        (another_version, "format version 2"),
        (lambda folder: (folder / MANIFEST).unlink(), "holds no finished index"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_damaged_indexes_are_refused(
    folder: Path, encoder: SentenceEncoder, damage: Callable[[Path], None], message: str
) -> None:
    SearchIndex.load(folder, encoder).add(["a dog", "a cat"])
    damage(folder)
    with pytest.raises(DataError, match=message):
        SearchIndex.load(folder, encoder)


def test_a_change_in_the_middle_of_a_large_file_is_found_by_verify(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    index = SearchIndex.build(encoder, [f"cat {n}" for n in range(1200)], tmp_path / "index")
    index.verify()
    turn_a_bit(tmp_path / "index")
    with pytest.raises(DataError, match="content has changed"):
        SearchIndex.load(tmp_path / "index").verify()


def test_another_encoder_is_refused(folder: Path, tiny_encoder_dir: Path) -> None:
    for other in (
        SentenceEncoder.load("mini"),
        SentenceEncoder.load(tiny_encoder_dir, pooling="max"),
        SentenceEncoder.load(tiny_encoder_dir, max_length=8),
    ):
        with pytest.raises(ConfigError, match="built with another encoder"):
            SearchIndex.load(folder, other)


def test_other_folders_are_refused(encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"other files \(notes.txt\)"):
        SearchIndex.build(encoder, TEXTS, tmp_path, IndexSettings(overwrite=True))
    with pytest.raises(ConfigError, match="is a file"):
        SearchIndex.build(encoder, TEXTS, tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="allowed: fp32, fp16, int8"):
        IndexSettings(precision="fp64")
    with pytest.raises(ConfigError, match="unknown engine 'exakt'"):
        IndexSettings(engine="exakt")
