"""`simcse export`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.output_paths import check_folder_place

if TYPE_CHECKING:
    from simcse_kit.encoder.export.export import Exported

__all__ = ["export_command"]


def export_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    format: Annotated[str, typer.Option(help="onnx or openvino.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Where the exported encoder goes.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise; needs --calibration.")] = False,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text like that to be encoded, one sentence a line."),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="PAIRS", help="Graded pairs to measure the loss of score on."),
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is in the output folder.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Write MODEL as one graph for ONNX Runtime or OpenVINO, verified against torch."""
    if int8 and calibration is None:
        raise ConfigError(
            "--int8 needs --calibration FILE: sentences like those to be encoded, one a line"
        )
    from simcse_kit.data.lines import read_lines
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.encoder.export.base import FORMATS
    from simcse_kit.encoder.export.export import export_encoder

    FORMATS.resolve(format)
    check_folder_place(output, "--output")
    pairs = None
    if dev is not None:
        from simcse_kit.evaluation.dev_set import DevSet

        pairs = DevSet.load(dev)
    scored = pairs  # for the closure: it does not change any more
    result = export_encoder(
        SentenceEncoder.load(model, pooling=pooling, trust_remote_code=trust_remote_code),
        output,
        format=format,
        int8=int8,
        calibration=None if calibration is None else read_lines(calibration),
        score=None if scored is None else lambda encoder: scored.score(encoder)["spearman"],
        overwrite=overwrite,
        source=model,
    )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
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
            f"int8 against fp32: cosine {result.cosine_mean:.5f} on average, "
            f"{result.cosine_min:.5f} at least, over {result.held_out} held-out sentences of the "
            f"calibration text ({result.calibrated_on} calibrated)"
        )
    if result.score is not None and result.fp32_score is not None:
        lines.append(
            f"Spearman on {pairs}: fp32 {result.fp32_score:.2f}, exported {result.score:.2f}, "
            f"loss {result.fp32_score - result.score:+.2f}"
        )
    elif result.precision == "int8":
        lines.append("loss of score not measured; give graded pairs with --dev")
    return "\n".join(lines)
