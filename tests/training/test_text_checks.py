"""Rows without differences to learn from are refused with the cause, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simcse_kit.errors import DataError
from simcse_kit.methods import METHODS
from simcse_kit.training.text_checks import check_distinct
from tests.small_data import run_config, sentences
from tests.training.conftest import MakeConfig, train

SIMCSE = METHODS.resolve("simcse")
TEXTS = [(text,) for text in sentences(64)]


def failure(rows: list[Any], kind: Any, batch_size: int = 8, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_distinct(rows, kind, options.pop("method", SIMCSE), batch_size, **options)
    return str(caught.value)


def test_different_rows_are_good(caplog: pytest.LogCaptureFixture) -> None:
    check_distinct(TEXTS, "texts", SIMCSE, 8)
    pairs = [(text, f"{text} x") for (text,) in TEXTS]
    check_distinct(pairs, "pairs", SIMCSE, 8)
    check_distinct([(*pair, "z") for pair in pairs], "triplets", SIMCSE, 8)
    # Some hard negatives, the same for all rows or none.
    check_distinct([*pairs[:32], *((*p, "z") for p in pairs[32:])], "triplets", SIMCSE, 8)
    check_distinct(pairs, "labelled", METHODS.resolve("margin_contrastive"), 8)
    check_distinct([("a", "b"), ("a", "c")] * 9, "documents", METHODS.resolve("cpc"), 8)
    assert caplog.records == []


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_text_teaches_no_method(method: str) -> None:
    chosen = METHODS.resolve(method)
    for kind in chosen.reads:
        rows = [("a cat",) * (1 if kind == "texts" else 3 if kind == "triplets" else 2)] * 20
        message = failure(rows, kind, method=chosen)
        assert "all 20 rows have the same text 'a cat'" in message


def test_nearly_one_text(caplog: pytest.LogCaptureFixture) -> None:
    rows = [("a cat",)] * 95 + TEXTS[:5]
    assert "95 % of 100 rows have the same text 'a cat'" in failure(rows, "texts", 16)
    assert "a batch of 16 has less than one other" in failure(rows, "texts", 16)
    check_distinct(rows, "texts", SIMCSE, 64)
    assert "a batch of 64 has about 3 others" in caplog.text
    caplog.clear()
    # Without negatives there is something to learn, but little.
    check_distinct(rows, "texts", METHODS.resolve("simsiam"), 16)
    assert "95 % of 100 rows" in caplog.text
    caplog.clear()
    check_distinct([("a cat",)] * 40 + TEXTS[:60], "texts", SIMCSE, 16)
    assert caplog.records == []


@pytest.mark.parametrize("place", [0, 1])
def test_pairs_that_share_one_side(place: int) -> None:
    rows = [(text, "the same")[:: 1 - 2 * (place == 0)] for (text,) in TEXTS]
    assert f"same {('anchor', 'positive')[place]} 'the same'" in failure(rows, "pairs")
    # Different hard negatives give it something to differ from.
    check_distinct([(*row, f"{n}") for n, row in enumerate(rows)], "triplets", SIMCSE, 8)


def test_hard_negatives_that_are_the_positives(caplog: pytest.LogCaptureFixture) -> None:
    rows = [(text, f"{text} x", f"{text} x") for (text,) in TEXTS]
    assert "in 64 of 64 rows the hard negative is" in failure(rows, "triplets")
    some = [*rows[:16], *((a, p, "z") for a, p, _ in rows[16:])]
    check_distinct(some, "triplets", SIMCSE, 8)
    assert "in 16 of 64 rows every hard negative is" in caplog.text


def test_positives_that_are_the_anchors(caplog: pytest.LogCaptureFixture) -> None:
    rows = [(text, text) for (text,) in TEXTS]
    check_distinct(rows, "pairs", SIMCSE, 8)
    assert "in 100 % of the rows anchor and positive are the same text" in caplog.text
    message = failure(rows, "pairs", views_are_equal=True)
    assert "--set method.dropout=0.1" in message


@pytest.mark.usefixtures("no_weights")
def test_a_file_of_one_line_is_refused_before_the_model_is_opened(
    tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    path = tmp_path / "same.txt"
    path.write_text("the same line\n" * 160, encoding="utf-8")
    with pytest.raises(DataError, match="all 160 rows have the same text"):
        train(run_config(tiny_encoder_dir, path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    path.write_text("one line\n", encoding="utf-8")
    with pytest.raises(DataError, match="only 1 row, and training needs at least 2"):
        train(run_config(tiny_encoder_dir, path, tmp_path / "out"))


def test_dropout_0_with_equal_pairs_is_refused_with_a_remedy_that_works(
    tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    path = tmp_path / "pairs.tsv"
    rows = "".join(f"{text}\t{text}\n" for (text,) in TEXTS)
    path.write_text(f"sent0\tsent1\n{rows}", encoding="utf-8")
    for dropout in (0.0, 0.1):
        config = run_config(
            tiny_encoder_dir,
            path,
            tmp_path / "out",
            {"training": {"max_steps": 1}, "method": {"name": "simcse", "dropout": dropout}},
        )
        if dropout:
            train(config)
        else:
            with pytest.raises(DataError, match="without dropout their vectors are equal"):
                train(config)
            assert not (tmp_path / "out").exists()


def test_texts_that_become_one_row_of_tokens_are_refused(
    tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"the cat {n}\n" for n in range(40)), encoding="utf-8")
    with pytest.raises(DataError, match="all 40 rows have the same sequence of token ids"):
        train(run_config(tiny_encoder_dir, path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_unknown_text_is_refused_and_counted(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    path = tmp_path / "a.txt"
    words = "one two three four five six seven eight nine ten".split()
    path.write_text(
        "".join(f"{' '.join(words[: n % 9 + 1])} cat\n" for n in range(40)), encoding="utf-8"
    )
    config = run_config(tiny_encoder_dir, path, tmp_path / "out", {"training": {"max_steps": 1}})
    with pytest.raises(DataError, match="the training text is mostly unknown to the model"):
        train(config)
    assert not (tmp_path / "out").exists()
    data = config.data.model_copy(update={"allow_unknown": True})
    result = train(config.model_copy(update={"data": data}))
    assert result.unknown is not None
    assert result.unknown > 0.5
    assert result.to_json()["unknown"] == result.unknown
    assert "unknown" in (result.output / "README.md").read_text(encoding="utf-8").lower()


def test_an_unknown_dev_set_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("".join(f"{n}\tblorp {n}\tzork {n}\n" for n in range(5)), encoding="utf-8")
    with pytest.raises(DataError, match="the dev set dev is mostly unknown"):
        train(make_config({"evaluation": {"dev": str(dev)}}))


def test_known_text_counts_no_unknown(make_config: MakeConfig) -> None:
    result = train(make_config({"training": {"max_steps": 1}}))
    assert result.unknown == 0
