"""Writes a table of labels back in its own format, with labels that were filled in and probabilities beside them.

Every column, row and label stays as it was; only unknown labels change. A wide table gets a column ``probability of
NAME`` for each category NAME, a long one the column ``probability`` and a row for each unknown label that it did not
name. `reading.read` leaves these columns out. Rows are written a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.label_tables.copying import Changes, Edits, copy_with
from mlrpl_bench.data.label_tables.files import CHUNK_ROWS, Chunk, TableFile
from mlrpl_bench.data.label_tables.reading import PROBABILITY, ColumnNames, is_long, normal, probability_of
from mlrpl_bench.data.label_tables.values import LabelValues
from mlrpl_bench.data.protocol import UNKNOWN


@dataclass(frozen=True)
class SourceTable:
    """The table that the labels of a dataset were read from, and how it is read."""

    file: TableFile
    names: ColumnNames
    values: LabelValues


@dataclass(frozen=True, eq=False)
class Entries:
    """This holds what is known of the unknown labels of some images.

    Attributes:
        images: N paths, as the table has them.
        categories: C names.
        probabilities_NC: of being present; NaN where a label was given, and where there is none.
        decisions_NC: int8, PRESENT or ABSENT where an unknown label is filled in, else UNKNOWN.
        is_unknown_NC: which labels nobody gave.
        split: what a long table's new rows have in the column of splits.
    """

    images: Sequence[str]
    categories: Sequence[str]
    probabilities_NC: NDArray[np.floating]
    decisions_NC: NDArray[np.int8]
    is_unknown_NC: NDArray[np.bool_]
    split: str = "train"


def rewrite(source: SourceTable, found: Entries, path: Path) -> None:
    """Write the table with what was found to a path, which has the suffix of the source.

    Raises:
        OSError: the file cannot be written.
        UserError: the table cannot be read again, or a column of a Parquet file cannot hold the value of a label.
    """
    (_Long if is_long(source.file, source.names) else _Wide)(source, found).write(path)


class _Filling:
    """Finds what changes in the rows of a table."""

    def __init__(self, source: SourceTable, found: Entries, new_columns: Sequence[str]) -> None:
        self.source, self.found, columns = source, found, source.file.columns
        self.added = [name for name in new_columns if name not in columns]
        self.columns = {name: place for place, name in enumerate([*columns, *self.added])}
        self.rows = {normal(image): row for row, image in enumerate(found.images)}
        self.image_at = self.columns[source.names.image]

    def write(self, path: Path) -> None:
        copy_with(self.source.file, Changes(self.added, self.edits, self.new_rows), path)

    def edits(self, chunk: Chunk) -> Edits:
        """Return the changes in some rows: by column, and by the row's place among them, the new text."""
        raise NotImplementedError

    def new_rows(self) -> Iterator[list[dict[int, str]]]:
        """Yield rows that come after the table's own, some at a time; each row has its text by column."""
        return iter(())

    def row_of(self, texts: Sequence[str]) -> int | None:
        """Return the row of `found` that a row of the table is about; None for an image that was not filled."""
        return self.rows.get(normal(texts[self.image_at].strip()))

    def label(self, row: int, category: int) -> str:
        """Return the text of a label that is filled in; empty where it stays unknown."""
        state = int(self.found.decisions_NC[row, category])
        return "" if state == UNKNOWN else self.source.values.text_of(state)

    def probability(self, row: int, category: int) -> str:
        """Return the text of a probability; empty where there is none."""
        value = float(self.found.probabilities_NC[row, category])
        return "" if np.isnan(value) else f"{value:.6g}"


class _Wide(_Filling):
    def __init__(self, source: SourceTable, found: Entries) -> None:
        super().__init__(source, found, [probability_of(name) for name in found.categories])

    def edits(self, chunk: Chunk) -> Edits:
        edits: Edits = {}
        places = [(at, row) for at, texts in enumerate(chunk.rows) if (row := self.row_of(texts)) is not None]
        for category, name in enumerate(self.found.categories):
            labels, probabilities = self.columns[name], self.columns[probability_of(name)]
            for at, row in places:
                if text := self.label(row, category):
                    edits.setdefault(labels, {})[at] = text
                if text := self.probability(row, category):
                    edits.setdefault(probabilities, {})[at] = text
        return edits


class _Long(_Filling):
    def __init__(self, source: SourceTable, found: Entries) -> None:
        super().__init__(source, found, [PROBABILITY])
        names = source.names
        self.category_at, self.value_at = self.columns[names.category], self.columns[names.value]
        self.categories = {name: place for place, name in enumerate(found.categories)}
        self.named_NC = np.zeros(found.is_unknown_NC.shape, dtype=bool)

    def edits(self, chunk: Chunk) -> Edits:
        edits: Edits = {}
        for at, texts in enumerate(chunk.rows):
            row, category = self.row_of(texts), self.categories.get(texts[self.category_at].strip())
            if row is None or category is None:
                continue
            self.named_NC[row, category] = True
            if text := self.label(row, category):
                edits.setdefault(self.value_at, {})[at] = text
            if text := self.probability(row, category):
                edits.setdefault(self.columns[PROBABILITY], {})[at] = text
        return edits

    def new_rows(self) -> Iterator[list[dict[int, str]]]:
        pairs = np.argwhere(self.found.is_unknown_NC & ~self.named_NC)
        for start in range(0, len(pairs), CHUNK_ROWS):
            yield [self._new_row(row, category) for row, category in pairs[start : start + CHUNK_ROWS].tolist()]

    def _new_row(self, row: int, category: int) -> dict[int, str]:
        split_at = self.columns.get(self.source.names.split)
        return {
            self.image_at: self.found.images[row],
            **({} if split_at is None else {split_at: self.found.split}),
            self.category_at: self.found.categories[category],
            self.value_at: self.label(row, category),
            self.columns[PROBABILITY]: self.probability(row, category),
        }
