"""This module packs records for other people, and brings in the packs of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlrpl_bench.api.resolving import store_of
from mlrpl_bench.api.watching import Progress, Watcher, watcher
from mlrpl_bench.leaderboard import evidence
from mlrpl_bench.records.cell import Cell
from mlrpl_bench.records.elsewhere.packed import PRECISIONS, ROUNDED
from mlrpl_bench.records.packs import importing, writing
from mlrpl_bench.records.packs.importing import Imported
from mlrpl_bench.records.packs.writing import Contents, Exported
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.utils.errors import UserError

Value = TypeVar("Value")
Folders = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Chosen:
    """This class says which records are packed; None is all of them.

    Attributes:
        datasets: names of data sets.
        methods: names of methods, of which all rows are taken, or labels of rows such as ``sarb[alpha=0.3]``.
        ratios: known ratios in (0, 1].
        seeds: how many training seeds, from 0 on.
        cells: beginnings of cells' keys.
    """

    datasets: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    ratios: Sequence[float] | None = None
    seeds: int | None = None
    cells: Sequence[str] | None = None

    def has(self, cell: Cell) -> bool:
        """Tell whether a cell is one of those."""
        return (
            (self.datasets is None or cell.setting.dataset in self.datasets)
            and (self.methods is None or cell.method in self.methods or cell.label in self.methods)
            and (self.ratios is None or cell.ratio in self.ratios)
            and (self.seeds is None or cell.seed < self.seeds)
            and (self.cells is None or cell.key.startswith(tuple(self.cells)))
        )

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse a name that no record has, which may be misspelt.

        Raises:
            UserError: it names what there is.
        """
        there: dict[str, set[Any]] = {
            "data set": {cell.setting.dataset for cell in cells},
            "method": {name for cell in cells for name in (cell.method, cell.label)},
            "known ratio": {cell.ratio for cell in cells},
        }
        asked: dict[str, Sequence[Any] | None] = {
            "data set": self.datasets,
            "method": self.methods,
            "known ratio": self.ratios,
        }
        for kind, names in asked.items():
            for name in names or ():
                if name not in there[kind]:
                    known = ", ".join(map(str, sorted(there[kind]))) or "none at all"
                    raise UserError(f"no record is of the {kind} {name!r}; there are: {known}")
        for beginning in self.cells or ():
            if not beginning or not any(cell.key.startswith(beginning) for cell in cells):
                raise UserError(f"no record has a key that begins with {beginning!r}; see: list cells")


def export(store: ResultStore, out: Path, chosen: Chosen, contents: Contents, told: Watcher) -> Exported:
    """Pack the chosen records, see `export_records`."""
    if contents.scores not in PRECISIONS:
        raise UserError(f"--scores {contents.scores} is not valid; it is {' or '.join(PRECISIONS)}")
    there = store.datasets()
    if unknown := sorted(set(chosen.datasets or ()) - set(there)):  # of which no record would be read
        known = ", ".join(there) or "none at all"
        raise UserError(f"no record is of the data set {unknown[0]!r}; there are: {known}")
    records: list[Record] = []
    for name in chosen.datasets or there:
        survey = store.survey(name)
        for problem in survey.problems:
            told.problem(problem)
        for reason, folders in survey.excluded_folders.items():
            told.note(left_out_line(reason, folders))
        records += survey.records
    chosen.check([record.cell for record in records])
    picked = [record for record in records if chosen.has(record.cell)]
    if not picked:
        raise UserError(f"no record in {store.root} is of all that was asked for; see: list cells")
    return writing.write(picked, out, contents, evidence.of_training, told.report)


def export_records(
    out: str | Path,
    results: Folders = "results",
    *,
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    ratios: Iterable[float] | None = None,
    seeds: int | None = None,
    cells: Iterable[str] | None = None,
    scores: str = ROUNDED,
    train_scores: bool = False,
    weights: bool = False,
    progress: Progress | Watcher | None = None,
) -> Exported:
    """Pack records into one file or folder that somebody else can import; the same records give the same bytes.

    Args:
        out: the pack, which must not be there yet: a file if its name ends in ``.zip``, else a folder.
        results: where records are kept.
        datasets, methods, ratios: which records; None for all.
        seeds: how many training seeds, from 0 on; None for all.
        cells: beginnings of cells' keys.
        scores: ``float16``, which moves mAP by less than 0.01 points, or ``float32``, as training wrote them.
        train_scores: whether scores of training images are packed too; tables do without them.
        weights: whether trained weights are packed too.
        progress: called as (what, done, total), or a `Watcher`.

    Raises:
        UserError: there are no such records, one is damaged, or the pack cannot be written; there is no pack then.
    """
    for name, values in (("datasets", datasets), ("methods", methods), ("cells", cells)):
        if isinstance(values, str):
            raise UserError(f"{name}={values!r} must be a list of names")
    chosen = Chosen(_several(datasets), _several(methods), _several(ratios), seeds, _several(cells))
    contents = Contents(scores, train_scores, weights)
    return export(store_of(_folders(results)), Path(out), chosen, contents, watcher(progress))


def import_records(
    pack: str | Path,
    results: Folders = "results",
    *,
    trusted_keys: str | Path | None = None,
    progress: Progress | Watcher | None = None,
) -> Imported:
    """Check every byte of a pack and bring its records into a folder of records, as submitted ones.

    A record that is there already stays. One of the same cell with other numbers becomes one of ``conflicts``.

    Args:
        pack: a file or a folder that `export_records` wrote.
        results: where records are kept; of several folders the first is written to.
        trusted_keys: a file of OpenSSH's allowed signers; whose signatures count, and for which methods.
        progress: called as (what, done, total), or a `Watcher`.

    Raises:
        UserError: something of the pack is not as it must be; nothing was imported then.
    """
    keys = None if trusted_keys is None else Path(trusted_keys)
    return importing.bring_in(Path(pack), store_of(_folders(results)), keys, watcher(progress).report)


def _several(values: Iterable[Value] | None) -> tuple[Value, ...] | None:
    """Return values as a tuple; None stays None."""
    return None if values is None else tuple(values)


def _folders(results: Folders) -> tuple[Path, ...]:
    return (Path(results),) if isinstance(results, (str, Path)) else tuple(map(Path, results))
