"""Your own images with a table of labels: one CSV, TSV or Parquet file, in which labels may be missing.

    --set-data file=labels.csv --set-data images=pictures ...

A wide table has the column ``image``, a column for each category and perhaps ``split``; a long one has ``image``,
``category``, ``value`` and perhaps ``split``. 1 is present, 0 is absent, and an empty cell is unknown: nobody gave this
label. A file in which -1 occurs is refused until you say what -1 and 0 mean, since that differs between data sets
(``--set-data absent=-1 --set-data unknown=0``, or ``--set-data unknown=-1`` as in CheXpert). A pair of image and
category that a long table does not name is unknown.

Images are named by their path relative to the folder ``images``, which is relative to the root. Without the option
``file`` the root's only table is read. ``split`` says train, val or test; without it all images are to train on, and a
tenth of them can be held out with ``--evaluate-on val``, which takes the images of val where there are any. Parquet
needs pyarrow (``pip install 'mlrpl-bench[parquet]'``).

Order: rows as the table first names the images; columns as in a wide table, or as a long one first names the
categories.

Peculiarities: an unknown training label stays unknown at every known ratio, which is the share of the given labels that
is used. An unknown test label is not evaluated. A category of which no training image has a label is refused, or left
out with ``--set-data empty=drop``.

The usual preset is that of the photographs in the literature; ``--preset laptop`` is one for a few thousand images
without a GPU. Nothing in them was tuned for your images. Licence: that of your images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlrpl_bench import Dataset, Split, UserError, parameter, register_dataset
from mlrpl_bench.data.dataset import PHOTOGRAPHS
from mlrpl_bench.data.file_lists import refuse_outside
from mlrpl_bench.data.label_tables import reading
from mlrpl_bench.data.label_tables.files import SUFFIXES, open_table
from mlrpl_bench.data.label_tables.rewriting import SourceTable
from mlrpl_bench.data.label_tables.values import LabelValues


@register_dataset("table", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class Table(Dataset):
    """Any images with a table of labels, of which some may be unknown."""

    @dataclass(frozen=True)
    class Options(Dataset.Options):
        file: str = parameter("", "the table; empty: the root's only .csv, .tsv or .parquet file", path_to="labels")
        images: str = parameter(".", "folder to which the paths of images are relative", path_to="training images")
        image_column: str = parameter("image", "column with the path of each image")
        split_column: str = parameter("split", "column that says train, val or test; may be missing")
        category_column: str = parameter("category", "column of a long table with the name of the category")
        value_column: str = parameter("value", "column of a long table with the label")
        ignore: str = parameter("", "columns that are no categories, separated by commas")
        present: str = parameter("1", "values that mean present, separated by commas")
        absent: str = parameter("0", "values that mean absent, separated by commas")
        unknown: str = parameter("", "values that mean unknown, separated by commas; an empty cell always does")
        empty: str = parameter(
            "refuse", "what happens to a category without a known training label", choices=("refuse", "drop")
        )

    options: Options

    expected_files = """\
ROOT/
  labels.csv    (file: any one .csv, .tsv or .parquet; columns image, split if you like, and one a category)
  *.jpg ...     (named by path in the column image; relative to the option images)
"""

    def __init__(self, options: Dataset.Options | None = None) -> None:
        super().__init__(options)
        self._found: tuple[tuple[Path, int, int], reading.LabelTable] | None = None

    def splits(self, root: Path) -> tuple[str, ...]:
        """Those of train, val and test that the table has images of."""
        there = set(self._table(root).splits)
        return tuple(split for split in reading.SPLITS if split in there)

    def load(self, root: Path, split: str) -> Split:
        """The images of a split; whether their files are there is asked by whoever reads them."""
        table = self._table(root)
        if split not in reading.SPLITS:
            raise UserError(f"table has no split {split!r}; there are: {', '.join(reading.SPLITS)}")
        rows = table.rows_of(split)
        if not len(rows):
            raise UserError(
                f"{self._file(root)} has no images in {split}; add a column {self.options.split_column!r} that says "
                "train, val or test, or hold out a tenth of the training images with --evaluate-on val"
            )
        folder = root / self.options.images
        names = [table.images[row] for row in rows]
        return Split(names, [folder / name for name in names], table.labels_NC[rows], table.categories)

    def source_table(self, root: Path) -> SourceTable:
        """The table and how it is read, so that it can be written back."""
        options = self.options
        names = reading.ColumnNames(
            options.image_column,
            options.split_column,
            options.category_column,
            options.value_column,
            tuple(name.strip() for name in options.ignore.split(",") if name.strip()),
        )
        values = LabelValues(options.present, options.absent, options.unknown)
        return SourceTable(open_table(self._file(root)), names, values)

    def _table(self, root: Path) -> reading.LabelTable:
        """The whole table; read once, as all its splits are in one file."""
        file = self._file(root)
        facts = file.stat()
        identity = (file, facts.st_size, facts.st_mtime_ns)
        if self._found is None or self._found[0] != identity:
            self._found = identity, self._read(root, file)
        return self._found[1]

    def _read(self, root: Path, file: Path) -> reading.LabelTable:
        options, source = self.options, self.source_table(root)
        table = reading.read(source.file, source.names, source.values)
        refuse_outside(table.images, root / options.images, file)
        if empty := table.never_labelled():
            if len(empty) == len(table.categories):
                raise UserError(f"{file} has no known label of any category in its training images; label some images")
            if options.empty == "refuse":
                raise UserError(
                    f"{file} has no known label of {len(empty)} of {len(table.categories)} categories in its training "
                    f"images ({_some(empty)}); label some images, or leave these categories out with --set-data "
                    "empty=drop"
                )
            table = table.without(empty)
        return table

    def _file(self, root: Path) -> Path:
        if self.options.file:
            file = root / self.options.file
            if not file.is_file():
                raise UserError(f"there is no table {file}; say where it is with --set-data file=PATH")
            return file
        if not root.is_dir():
            raise UserError(f"there is no folder {root}; check the path of the data")
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
        if len(found) == 1:
            return found[0]
        if not found:
            raise UserError(f"{root} has no table ({', '.join(SUFFIXES)}); name it with --set-data file=PATH")
        raise UserError(
            f"{root} has {len(found)} tables ({_some([path.name for path in found])}); name the one to read with "
            "--set-data file=NAME"
        )


def _some(names: Sequence[str]) -> str:
    """The first names of a list, with dots for the others."""
    return ", ".join(names[: reading.NAMED]) + (", ..." if len(names) > reading.NAMED else "")
