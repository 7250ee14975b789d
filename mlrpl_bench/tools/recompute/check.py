"""This module computes the numbers of many records again, and says what disagrees and what could not be computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlrpl_bench.records.record import DamagedRecord, Record, Unreadable
from mlrpl_bench.tools.recompute.labels import Labels, Report
from mlrpl_bench.tools.recompute.numbers import Disagreement, disagreements_of
from mlrpl_bench.utils.errors import UserError


@dataclass
class NumbersFound:
    """This class holds what computing the numbers of records again found.

    Attributes:
        cells: how many records were computed from files and labels.
        disagreeing: what does not agree, by the record's folder.
        damaged: a line for each record from whose files nothing can be computed, by the record's folder.
        without_labels: the folders of records that could not be compared with labels, by the reason.
        without_mask: the folders of records whose known share could not be computed, by the reason.
    """

    cells: int = 0
    disagreeing: dict[Path, list[Disagreement]] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    without_labels: dict[str, list[Path]] = field(default_factory=dict)
    without_mask: dict[str, list[Path]] = field(default_factory=dict)

    def holds(self) -> bool:
        """Tell whether nothing disagrees and nothing is damaged."""
        return not self.disagreeing and not self.damaged

    def lines(self) -> Iterator[str]:
        """Yield a line for each record that disagrees, and for each reason why something was not computed."""
        for reason in self.damaged.values():
            yield f"damaged: {reason}"
        for folder, found in self.disagreeing.items():
            parts = "; ".join(each.to_text() for each in found)
            yield f"disagrees: {folder}: {parts}; move the folder away, then run again to train the cell anew"
        for what, reasons in (("labels", self.without_labels), ("their mask", self.without_mask)):
            for reason, folders in reasons.items():
                yield f"not held against {what}: {len(folders)} of the cells, the first is {folders[0]}: {reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {
            "recomputed": self.cells,
            "disagreeing": [
                {"folder": str(folder), "numbers": [each.to_json() for each in found]}
                for folder, found in self.disagreeing.items()
            ],
            "not_computable": [{"folder": str(folder), "reason": reason} for folder, reason in self.damaged.items()],
            "without_labels": _by_reason(self.without_labels),
            "without_mask": _by_reason(self.without_mask),
        }


def recompute_numbers(records: Sequence[Record], labels: Labels, report: Report = lambda *_: None) -> NumbersFound:
    """Compute the numbers of records again; nothing is touched.

    Args:
        records: records that are whole, see `verify.check_files`.
        labels: gives the labels and the mask that a record was made with.
        report: told about the progress as (what, done, total).
    """
    found = NumbersFound()
    for number, record in enumerate(records, start=1):
        truth = None
        try:
            truth = labels.truth(record)
        except UserError as error:
            found.without_labels.setdefault(str(error), []).append(record.folder)
        if truth is not None and truth.mask_NC is None:
            found.without_mask.setdefault(truth.no_mask, []).append(record.folder)
        try:
            disagreements = list(disagreements_of(record, truth))
        except (DamagedRecord, Unreadable) as error:
            found.damaged[record.folder] = str(error)
        else:
            found.cells += truth is not None
            if disagreements:
                found.disagreeing[record.folder] = disagreements
        report("computing numbers again", number, len(records))
    return found


def _by_reason(reasons: Mapping[str, Iterable[Path]]) -> dict[str, list[str]]:
    return {reason: [str(folder) for folder in folders] for reason, folders in reasons.items()}
