"""Writes a filling: the table with what was filled in, every probability, every decision, a report and a picture.

``filled.csv`` is a table of labels as the data set ``table`` reads it: 1 present, 0 absent, empty unknown, one row an
image, with the images that were not trained on too. Rows are written one after the other, so that a large table needs
little memory beside its labels.
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
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.filling import sheet, tables
from mlrpl_bench.tools.filling.fill_in import Filling
from mlrpl_bench.training.inputs import Inputs
from mlrpl_bench.utils.files import write_atomically, write_lines_atomically

FILLED, PROBABILITIES, DECISIONS = "filled.csv", "probabilities.csv", "decisions.csv"
REPORT, SHEET = "report.json", "contact-sheet.png"

VALUES = {PRESENT: "1", ABSENT: "0", UNKNOWN: ""}
"""How a label is written."""


@dataclass(frozen=True)
class Sources:
    """What the rows of the whole table are.

    Attributes:
        splits: by the name in the column ``split``, all images that the data set has of it.
        trained_rows: the rows of ``train`` that were filled, in the filling's order.
        root: the data set's folder, to which paths are relative.
    """

    splits: dict[str, Split]
    trained_rows: NDArray[np.intp]
    root: Path

    @classmethod
    def from_inputs(cls, inputs: Inputs, evaluated_on: str, root: Path) -> Sources:
        """Those of a study; images held out of the training set are in ``train``."""
        (whole, trained_rows), (evaluated, _) = inputs.sources["train"], inputs.sources["test"]
        splits = {"train": whole} if evaluated is whole else {"train": whole, evaluated_on: evaluated}
        return cls(splits, trained_rows, root)


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
    write_lines_atomically(folder / FILLED, _lines(_filled(filling, sources)))
    names = [image_name(filling.split, row, sources.root) for row in range(len(filling.split))]
    write_lines_atomically(folder / PROBABILITIES, _lines(_probabilities(filling, names)))
    write_lines_atomically(folder / DECISIONS, _lines(_decisions(filling, names)))
    report = {"title": title, **tables.to_json(filling)}
    write_atomically(folder / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_atomically(folder / SHEET, sheet.draw(filling, title))
    return [folder / name for name in (FILLED, PROBABILITIES, DECISIONS, REPORT, SHEET)]


def _filled(filling: Filling, sources: Sources) -> Iterator[list[str]]:
    """The whole table: given labels as they are, decisions in place of unknown ones."""
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
    """A row for each entry that was filled in."""
    yield ["image", "category", "value", "probability"]
    categories = filling.split.categories
    for name, decisions_C, probabilities_C in zip(names, filling.decisions_NC, filling.probabilities_NC, strict=True):
        for column in np.flatnonzero(decisions_C).tolist():
            yield [name, categories[column], VALUES[int(decisions_C[column])], f"{probabilities_C[column]:.6g}"]


def image_name(split: Split, row: int, root: Path) -> str:
    """An image's id where it is the end of its path, as in a table of labels; else its path, relative to the root."""
    path, identity = split.image_paths[row], str(split.ids[row])
    if identity and path.as_posix().endswith(f"/{identity}"):
        return identity
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _lines(rows: Iterable[list[str]]) -> Iterator[str]:
    """Rows as lines of CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
