"""`simcse export`"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from tests.cli.conftest import Simcse


def test_an_int8_export_tells_its_loss(
    simcse: Simcse, tiny_encoder_dir: Path, texts: Path, pairs: Path, tmp_path: Path
) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package, reason="the extra simcse-kit[openvino] is not installed")
    sentences = [
        f"the {w} sat near a {v} ." for w in ("cat", "dog", "man") for v in "abcdefghijklmn"
    ]
    texts.write_text("\n".join(sentences) + "\n")
    output = tmp_path / "out"
    command = ("export", tiny_encoder_dir, "--pooling", "mean", "--format", "openvino", "--int8")
    command += ("--calibration", texts, "--dev", pairs, "--output", output)
    done = simcse(*command)
    assert done.code == 0, done.err
    assert "openvino int8" in done.out
    assert "Spearman on graded: fp32" in done.out
    assert SentenceEncoder.load(output).encode("a cat").shape == (32,)
    again = simcse(*command)
    assert (again.code, again.out) == (2, "")
    assert "is not empty" in again.err
    replaced = simcse(*command, "--overwrite", "--json")
    assert json.loads(replaced.out)["precision"] == "int8"
    info = json.loads(simcse("info", output, "--json").out)
    assert info["engine"] == "openvino int8"
    assert "model.bin" in info["files"]
    train = simcse(
        "train", texts, "--model", output, "--batch-size", 8, "--output", tmp_path / "run"
    )
    assert train.code == 2
    assert "no torch weights" in train.err
    assert not (tmp_path / "run").exists()


def test_int8_is_refused_for_onnx_and_without_text(simcse: Simcse, tmp_path: Path) -> None:
    for format, message in (
        ("onnx", "onnx exports have no int8 form; export to openvino for int8"),
        ("openvino", "--int8 needs --calibration FILE"),
    ):
        done = simcse("export", "mini", "--format", format, "--output", tmp_path / "x", "--int8")
        assert (done.code, done.out) == (2, "")
        assert message in done.err
        assert not (tmp_path / "x").exists()
