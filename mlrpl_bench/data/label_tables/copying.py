"""Copies a table with some of its cells changed: columns and rows may be added, the format stays.

A text file keeps its delimiter, its line ends and its byte order mark, a Parquet file the types of its columns.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlrpl_bench.data.label_tables.files import Chunk, TableFile, parquet_batches, raw_header
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import written_atomically

Edits = dict[int, dict[int, str]]
"""This maps a column, and a row's place among the rows of a chunk, to a cell's new text. Added columns come last."""

Rows = list[dict[int, str]]
"""This holds the text of each row, by column; a column that is not named has none."""

BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Changes:
    """This says in what a copy differs from its table.

    Attributes:
        added: the names of the columns that come after the table's own.
        edits_of: what changes in some rows; called with all rows in order.
        new_rows: the rows that come last; called after that.
    """

    added: Sequence[str]
    edits_of: Callable[[Chunk], Edits]
    new_rows: Callable[[], Iterator[Rows]]


def copy_with(table: TableFile, changes: Changes, path: Path) -> None:
    """Write a table's rows with their changes, then the new rows.

    Raises:
        OSError: the file cannot be written.
        UserError: the table cannot be read, or a column of a Parquet file cannot hold a text.
    """
    copy = _copy_text if table.delimiter else _copy_parquet
    with written_atomically(path) as temporary:
        copy(table, changes, temporary)


def _copy_text(table: TableFile, changes: Changes, path: Path) -> None:
    added = changes.added
    width = len(table.columns) + len(added)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = _writer(table, file)
        writer.writerow([*raw_header(table), *added])
        for chunk in table.chunks():
            rows = [[*row, *([""] * len(added))] for row in chunk.rows]
            for column, texts in changes.edits_of(chunk).items():
                for at, text in texts.items():
                    rows[at][column] = text
            writer.writerows(rows)
        for some in changes.new_rows():
            writer.writerows([[row.get(column, "") for column in range(width)] for row in some])


def _writer(table: TableFile, file: IO[str]) -> Any:
    """Return a writer in the manner of the table, which has written the byte order mark if the table has one."""
    with table.path.open("rb") as source:
        beginning = source.readline()
    if beginning.startswith(BYTE_ORDER_MARK.encode()):
        file.write(BYTE_ORDER_MARK)
    line_end = "\r\n" if beginning.endswith(b"\r\n") else "\n"
    return csv.writer(file, delimiter=table.delimiter, lineterminator=line_end)


def _copy_parquet(table: TableFile, changes: Changes, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = parquet.read_schema(table.path)
    for name in changes.added:
        schema = schema.append(pyarrow.field(name, pyarrow.float64()))
    with parquet.ParquetWriter(path, schema) as writer:
        for batch, chunk in parquet_batches(table):
            edits = changes.edits_of(chunk)
            empty = [pyarrow.nulls(len(batch), pyarrow.float64())] * len(changes.added)
            columns = [
                _changed(table, schema.field(place), column, edits.get(place, {}))
                for place, column in enumerate([*batch.columns, *empty])
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
        for some in changes.new_rows():
            columns = [
                _changed(
                    table,
                    field,
                    pyarrow.nulls(len(some), field.type),
                    {at: text for at, row in enumerate(some) if (text := row.get(place, ""))},
                )
                for place, field in enumerate(schema)
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def _changed(table: TableFile, field: Any, column: Any, texts: dict[int, str]) -> Any:
    """Return a column of a Parquet file with other values in some rows, which are read from text."""
    if not texts:
        return column
    import pyarrow

    of = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    values = column.to_pylist()
    try:
        converted = pyarrow.array(list(texts.values()), pyarrow.string()).cast(of).to_pylist()
        for at, value in zip(texts, converted, strict=True):
            values[at] = value
        return pyarrow.array(values, of).cast(field.type)
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{table.path}: the column {field.name!r} of type {field.type} cannot hold what is filled in ({reason}); "
            "save the table as CSV, or give the column a type of numbers"
        ) from error
