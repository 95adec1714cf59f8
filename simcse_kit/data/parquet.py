"""Records from .parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, RowGate
from simcse_kit.data.json_records import check_texts
from simcse_kit.data.lines import OnBytes
from simcse_kit.errors import DataError

__all__ = ["check_text_types", "parquet_records", "parquet_schema"]

_ROWS_AT_ONCE = 4096


def parquet_schema(path: str | Path) -> Any:
    """Read the pyarrow schema of a .parquet file.

    Raises:
        DataError: The file is not parquet, is damaged, or has no row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if Path(path).stat().st_size == 0:
        raise DataError("the file is empty", file=path)
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            schema, total = opened.schema_arrow, opened.metadata.num_rows
            _ = schema.names  # decodes the names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    if total == 0:
        raise DataError("the file is empty: it has no row", file=path)
    return schema


def parquet_records(
    path: str | Path,
    gate: RowGate,
    limit: int,
    keys: Sequence[str] | None = None,
    on_bytes: OnBytes | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the rows of a .parquet file, numbered from 1.

    The text columns ``keys`` are read, with texts of at most ``limit`` bytes. Without ``keys`` all
    columns are read, and only UTF-8 is checked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = Path(path).stat().st_size
    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            total = opened.metadata.num_rows
            present = opened.schema_arrow.names
            names = present if keys is None else [name for name in keys if name in present]
            for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
                # By place, since names may repeat.
                places = (
                    range(len(names))
                    if keys is None
                    else [batch.schema.get_field_index(name) for name in names]
                )
                for row in zip(*(_values(batch.column(place)) for place in places), strict=True):
                    number += 1
                    problem = _not_utf8(row)
                    if problem is None and keys is not None:
                        problem = check_texts(row, limit)
                    if problem is None:
                        yield number, dict(zip(names, row, strict=True))
                    else:
                        gate.reject(number, problem)
                if on_bytes is not None:
                    on_bytes(size * batch.num_rows // total)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def check_text_types(schema: Any, columns: Iterable[tuple[str, bool]], path: str | Path) -> None:
    """Check that columns hold text, or lists of text where their flag in ``columns`` allows it.

    Raises:
        DataError: A column has another type; missing columns are ignored.
    """
    from pyarrow import types

    for name, lists in columns:
        place = schema.get_field_index(name)
        if place < 0:
            continue
        kind = inner = schema.field(place).type
        if lists and (
            types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        ):
            inner = kind.value_type
        if types.is_dictionary(inner):
            inner = inner.value_type
        if not (
            types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
        ):
            allowed = "string or list of string" if lists else "string"
            raise DataError(
                f"column {name!r} has type {kind}; allowed: {allowed}; name the columns that hold "
                "text with --columns a,b,c",
                file=path,
            )


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


def _not_utf8(row: tuple[Any, ...]) -> Problem | None:
    for value in row:
        if isinstance(value, UnicodeDecodeError):
            byte = value.object[value.start]
            return Problem(
                "not UTF-8",
                f"not UTF-8: byte 0x{byte:02x} at byte {value.start + 1} of the text; write the "
                "column again as UTF-8",
            )
    return None


def _damaged(path: str | Path, error: Exception) -> DataError:
    cause = " ".join(str(error).split())
    return DataError(
        f"not a readable parquet file: {cause[:200]}; write or copy it again", file=path
    )
