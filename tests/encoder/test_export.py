"""Export of an encoder, and encoding with the exported graph."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.export import bundle as folder_module
from simcse_kit.encoder.export import export as export_module
from simcse_kit.encoder.export.base import FORMATS
from simcse_kit.encoder.export.export import export_encoder
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, ModelError
from simcse_kit.registry import Registry
from tests.encoder.conftest import edit_json, in_fork

TEXTS = ["a cat sat on the mat .", "the dog", "a man is playing guitar in the park , loudly"]
WORDS = "cat dog mat park man woman guitar music car house tree river book child bird".split()
CALIBRATION = [f"the {a} is {b} near a {c} ." for a in WORDS[:5] for b in WORDS[3:9] for c in WORDS]


@pytest.fixture(scope="session", params=["onnx", "openvino"])
def format(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        FORMATS.resolve(name).require()
    except ImportError as error:
        pytest.skip(f"the extra simcse-kit[{name}] is not installed: {error}")
    return name


@pytest.fixture(scope="session")
def exported(
    format: str, tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SentenceEncoder, Path]:
    """A tiny encoder with head and normalisation, and its exported folder."""
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="first_last_mean")
    encoder.head = nn.Sequential(Dense(32, 24, activation="gelu"))
    encoder.normalize = True
    target = tmp_path_factory.mktemp("exported") / format
    result = export_encoder(encoder, target, format=format)
    assert result.max_difference < 1e-5
    return encoder, target


def test_the_exported_folder_encodes_like_torch(exported: tuple[SentenceEncoder, Path]) -> None:
    encoder, folder = exported
    opened = SentenceEncoder.load(folder)
    for normalize in (None, True, False):
        expected = encoder.encode(TEXTS, normalize=normalize)
        got = opened.encode(TEXTS, normalize=normalize)
        np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(
        opened.similarity(TEXTS, TEXTS), encoder.similarity(TEXTS, TEXTS), atol=1e-5
    )
    assert opened.embedding_dim == 24
    assert opened.max_length == encoder.max_length
    assert not (folder / "model.safetensors").exists()


def test_any_number_and_any_length(exported: tuple[SentenceEncoder, Path]) -> None:
    encoder, folder = exported
    opened = SentenceEncoder.load(folder)
    for texts in ([""], ["cat"] * 3, [" ".join(WORDS[:n]) for n in range(15)] + ["dog " * 60]):
        got = opened.encode(texts, batch_size=4)
        np.testing.assert_allclose(got, encoder.encode(texts), atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_forked_process(exported: tuple[SentenceEncoder, Path]) -> None:
    encoder, folder = exported
    opened = SentenceEncoder.load(folder)
    expected = encoder.encode(TEXTS)

    def child() -> None:
        np.testing.assert_allclose(opened.encode(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(opened.encode(TEXTS * 200)[:3], expected, atol=1e-5)

    in_fork(child)
    np.testing.assert_allclose(opened.encode(TEXTS), expected, atol=1e-5)
    in_fork(child)


def test_truncated_vectors(format: str, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    whole = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    whole.normalize = True
    whole.save(tmp_path / "whole")
    edit_json(tmp_path / "whole" / "config_sentence_transformers.json", truncate_dim=8)
    encoder = SentenceEncoder.load(tmp_path / "whole")
    export_encoder(encoder, tmp_path / "exported", format=format)
    opened = SentenceEncoder.load(tmp_path / "exported")
    assert opened.embedding_dim == 8
    for normalize in (None, True):
        expected = encoder.encode(TEXTS, normalize=normalize)
        np.testing.assert_allclose(opened.encode(TEXTS, normalize=normalize), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS), whole.encode(TEXTS)[:, :8], atol=1e-6)


def test_the_first_output_follows_the_recipe(
    exported: tuple[SentenceEncoder, Path], format: str
) -> None:
    encoder, folder = exported
    ids = np.array(encoder.tokenize(TEXTS[:1])[0])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if format == "onnx":
        import onnxruntime

        got = onnxruntime.InferenceSession(folder / "model.onnx").run(
            ["sentence_embedding"], inputs
        )[0]
    else:
        import openvino

        got = openvino.compile_model(folder / "model.xml", "CPU")(inputs)["sentence_embedding"]
    np.testing.assert_allclose(got, encoder.encode(TEXTS[:1]), atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(got), 1, atol=1e-2)


def test_export_leaves_the_encoder_as_it_was(exported: tuple[SentenceEncoder, Path]) -> None:
    encoder, _ = exported
    fresh = SentenceEncoder.load(encoder.source or "", pooling="first_last_mean")
    fresh.head, fresh.normalize = encoder.head, True
    np.testing.assert_allclose(encoder.encode(TEXTS), fresh.encode(TEXTS), atol=1e-6)


def test_int8(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="the extra simcse-kit[openvino] is not installed")
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    result = export_encoder(
        encoder,
        tmp_path / "int8",
        format="openvino",
        int8=True,
        calibration=CALIBRATION[:60],
    )
    assert (result.calibrated_on, result.held_out) == (45, 15)
    assert result.cosine_min is not None
    assert result.cosine_min > 0.98
    opened = SentenceEncoder.load(tmp_path / "int8")
    got, expected = opened.encode(TEXTS, normalize=True), encoder.encode(TEXTS, normalize=True)
    assert (got * expected).sum(axis=1).min() > 0.98
    assert not np.allclose(got, expected, atol=1e-5)  # it is int8
    facts = json.loads((tmp_path / "int8" / "engine.json").read_text())
    assert facts["precision"] == "int8"
    assert facts["source"] == str(tiny_encoder_dir)


# ---------------------------------------------------------------- refusals


def test_training_from_an_exported_folder_is_refused(
    exported: tuple[SentenceEncoder, Path], tmp_path: Path
) -> None:
    opened = SentenceEncoder.load(exported[1])
    source = str(exported[0].source)
    for attempt in (
        opened.require_weights,
        lambda: opened.set_dropout(0.1),
        lambda: opened.save(tmp_path / "saved"),
    ):
        with pytest.raises(ModelError, match="no torch weights") as caught:
            attempt()
        assert source in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="pooling 'first_last_mean', which is part of its graph"):
        SentenceEncoder.load(exported[1], pooling="mean")


def test_exported_encoders_stay_on_the_cpu(
    exported: tuple[SentenceEncoder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    opened = SentenceEncoder.load(exported[1])
    assert opened.device == torch.device("cpu")
    assert opened.encode("a dog").shape == (opened.embedding_dim,)
    with pytest.raises(ConfigError, match="run on the CPU, not on 'cuda'; use the device cpu or a"):
        SentenceEncoder.load(exported[1], device="cuda")


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_damaged_folders(exported: tuple[SentenceEncoder, Path], tmp_path: Path) -> None:
    files = [p.name for p in exported[1].iterdir() if p.name.startswith("model.")]
    for name in files:
        folder = copied(exported[1], tmp_path / f"missing-{name}")
        (folder / name).unlink()
        with pytest.raises(ModelError, match=f"{name} is missing"):
            SentenceEncoder.load(folder)
        folder = copied(exported[1], tmp_path / f"cut-{name}")
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-100])
        with pytest.raises(ModelError, match=f"{name} has .* bytes, and"):
            SentenceEncoder.load(folder)
        folder = copied(exported[1], tmp_path / f"garbage-{name}")
        (folder / name).write_bytes(bytes(len(content)))
        with pytest.raises(ModelError, match="export the model again") as caught:
            SentenceEncoder.load(folder)
        assert "\n" not in str(caught.value)


def test_damaged_facts(exported: tuple[SentenceEncoder, Path], tmp_path: Path) -> None:
    folder = copied(exported[1], tmp_path / "facts")
    path = folder / "engine.json"
    facts = json.loads(path.read_text())
    for change, message in (
        ({"schema_version": 99}, "schema_version 99; this version of simcse_kit reads 1; update"),
        ({"format": "tensorrt"}, "unknown export format 'tensorrt'"),
        ({"precision": "int3"}, "precision"),
        ({"check": facts["check"] | {"vector": facts["check"]["vector"][::-1]}}, "another vector"),
    ):
        path.write_text(json.dumps(facts | change))
        with pytest.raises(ModelError, match=message) as caught:
            SentenceEncoder.load(folder)
        assert "\n" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        SentenceEncoder.load(folder)


def test_a_cpu_without_the_instructions_is_warned_of(
    exported: tuple[SentenceEncoder, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = copied(exported[1], tmp_path / "int8")
    path = folder / "engine.json"
    facts = json.loads(path.read_text()) | {"precision": "int8", "instructions": ["avx512_vnni"]}
    path.write_text(json.dumps(facts))
    for here, warned in (
        (["avx512_vnni"], False),
        (["amx_int8"], False),
        (None, False),
        ([], True),
    ):
        caplog.clear()
        monkeypatch.setattr(folder_module, "int8_instructions", lambda here=here: here)
        SentenceEncoder.load(folder)
        assert ("which this CPU lacks" in caplog.text) is warned


def test_nothing_is_written_when_the_graph_differs(
    exported: tuple[SentenceEncoder, Path],
    format: str,
    tiny_encoder_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    # The graph of another encoder.
    monkeypatch.setattr(
        export_module._Writer,
        "_opened",
        lambda *_: SentenceEncoder.load(exported[1]),
    )
    monkeypatch.setattr(encoder, "pooling", "first_last_mean")
    encoder.head, encoder.normalize = nn.Sequential(Dense(32, 24)), True
    with pytest.raises(ModelError, match=r"differs from torch by .* nothing was written"):
        export_encoder(encoder, tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_cannot_be_exported(
    format: str, tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")

    def forward(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no such operator\nsecond line")

    monkeypatch.setattr(encoder.backbone, "forward", forward)
    with pytest.raises(ModelError, match="BertModel cannot be exported to") as caught:
        export_encoder(encoder, tmp_path / "out", format=format)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_refused(format: str, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("x")
    with pytest.raises(ConfigError, match="is not empty"):
        export_encoder(encoder, tmp_path / "used", format=format)
    with pytest.raises(ConfigError, match="is a file"):
        export_encoder(encoder, tmp_path / "used" / "file", format=format)
    with pytest.raises(ConfigError, match="is the model itself"):
        export_encoder(encoder, tiny_encoder_dir, format=format, overwrite=True)
    with pytest.raises(ConfigError, match="unknown export format"):
        export_encoder(encoder, tmp_path / "x", format="tensorrt")
    assert not (tmp_path / "x").exists()


def test_int8_is_refused_without_enough_text_and_for_onnx(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    with pytest.raises(ConfigError, match="onnx exports have no int8 form; export to openvino"):
        export_encoder(encoder, tmp_path / "x", format="onnx", int8=True, calibration=CALIBRATION)
    with pytest.raises(ConfigError, match="needs calibration text"):
        export_encoder(encoder, tmp_path / "x", format="openvino", int8=True)
    pytest.importorskip("nncf", reason="the extra simcse-kit[openvino] is not installed")
    with pytest.raises(DataError, match="at least 30 are needed"):
        export_encoder(
            encoder, tmp_path / "x", format="openvino", int8=True, calibration=["a"] * 90
        )
    assert not (tmp_path / "x").exists()


def test_saving_over_an_exported_folder_leaves_no_graph(
    exported: tuple[SentenceEncoder, Path], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    folder = copied(exported[1], tmp_path / "again")
    SentenceEncoder.load(tiny_encoder_dir, pooling="mean").save(folder)
    assert SentenceEncoder.load(folder).engine is None
    assert not [p for p in folder.iterdir() if p.suffix in (".onnx", ".xml", ".bin")]


def test_a_missing_extra(
    tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        extra = "onnx"
        has_int8 = False

        def require(self) -> None:
            raise ImportError("no module")

    sys.modules["absent_format"] = Absent  # type: ignore[assignment]
    monkeypatch.setattr(
        export_module, "FORMATS", Registry("export format", {"onnx": "absent_format:INSTANCE"})
    )
    monkeypatch.setattr(Absent, "INSTANCE", Absent(), raising=False)
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    with pytest.raises(MissingExtraError, match=r"export to onnx .*simcse-kit\[onnx\]"):
        export_encoder(encoder, tmp_path / "x", format="onnx")
    del sys.modules["absent_format"]
