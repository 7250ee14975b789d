"""Writes a filling: the table with what was filled in, every probability, every decision, a report and a picture.

Labels that came in a table are written back in that table's own format, as ``filled.csv``, ``.tsv`` or ``.parquet``,
see `label_tables.rewriting`. Of another data set ``filled.csv`` is a table as the data set ``table`` reads it: 1
present, 0 absent, empty unknown, one row an image, with the images that were not trained on too. Rows are written one
after the other, so that a large table needs little memory beside its labels.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.label_tables.rewriting import Entries, SourceTable, rewrite
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.filling import sheet, tables
from mlrpl_bench.tools.filling.fill_in import Filling
from mlrpl_bench.training.inputs import Inputs
from mlrpl_bench.utils.files import write_atomically, write_lines_atomically

FILLED, PROBABILITIES, DECISIONS = "filled", "probabilities.csv", "decisions.csv"
REPORT, SHEET = "report.json", "contact-sheet.png"

VALUES = {PRESENT: "1", ABSENT: "0", UNKNOWN: ""}
"""This maps a label to its text."""


@dataclass(frozen=True)
class Sources:
    """This says what the rows of the whole table are.

    Attributes:
        splits: by the name in the column ``split``, all images that the data set has of it.
        trained_rows: the rows of ``train`` that were filled, in the filling's order.
        root: the data set's folder, to which paths are relative.
        table: the table that the labels came in; None where there is none.
    """

    splits: dict[str, Split]
    trained_rows: NDArray[np.intp]
    root: Path
    table: SourceTable | None = None

    @classmethod
    def from_inputs(cls, inputs: Inputs, evaluated_on: str, root: Path, table: SourceTable | None = None) -> Sources:
        """Return the sources of a study; images held out of the training set are in ``train``."""
        (whole, trained_rows), (evaluated, _) = inputs.sources["train"], inputs.sources["test"]
        splits = {"train": whole} if evaluated is whole else {"train": whole, evaluated_on: evaluated}
        return cls(splits, trained_rows, root, table)


def write(filling: Filling, sources: Sources, folder: Path, title: str) -> list[Path]:
    """Write all files into a folder; those of an earlier filling are replaced.

    Args:
        title: of the picture.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written; it is named.
        UserError: an image cannot be decoded; all but the picture is written then.
    """
    filled = _write_table(filling, sources, folder)
    names = [image_name(filling.split, row, sources.root) for row in range(len(filling.split))]
    write_lines_atomically(folder / PROBABILITIES, _lines(_probabilities(filling, names)))
    write_lines_atomically(folder / DECISIONS, _lines(_decisions(filling, names)))
    report = {"title": title, **tables.to_json(filling)}
    write_atomically(folder / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_atomically(folder / SHEET, sheet.draw(filling, title))
    return [filled, *(folder / name for name in (PROBABILITIES, DECISIONS, REPORT, SHEET))]


def _write_table(filling: Filling, sources: Sources, folder: Path) -> Path:
    """Write the whole table with what was filled in; where it came as a table, in the format that it came in."""
    if sources.table is None:
        path = folder / f"{FILLED}.csv"
        write_lines_atomically(path, _lines(_filled(filling, sources)))
        return path
    path = folder / f"{FILLED}{sources.table.file.path.suffix.lower()}"
    split = filling.split
    images, is_unknown_NC = [str(identity) for identity in split.ids], split.labels_NC == UNKNOWN
    entries = Entries(images, split.categories, filling.probabilities_NC, filling.decisions_NC, is_unknown_NC)
    rewrite(sources.table, entries, path)
    return path


def _filled(filling: Filling, sources: Sources) -> Iterator[list[str]]:
    """Yield the whole table: given labels as they are, decisions in place of unknown ones."""
    yield ["image", "split", *filling.split.categories]
    places = {row: place for place, row in enumerate(sources.trained_rows.tolist())}
    for name, split in sources.splits.items():
        for row in range(len(split)):
            labels_C = split.labels_NC[row]
            if name == "train" and (place := places.get(row)) is not None:
                labels_C = np.where(labels_C == UNKNOWN, filling.decisions_NC[place], labels_C)
            yield [image_name(split, row, sources.root), name, *(VALUES[label] for label in labels_C.tolist())]


def _probabilities(filling: Filling, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the probability of each unknown label of the training images; empty where a label was given."""
    yield ["image", *filling.split.categories]
    for name, probabilities_C in zip(names, filling.probabilities_NC, strict=True):
        yield [name, *("" if one != one else f"{one:.6g}" for one in probabilities_C.tolist())]  # NaN is not itself


def _decisions(filling: Filling, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield a row for each entry that was filled in."""
    yield ["image", "category", "value", "probability"]
    categories = filling.split.categories
    for name, decisions_C, probabilities_C in zip(names, filling.decisions_NC, filling.probabilities_NC, strict=True):
        for column in np.flatnonzero(decisions_C).tolist():
            yield [name, categories[column], VALUES[int(decisions_C[column])], f"{probabilities_C[column]:.6g}"]


def image_name(split: Split, row: int, root: Path) -> str:
    """Return an image's id if its path ends in it, as in a table of labels, else its path relative to the root."""
    path, identity = split.image_paths[row], str(split.ids[row])
    if identity and path.as_posix().endswith(f"/{identity}"):
        return identity
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _lines(rows: Iterable[list[str]]) -> Iterator[str]:
    """Yield rows as lines of CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
