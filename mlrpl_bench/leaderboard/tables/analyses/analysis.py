"""Defines what an analysis of stored scores gives: a tidy frame, tables for people, and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, Seeds
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.utils.arrays import plain
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically
from mlrpl_bench.utils.tables import Table


@dataclass(frozen=True, eq=False)
class Analysis:
    """An analysis says what records tell when they are read again, without any training.

    Attributes:
        name: ``ensembles``, ``ranks``, ``cost`` or ``categories``.
        frame: the numbers, a row each; columns are those of the analysis, shares are in percent.
        tables: the same for people, with notes.
        figures: a picture by kind of file, ``png`` and ``svg``, as bytes.
        variant: names another setting than the data set's usual one, for the names of files; empty for that one.
    """

    name: str
    frame: pd.DataFrame
    tables: Sequence[Table]
    figures: Mapping[str, bytes] = field(default_factory=dict)
    variant: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for what there is not."""
        rows = [plain(row) for row in self.frame.to_dict("records")]
        return {"analysis": self.name, "rows": rows, "notes": list(dict.fromkeys(self._notes()))}

    def markdown(self) -> str:
        """Return all tables in Markdown."""
        return "\n".join(table.markdown() for table in self.tables)

    def write(self, folder: Path) -> list[Path]:
        """Write the tables as Markdown, the frame as CSV and as JSON, and the figures.

        Returns:
            The files: ``analysis-NAME.md``, ``.csv``, ``.json`` and the figures; with the variant in their names.

        Raises:
            UserError: the folder cannot be written to.
        """
        stem = "-".join(filter(None, ["analysis", self.name, self.variant]))
        contents = {
            "md": self.markdown(),
            "csv": self.frame.to_csv(index=False, lineterminator="\n"),
            "json": json.dumps(self.to_json(), indent=1) + "\n",
            **self.figures,
        }
        files = {f"{stem}.{kind}": content for kind, content in contents.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_atomically(folder / name, content)
        except OSError as error:
            raise UserError(f"{folder} cannot be written to ({error.strerror}); name another with --out") from error
        return [folder / name for name in files]

    def _notes(self) -> list[str]:
        return [note for table in self.tables for note in table.notes]


@dataclass(frozen=True)
class Common:
    """These rows can stand beside each other: they share every ratio and some seeds.

    Attributes:
        labels: the rows.
        seeds: those that all of them have at every ratio, ascending.
        notes: a line for each row and each seed that is left out.
    """

    labels: Sequence[str]
    seeds: Sequence[Seeds]
    notes: Sequence[str]

    def cautions(self) -> list[str]:
        """Return what the masks of these seeds do not allow to conclude."""
        masks = {mask_seed for _, mask_seed in self.seeds}
        return [pairing.ONE_MASK] if len(self.seeds) > 1 and len(masks) == 1 else []


def ratio_name(ratios: Sequence[float]) -> str:
    """Name what numbers are an average over, as frames have it: ``0.1`` for one known ratio, else ``avg of 3``."""
    return f"{ratios[0]:g}" if len(ratios) == 1 else average_name(ratios)


def common(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], needed: Sequence[str] = ()) -> Common:
    """Find the seeds that all rows share at every ratio; a row without any complete seed is left out.

    Args:
        labels: the rows, in the order that the result keeps.
        needed: rows that may not be left out.

    Raises:
        UserError: a needed row is incomplete, or the others have no seed together.
    """
    complete = [label for label in labels if pairing.common_seeds(cells, [label], ratios, "mAP")]
    at = pairing.percents(sorted(ratios))
    for label in needed:
        if label not in complete:
            why = pairing.why_none_common(cells, [label], ratios, "mAP")
            raise UserError(f"{why}; train it, or name the known ratios that there are with --ratios")
    if not complete:
        raise UserError(f"no row has a seed with records at {at}; name the known ratios that there are with --ratios")
    seeds = pairing.common_seeds(cells, complete, ratios, "mAP")
    if not seeds:
        raise UserError(f"no seed has all of {', '.join(complete)} at {at}; name the rows that belong together")
    left = sorted(set(labels) - set(complete))
    notes = [f"without a seed that has records at {at}, so left out: {', '.join(left)}"] if left else []
    notes += [f"left out, {line}" for line in pairing.unpaired_seeds(cells, complete, ratios, "mAP")]
    return Common(complete, seeds, notes)
