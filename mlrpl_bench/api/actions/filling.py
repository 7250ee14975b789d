"""Fills in the training labels that nobody gave, by a cell that was trained with a part of the given ones hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlrpl_bench.api.actions.reading import named, surveyed
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.data import protocol
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.leaderboard.evidence import read_scores
from mlrpl_bench.records.record import Record
from mlrpl_bench.tools.filling import tables, write
from mlrpl_bench.tools.filling.fill_in import Filling, fill_in, refuse_nothing_to_fill
from mlrpl_bench.tools.predict import Wanted, find_record
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Filled:
    """This is the filling-in of one trained cell: what it predicts for the labels that nobody gave.

    Attributes:
        title, key: of the cell.
        fitting: how many records fitted what was asked.
        filling: probabilities and decisions.
        sources: the images and labels of the whole data set.
    """

    title: str
    key: str
    fitting: int
    filling: Filling
    sources: write.Sources

    def frame(self) -> pd.DataFrame:
        """Return a row for each unknown entry: ``image, category, probability, decision`` (1, 0, or missing)."""
        return self.filling.frame()

    def promises(self) -> pd.DataFrame:
        """Return a row for each group of categories and state: what is set, and how many of it may be wrong."""
        return pd.DataFrame(tables.to_json(self.filling)["promises"])

    def write(self, folder: str | Path) -> list[Path]:
        """Write the filled table, probabilities, decisions, a report and a contact sheet into a folder; the files.

        Raises:
            UserError: an image cannot be decoded.
        """
        return write.write(self.filling, self.sources, Path(folder), self.title)


class _StudyToFill(Study):
    """A study whose arithmetic is named otherwise, since `fill` calls the promised share its precision."""

    @property
    def flags(self) -> dict[str, str]:
        """Return the flags, see `Study.flags`."""
        return {**super().flags, "precision": "--trained-precision"}


def fill(resolved: Resolved, watcher: Watcher, method: str, wanted: Wanted, precision: float) -> Filled:
    """Fill in unknown labels, see `functions.fill`."""
    check_precision(precision)
    entry, wanted = named(resolved, method, wanted)
    study = _StudyToFill(resolved.dataset, resolved.request.options, watcher.report)
    refuse_nothing_to_fill(study.train)
    _refuse_scheme(study.setting.mask_scheme)
    record, fitting = find_record(_candidates(surveyed(resolved, watcher), entry.name, wanted), entry, study, wanted)
    cell = record.cell
    mask_NC = study.masks(cell.ratio, cell.mask_seed)
    if protocol.mask_hash(mask_NC) != cell.mask_hash:
        raise UserError(f"{cell.title} ({cell.key[:8]}) was trained under another mask; name it with --mask-file")
    logits_NC = read_scores(record, "train_scores.npz", study.train)
    try:
        filling = fill_in(study.train, mask_NC, logits_NC, precision, cell.mask_seed)
    except UserError as error:  # another record may have more hidden labels, so it is said which one was taken
        raise UserError(f"{cell.title} ({cell.key[:8]}): {error}") from error
    table = study.dataset.source_table(study.root)
    sources = write.Sources.from_inputs(study.inputs, study.options.evaluate_on, study.root, table)
    return Filled(f"{cell.title} on {resolved.dataset.name}", cell.key, fitting, filling, sources)


def _candidates(records: Sequence[Record], method: str, wanted: Wanted) -> Sequence[Record]:
    """Return the cells without those that saw every given label, unless one was asked for or the method has no
    other.
    """
    partial = [record for record in records if record.cell.ratio < 1]
    unasked = wanted.cell is None and wanted.ratio is None
    return partial if unasked and any(record.cell.method == method for record in partial) else records


def check_precision(precision: float) -> None:
    """Refuse what is no precision to promise.

    Raises:
        UserError: it is not above 0.5 and below 1.
    """
    if not 0.5 < precision < 1:  # NaN neither
        raise UserError(
            f"--precision {precision:g} must be above 0.5 and below 1; 0.95 means that at most 5 of 100 entries that "
            "are set are wrong"
        )


def _refuse_scheme(scheme: str) -> None:
    """Refuse masks that hide absent labels more often than present ones: the hidden labels are like no others then."""
    if scheme not in (*protocol.COMPLETE_AT_ONE, FROM_FILE):
        raise UserError(
            f"--mask-scheme {scheme} hides present and absent labels unequally, so the hidden ones tell nothing about "
            "others; train with the usual scheme"
        )
