"""Dev sets that cannot choose a checkpoint are refused; an undefined score is never a number."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from simcse_kit.errors import DataError
from simcse_kit.evaluation import dev_set
from simcse_kit.training.monitor.geometry_probe import Probe
from simcse_kit.training.selection import SHAPE, shape_scorer
from simcse_kit.training.study.runs import RunRecord
from simcse_kit.training.study.table import rows_of, text_table
from tests.training.conftest import MakeConfig, train


def pairs_file(path: Path, rows: list[tuple[float, str, str]]) -> Path:
    path.write_text("".join(f"{g}\t{a}\t{b}\n" for g, a, b in rows), encoding="utf-8")
    return path


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(3, f"word {n}", f"other {n}") for n in range(9)], "all 9 pairs have the grade 3"),
        ([(n, f"word {n}", f"word {n}") for n in range(5)], "pairs have two equal sentences"),
        ([(n, "a cat", "a dog") for n in range(4)], "all 4 pairs are the same pair"),
        ([(n, "a cat"[n % 2 :], "a cat"[1 - n % 2 :]) for n in range(4)], "are the same pair"),
        ([(1, "a", "b"), (2, "c", "d")], "3"),
    ],
)
def test_a_dev_set_that_cannot_choose_is_refused_before_anything_else(
    make_config: MakeConfig, tmp_path: Path, rows: Any, message: str
) -> None:
    file = pairs_file(tmp_path / "dev.tsv", rows)
    with pytest.raises(DataError, match=message) as caught:
        train(make_config({"evaluation": {"dev": str(file)}}))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("always", [True, False])
def test_equal_cosines_are_no_score(
    make_config: MakeConfig,
    dev_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    always: bool,
) -> None:
    calls = 0
    score = dev_set.spearman

    def spearman(cosines: Any, gold: Any) -> float:
        nonlocal calls
        calls += 1
        return float("nan") if always or calls in (1, 3) else score(cosines, gold)

    monkeypatch.setattr(dev_set, "spearman", spearman)
    result = train(
        make_config({"training": {"max_steps": 8}, "evaluation": {"dev": str(dev_file)}})
    )
    found = [row["step"] for row in result.history if "dev_spearman" in row]
    assert found == ([] if always else [4])
    assert "dev_spearman is undefined, because all cosines of the dev pairs are equal" in (
        caplog.text
    )
    assert result.start_score is None
    document = json.loads((result.output / "result.json").read_text())
    card = (result.output / "README.md").read_text(encoding="utf-8")
    if always:
        assert document["best_score"] is document["best_step"] is None
        assert "undefined at every checkpoint, because all cosines" in document["undefined"]
        assert "undefined at every checkpoint" in card
    else:
        assert document["best_step"] == 4
        assert document["undefined"] is None
        assert "undefined before" in card
    for text in (card, json.dumps(document), (result.output / "metrics.jsonl").read_text()):
        assert not any(odd in text for odd in ("-100", "NaN", "nan,", "nan ", "Infinity"))


def test_an_unmeasured_shape_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "measure", lambda *_: {})
    probe = Probe(["a", "b"], ["a"], None, 0, 8)
    assert SHAPE not in shape_scorer(probe)(cast(Any, SimpleNamespace(encoder=None)))


def test_a_mean_of_zero_is_a_score() -> None:
    runs = [
        RunRecord(method, 0, {"dev_spearman": score, "sentences_per_second": 1.0})
        for method, score in (("worse", -5.0), ("zero", 0.0), ("better", 5.0))
    ]
    runs.append(RunRecord("failed", 0, {}, failed="it"))
    rows = rows_of(runs)
    assert [row.method for row in rows] == ["better", "zero", "worse", "failed"]
    assert "| failed | 1 | - |" in text_table(rows)
