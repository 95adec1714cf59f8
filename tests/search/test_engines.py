"""Search engines other than the exact one, hybrid search and filters."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simcse_kit.cli.main import app
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, MissingExtraError
from simcse_kit.metrics.faiss_index import FaissIndex, FaissPlan, plan_for
from simcse_kit.metrics.recall import ArrayVectors, recall_measure
from simcse_kit.search import Document, Hit, IndexSettings, SearchIndex
from simcse_kit.search import faiss_engine as faiss_engine_module
from simcse_kit.search.hybrid import Lexical, reciprocal_rank_fusion
from simcse_kit.search.state import open_state
from tests.small_data import sentences

pytest.importorskip("faiss")
pytest.importorskip("bm25s")

TEXTS = sentences(60)
DOCUMENTS = [
    Document(text, metadata={"year": 2000 + number, "source": "news" if number % 2 else None})
    for number, text in enumerate(TEXTS)
]
QUERIES = ["a red car", TEXTS[7]]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


@pytest.fixture(scope="module")
def built(encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "index"
    SearchIndex.build(encoder, TEXTS, folder, IndexSettings(engine="faiss"))
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "index"))


@pytest.fixture
def milvus_logs() -> Iterator[None]:
    """Restore the levels of the loggers, which the engine silences."""
    names = ("pymilvus", "milvus_lite")
    levels = [logging.getLogger(name).level for name in names]
    yield
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def found(index: SearchIndex, top_k: int = 5) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.cosine) for hit in hits] for hits in index.search(QUERIES, top_k)]


def unit_vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def change(index: SearchIndex) -> None:
    """Add and remove documents, with segments merged in between."""
    index.remove(["3", "8"])
    index.add(["the cat sat on a red car", "a blue tree"])
    index.remove(["61", "10"])
    index.add(["a red car"])
    index.add(["a green car", "a red bus"])
    index.add([Document("a red cat", "12"), Document("a red dog", "64")], overwrite=True)


# ------------------------------------------------------------------ faiss


def test_faiss_finds_what_exact_search_finds_after_changes(
    folder: Path, encoder: SentenceEncoder
) -> None:
    exact = SearchIndex.build(encoder, TEXTS)
    index = SearchIndex.load(folder, encoder)
    assert found(index) == found(exact)
    change(exact)
    change(index)
    index.verify()
    assert len(index) == len(exact) == 61
    for again in (index, SearchIndex.load(folder, encoder)):
        for top_k in (1, 5, len(exact)):
            assert found(again, top_k) == found(exact, top_k)


def test_faiss_is_continued_by_additions_and_built_again_after_many_removals(
    folder: Path, encoder: SentenceEncoder
) -> None:
    index = SearchIndex.load(folder, encoder)
    change(index)
    rows = np.load(next((folder / index.manifest.engine.folder).glob("rows.npy")))
    assert index.manifest.engine.settings["built_for"] == 60
    assert len(rows) == 67
    index.remove([str(number) for number in range(11, 50)])
    assert index.manifest.engine.settings["built_for"] == len(index) == 22
    index.remove([str(number) for number in range(50, 61)])
    assert len(found(index, 99)[0]) == len(index) == 11


def test_the_recall_of_faiss_is_measured_and_shown(built: Path) -> None:
    settings = open_state(built).manifest.engine.settings
    assert settings["recall@10"] >= 0.95
    shown = CliRunner().invoke(app, ["index", "info", str(built)]).output
    assert "recall@10" in shown
    assert "efSearch" in shown


def test_a_reader_of_faiss_keeps_its_state(folder: Path, encoder: SentenceEncoder) -> None:
    reader, writer = (SearchIndex.load(folder, encoder) for _ in range(2))
    for number in range(3):
        writer.remove([str(number + 1)])
    assert {name for name, _ in found(reader, 99)[0]} == {str(n) for n in range(1, 61)}


def test_an_empty_faiss_index_finds_nothing_and_grows(encoder: SentenceEncoder) -> None:
    index = SearchIndex.build(encoder, [], settings=IndexSettings(engine="faiss"))
    assert index.search(["a dog"]) == [[]]
    index.add(["a dog", "a cat"])
    assert index.search(["a dog"], 1)[0][0].text == "a dog"


def test_cut_and_swapped_faiss_files_are_refused(folder: Path, encoder: SentenceEncoder) -> None:
    path = next(folder.rglob("index.faiss"))
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(DataError, match="bytes in place of"):
        SearchIndex.load(folder, encoder)
    other = FaissIndex.build(ArrayVectors(unit_vectors(60, 32)), plan_for(60, 32))
    faiss_engine_module.require_faiss().write_index(other.index, str(path))
    with pytest.raises(DataError, match=r"content has changed|bytes in place of"):
        SearchIndex.load(folder, encoder)


def test_a_faiss_file_of_another_index_is_refused_at_the_first_search(built: Path) -> None:
    state = open_state(built)
    engine = state.engine
    assert isinstance(engine, faiss_engine_module.FaissEngine)
    for content, message in ((b"x" * 999, "not a readable faiss index"), (None, "does not fit")):
        if content is None:
            other = FaissIndex.build(ArrayVectors(unit_vectors(9, 32)), plan_for(9, 32))
            engine._content = faiss_engine_module.require_faiss().serialize_index(other.index)
        else:
            engine._content = np.frombuffer(content, dtype=np.uint8)
        with pytest.raises(DataError, match=message):
            engine.search(unit_vectors(1, 32), 3)


def test_quantized_vectors_are_rescored_and_searched_with_more_effort() -> None:
    source = ArrayVectors(unit_vectors(2000, 16))
    index = FaissIndex.build(source, FaissPlan("ivfpq", cells=16, code_bytes=4))
    index.effort = 1
    before = recall_measure(source)(index.search)
    assert before < 0.9 < index.tune()
    assert index.effort > 1
    scores, rows = index.search(source.take(np.arange(3)), 5)
    expected = np.take_along_axis(
        source.take(np.arange(3)) @ source.take(np.arange(2000)).T, rows, 1
    )
    assert scores == pytest.approx(expected, abs=1e-6)


def test_plans_follow_the_size() -> None:
    assert plan_for(4_000_000, 256).kind == "hnsw"
    assert plan_for(4_000_001, 384) == FaissPlan("ivfpq", cells=16_000, code_bytes=96)
    assert plan_for(5_000_000, 3).code_bytes == 1


def test_documents_with_known_ids_are_replaced_only_if_asked(
    folder: Path, encoder: SentenceEncoder
) -> None:
    index = SearchIndex.load(folder, encoder)
    new = [Document("a red cat", "12"), "a red dog"]
    with pytest.raises(DataError, match="with --overwrite"):
        index.add(new)
    assert index.add(new, overwrite=True) == 2
    texts = {hit.id: hit.text for hit in index.search(["a cat"], 99)[0]}
    assert (texts["12"], texts["61"], len(texts)) == ("a red cat", "a red dog", 61)
    assert index.add([], overwrite=True) == 0


# ------------------------------------------------------------------ hybrid


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion([[5, 3, 9], [3, 7], [3]])
    assert [item for item, _ in fused] == [3, 5, 7, 9]
    expected = [1 / 62 + 2 / 61, 1 / 61, 1 / 62, 1 / 63]
    assert [score for _, score in fused] == pytest.approx(expected)
    assert reciprocal_rank_fusion([[1], [2]]) == [(1, 1 / 61), (2, 1 / 61)]
    assert reciprocal_rank_fusion([[], []]) == []


@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_hybrid_search_finds_rare_words_and_keeps_cosines(
    encoder: SentenceEncoder, engine: str
) -> None:
    texts = [*TEXTS, "the zyzzyva sat on 7 chairs"]
    index = SearchIndex.build(encoder, texts, settings=IndexSettings(engine=engine))
    index.remove(["61"])
    index.add(["the zyzzyva sat on 7 chairs"])
    query = "Zyzzyva?"
    (hits,) = index.search([query], 61, hybrid=True)
    plain = {hit.id: hit.cosine for hit in index.search([query], 61)[0]}
    ranks = {name: rank for rank, name in enumerate(plain, 1)}
    assert hits[0].id == "62"
    assert hits[0].score == pytest.approx(1 / 61 + 1 / (60 + ranks["62"]))
    assert {hit.id: hit.cosine for hit in hits} == plain
    limit = sorted(plain.values())[30]
    (kept,) = index.search([query], 10, threshold=limit, hybrid=True)
    assert [hit.id for hit in kept] == [hit.id for hit in hits if hit.cosine >= limit][:10]
    (none,) = index.search(["qqq"], 3, hybrid=True)  # no text has the word
    assert [hit.id for hit in none] == [hit.id for hit in index.search(["qqq"], 3)[0]]


def test_bm25_ranks_rows_with_a_word_of_the_query(built: Path) -> None:
    state = open_state(built)
    lexical = Lexical(state.texts, None)
    word = TEXTS[7].split()[-1]
    having = {row for row, text in enumerate(TEXTS) if word in text.lower().split()}
    assert {*lexical.rank(word.upper(), 99).tolist()} == having
    assert len(lexical.rank(word, 1)) == 1
    assert lexical.rank("?!", 5).tolist() == []
    assert Lexical(state.texts, np.zeros(60, np.bool_)).rank(word, 5).tolist() == []


def test_threads_share_one_build_of_bm25(built: Path) -> None:
    state = open_state(built)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: state.lexical, range(4)))
    assert all(lexical is found[0] for lexical in found)


def test_hybrid_search_by_vectors_needs_a_text_for_each(built: Path) -> None:
    with pytest.raises(DataError, match="1 texts and 2 vectors"):
        SearchIndex.load(built).search_vectors(unit_vectors(2, 32), texts=["a"])


# ------------------------------------------------------------------ bad input


def test_engines_and_options_that_do_not_go_together_are_refused(
    built: Path, encoder: SentenceEncoder
) -> None:
    for given, message in (
        ({"engine": "faiss", "precision": "int8"}, "for the engine exact"),
        ({"engine": "faiss", "uri": "http://localhost:19530"}, "is for the engine milvus"),
        ({"engine": "milvus", "uri": "localhost"}, "not the address of a server"),
        ({"engine": "milvus", "uri": "http://me:secret@localhost"}, "MILVUS_TOKEN"),
    ):
        with pytest.raises(ConfigError, match=message):
            IndexSettings(**given)
    with pytest.raises(ConfigError, match="--engine milvus, or leave out"):
        SearchIndex.load(built, encoder).search(["a"], filter="year > 2000")


@pytest.mark.parametrize(
    ("package", "extra", "engine"),
    [("faiss", "faiss", "faiss"), ("pymilvus", "milvus", "milvus"), ("bm25s", "hybrid", None)],
)
def test_missing_extras_are_named(
    built: Path,
    encoder: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    engine: str | None,
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()

    def use() -> None:
        if engine is None:
            SearchIndex.load(built, encoder).search(["a"], hybrid=True)
        else:
            IndexSettings(engine=engine)

    with pytest.raises(MissingExtraError, match=rf"simcse-kit\[{extra}\]"):
        use()


# ------------------------------------------------------------------ milvus


@pytest.mark.long
@pytest.mark.usefixtures("milvus_logs")
def test_milvus_finds_what_exact_search_finds_and_filters(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    pytest.importorskip("milvus_lite")
    exact = SearchIndex.build(encoder, DOCUMENTS)
    settings = IndexSettings(engine="milvus")
    index = SearchIndex.build(encoder, DOCUMENTS, tmp_path / "index", settings)
    assert index.manifest.engine.settings["recall@10"] == 1
    change(exact)
    change(index)
    for top_k in (1, 5, len(exact)):
        assert found(index, top_k) == found(exact, top_k)
    hybrid = index.search(QUERIES, 5, hybrid=True)
    assert hybrid == exact.search(QUERIES, 5, hybrid=True)
    condition = 'source == "news" and year < 2020'
    for both in (False, True):
        for hits in index.search(QUERIES, 60, filter=condition, hybrid=both):
            assert {hit.id for hit in hits} == {
                str(n + 1) for n in range(20) if n % 2 and n + 1 not in (8, 10, 12)
            }
    for bad in ("year >", " "):
        with pytest.raises(ConfigError, match="--filter"):
            index.search(["a"], filter=bad)
    index.save(tmp_path / "copy")
    copy = SearchIndex.load(tmp_path / "copy", encoder)
    copy.remove(["1"])
    copy.verify()
    assert "1" in {name for name, _ in found(index, 99)[0]}
    replaced = SearchIndex.build(
        encoder, ["a dog"], tmp_path / "copy", IndexSettings(engine="milvus", overwrite=True)
    )
    assert found(replaced, 9)[0][0][0] == "1"
    with pytest.raises(ConfigError, match=r"was built again.*open the index again"):
        copy.search(["a dog"])
    copy.refresh()
    assert found(copy, 9) == found(replaced, 9)
    with pytest.raises(DataError, match="no document"):
        index.remove(["none"])


@pytest.mark.long
@pytest.mark.usefixtures("milvus_logs")
def test_a_stopped_change_leaves_milvus_with_the_old_state(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_lite")
    settings = IndexSettings(engine="milvus")
    index = SearchIndex.build(encoder, TEXTS, tmp_path / "index", settings)
    index.add(["a red car", "a blue car", "a bus"])
    index.remove(["5"])
    with monkeypatch.context() as patched:
        patched.setattr(type(index.manifest), "write", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.add(["a red car", "a green car"])
    again = SearchIndex.load(tmp_path / "index", encoder)
    kept = {name for name, _ in found(again, 99)[0]}
    assert kept == {str(n) for n in range(1, 64)} - {"5"}
    again.add(["a yellow car"])
    again.add(["a red car"])
    texts: list[Hit] = again.search(["a car"], 99)[0]
    assert {hit.text for hit in texts if int(hit.id) > 63} == {"a yellow car", "a red car"}
    assert len(texts) == len(again) == 64


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.usefixtures("milvus_logs")
def test_a_server_that_cannot_be_reached_is_reported(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    pytest.importorskip("pymilvus")
    settings = IndexSettings(engine="milvus", uri="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"Milvus \(http://127.0.0.1:1\) reports.*MILVUS_TOKEN"):
        SearchIndex.build(encoder, TEXTS[:2], tmp_path / "index", settings)
