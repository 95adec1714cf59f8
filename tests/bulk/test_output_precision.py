"""Jobs with prompts, fewer dimensions, and vectors in fewer bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from simcse_kit.bulk.job import BulkJob, BulkResult
from simcse_kit.bulk.output import FORMAT_NAMES, OutputSpec
from simcse_kit.bulk.shard_log import ShardLog
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.metrics.vector_precision import OutputPrecision, quantize_vectors, vector_ranges
from tests.bulk.test_job import KilledError, read
from tests.small_data import sentences

TEXTS = sentences(120)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def run(
    encoder: SentenceEncoder,
    output: Path,
    precision: str = "float32",
    *,
    texts: list[str] = TEXTS,
    ranges: Path | None = None,
    part: tuple[int, int] = (1, 1),
    **options: Any,
) -> BulkResult:
    spec = OutputSpec.of(str(output), shard_rows=32, part=part)
    spec = spec.in_precision(precision, None if ranges is None else str(ranges))
    return BulkJob(encoder, spec, EncodeOptions(**options), chunk=10).run(iter(texts))


@pytest.mark.long
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("precision", get_args(OutputPrecision))
def test_each_format_holds_vectors_of_every_precision(
    encoder: SentenceEncoder, tmp_path: Path, precision: Any, name: str
) -> None:
    vectors = encoder.encode(TEXTS)
    run(encoder, tmp_path / f"v.{name}", precision)
    codes = read(tmp_path / f"v.{name}")[1]
    saved = sorted(path.name for path in tmp_path.iterdir())
    if precision.endswith("int8"):
        assert saved == sorted([f"v.{name}", "v.ranges.npy"])
        ranges = np.load(tmp_path / "v.ranges.npy")
        np.testing.assert_allclose(ranges, vector_ranges(vectors), atol=1e-5)
    else:
        assert saved == [f"v.{name}"]
        ranges = None
    expected = quantize_vectors(vectors, precision, ranges)
    if name != "jsonl":  # whose numbers have no type
        assert codes.dtype == expected.dtype
    # Vectors of other batches differ in the last digits, so few codes are one step apart.
    away = np.abs(codes.astype(np.float64) - expected)
    assert (away > 1e-3).mean() < 0.01 or precision.endswith("binary")
    assert (codes == expected).mean() > 0.98 or precision.startswith("float")


def test_interrupted_and_divided_jobs_use_equal_ranges(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(encoder, tmp_path / "whole.npy", "int8")
    add = ShardLog.add
    calls: list[int] = []

    def die(self: ShardLog, entry: Any) -> None:
        calls.append(entry.shard)
        if len(calls) > 2:
            raise KilledError
        add(self, entry)

    with monkeypatch.context() as patched:
        patched.setattr(ShardLog, "add", die)
        with pytest.raises(KilledError):
            run(encoder, tmp_path / "v.npy", "int8")
    ranges = tmp_path / "v.npy.parts" / "ranges.npy"
    changed = np.load(ranges) * np.float32(1.5)
    np.save(ranges, changed)
    run(encoder, tmp_path / "v.npy", "int8")
    np.testing.assert_array_equal(np.load(tmp_path / "v.ranges.npy"), changed)
    assert (np.load(tmp_path / "v.npy") != np.load(tmp_path / "whole.npy")).any()

    for number in (2, 1):
        run(encoder, tmp_path / "parts", "int8", part=(number, 2))
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert (manifest["dtype"], manifest["output_precision"]) == ("int8", "int8")
    shards = [np.load(tmp_path / "parts" / shard["file"]) for shard in manifest["shards"]]
    np.testing.assert_array_equal(np.concatenate(shards), np.load(tmp_path / "whole.npy"))
    whole = np.load(tmp_path / "whole.ranges.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "parts" / "ranges.npy"), whole)


def test_ranges_of_another_job_can_be_used(encoder: SentenceEncoder, tmp_path: Path) -> None:
    run(encoder, tmp_path / "a.npy", "int8")
    ranges = tmp_path / "a.ranges.npy"
    run(encoder, tmp_path / "b.npy", "int8", texts=TEXTS[:1], ranges=ranges)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), np.load(tmp_path / "a.npy")[:1])
    with pytest.raises(DataError, match=r"fewer than two sentences; give --ranges"):
        run(encoder, tmp_path / "c.npy", "int8", texts=TEXTS[:1])
    with pytest.raises(ConfigError, match=r"shape \(2, 32\), not the ranges of 8 dim"):
        run(encoder, tmp_path / "d.npy", "int8", ranges=ranges, truncate_dim=8)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        run(encoder, tmp_path / "e.npy", "int8", ranges=tmp_path / "none.npy")
    with pytest.raises(ConfigError, match="are for the output precisions int8 and uint8"):
        run(encoder, tmp_path / "f.npy", "ubinary", ranges=ranges)
    with pytest.raises(ConfigError, match="'int7'; allowed"):
        run(encoder, tmp_path / "g.npy", "int7")
    assert not list(tmp_path.glob("*.parts"))


def test_prompt_and_dimensions_identify_a_job(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"prompt": "a dog ", "truncate_dim": 8}
    run(encoder, tmp_path / "v.npy", **settings)
    expected = encoder.encode(TEXTS, **settings)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)

    def die(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(ShardLog, "add", die)
        with pytest.raises(KilledError):
            run(encoder, tmp_path / "w.npy", **settings)
    for change, message in (
        ({"prompt": None}, "prompt was 'a dog ', is None"),
        ({"prompt": "a cat "}, "prompt was 'a dog ', is 'a cat '"),
        ({"truncate_dim": 9}, "dim was 8, is 9"),
        ({"precision": "ubinary"}, "output_precision was None, is 'ubinary'"),
    ):
        precision = str(change.pop("precision", "float32"))
        with pytest.raises(ConfigError, match=message):
            run(encoder, tmp_path / "w.npy", precision, **settings | change)
    with pytest.raises(ConfigError, match="33 dimensions are wanted"):
        run(encoder, tmp_path / "x.npy", truncate_dim=33)
    with pytest.raises(ConfigError, match="no named prompt"):
        run(encoder, tmp_path / "x.npy", prompt_name="query")
