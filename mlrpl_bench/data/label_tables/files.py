"""Streams the rows of a table as text: CSV, TSV or Parquet, a chunk of rows at a time.

CSV and TSV are read by Python's own reader because it tells a short line from a line with empty fields; a file that
was cut off while it was copied must not pass for one with unknown labels.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlrpl_bench.utils.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
CHUNK_ROWS = 10_000
"""This many rows are held as text at a time: with 100 columns about 10 MB."""


class Chunk(NamedTuple):
    """These are some rows of a table.

    Attributes:
        numbers: of each row, as a spreadsheet counts: the header of a text file is row 1; Parquet's first row is 1.
        rows: of each row a text for each column; an empty text where there is no value.
    """

    numbers: list[int]
    rows: list[Sequence[str]]


@dataclass(frozen=True)
class TableFile:
    """A table on disk of which only the names of the columns were read.

    Attributes:
        columns: their names, without white space around them.
        delimiter: what separates columns in a text file; empty for Parquet.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in order, at most `CHUNK_ROWS` at a time; blank lines of a text file are no rows.

        Raises:
            UserError: the file is not UTF-8, a row has another number of columns than the header, or it is damaged.
        """
        return _text_chunks(self) if self.delimiter else _parquet_chunks(self)


def open_table(path: Path) -> TableFile:
    """Return the table in a file; its columns are read, its rows are not.

    A ``.csv`` without a single comma in its header but with semicolons is separated by these, as spreadsheet programs
    write it in countries with a decimal comma.

    Raises:
        UserError: the file is missing, is none of `SUFFIXES`, is no such table, or has two columns of one name.
    """
    if not path.is_file():
        raise UserError(f"there is no table {path}; say where it is with --set-data file=PATH")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is no table that can be read; save it as one of: {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        names, delimiter = _parquet(path).schema_arrow.names, ""
    else:
        delimiter = "\t" if suffix == ".tsv" else _delimiter(path)
        names = _header(path, delimiter)
    columns = tuple(name.strip() for name in names)
    for place, name in enumerate(columns):
        if name in columns[:place]:
            raise UserError(f"{path} has two columns called {name!r}; rename or remove one of the two")
    return TableFile(path, columns, delimiter)


def _delimiter(path: Path) -> str:
    (line,) = _lines(path, 1) or [""]
    return ";" if "," not in line and ";" in line else ","


def _header(path: Path, delimiter: str) -> list[str]:
    with _refusing(path), path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter, strict=True), [])
    if not any(name.strip() for name in header):
        raise UserError(f"{path} does not begin with the names of its columns; write them into its first line")
    return header


def _lines(path: Path, count: int) -> list[str]:
    with _refusing(path), path.open(encoding="utf-8-sig", newline="") as file:
        return list(islice(file, count))


def _text_chunks(table: TableFile) -> Iterator[Chunk]:
    width = len(table.columns)
    with _refusing(table.path), table.path.open(encoding="utf-8-sig", newline="") as file:
        numbered = enumerate(csv.reader(file, delimiter=table.delimiter, strict=True), start=1)
        next(numbered)  # the header
        while some := list(islice(numbered, CHUNK_ROWS)):
            kept = [(number, row) for number, row in some if row]
            for number, row in kept:
                if len(row) != width:
                    raise UserError(
                        f"{table.path}, row {number} has {len(row)} columns where the header has {width}; mend the "
                        "row, or copy the file again if it was cut off there"
                    )
            yield Chunk([number for number, _ in kept], [row for _, row in kept])


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what can be wrong with a text file into one line for the user."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 ({error.reason}: {error.object[error.start : error.start + 1]!r}); save it again as "
            "UTF-8 (spreadsheet programs call it CSV UTF-8)"
        ) from error
    except csv.Error as error:
        raise UserError(f"{path} is no table of text ({error}); check its quotes, or save it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"reading {path} needs pyarrow; install it with pip install 'mlrpl-bench[parquet]', or save the table as "
            "CSV"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no Parquet file or damaged ({reason}); write it again") from error


def raw_header(table: TableFile) -> list[str]:
    """Return the names of the columns of a text file as they are written, with white space around them."""
    return _header(table.path, table.delimiter)


def _parquet_chunks(table: TableFile) -> Iterator[Chunk]:
    return (chunk for _, chunk in parquet_batches(table))


def parquet_batches(table: TableFile) -> Iterator[tuple[Any, Chunk]]:
    """Yield the rows of a Parquet file as pyarrow's record batches, each with the same rows as text.

    Raises:
        UserError: the file is damaged.
    """
    from pyarrow import ArrowException

    number = 1
    try:
        for batch in _parquet(table.path).iter_batches(CHUNK_ROWS):
            columns = [_texts(column) for column in _without_index(batch).to_pandas().items()]
            yield batch, Chunk(list(range(number, number + len(batch))), list(zip(*columns, strict=True)))
            number += len(batch)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{table.path} is damaged ({reason}); write it again") from error


def _without_index(batch: Any) -> Any:
    """Return a record batch whose columns are all columns for pandas too, each of the type that pandas wrote."""
    about = batch.schema.pandas_metadata
    if not about:
        return batch
    return batch.replace_schema_metadata({"pandas": json.dumps({**about, "index_columns": []})})


def _texts(column: tuple[Any, pd.Series]) -> NDArray[np.object_]:
    """Return a column's values as a CSV file would hold them; each different value is turned into text once."""
    codes_N, values = pd.factorize(column[1])  # a code of -1 stands for a missing value, and finds the last text
    return np.array([*map(_text, values), ""], dtype=object)[codes_N]


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(value)
