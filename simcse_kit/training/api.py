"""Training from Python: keyword arguments, and data in files or in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, Unpack

from simcse_kit.config import SHORT_NAMES, RunConfig, named_settings
from simcse_kit.data.in_memory import is_table, write_rows
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.registry import closest
from simcse_kit.training.plan import StartOptions
from simcse_kit.training.preset_choice import load_run_config
from simcse_kit.training.result import TrainResult
from simcse_kit.training.run import run_training
from simcse_kit.utils.settings import nested

__all__ = ["TrainOptions", "train"]


class TrainOptions(TypedDict, total=False):
    """Keyword arguments of :func:`train` that set one key of the configuration, or the start.

    The defaults are those of the preset and of the configuration file, then those of
    :class:`~simcse_kit.config.RunConfig`.

    Attributes:
        model: bundled name, folder or Hub name of the encoder to start from; ``"mini"`` by default.
        pooling: pooling that replaces the model's own, such as ``"mean"``.
        method: name of the method, see ``simcse methods``, or a subclass of
            :class:`~simcse_kit.methods.common.base.Method`.
        teachers: models that method ``"distill"`` learns from: names as for ``simcse eval``.
        objective: the loss of the method, such as ``"info_nce"`` or ``"decoupled"``.
        temperature: temperature of the loss.
        output: folder of the encoder; ``"simcse-output"`` by default.
        dev: folder with STS-B, or file of graded pairs, to choose the checkpoint by; or pairs in
            memory: tuples (sentence1, sentence2, score), or a table such as a DataFrame.
        epochs: passes over the data.
        max_steps: number of steps, instead of ``epochs``.
        batch_size: rows of a step.
        patience: evaluations without a better score after which training stops; by default it
            makes all steps.
        memory_budget: such as ``"4GB"``: larger batches are computed in chunks that fit.
        learning_rate: peak learning rate.
        seed: seed of new weights, shuffling and dropout.
        deterministic: allow only deterministic operators; for GPUs.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; by default ``"auto"``: CUDA, else
            MPS, else the CPU.
        precision: ``"fp32"`` or ``"bf16"`` (autocast); by default ``"auto"``: bf16 on a CUDA GPU
            that has it, else fp32.
        tf32: multiply fp32 matrices with 10-bit mantissas; for CUDA GPUs.
        augment: chain of augmentations, or a list with one for each view.
        max_length: most tokens of a sentence.
        columns: names or positions of the columns to read.
        label: column of the number in labelled pairs.
        scale: lowest and highest score that a pair could have; found from the scores by default.
        merge: with ``settings={"model.lora.r": 8}``, also save the merged encoder in ``merged``.
        on_bad_row: ``"error"`` or ``"skip"``.
        allow_unknown: train even if the vocabulary of the model lacks most tokens.
        on_collapse: ``"warn"``, ``"stop"`` or ``"rollback"``.
        resume: continue the run in the output folder.
        overwrite: replace an earlier run in the output folder once the new one is complete.
        allow_changed: resume even if the configuration or the training text has changed.
        allow_call: modules and packages whose functions augmentations may call.
        report: write ``training.html`` with the curves; True by default.
    """

    model: str | Path
    pooling: str
    method: str | type[Method]
    teachers: Sequence[str | Path]
    objective: str
    temperature: float
    output: str | Path
    dev: str | Path | Iterable[Any]
    epochs: float
    max_steps: int
    batch_size: int
    patience: int
    memory_budget: str | int
    learning_rate: float
    seed: int
    deterministic: bool
    device: str
    precision: str
    tf32: bool
    augment: str | list[str]
    max_length: int
    columns: Sequence[str]
    label: str
    scale: Sequence[float]
    merge: bool
    on_bad_row: str
    allow_unknown: bool
    on_collapse: str
    resume: bool
    overwrite: bool
    allow_changed: bool
    allow_call: Collection[str]
    report: bool


def train(
    data: RunConfig | str | Path | Iterable[Any] | None = None,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[object] = (),
    **options: Unpack[TrainOptions],
) -> TrainResult:
    """Train a sentence encoder and save the best checkpoint.

    Later sources win: the defaults, ``preset``, ``config``, ``settings``, then the other keyword
    arguments. Everything is checked before the model is loaded.

    Args:
        data: the training data, one of

            - a file or folder: a string or a ``Path``, or a list of ``Path`` objects; as a string
              also an address or a data set of the Hub, see
              :func:`~simcse_kit.data.remote.local_files`;
            - rows in memory: a list, a generator or a ``datasets.Dataset`` of strings, of tuples
              (anchor, positive), (anchor, positive, hard negative, ...) or (text, text, number),
              or of dicts with named columns; or a DataFrame of pandas or polars. They are written
              to the cache of corpora, see ``$SIMCSE_CACHE``;
            - None, if ``config`` names the files;
            - a :class:`~simcse_kit.config.RunConfig`, the whole configuration, for which no preset
              is chosen.
        preset: name of a preset; ``simcse presets`` lists them. By default it is chosen by the
            model and the data, unless ``config`` or ``method`` determine the method; ``"none"``
            for the plain defaults.
        config: a TOML file, such as the run.toml of an earlier run.
        settings: any key of the configuration, such as ``{"method.queue_size": 512}``.
        callbacks: functions that are called with each new row of metrics.jsonl, a dict of numbers
            by name; or instances of ``transformers.TrainerCallback``, which can also stop the
            training. A stopped run keeps its best checkpoint.
        **options: see :class:`TrainOptions`.

    Returns:
        The result: ``result.encoder`` is the trained encoder, ``result.output`` its folder,
        ``result.best_score`` its score, ``result.history`` everything that was measured.

    Raises:
        ConfigError: a setting is wrong, the memory budget is too small, or the output folder
            cannot be used.
        DataError: the training data or the dev set is wrong; a row in memory is named by its
            number, from 1.
        ModelError: the model cannot be opened or lacks what the method needs, or training diverged.
        SimcseError: another process of the run has ended.

    Examples:
        >>> import tempfile
        >>> animals = ["cat", "dog", "bird", "horse", "fish", "mouse", "cow", "sheep"]
        >>> pairs = [(f"The {name} is sleeping.", f"A sleeping {name}.") for name in animals]
        >>> rows = []
        >>> result = train(
        ...     pairs,
        ...     output=tempfile.mkdtemp(),
        ...     batch_size=4,
        ...     max_steps=2,
        ...     callbacks=[rows.append],
        ... )
        >>> result.steps, rows == result.history
        (2, True)
        >>> result.encoder.encode(["A new sentence."]).shape
        (1, 256)
    """
    start, report, named = _sorted_options(options)
    if isinstance(data, RunConfig):
        if preset or config or settings or named:
            given = ", ".join(named) or "preset, config or settings"
            raise ConfigError(
                f"train() got a RunConfig, which is the whole configuration, and also {given}; "
                "change the RunConfig, or give the data as the first argument"
            )
        return run_training(data, start, callbacks=callbacks, report=report)
    if not isinstance(named.get("dev", ""), str):
        named["dev"] = str(write_rows(named["dev"]).path)
    rows = None
    if isinstance(data, str | Path):
        named["train"] = [str(data)]
    elif isinstance(data, list | tuple) and data and all(isinstance(row, Path) for row in data):
        named["train"] = list(map(str, data))
    elif data is not None:
        if not (is_table(data) or isinstance(data, Iterable)):
            raise ConfigError(
                f"train() got a {type(data).__name__} as data; give a file, a list of sentences or "
                "tuples, a datasets.Dataset, or a RunConfig"
            )
        rows = write_rows(data)
        named["train"] = [str(rows.path)]
        if rows.label is not None:
            named.setdefault("label", rows.label)
    tables = [nested(key, _plain(value)) for key, value in (settings or {}).items()]
    resolved = load_run_config(
        preset=preset,
        file=config,
        overrides=[*tables, named_settings(**named)],
        source="train()",
        allow_call=start.allow_call,
    )
    with nullcontext() if rows is None else rows.errors_by_row():
        return run_training(resolved, start, callbacks=callbacks, report=report)


def _sorted_options(given: Mapping[str, Any]) -> tuple[StartOptions, bool, dict[str, Any]]:
    """Separate the options of the start, ``report``, and the settings of the configuration."""
    of_start = [field.name for field in fields(StartOptions)]
    known = [*(name for name in SHORT_NAMES if name != "train"), *of_start, "report"]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"train() has no argument {name!r}{closest(name, known)}; give any other setting "
                "by its key, such as settings={'method.queue_size': 512}"
            )
    start = StartOptions(**{name: given[name] for name in of_start if name in given})
    named = {key: _plain(value) for key, value in given.items() if key in SHORT_NAMES}
    return start, given.get("report", True), named


def _plain(value: Any) -> Any:
    """Convert paths, tuples and classes to what TOML has."""
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
