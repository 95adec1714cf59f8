"""Evaluation with prompts, and of the first dimensions only."""

from __future__ import annotations

import json
import xml.dom.minidom
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import embed
from simcse_kit.evaluation.evaluate import evaluate, evaluate_dimensions
from simcse_kit.evaluation.model_reports import evaluate_models
from simcse_kit.evaluation.st_models import SentenceTransformersModel
from simcse_kit.utils.prompt_choice import PromptChoice, has_role_prompts
from tests.evaluation.test_tasks import beir

WORDS = "cat dog bird horse".split()
PAIRS = [(f"a {a} sat", f"the {b}", 5.0 * (a == b)) for a in WORDS for b in WORDS]


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


class Recorder:
    """An encoder that notes what it gets, and puts the bytes of its texts into vectors."""

    def __init__(self, **prompts: str):
        self.prompts = prompts
        self.calls: list[tuple[str, list[str], dict[str, Any]]] = []

    def _note(self, method: str, texts: list[str], options: dict[str, Any]) -> np.ndarray:
        self.calls.append((method, texts, options))
        return np.stack([np.bincount([*text.encode()], minlength=128) for text in texts]) + 1.0

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._note("encode", texts, options)

    def encode_query(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._note("encode_query", texts, options)

    def encode_document(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._note("encode_document", texts, options)


def test_retrieval_uses_the_prompts_of_queries_and_documents(tmp_path: Path) -> None:
    tasks = {"pairs": PAIRS, "beir": f"retrieval:{beir(tmp_path / 'tiny')}"}
    loaded = {"pairs": PAIRS, **_retrieval(tasks["beir"])}
    without = Recorder()
    evaluate(without, loaded, geometry_on=None)
    assert [call[0] for call in without.calls] == ["encode"]
    encoder = Recorder(query="q: ", document="d: ")
    evaluate(encoder, loaded, geometry_on=None)
    assert [call[0] for call in encoder.calls] == ["encode", "encode_query", "encode_document"]
    assert encoder.calls[1][1] == ["good good film"]
    assert encoder.calls[2][1] == ["good film", "bad film", "who is the actor"]
    assert "good film" not in encoder.calls[0][1]


def _retrieval(name: Any) -> dict[str, Any]:
    from simcse_kit.evaluation.tasks.load import load_all_tasks

    return {"beir": next(iter(load_all_tasks(name).values()))}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prompt": "x: "}, [{"prompt": "x: "}]),
        ({"prompt_name": ["query"]}, [{"prompt_name": "query"}]),
        ({"prompt": ("q: ", "d: ")}, [{"prompt": "q: "}, {"prompt": "q: "}, {"prompt": "d: "}]),
    ],
)
def test_given_prompts_replace_those_of_the_encoder(
    tmp_path: Path, options: Any, expected: list[Any]
) -> None:
    encoder = Recorder(query="own ", document="own ")
    loaded = {"pairs": PAIRS, **_retrieval(f"retrieval:{beir(tmp_path / 'tiny')}")}
    evaluate(encoder, loaded, geometry_on=None, **options)
    assert [call[2] for call in encoder.calls] == expected
    assert {call[0] for call in encoder.calls} == {"encode"}


def test_a_prompt_changes_the_score_as_in_encode(encoder: SentenceEncoder) -> None:
    texts = [text for pair in PAIRS for text in pair[:2]]
    found = embed(encoder, texts, prompts=PromptChoice.of("the dog ", None))
    np.testing.assert_allclose(found(texts), encoder.encode(texts, prompt="the dog "), atol=1e-5)
    encoder.prompts = {"query": "the dog "}
    named = embed(encoder, texts, prompts=PromptChoice.of(None, "query"))
    np.testing.assert_array_equal(found(texts), named(texts))
    assert has_role_prompts(encoder)
    as_query = embed(encoder, texts, role="query")
    np.testing.assert_array_equal(found(texts), as_query(texts))
    as_document = embed(encoder, texts, role="document")
    np.testing.assert_allclose(as_document(texts), encoder.encode(texts), atol=1e-5)


def test_an_encoder_without_prompts_gets_the_prompt_in_its_texts() -> None:
    class Plain:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text), 1.0] for text in texts])

    found = embed(Plain(), ["a", "abc"], prompts=PromptChoice.of("1234", None))
    assert found(["a", "abc"])[:, 0].tolist() == [5, 7]
    with pytest.raises(ConfigError, match="Plain, which has no named prompts; give the text"):
        embed(Plain(), ["a"], prompts=PromptChoice.of(None, "query"))


def test_prompts_and_names_are_not_mixed() -> None:
    for texts, names in (("a", "b"), (["a", "b", "c"], None)):
        with pytest.raises(ConfigError, match="give one prompt or one name, or two"):
            PromptChoice.of(texts, names)


def test_sentence_transformers_models_use_their_prompts(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    encoder.prompts = {"query": "the dog "}
    encoder.save(tmp_path / "model")
    theirs = SentenceTransformersModel(str(tmp_path / "model"), "cpu")
    for role in ("query", "document"):
        expected = embed(encoder, WORDS, role=role)(WORDS)  # type: ignore[arg-type]
        found = embed(theirs, WORDS, role=role)(WORDS)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    chosen = PromptChoice.of(None, "query")
    found = embed(theirs, WORDS, prompts=chosen)(WORDS)
    np.testing.assert_allclose(found, encoder.encode_query(WORDS), atol=1e-5)


# ---------------------------------------------------------------- dimensions


def test_a_sweep_encodes_once_and_scores_truncated_vectors(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = SentenceEncoder.encode

    def counted(self: SentenceEncoder, texts: Any, **options: Any) -> Any:
        calls.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceEncoder, "encode", counted)
    reports = evaluate_dimensions(encoder, [4, 16, 32], PAIRS, name="tiny")
    assert len(calls) == 1
    assert [report.model for report in reports] == [
        "tiny, 4 dimensions",
        "tiny, 16 dimensions",
        "tiny, 32 dimensions",
    ]

    class Truncated:
        def __init__(self, size: int):
            self.size = size

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.asarray(encoder.encode(texts, truncate_dim=self.size))

    for report, size in zip(reports, [4, 16, 32], strict=True):
        expected = evaluate(Truncated(size), PAIRS)
        assert report.tasks["pairs"].spearman == pytest.approx(expected.tasks["pairs"].spearman)
        assert report.geometry is not None
        assert expected.geometry is not None
        assert report.geometry.uniformity == pytest.approx(expected.geometry.uniformity, abs=1e-4)
        assert report.to_json()["dimensions"] == size
    assert "dimensions" not in evaluate(encoder, PAIRS).to_json()


def test_wrong_dimensions_are_refused(encoder: SentenceEncoder) -> None:
    class Plain:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text), 1.0] for text in texts])

    for given, sizes in ((encoder, [8, 33]), (Plain(), [3])):
        with pytest.raises(ConfigError, match=r"3 dimensions are wanted.*allowed: 1 to (32|2)"):
            evaluate_dimensions(given, sizes, PAIRS)  # type: ignore[arg-type]
    for wrong in ([], [0], ["8"]):
        with pytest.raises(ConfigError, match="dimensions="):
            evaluate_dimensions(encoder, wrong, PAIRS)  # type: ignore[arg-type]


def test_the_page_of_a_sweep_has_a_table_and_a_picture(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{gold}\t{a}\t{b}\n" for a, b, gold in PAIRS), "utf-8")
    tasks = f"{path},retrieval:{beir(tmp_path / 'tiny')}"
    models = [(str(tiny_encoder_dir), None)]
    found = evaluate_models(models, tasks, dimensions=[8, 32], allow_unknown=True)
    found.write_page(tmp_path / "page")
    text = (tmp_path / "page" / "report.md").read_text("utf-8")
    assert "| Dimensions | pairs | tiny | Mean |" in text
    assert "\n| 8 | " in text
    assert "\n| 32 | " in text
    picture = xml.dom.minidom.parse(str(tmp_path / "page" / "dimensions.svg"))
    assert picture.documentElement.tagName == "svg"
    html = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "Mean of the scores" in html
    assert "8 dimensions" in html
    data = json.loads((tmp_path / "page" / "report.json").read_text("utf-8"))
    assert [report["dimensions"] for report in data["reports"]] == [8, 32]


def test_a_single_report_has_no_picture(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{gold}\t{a}\t{b}\n" for a, b, gold in PAIRS), "utf-8")
    found = evaluate_models([(str(tiny_encoder_dir), None)], str(path), dimensions=[8])
    found.write_page(tmp_path / "page")
    assert not (tmp_path / "page" / "dimensions.svg").exists()
