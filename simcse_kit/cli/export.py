"""Command `simcse export`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.output_paths import check_folder_place

if TYPE_CHECKING:
    from simcse_kit.encoder.export.export import Exported

__all__ = ["export_command"]


def export_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    format: Annotated[str, typer.Option(help="onnx (fp32) or openvino (fp32 and int8).")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Output folder.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to int8; needs --calibration.")
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Text like the text to be encoded, one sentence per line."
        ),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="PAIRS", help="Graded pairs to measure the loss of score on."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="Pooling, instead of the model's own.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the content of the output folder.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code from the model folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Export MODEL as one graph for ONNX Runtime or OpenVINO, verified against torch."""
    from simcse_kit.data.lines import read_lines
    from simcse_kit.data.remote import local_file
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.encoder.export.export import check_format, export_encoder
    from simcse_kit.evaluation.dev_set import DevSet

    check_format(format, int8=int8)
    if int8 and calibration is None:
        raise ConfigError(
            "--int8 needs --calibration FILE: sentences like those to be encoded, one per line"
        )
    check_folder_place(output, "--output")
    pairs = None if dev is None else DevSet.load(dev)
    encoder = SentenceEncoder.load(
        model, pooling=pooling, trust_remote_code=trust_remote_code, device="cpu"
    )
    result = export_encoder(
        encoder,
        output,
        format=format,
        int8=int8,
        calibration=None if calibration is None else read_lines(local_file(calibration)),
        overwrite=overwrite,
        source=model,
    )
    if pairs is not None:
        exported = SentenceEncoder.load(output, max_length=encoder.max_length, device="cpu")
        scores = [pairs.score(each)["spearman"] for each in (encoder, exported)]
        result = replace(result, fp32_score=scores[0], score=scores[1])
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    else:
        typer.echo(_summary(result, None if pairs is None else pairs.name))


def _summary(result: Exported, pairs: str | None) -> str:
    lines = [
        f"{result.format} {result.precision}, {result.bytes / 1e6:,.1f} MB: {result.folder}",
        f"fp32 graph against torch: largest difference {result.max_difference:.1e} over "
        f"{result.sentences} sentences",
    ]
    if result.cosine_mean is not None:
        lines.append(
            f"int8 against fp32: mean cosine {result.cosine_mean:.5f}, minimum "
            f"{result.cosine_min:.5f} on {result.held_out} held-out sentences "
            f"(calibrated on {result.calibrated_on} others)"
        )
    if result.score is not None and result.fp32_score is not None:
        lines.append(
            f"Spearman on {pairs}: fp32 {result.fp32_score:.2f}, exported {result.score:.2f}, "
            f"loss {result.fp32_score - result.score:+.2f}"
        )
    elif result.precision == "int8":
        lines.append("the loss of score was not measured; give graded pairs with --dev")
    return "\n".join(lines)
