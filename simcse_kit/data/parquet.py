"""Rows with named values from .parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, RowGate
from simcse_kit.data.files import check_file
from simcse_kit.data.json_values import check_texts
from simcse_kit.data.lines import MAX_LINE_BYTES, OnBytes
from simcse_kit.data.records import ObjectLayout
from simcse_kit.errors import DataError

__all__ = ["parquet_layout", "parquet_records"]

_BATCH = 4096


def parquet_layout(
    path: str | Path, columns: Sequence[str] | None, *, label: str | None = None
) -> ObjectLayout:
    """The layout of a .parquet file.

    Raises:
        DataError: the file is not parquet or is damaged, has no row, lacks a column, or has one of
            the wrong type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if check_file(path).stat().st_size == 0:
        raise DataError("the file is empty", file=path)
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            schema, total = opened.schema_arrow, opened.metadata.num_rows
            present = schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    layout = ObjectLayout.of(present, columns, file=path, line=None, label=label)
    for index, name in enumerate((*layout.fixed, *layout.negatives)):
        place = schema.get_field_index(name)
        if place >= 0:
            _check_type(schema.field(place).type, name, path, lists=index > 0 and label is None)
    if total == 0:
        raise DataError("the file is empty: it has no row", file=path)
    return layout.of_a_table(present)


def parquet_records(
    path: str | Path,
    layout: ObjectLayout,
    gate: RowGate,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a .parquet file, numbered from 1, with the keys of a layout.

    Raises:
        DataError: the file is damaged, or ``gate`` does not skip.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = check_file(path).stat().st_size
    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            total = opened.metadata.num_rows
            present = set(opened.schema_arrow.names)
            names = [name for name in layout.read_keys() if name in present]
            for batch in opened.iter_batches(batch_size=_BATCH, columns=names):
                chosen = [batch.column(batch.schema.get_field_index(name)) for name in names]
                for row in zip(*map(_values, chosen), strict=True):
                    number += 1
                    problem = _check_row(row, max_line_bytes)
                    if problem is None:
                        yield number, dict(zip(names, row, strict=True))
                    else:
                        gate.reject(number, problem)
                if on_bytes is not None:
                    on_bytes(size * batch.num_rows // total)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _check_row(row: tuple[Any, ...], max_bytes: int) -> Problem | None:
    for value in row:
        if isinstance(value, UnicodeDecodeError):
            byte = value.object[value.start]
            return Problem(
                "not UTF-8",
                f"not UTF-8: byte 0x{byte:02x} at byte {value.start + 1} of the text; write the "
                "column again as UTF-8",
            )
    return check_texts(row, max_bytes)


def _check_type(kind: Any, name: str, path: str | Path, *, lists: bool) -> None:
    from pyarrow import types

    inner = kind
    if lists and (
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    ):
        inner = kind.value_type
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not (types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)):
        allowed = "string or list of string" if lists else "string"
        raise DataError(
            f"column {name!r} has type {kind}; allowed: {allowed}; name the columns that hold text "
            "with --columns a,b,c",
            file=path,
        )


def _damaged(path: str | Path, error: Exception) -> DataError:
    cause = " ".join(str(error).split())
    return DataError(
        f"not a readable parquet file: {cause[:200]}; write or copy it again", file=path
    )
