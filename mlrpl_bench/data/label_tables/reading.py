"""Reads a table of labels into arrays: one row an image (wide), or one row an image and a category (long).

A wide table has a column for each category; a long one has the columns category and value. Rows stand in the order in
which images are first named, categories in the order of their columns (wide) or in which they are first named (long);
this order decides the mask. Rows are read in chunks, so that a large table needs little memory beside its labels.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.file_lists import is_text
from mlrpl_bench.data.label_tables.files import CHUNK_ROWS, Chunk, TableFile
from mlrpl_bench.data.label_tables.values import NUMBER, LabelValues, NoLabel
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.utils.errors import UserError

SPLITS = ("train", "val", "test")
PROBABILITY = "probability"
"""The column of a long table that has a label's probability of being present, and is not read."""
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
PANDAS_INDEX = "__index_level_0__"
"""The column that pandas adds to a Parquet file for an index without a name; in a text file it has no name."""
NAMED = 5
"""At most this many categories are named in a line."""


@dataclass(frozen=True)
class ColumnNames:
    """The names of the columns that are no categories.

    Attributes:
        image: the column with the path of each image.
        split: the column that says to which of `SPLITS` an image belongs; a table may lack it.
        category, value: the columns of a long table.
        ignored: columns that are not read.
    """

    image: str = "image"
    split: str = "split"
    category: str = "category"
    value: str = "value"
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelTable:
    """These are the labels of a table.

    Attributes:
        images: N paths as the table has them.
        splits: of each image one of `SPLITS`; all ``train`` where the table has no such column.
        labels_NC: int8, PRESENT, ABSENT or UNKNOWN.
        categories: C names.
    """

    images: Sequence[str]
    splits: Sequence[str]
    labels_NC: NDArray[np.int8]
    categories: tuple[str, ...]

    def rows_of(self, split: str) -> NDArray[np.intp]:
        """Return the rows of a split, in ascending order."""
        return np.flatnonzero(np.array([of == split for of in self.splits], dtype=bool))

    def without(self, categories: Sequence[str]) -> LabelTable:
        """Return the same without some categories."""
        kept = [column for column, name in enumerate(self.categories) if name not in categories]
        return replace(
            self, labels_NC=self.labels_NC[:, kept], categories=tuple(self.categories[column] for column in kept)
        )

    def never_labelled(self) -> list[str]:
        """Return the categories of which no training image has a known label."""
        known_C, rows = np.zeros(len(self.categories), dtype=bool), self.rows_of("train")
        for start in range(0, len(rows), CHUNK_ROWS):  # a part at a time: a copy of all labels may be large
            known_C |= (self.labels_NC[rows[start : start + CHUNK_ROWS]] != UNKNOWN).any(axis=0)
        return [name for name, known in zip(self.categories, known_C, strict=True) if not known]


def read(table: TableFile, names: ColumnNames, values: LabelValues) -> LabelTable:
    """Return the labels of a table; it is long if it has both columns of a long table, else wide.

    Raises:
        UserError: a column is missing or a category is called like one, a value is no label, an image is named twice
            or stands in two splits, two rows of a long table contradict each other, or a text is not UTF-8. The line
            names the row, counted as in a spreadsheet.
    """
    ignored = [name for name in names.ignored if name not in table.columns]
    if names.image not in table.columns:
        raise _no_column(table, names.image, "image_column")
    if ignored:
        raise _no_column(table, ignored[0], "ignore")
    return (_read_long if is_long(table, names) else _read_wide)(table, names, values)


def is_long(table: TableFile, names: ColumnNames) -> bool:
    """Tell whether a table has both columns of a long one."""
    return names.category in table.columns and names.value in table.columns


def probability_of(category: str) -> str:
    """Return the column of a wide table that has a category's probabilities of being present, and is not read.

    >>> probability_of("cat")
    'probability of cat'
    """
    return f"{PROBABILITY} of {category}"


def _no_column(table: TableFile, name: str, option: str) -> UserError:
    if found := _other_separator(table):
        other = ".csv" if table.path.suffix.lower() == ".tsv" else ".tsv"
        return UserError(
            f"{table.path} has no column {name!r} but seems to be separated by {found}, which files called {other} may "
            f"be; rename it so, or save it again with {SEPARATORS[table.delimiter]}"
        )
    shown = ", ".join(map(repr, table.columns[:NAMED])) + (", ..." if len(table.columns) > NAMED else "")
    return UserError(
        f"{table.path} has no column {name!r}, its columns are {shown}; name the right one with --set-data "
        f"{option}=NAME"
    )


def _other_separator(table: TableFile) -> str:
    """Return what seems to separate the columns of a text file that was read as a single one; empty if nothing does."""
    if len(table.columns) > 1 or not table.delimiter:
        return ""
    there = (word for mark, word in SEPARATORS.items() if mark != table.delimiter and mark in table.columns[0])
    return next(there, "")


@dataclass
class _Images:
    """Collects the images of a table's rows, with the split of each.

    Attributes:
        places: of each image, by its normal path, its row in the labels.
        paths: of each image, as the table has it.
        splits: of each image.
        numbers: of each image, the row of the table that names it first.
    """

    table: TableFile
    image_at: int
    split_at: int | None
    places: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def from_table(cls, table: TableFile, names: ColumnNames) -> _Images:
        columns = table.columns
        return cls(table, columns.index(names.image), columns.index(names.split) if names.split in columns else None)

    def place(self, number: int, row: Sequence[str]) -> tuple[int, bool]:
        """Return the place of a row's image, and whether it was named before."""
        path = row[self.image_at].strip()
        split = "train" if self.split_at is None else self._split(number, row[self.split_at])
        place = self.places.setdefault(normal(path), len(self.paths))
        if place < len(self.paths):
            if split is not self.splits[place]:
                raise UserError(
                    f"{self.table.path}: the image {path!r} is in {self.splits[place]} (row {self.numbers[place]}) and "
                    f"in {split} (row {number}); leave it in one of them"
                )
            return place, True
        if not path or not is_text(path):
            raise UserError(f"{self.table.path}, row {number} names no image ({path!r}); write its path there")
        self.paths.append(path)
        self.splits.append(split)
        self.numbers.append(number)
        return place, False

    def _split(self, number: int, text: str) -> str:
        for split in SPLITS:  # the same object for all images: a million need no memory
            if text.strip() == split:
                return split
        raise UserError(
            f"{self.table.path}, row {number}: {text!r} is no split; there are: {', '.join(SPLITS)}. Correct it, or "
            "name another column with --set-data split_column=NAME"
        )


def normal(path: str) -> str:
    """Return the normal form of a path: two paths with the same one are the same file."""
    return os.path.normpath(path) if "/." in path or path.startswith("./") or "//" in path else path


def _read_wide(table: TableFile, names: ColumnNames, values: LabelValues) -> LabelTable:
    others = {names.image, names.split, *names.ignored, *map(probability_of, table.columns)}
    columns = [place for place, name in enumerate(table.columns) if name not in others]
    categories = tuple(table.columns[place] for place in columns)
    _check_categories(table, categories, names)
    images, states = _Images.from_table(table, names), bytearray()
    for chunk in table.chunks():
        for number, row in zip(*chunk, strict=True):
            place, named_before = images.place(number, row)
            if named_before:
                raise UserError(
                    f"{table.path} names the image {images.paths[place]!r} in row {images.numbers[place]} and in row "
                    f"{number}; keep one of the two"
                )
        states += _states(table, chunk, columns, values)
    labels_NC = np.frombuffer(states, dtype=np.int8).reshape(-1, len(categories))
    return _checked(table, LabelTable(images.paths, images.splits, labels_NC, categories))


def _states(table: TableFile, chunk: Chunk, columns: Sequence[int], values: LabelValues) -> bytes:
    """Return the label states of some rows, one byte each, row after row."""
    texts = itemgetter(*columns) if len(columns) > 1 else lambda row: (row[columns[0]],)
    state = values.__getitem__
    try:
        return b"".join([b"".join(map(state, texts(row))) for row in chunk.rows])
    except NoLabel:
        for number, row in zip(*chunk, strict=True):
            for column in columns:
                _state(table, number, table.columns[column], row[column], values, may_be_ignored=True)
        raise AssertionError("a value that has no meaning is found again") from None


def _state(
    table: TableFile, number: int, column: str, text: str, values: LabelValues, may_be_ignored: bool = False
) -> bytes:
    try:
        return values[text]
    except NoLabel as error:
        value, advice = error.args
        if may_be_ignored and not NUMBER.fullmatch(value.strip()):
            advice += f"; a column that is no category is left out with --set-data ignore={column}"
        raise UserError(f"{table.path}, row {number}, column {column!r}: {value!r} is no label; {advice}") from None


def _read_long(table: TableFile, names: ColumnNames, values: LabelValues) -> LabelTable:
    category_at, value_at = table.columns.index(names.category), table.columns.index(names.value)
    known = {names.image, names.split, names.category, names.value, PROBABILITY, *names.ignored}
    if odd := [name for name in table.columns if name not in known]:
        raise UserError(
            f"{table.path} is a long table (it has the columns {names.category!r} and {names.value!r}), and has the "
            f"column {odd[0]!r} beside them; leave it out with --set-data ignore={odd[0]}"
        )
    images = _Images.from_table(table, names)
    columns: dict[str, int] = {}
    image_S, category_S, state_S, number_S = array("q"), array("q"), bytearray(), array("q")
    for chunk in table.chunks():
        for number, row in zip(*chunk, strict=True):
            image_S.append(images.place(number, row)[0])
            category_S.append(columns.setdefault(row[category_at].strip(), len(columns)))
            state_S += _state(table, number, names.value, row[value_at], values)
            number_S.append(number)
    categories = tuple(columns)
    _check_categories(table, categories, names)
    labels_NC = np.zeros((len(images.paths), len(categories)), dtype=np.int8)
    pairs_S = np.frombuffer(image_S, dtype=np.int64) * len(categories) + np.frombuffer(category_S, dtype=np.int64)
    states_S = np.frombuffer(state_S, dtype=np.int8)
    given_S = states_S != UNKNOWN
    labels_NC.ravel()[pairs_S[given_S]] = states_S[given_S]
    contradicted_S = given_S & (labels_NC.ravel()[pairs_S] != states_S)
    found = LabelTable(images.paths, images.splits, labels_NC, categories)
    if contradicted_S.any():
        raise _contradiction(table, found, int(np.argmax(contradicted_S)), pairs_S, states_S, number_S)
    return _checked(table, found)


def _contradiction(
    table: TableFile,
    found: LabelTable,
    first: int,
    pairs_S: NDArray[np.int64],
    states_S: NDArray[np.int8],
    numbers: Sequence[int],
) -> UserError:
    """Return the line about a row whose pair another row gives the other label."""
    other = int(np.argmax((pairs_S == pairs_S[first]) & (states_S == -states_S[first])))
    image, category = divmod(int(pairs_S[first]), len(found.categories))
    words = {PRESENT: "present", ABSENT: "absent"}
    row, state = min((numbers[at], words[states_S[at]]) for at in (first, other))
    later_row, later_state = max((numbers[at], words[states_S[at]]) for at in (first, other))
    return UserError(
        f"{table.path}: {found.categories[category]!r} is {state} in {found.images[image]!r} in row {row} and "
        f"{later_state} in row {later_row}; keep one of the two"
    )


def _check_categories(table: TableFile, categories: Sequence[str], names: ColumnNames) -> None:
    options = {ColumnNames.image: "image", names.image: "image", ColumnNames.split: "split", names.split: "split"}
    options = {name.casefold(): option for name, option in options.items()}
    for name in categories:
        if name.casefold() in options:
            raise UserError(
                f"{table.path} has a category called {name!r}, like a column; rename it, or if it is that column say "
                f"so with --set-data {options[name.casefold()]}_column={name}"
            )
        if name in table.columns and (not name or name == PANDAS_INDEX):
            called = f"is called {name}" if name else "has no name"
            raise UserError(
                f"{table.path}: column {table.columns.index(name) + 1} of the header {called}, as the index has that "
                "pandas adds; remove the column, or write the table with index=False"
            )
        if not name or not is_text(name) or not name.isprintable():
            raise UserError(f"{table.path} has a category without a name that can be printed ({name!r}); rename it")
    if not categories:
        raise UserError(f"{table.path} has no column of a category; add one for each category, or category and value")


def _checked(table: TableFile, found: LabelTable) -> LabelTable:
    if not found.images:
        raise UserError(f"{table.path} has no rows below its header; write one for each image")
    if "train" not in found.splits:
        raise UserError(f"{table.path} has no image in train; write train into the split column of those to learn from")
    return found
