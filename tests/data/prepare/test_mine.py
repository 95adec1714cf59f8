"""Search compared with brute force, and the choice of negatives among neighbours."""

from __future__ import annotations

import json
import logging
import random
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from simcse_kit.data.prepare.mine import Anchors, mine, read_anchors
from simcse_kit.data.prepare.negative_selection import Mining, choose, parse_ranks
from simcse_kit.data.readers import read_texts
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, ModelError
from simcse_kit.metrics import search
from simcse_kit.metrics.search import approximate_top_k, gpu_of, top_k
from simcse_kit.utils.prompt_choice import PromptChoice


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("tile", [(1024, 16_384), (7, 5), (3, 100), (64, 1)])
@pytest.mark.parametrize("k", [1, 4, 90])
def test_exact_search_is_brute_force(tile: tuple[int, int], k: int) -> None:
    queries, keys = unit(40, 8, 0), unit(90, 8, 1)
    scores, rows = top_k(queries, keys, k, tile=tile)
    full = queries.astype(np.float64) @ keys.T.astype(np.float64)
    expected = np.argsort(-full, axis=1)[:, :k]
    assert (rows == expected).all()
    np.testing.assert_allclose(scores, np.take_along_axis(full, expected, 1), atol=1e-6)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_equal_scores_are_in_the_order_of_the_rows() -> None:
    keys = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    _, rows = top_k(keys[:1], keys, 10, tile=(1, 3))
    assert rows.tolist() == [list(range(10))]


@pytest.mark.parametrize("tile", [(8, 1000), (1, 7), (8, 3)])
def test_of_more_equals_than_are_asked_for_the_first_are_taken(tile: tuple[int, int]) -> None:
    keys = np.repeat(np.eye(2, dtype=np.float32), 25, axis=0)
    _, rows = top_k(keys[[0, 30]], keys, 5, tile=tile)
    assert rows.tolist() == [[0, 1, 2, 3, 4], [25, 26, 27, 28, 29]]


def test_without_memory_on_the_gpu_the_cpu_searches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queries, keys = unit(4, 8, 0), unit(9, 8, 1)
    expected = top_k(queries, keys, 3)
    passed = iter([False])

    def full(*given: Any) -> Any:
        if not next(passed, True):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return best(*given)

    best = search._best
    monkeypatch.setattr(search, "_best", full)
    with caplog.at_level(logging.INFO, "simcse_kit"):
        found = top_k(queries, keys, 3, gpu=torch.device("cpu"))
    assert caplog.messages == ["cpu lacks memory for 9 vectors; the CPU compares them"]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_only_an_encoder_on_cuda_has_a_gpu_to_search_on() -> None:
    class At:
        def __init__(self, device: Any):
            self.device = device

    assert gpu_of(At(torch.device("cuda:1"))) == torch.device("cuda:1")
    for encoder in (At(torch.device("cpu")), At(torch.device("mps")), At("cuda"), object()):
        assert gpu_of(encoder) is None


def test_search_asks_for_what_there_is() -> None:
    for k in (0, 4):
        with pytest.raises(ConfigError, match=f"the best {k} of 3 vectors; allowed: 1 to 3"):
            top_k(unit(2, 4, 0), unit(3, 4, 0), k)


def test_approximate_search_finds_nearly_all() -> None:
    pytest.importorskip("faiss")
    queries, keys = unit(50, 8, 0), unit(12_000, 8, 1)
    _, exact = top_k(queries, keys, 10)
    scores, rows = approximate_top_k(queries, keys, 10)
    again = approximate_top_k(queries, keys, 10)
    assert (rows == again[1]).all()
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(exact, rows, strict=True)]) > 9
    np.testing.assert_allclose(scores[:, 0], (queries * keys[rows[:, 0]]).sum(1), atol=1e-6)
    # Few keys are all compared.
    assert (approximate_top_k(queries, keys[:500], 5)[1] == top_k(queries, keys[:500], 5)[1]).all()


def test_faiss_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"simcse-kit\[faiss\]"):
        mine(Angles({}), Anchors(["a"], ["b"]), tmp_path / "t.csv", Mining(search="faiss"))


class Angles:
    """Vectors in the plane, by their angle in degrees from the anchor ``a``."""

    def __init__(self, degrees: dict[str, float]):
        self.degrees = degrees

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        assert normalize
        assert not progress
        angles = np.deg2rad([self.degrees[text] for text in sentences])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# From anchor a: its positive, then ever farther texts; z is the anchor of the others.
PLANE = Angles({"a": 0, "p": 30, "n20": 20, "n31": 31, "n40": 40, "n50": 50, "n60": 60, "z": 180})
POOL = ("n20", "n31", "n40", "n50", "n60")


def mined(tmp_path: Path, rows: Anchors, **options: Any) -> tuple[list[tuple[str, ...]], Any]:
    summary = mine(PLANE, rows, tmp_path / "t.jsonl", Mining(**options), candidates=POOL)
    found = list(read_texts(tmp_path / "t.jsonl")[1])
    (tmp_path / "t.jsonl").unlink()
    return found, summary


@pytest.mark.parametrize(
    ("options", "negatives"),
    [
        # n20 is nearer than the positive, n31 within 5 percent of it.
        ({}, ["n40"]),
        ({"factor": 1.0}, ["n31"]),
        ({"factor": 0.8}, ["n50"]),
        ({"margin": 0.3}, ["n60"]),
        ({"negatives": 3}, ["n40", "n50", "n60"]),
        ({"negatives": 9}, ["n40", "n50", "n60"]),
        ({"negatives": 9, "min_score": 0.6}, ["n40", "n50"]),
        ({"max_score": 0.7}, ["n50"]),
        ({"ranks": (4, 5)}, ["n50"]),
        ({"ranks": (1, 3), "negatives": 3}, ["n40"]),
    ],
)
def test_which_neighbours_are_taken(
    tmp_path: Path, options: dict[str, Any], negatives: list[str]
) -> None:
    rows, _ = mined(tmp_path, Anchors(["a"], ["p"]), **options)
    assert rows == [("a", "p", *negatives)]


def test_ranks_pass_over_known_positives_and_copies(tmp_path: Path) -> None:
    # n40 and n50 are positives of a as well, whatever their case.
    rows = Anchors(["a", "a", "a"], ["p", "n40", "n50"])
    PLANE.degrees |= {"N60!": 60}
    found, _ = mined(tmp_path, rows, ranks=(3, 3), factor=1.0)
    assert found == [("a", "p", "n60"), ("a", "n40", "n60"), ("a", "n50", "n60")]


def test_pairs_count_either_way_round_and_whatever_the_case(tmp_path: Path) -> None:
    PLANE.degrees |= {"A.": 0, "P": 30}
    rows = Anchors(["a", "n40", "A."], ["p", "a", "n50"])
    found, _ = mined(tmp_path, rows)
    # n40 and n50 are positives of a; n40 has nothing farther than its own.
    assert found == [("a", "p", "n60"), ("A.", "n50", "n60")]


def test_many_positives_of_one_anchor(tmp_path: Path) -> None:
    many = {f"m{n}": n / 100 for n in range(600)}
    encoder = Angles(PLANE.degrees | many)
    rows = Anchors(["z", *["a"] * 600], ["n50", *many])
    summary = mine(encoder, rows, tmp_path / "t.csv", Mining(ranks=(1, 3)), candidates=POOL)
    negatives = {row[0]: row[2] for row in read_texts(tmp_path / "t.csv")[1]}
    assert negatives["a"] == "n20"
    assert summary.rows >= 600


def test_counts_and_scores(tmp_path: Path) -> None:
    found, summary = mined(tmp_path, Anchors(["a", "a", "z"], ["p", "p", "n20"]))
    assert [row[:2] for row in found] == [("a", "p")]
    assert summary.left_out == {"rows given twice": 1, "rows without a hard negative": 1}
    figures = summary.figures
    assert figures["negatives"] == 1
    assert figures["mean score of positives"] == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-6)
    assert figures["mean score of negatives"] == pytest.approx(np.cos(np.deg2rad(40)), abs=1e-6)
    assert figures["neighbours too near to the positive's score"] >= 2


def test_hard_positives_are_the_least_similar(tmp_path: Path) -> None:
    rows, summary = mined(tmp_path, Anchors(["a", "a"], ["n20", "p"]), hard_positives=True)
    assert rows == [("a", "p", "n40")]
    assert summary.left_out == {"easier positives": 1}


def test_single_texts_get_their_farthest_near_neighbour(tmp_path: Path) -> None:
    rows, summary = mined(tmp_path, Anchors(["a", "z"], None), positive_score=0.8)
    assert rows == [("a", "n31", "n40")]
    assert list(summary.left_out) == ["texts without a neighbour near enough to be a positive"]
    rows, _ = mined(tmp_path, Anchors(["a", "z"], None), positive_rank=1)
    assert rows == [("a", "n20", "n31")]


def test_the_positive_of_a_single_text_is_no_negative_and_has_no_rank(tmp_path: Path) -> None:
    options: dict[str, Any] = {"factor": 1.0, "positive_rank": 2, "positive_score": 0.0}
    rows, _ = mined(tmp_path, Anchors(["a"], None), **options)
    # Neighbours: n20, n31 (the positive), n40, n50, n60.
    assert rows == [("a", "n31", "n40")]
    rows, _ = mined(tmp_path, Anchors(["a"], None), ranks=(2, 2), **options)
    assert rows == [("a", "n31", "n40")]
    rows, _ = mined(tmp_path, Anchors(["a"], None), ranks=(4, 4), **options)
    assert rows == [("a", "n31", "n60")]


def test_a_text_that_has_another_as_positive_is_no_negative_of_it(tmp_path: Path) -> None:
    # The nearest to x is y; that to y is w, and x comes next.
    degrees = {"x": 0.0, "y": 10.0, "w": 11.0, "far": 40.0}
    mining = Mining(positive_rank=1, positive_score=0.9, factor=1.0)
    mine(Angles(degrees), Anchors(list(degrees), None), tmp_path / "t.csv", mining)
    found = {row[0]: row[1:] for row in read_texts(tmp_path / "t.csv")[1]}
    assert found == {"x": ("y", "w"), "y": ("w", "far"), "w": ("y", "x")}


class Star:
    """Texts around a hub, each a bit farther from it than the one before; and some on one side."""

    def __init__(self, around: int, aside: int):
        self.texts = ["hub", *(f"m{n}" for n in range(around)), *(f"f{n}" for n in range(aside))]
        self.vectors = np.eye(len(self.texts), around + 2, dtype=np.float32)
        for place in range(1, len(self.texts)):
            own = min(place, around + 1)
            to_hub = 0.9 - 0.02 * place
            self.vectors[place] = 0
            self.vectors[place, [0, own]] = to_hub, np.sqrt(1 - to_hub**2)

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        del normalize, progress
        return self.vectors[[self.texts.index(text) for text in sentences]]


def test_ranks_hold_for_a_text_that_is_the_positive_of_many(tmp_path: Path) -> None:
    # Twelve texts have the hub as positive: more than are searched for at first.
    star = Star(12, 4)
    mining = Mining(ranks=(2, 2), positive_rank=1, positive_score=0.5)
    mine(star, Anchors(star.texts, None), tmp_path / "t.csv", mining)
    found = {row[0]: row[1:] for row in read_texts(tmp_path / "t.csv")[1]}
    assert found["hub"] == ("m0", "f1")


def test_pairs_of_equal_texts_are_left_out(tmp_path: Path) -> None:
    PLANE.degrees |= {"A.": 0}
    rows, summary = mined(tmp_path, Anchors(["a", "a"], ["A.", "p"]))
    assert rows == [("a", "p", "n40")]
    assert summary.left_out == {"pairs of equal texts": 1}


def test_limits_hold_for_negative_scores_too() -> None:
    ranked = [(0, -0.1), (1, -0.2), (2, -0.3)]
    rng = random.Random(0)
    assert choose(ranked, -0.2, Mining(factor=0.9), rng, {}) == [(2, -0.3)]
    assert choose(ranked, -0.2, Mining(factor=1.0), rng, {}) == [(1, -0.2)]


def test_random_picks_follow_the_seed() -> None:
    ranked = [(n, 0.5 - n / 1000) for n in range(50)]

    def picked(seed: int) -> list[tuple[int, float]]:
        mining = Mining(negatives=5, pick="random")
        return choose(ranked, 0.9, mining, random.Random(seed), {})

    assert picked(1) == picked(1) != picked(2)
    assert len(picked(1)) == 5
    assert picked(1) == sorted(picked(1))


def test_columns_of_tables_and_lists_of_jsonl(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl"):
        mining = Mining(negatives=2)
        mine(PLANE, Anchors(["a"], ["p"]), tmp_path / name, mining, candidates=POOL)
    assert (tmp_path / "t.csv").read_text() == "sent0,sent1,hard_neg_1,hard_neg_2\na,p,n40,n50\n"
    record = json.loads((tmp_path / "t.jsonl").read_text())
    assert record == {"sent0": "a", "sent1": "p", "hard_negs": ["n40", "n50"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives is 0; allowed: 1 or more"),
        ({"ranks": (0, 5)}, "ranks is .0, 5.; allowed: 1 <= first <= last"),
        ({"ranks": (6, 5)}, "allowed: 1 <= first <= last"),
        ({"ranks": (1, 2), "negatives": 3}, "ranks 1:2 hold fewer than the 3 negatives"),
        ({"factor": 1.5}, "factor is 1.5; allowed: 0 < factor <= 1"),
        ({"margin": -1.0}, "margin is -1.0"),
        ({"max_score": 1.5}, "max_score is 1.5; allowed: min_score < score <= 1"),
        ({"min_score": 0.5, "max_score": 0.5}, "max_score is 0.5"),
        ({"pick": "best"}, "pick is 'best'; allowed: hardest, random"),
        ({"search": "annoy"}, "search is 'annoy'; allowed: exact, faiss"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mining(**options)


def test_ranks_are_written_with_a_colon() -> None:
    assert parse_ranks("10:50") == (10, 50)
    for text in ("10", "10-50", ":5", "a:b", "-1:5"):
        with pytest.raises(ConfigError, match="such as 10:50"):
            parse_ranks(text)


def test_what_cannot_be_mined(tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    with pytest.raises(DataError, match="all texts are the same"):
        mine(PLANE, Anchors(["a", "b"], ["p", "P."]), target, Mining())
    message = "left for any of 1 rows .1 neighbours too near .*, 1 rows without a hard negative"
    with pytest.raises(DataError, match=message):
        mine(PLANE, Anchors(["a"], ["p"]), target, Mining(), candidates=["n20"])

    class Broken(Angles):
        def encode(self, *args: Any, **options: Any) -> Any:
            return super().encode(*args, **options) * np.nan

    with pytest.raises(ModelError, match="not finite"):
        mine(Broken(PLANE.degrees), Anchors(["a"], ["p"]), target, Mining(), candidates=["n20"])
    assert not target.exists()


def test_recall_of_an_approximate_search_is_told(
    tmp_path: Path,
) -> None:
    pytest.importorskip("faiss")
    _, summary = mined(tmp_path, Anchors(["a"], ["p"]), search="faiss")
    assert summary.figures["recall of the search on 1 anchors"] == 1.0
    assert search.require_faiss().__name__ == "faiss"


def test_negatives_of_triplets_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("sent0,sent1,hard_neg\na,b,c\n")
    assert read_anchors(tmp_path / "x.csv") == Anchors(["a"], ["b"])
    (tmp_path / "x.txt").write_text("a\nb\n")
    assert read_anchors(tmp_path / "x.txt") == Anchors(["a", "b"], None)


def test_anchors_are_queries_and_candidates_documents(tmp_path: Path) -> None:
    class Asymmetric(Angles):
        prompts: ClassVar[dict[str, str]] = {"query": "q: ", "document": "d: "}
        calls: ClassVar[list[tuple[str, list[str], str | None]]] = []

        def encode(
            self, sentences: list[str], /, *, normalize: bool, progress: bool, prompt: str = ""
        ) -> Any:
            self.calls.append(("encode", sentences, prompt))
            return super().encode(sentences, normalize=normalize, progress=progress)

        def encode_query(self, sentences: list[str], **_: bool) -> Any:
            return self.encode(sentences, normalize=True, progress=False, prompt="q: ")

        def encode_document(self, sentences: list[str], **_: bool) -> Any:
            return self.encode(sentences, normalize=True, progress=False, prompt="d: ")

    encoder = Asymmetric({"a": 0, "p": 30, "b": 60, "q": 75})
    pairs, single = Anchors(["a", "b"], ["p", "q"]), Anchors(["a", "p", "b", "q"], None)
    for prompts, expected in (
        (PromptChoice(), ["q: ", "d: "]),
        (PromptChoice.of(["x: ", "y: "], None), ["x: ", "y: "]),
        (PromptChoice.of("x: ", None), ["x: "]),
    ):
        encoder.calls.clear()
        mine(encoder, pairs, tmp_path / "t.csv", Mining(prompts=prompts), overwrite=True)
        assert [call[2] for call in encoder.calls] == expected
        assert encoder.calls[0][1][:2] == ["a", "b"]
        assert encoder.calls[-1][1][-2:] == ["p", "q"]
    encoder.calls.clear()
    mining = Mining(positive_score=0.5, factor=1.0)
    mine(encoder, single, tmp_path / "t.csv", mining, overwrite=True)
    assert [call[2] for call in encoder.calls] == [""]
